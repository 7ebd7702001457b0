"""One soak: the node, two exporters, every fault in turn, and what is left to say at the end."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.live import Exporter, Scrape, tree
from tests.support.nvml import control
from tests.support.nvml.control import FakeDriver

from .background import again
from .clients import Honest, Inspector
from .faults import FAULTS, Fault, Scene
from .figures import Figures, Trend, measure, trends
from .site import Site
from .victim import Victim, device_joules, ended

PATIENCE_SECONDS = 30.0
"""Until a fault shows."""

RETURN_SECONDS = 100.0
"""Until every source is back: they are tried again after a minute at the latest."""

FRESH_SECONDS = 0.5
"""Age of a tick up to which its totals are compared with the truth."""

LATE_SECONDS = 2.0
"""By so much of its device's power may a total be behind: a tick is as old as that, and reads meters before its end."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How the soak is timed, in seconds.

    ``card_every``: one workload of so many uses a card, whose process is on show whatever the budget is.
    ``container_max`` and ``process_top`` are the budgets of series. ``slack`` widens what is called flat.
    ``cards_return``: it is long enough for a lost card to be found again, which takes up to a minute.
    """

    seconds: float
    life_every: float = 1.0
    card_every: int = 8
    scrape_every: float = 2.0
    measure_every: float = 5.0
    rest: float = 12.0
    container_max: int = 5000
    process_top: int = 20
    slack: float = 1.0
    cards_return: bool = True

    @classmethod
    def compressed(cls, seconds: float) -> Pace:
        """For minutes or less: `workload.linger` is longer than that, so the budgets have to bound the series.

        What a fault takes away and gives back is a large part of so few measurements: hence the slack.
        """
        return cls(seconds, 0.25, 32, 0.25, 0.25, 0.0, 12, 3, slack=5.0, cards_return=False)


@dataclass(slots=True)
class Outcome:
    """What a soak found; ``problems`` are the promises that were not kept."""

    rows: list[Figures] = field(default_factory=list)
    trends: list[Trend] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    faults: int = 0
    workloads: int = 0
    scrapes: int = 0
    ends: int = 0
    slowest_end_seconds: float = 0.0
    worst_error_joules: float = 0.0
    log: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether everything was flat and every promise was kept."""
        return not self.problems and all(trend.flat for trend in self.trends)


Listener = Callable[[Figures, Outcome], object]


def soak(pace: Pace, heard: Listener) -> Outcome:
    """Run it; each measurement is also given to ``heard``. Skips, as a test does, where there are no cgroups or cc."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        cgroups, driver = stack.enter_context(tree()), stack.enter_context(FakeDriver(control.build(folder), folder))
        site = Site(folder, cgroups, driver, pace.container_max, pace.process_top)
        stack.callback(site.close)
        stack.enter_context(site.living(pace.life_every, pace.card_every))
        return _Soak(site, pace, heard).run()


class _Soak:
    def __init__(self, site: Site, pace: Pace, heard: Listener) -> None:
        self._site = site
        self._pace = pace
        self._heard = heard
        self._outcome = Outcome()
        self._inspector = Inspector("steady")
        self._began = time.monotonic()

    def run(self) -> Outcome:
        """Start both exporters, and let one fault follow the other until the time is over, each at least once."""
        site, pace, outcome = self._site, self._pace, self._outcome
        steady = site.exporter("state-a")
        try:
            victim = Victim(lambda: site.exporter("state-b"), site.folder / "state-b", pace.scrape_every)
            try:
                honest = Honest(steady, self._inspector, pace.scrape_every)
                ledgers = [_Truth(site, steady), _Truth(site, victim.exporter)]
                self._began = time.monotonic()
                with self._measuring(steady):
                    for fault in itertools.cycle(FAULTS):
                        self._strike(fault, steady, victim)
                        left = pace.seconds - (time.monotonic() - self._began)
                        if outcome.faults >= len(FAULTS) and left <= 0:
                            break
                        time.sleep(min(pace.rest, max(0.0, left)))
                    self._recovered(steady, victim.exporter)
                honest.stop()
                outcome.worst_error_joules = max(
                    truth.error(exporter, outcome.problems)
                    for truth, exporter in zip(ledgers, (steady, victim.exporter), strict=True)
                )
            finally:
                victim.stop()
        finally:
            ended(steady)
        if not _until(lambda: not site.left_behind()):
            outcome.problems.append(f"processes were left behind: {site.left_behind()}")
        if steady.process.returncode != 0:
            outcome.problems.append(f"the exporter ended with status {steady.process.returncode}")
        outcome.problems += site.problems + self._inspector.broken + victim.inspector.broken
        outcome.trends = trends(outcome.rows, pace.slack)
        outcome.log = steady.log
        outcome.workloads = site.started
        outcome.scrapes = self._inspector.scrapes + victim.inspector.scrapes
        outcome.ends, outcome.slowest_end_seconds = victim.ends, victim.slowest_seconds
        return outcome

    def _strike(self, fault: Fault, steady: Exporter, victim: Victim) -> None:
        """Let a fault begin, wait until it shows, end the victim in the middle of it, and let it be over."""
        before = steady.scrape()
        with fault.make(Scene(self._site, (steady, victim.exporter))):
            if not _until(lambda: fault.shows(before, steady.scrape())):
                self._outcome.problems.append(f"{fault.name}: never showed")
            victim.end(fault.name, keeps=fault.keeps)
        victim.begin(kept=fault.keeps)
        self._outcome.faults += 1

    def _recovered(self, *exporters: Exporter) -> None:
        for exporter in exporters:
            _until(lambda exporter=exporter: not self._missing(exporter.scrape()), RETURN_SECONDS)  # type: ignore[misc]
            self._outcome.problems += [f"never recovered: {name}" for name in self._missing(exporter.scrape())]

    def _missing(self, scrape: Scrape) -> list[str]:
        """Sources and cards that are not read."""
        return _down_sources(scrape) + (_down_devices(scrape) if self._pace.cards_return else [])

    @contextlib.contextmanager
    def _measuring(self, steady: Exporter) -> Iterator[None]:
        def look() -> None:
            row = measure(time.monotonic() - self._began, steady.process.pid, self._inspector.last)
            self._outcome.rows.append(row)
            self._heard(row, self._outcome)

        with again(look, self._pace.measure_every, self._outcome.problems):
            yield


class _Truth:
    """What the devices burned since, against what an exporter says."""

    def __init__(self, site: Site, exporter: Exporter) -> None:
        self._site = site
        _until(lambda: site.joules().keys() <= device_joules(exporter.scrape()).keys())
        scrape, self._true = self._together(exporter)
        self._told = device_joules(scrape)
        self._began = time.monotonic()

    def error(self, exporter: Exporter, problems: list[str]) -> float:
        """The largest difference of one device, in joules; one that stays too large is a problem."""
        wrong, worst = self._differences(exporter)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while wrong and time.monotonic() < deadline:  # what was late comes, what was lost does not
            wrong, worst = self._differences(exporter)
        problems += wrong
        return worst

    def _differences(self, exporter: Exporter) -> tuple[list[str], float]:
        scrape, now = self._together(exporter)
        totals, worst, wrong = device_joules(scrape), 0.0, []
        for device in now.keys() - set(_down_devices(scrape)):
            burned = now[device] - self._true[device]
            told = totals.get(device, 0.0) - self._told[device]
            error = abs(told - burned)
            if error > LATE_SECONDS * burned / (time.monotonic() - self._began):
                wrong.append(f"{device}: burned {burned:.1f} J, told {told:.1f} J")
            worst = max(worst, error)
        return wrong, worst

    def _together(self, exporter: Exporter) -> tuple[Scrape, dict[str, float]]:
        """A scrape soon after its tick, and the truth; on a busy machine ticks are late, and scrapes take long."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            scrape, now = exporter.scrape(), self._site.joules()
            late = time.time() - scrape.total("energy_sample_timestamp_seconds")
            if late <= FRESH_SECONDS or time.monotonic() > deadline:
                return scrape, now
            time.sleep(0.02)


def _down_sources(scrape: Scrape) -> list[str]:
    names = ("rapl", "nvml", "kubernetes")
    return [name for name in names if [up for _, up in scrape.find("energy_source_up", source=name)] != [1.0]]


def _down_devices(scrape: Scrape) -> list[str]:
    return [labels["device"] for labels, up in scrape.find("energy_device_up") if not up]


def _until(condition: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
