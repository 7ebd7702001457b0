"""Posts what programs report of their regions: the joules of which process, under which model, and for how long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..accounting.ledger import Ledger
from ..accounting.measurement import Measured
from ..accounting.region_accounts import Owner, RegionAccounts
from ..records import Component, GroupKey, Process, ProcessKey, Reading
from ..workloads.protocol import Namer

_HOUSEKEEPING_SECONDS = 5.0


class RegionPosting:
    """Owns the accounts of regions. Called by the tick's thread only, after the ledger has posted the tick."""

    def __init__(self, ledger: Ledger, namer: Namer) -> None:
        self.accounts = RegionAccounts()
        self._ledger = ledger
        self._namer = namer
        self._kept_at = float("-inf")

    def post(
        self, readings: Sequence[Reading], measured: Measured, now: float, sequence: int, scraped: int | None
    ) -> None:
        """Add the regions of one tick; ``sequence`` and ``scraped`` are as in `Ledger.post`."""
        report = next((reading.regions for reading in readings if reading.regions is not None), None)
        if report is not None or self.accounts.active:
            if report is not None:
                self.accounts.report(report.rejected, report.lost)
            processes = () if report is None else report.processes
            born = None if scraped is None else sequence
            self.accounts.post(processes, _read_at(measured), self._joules, self._locate, now, born)
        self.accounts.release(scraped)
        if now - self._kept_at >= _HOUSEKEEPING_SECONDS:
            self._kept_at = now
            self.accounts.keep(now - self._ledger.limits.linger_seconds)

    def _joules(self, process: ProcessKey) -> Mapping[Component, float] | None:
        return self._ledger.process_joules(process)

    def _locate(self, process: Process, group: GroupKey | None) -> Owner | None:
        if group is None:
            return "", ""
        workload = self._ledger.owners((group,))[group]
        if workload.provisional:
            return None
        model = self._namer.model(group, process)
        return ("", workload.namespace) if model is None else (model.model_name, model.namespace)


def _read_at(measured: Measured) -> dict[Component, float]:
    """The mean of the boot times at which the meters of each component were read."""
    times: dict[Component, list[float]] = {}
    for energy in measured.energies:
        reading = measured.readings.get(energy.device.id)
        if reading is not None:
            times.setdefault(energy.device.component, []).append(reading.at)
    return {component: sum(found) / len(found) for component, found in times.items()}
