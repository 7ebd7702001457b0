"""What a busy CPU second of each container costs, learned from the CPU meters' joules and who ran."""

from __future__ import annotations

from collections.abc import Mapping

from ..records import CpuUse, GroupKey
from .accounts import Account
from .joint_estimation import JointEstimator
from .measurement import Measured


class CpuPrices:
    """Joules per busy CPU second by container account, estimated tick by tick.

    Only joules that were measured teach anything: an estimate makes them of the busy seconds.
    """

    def __init__(self) -> None:
        self._estimator = JointEstimator[Account]()
        self._devices: frozenset[str] = frozenset()
        self._estimated: Mapping[Account, float] = {}
        self._weights: dict[GroupKey, float] = {}  # of the cgroups seen since the estimate changed

    def weights(
        self, measured: Measured, cpu: CpuUse, accounts: Mapping[GroupKey, Account]
    ) -> Mapping[GroupKey, float]:
        """Learn from a tick; returns the weights of its cgroups by what was known before. ``accounts`` are by cgroup.

        Kernel time, exited processes, and cgroups that have no account yet are among those that cost the mean.
        """
        estimated = self._estimator.weights
        if estimated is not self._estimated:
            self._estimated, self._weights = estimated, {}
        weights = self._weights
        busy: dict[Account, float] = {}
        for group, seconds, *_ in cpu.groups:
            account = accounts.get(group)
            if account is not None:
                busy[account] = busy.get(account, 0.0) + seconds
                if account in estimated and group not in weights:
                    weights[group] = estimated[account]
        joules = self._active_joules(measured)
        if joules is not None:
            other = cpu.busy_seconds - sum(busy.values())
            self._estimator.observe(busy, joules, cpu.window_seconds, other)
        return weights

    def by_serial(self) -> dict[int, float]:
        """Joules per busy CPU second of the identifiable containers, by serial of their accounts."""
        return {account.serial: price for account, price in self._estimator.prices.items()}

    def _active_joules(self, measured: Measured) -> float | None:
        """Active joules of all CPU meters; None unless each was read in this tick as in the one before."""
        energies = [energy for energy in measured.energies if energy.device.component == "cpu"]
        before, self._devices = self._devices, frozenset([energy.device.id for energy in energies])
        if not energies or self._devices != before:
            return None
        for energy in energies:
            if energy.gap or energy.device.quality == "estimated" or energy.device.id not in measured.watts:
                return None
        return sum([energy.active for energy in energies])
