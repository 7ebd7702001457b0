"""Posts what programs report of their regions: the joules of which process, under which model, and for how long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..accounting.ledger import Ledger
from ..accounting.measurement import Measured
from ..accounting.region_accounts import Owner, RegionAccounts
from ..accounting.region_parts import CardGrowth
from ..records import Component, CounterStep, GroupKey, Process, ProcessKey, Reading
from ..workloads.protocol import Namer

_HOUSEKEEPING_SECONDS = 5.0


class WatchedCards:
    """The cards whose energy counters are to be read more often: set by the tick's thread, read by that of sources."""

    def __init__(self) -> None:
        self.devices: frozenset[str] = frozenset()

    def __call__(self) -> frozenset[str]:
        return self.devices


class RegionPosting:
    """Owns the accounts of regions. Called by the tick's thread only, after the ledger has posted the tick."""

    def __init__(self, ledger: Ledger, namer: Namer, watched: WatchedCards | None = None) -> None:
        self.accounts = RegionAccounts()
        self._ledger = ledger
        self._namer = namer
        self._watched = watched or WatchedCards()
        self._cards: dict[ProcessKey, str] = {}  # of processes that use one card
        self._last_steps: dict[str, CounterStep] = {}
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
            steps = self._steps(readings, measured)
            cards = {process: steps[card] for process, card in self._cards.items() if card in steps}
            self.accounts.post(processes, _read_at(measured), self._joules, self._locate, now, born, cards)
            self._watch(readings, now)
        self.accounts.release(scraped)
        if now - self._kept_at >= _HOUSEKEEPING_SECONDS:
            self._kept_at = now
            self.accounts.keep(now - self._ledger.limits.linger_seconds)

    def finish(self, readings: Sequence[Reading], now: float) -> None:
        """Add what programs had reported at the end, and divide the joules that wait."""
        for reading in readings:
            if reading.regions is not None:
                self.accounts.report(reading.regions.rejected, reading.regions.lost)
                self.accounts.post(reading.regions.processes, {}, self._joules, self._locate, now, None)
        self.accounts.settle()

    def _watch(self, readings: Sequence[Reading], now: float) -> None:
        """Watch the cards of processes that are in regions and use one card: of several their joules have no steps."""
        in_use = set(self.accounts.in_use(now))
        if any(reading.gpus for reading in readings):
            held: dict[ProcessKey, set[str]] = {}
            for reading in readings:
                for use in reading.gpu_uses:
                    if use.process is not None and use.process.key in in_use:
                        held.setdefault(use.process.key, set()).add(use.device)
            self._cards = {process: devices.pop() for process, devices in held.items() if len(devices) == 1}
        self._watched.devices = frozenset([card for process, card in self._cards.items() if process in in_use])

    def _steps(self, readings: Sequence[Reading], measured: Measured) -> dict[str, CardGrowth]:
        """By card, what its counter showed between the last two readings."""
        found: dict[str, CardGrowth] = {}
        before, self._last_steps = self._last_steps, {}
        for reading in readings:
            for card, steps in reading.steps:
                delta = measured.deltas.get(card)
                if delta is None or delta.event != "ok":
                    continue  # the counter was reset, or jumped
                last = before.get(card)
                every = steps if last is None else (last, *steps)
                found[card] = CardGrowth(delta.joules, delta.seconds, delta.device.max_watts, every)
                self._last_steps[card] = steps[-1]
        return found

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
