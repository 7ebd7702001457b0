"""Whose GPU joules they are: cards with scripted physics, read through the real bindings, sampler and ledger.

The truth is the script's: every 10 ms each process uses a share of the SMs' time, and the card burns its idle watts and
as much more as that share is of its dynamic watts. The exporter sees what a driver shows of it: an energy counter in
whole millijoules, utilisation samples of 100 ms in whole percents, stamped between the ticks.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from exporter.records import GroupKey, Model, Process, ProcessOwner
from exporter.sampling.sampler import Sampler, SamplerOptions
from exporter.snapshot import AccountRow, Snapshot
from exporter.sources.nvml.driver import PROCESS_USE_CALLS
from exporter.sources.nvml.source import NvmlSource
from tests.support.cards import check_cards
from tests.support.group_names import GroupNames
from tests.support.nvml import control
from tests.support.nvml.control import FakeDriver, Gpu
from tests.support.nvml.node import Node

TICK_STEPS, STEPS_PER_SECOND = 100, 100
SAMPLE_STEPS, SAMPLE_OFFSET = 10, 4
"""The driver samples every 100 ms, 40 ms after the tick."""

LEARNING_TICKS = 10

TOLERANCE, BURST_TOLERANCE = 0.02, 0.05

Shares = Mapping["Card", Mapping[int, float]]
"""Card → pid → share of the SMs' time it uses now."""


class Card:
    """A scripted card and what it burns."""

    def __init__(self, gpu: Gpu, idle_watts: float, dynamic_watts: float, *, counts: bool) -> None:
        self.gpu, self.idle_watts, self.dynamic_watts, self.counts = gpu, idle_watts, dynamic_watts, counts
        self.joules, self.watts = 0.0, idle_watts
        self.busy: defaultdict[int, float] = defaultdict(float)
        self.util_seconds = 0.0


class Names(GroupNames):
    """Every group works for the model of its name."""

    def model(self, group: GroupKey | None, process: Process) -> Model | None:
        return None if group is None else Model(f"model{group.path}")


class Stage:
    """Runs scripts on simulated cards, one tick a second, and compares the attributed energy of each process."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.cards: list[Card] = []
        self.truth: defaultdict[int, float] = defaultdict(float)
        self._began, self._steps = node.now, 0
        options = SamplerOptions(interval_seconds=5.0, source_timeout_seconds=5.0)
        self.sampler = Sampler([NvmlSource(node.host, node.bindings)], Names(), node.host, options)
        self.before: Snapshot | None = None
        self.snapshot: Snapshot | None = None

    def card(self, idle_watts: float = 70.0, dynamic_watts: float = 600.0, *, counts: bool = True, **what: Any) -> Card:
        """Plug a card in, with an energy counter or without."""
        self.cards.append(Card(self.node.driver.add_gpu(**what), idle_watts, dynamic_watts, counts=counts))
        return self.cards[-1]

    def process(self, pid: int, *cards: Card, comm: str = "python", kind: control.Kind = "compute") -> None:
        """Start a process that holds cards."""
        self.node.process(pid, comm=comm)
        for card in cards:
            card.gpu.process(pid, kind=kind)

    def learn(self) -> None:
        """Let the exporter see the cards idle, and charge from here on."""
        self._tell()
        self.snapshot = self.sampler.tick()
        self.play(LEARNING_TICKS, lambda _: {})
        self.before = self.snapshot
        for row in self.snapshot.energy.devices:
            card = next(card for card in self.cards if card.gpu.uuid == row.device.id)
            assert row.idle_watts == pytest.approx(card.idle_watts, rel=1e-3)
            assert row.idle_method == "learned"

    def play(
        self, ticks: int, script: Callable[[float], Shares], before_tick: Callable[[], None] | None = None
    ) -> None:
        """Let seconds pass; ``script`` gets the time since the start, in seconds."""
        for _ in range(ticks * TICK_STEPS):
            self._step(script(self._steps / STEPS_PER_SECOND))
            if self._steps % SAMPLE_STEPS == SAMPLE_OFFSET:
                self._sample()
            if self._steps % TICK_STEPS == 0:
                if before_tick is not None:
                    before_tick()
                self._tell()
                self.snapshot = self.sampler.tick()

    def charged(self, mode: str = "active") -> dict[int, float]:
        """Pid → joules it was charged since `learn`."""
        assert self.snapshot is not None
        assert self.before is not None
        now, before = _of_processes(self.snapshot, mode), _of_processes(self.before, mode)
        return {pid: joules - before.get(pid, 0.0) for pid, joules in now.items()}

    def check(self, tolerance: float = TOLERANCE) -> None:
        """Each process is attributed its own energy, and nothing is lost or counted twice."""
        assert self.snapshot is not None
        charged = self.charged()
        for pid, joules in self.truth.items():
            if joules:
                print(f"process {pid}: {charged.get(pid, 0.0) / joules - 1:+.2%} of {joules:.0f} J")
            assert charged.get(pid, 0.0) == pytest.approx(joules, rel=tolerance, abs=1e-6), f"process {pid}"
        self.check_books()

    def check_books(self) -> None:
        """Σ processes + unattributed = cards, and the same for containers and models; cards = what they burned."""
        last = self.snapshot
        assert last is not None
        cards = sum(row.joules for row in last.energy.devices)
        assert cards == pytest.approx(sum(card.joules for card in self.cards), abs=2e-3 * len(self.cards))
        rest = sum(joules for _, _, joules in last.energy.unattributed) + sum(
            joules for _, joules in last.energy.retired
        )
        for accounts in (last.energy.processes, last.energy.containers, last.energy.models):
            assert sum(_joules(row) for row in accounts) + rest == pytest.approx(cards, rel=1e-9)
        assert last.energy.conservation_error_ratio <= 1e-9
        check_cards(last)

    def _step(self, shares: Shares) -> None:
        self._steps += 1
        self.node.now = self._began + self._steps / STEPS_PER_SECOND
        for card in self.cards:
            card.watts = card.idle_watts
            for pid, share in shares.get(card, {}).items():
                self.truth[pid] += share * card.dynamic_watts / STEPS_PER_SECOND
                card.watts += share * card.dynamic_watts
                card.busy[pid] += share / SAMPLE_STEPS
                card.util_seconds += share / STEPS_PER_SECOND
            card.joules += card.watts / STEPS_PER_SECOND

    def _sample(self) -> None:
        """The driver's utilisation samples of every process, one per 100 ms."""
        at = round(self.node.now * 1e6)
        for card in self.cards:
            for pid, busy in card.busy.items():
                card.gpu.sample(pid, round(100 * busy), timestamp_us=at)
                card.busy[pid] = 0.0

    def _tell(self) -> None:
        for card in self.cards:
            card.gpu.energy_joules = card.joules if card.counts else None
            card.gpu.power_watts = card.watts
            card.gpu.util_percent = min(100, round(100 * card.util_seconds))
            card.util_seconds = 0.0


def _joules(row: AccountRow, modes: Sequence[str] = ("active", "idle")) -> float:
    return sum(
        joules
        for (component, mode), joules in zip(row.cells, row.joules, strict=True)
        if component == "gpu" and mode in modes
    )


def _of_processes(snapshot: Snapshot, mode: str) -> dict[int, float]:
    return {
        row.owner.pid: _joules(row, [mode]) for row in snapshot.energy.processes if isinstance(row.owner, ProcessOwner)
    }


@pytest.fixture
def stage(library: Path, bindings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    with FakeDriver(library, tmp_path) as driver:
        monkeypatch.setenv(control.STATE_VARIABLE, str(driver.path))
        made = Stage(Node(tmp_path, driver, bindings))
        yield made
        made.sampler.close()


def test_one_process_alone(stage: Stage) -> None:
    card = stage.card()
    stage.process(1, card)
    stage.learn()
    stage.play(20, lambda _: {card: {1: 0.7}})
    stage.check()
    assert stage.charged("idle")[1] == pytest.approx(20 * card.idle_watts)


def test_two_equal(stage: Stage) -> None:
    card = stage.card()
    stage.process(1, card)
    stage.process(2, card)
    stage.learn()
    stage.play(20, lambda _: {card: {1: 0.43, 2: 0.43}})
    stage.check()
    assert stage.charged()[1] == pytest.approx(stage.charged()[2])


def test_three_to_one_by_sm_time(stage: Stage) -> None:
    """Whatever either does alone meanwhile: both slow down together and speed up again."""
    card = stage.card()
    stage.process(1, card)
    stage.process(2, card)
    stage.learn()
    stage.play(20, lambda t: {card: {1: 0.6, 2: 0.2} if t % 7 < 4 else {1: 0.15, 2: 0.05}})
    stage.check()
    assert stage.charged()[1] == pytest.approx(3 * stage.charged()[2], rel=TOLERANCE)


@pytest.mark.parametrize("every", [False, True], ids=["one sample each", "every sample"])
def test_bursts_shorter_than_a_tick(stage: Stage, every: bool) -> None:
    """30 to 80 ms at most of the card's power, once a second at any moment, beside one that works on.

    Drivers hand out one sample for each process, the mean since the last question, or all that they have.
    """
    card = stage.card()
    card.gpu.every_sample(every)
    stage.process(1, card)
    stage.process(2, card)
    stage.learn()
    chance = random.Random(7)
    bursts = [(second + chance.uniform(0.1, 0.8), chance.uniform(0.03, 0.08)) for second in range(100)]

    def script(t: float) -> Shares:
        began, length = bursts[int(t)]
        return {card: {1: 0.7 if began <= t < began + length else 0.0, 2: 0.3}}

    stage.play(60, script)
    stage.check(BURST_TOLERANCE)


def test_one_that_came_and_went_between_two_ticks(stage: Stage) -> None:
    """Its joules are unattributed, and not charged to its neighbour."""
    card = stage.card()
    stage.process(1, card)
    stage.learn()
    stage.play(20, lambda t: {card: {1: 0.3, 1000 + int(t): 0.6 if t % 1 < 0.3 else 0.0}})
    strangers = sum(stage.truth.pop(pid) for pid in list(stage.truth) if pid >= 1000)
    stage.check(BURST_TOLERANCE)
    assert stage.snapshot is not None
    unknown = sum(joules for _, reason, joules in stage.snapshot.energy.unattributed if reason != "idle")
    assert unknown == pytest.approx(strangers, rel=BURST_TOLERANCE)


def test_an_idle_holder_beside_a_busy_one(stage: Stage) -> None:
    """The holder pays half of what the card burns idle, and nothing of what its neighbour does with it."""
    card = stage.card()
    stage.process(1, card)
    stage.process(2, card)
    stage.learn()
    stage.play(30, lambda _: {card: {1: 0.9, 2: 0.0}})
    stage.check()
    assert stage.charged()[2] == 0.0
    assert stage.charged("idle")[2] == pytest.approx(30 * card.idle_watts / 2)


def test_instances_of_3_2_and_1_slices(stage: Stage) -> None:
    """Each at an activity of its own, one of them changing every second; the seventh slice is unallocated."""
    card = stage.card(dynamic_watts=630.0, mig=["3g.40gb", "2g.20gb", "1g.10gb"])
    parts, fractions = card.gpu.mig, (3 / 7, 2 / 7, 1 / 7)
    for pid, part in enumerate(parts, start=1):
        stage.node.process(pid)
        part.process(pid)
    activity = [0.0, 0.0, 0.0]

    def measure() -> None:
        for part, ratio in zip(parts, activity, strict=True):
            part.gpm(control.GPM_SM_UTIL, 100 * ratio)

    def script(t: float) -> Shares:
        activity[:] = (0.9, 0.6 if int(t) % 2 else 0.1, 0.25)
        return {card: {pid: activity[pid - 1] * fractions[pid - 1] for pid in (1, 2, 3)}}

    stage.learn()
    stage.play(30, script, measure)
    stage.check()
    assert stage.charged("idle")[1] == pytest.approx(30 * card.idle_watts * 3 / 6)


def test_clients_of_an_mps_server(stage: Stage) -> None:
    """Fault 30: the driver reports all usage against the server, which itself does nothing."""
    card = stage.card()
    stage.process(9, card, comm="nvidia-cuda-mps")
    for pid in (1, 2):
        stage.process(pid, card, kind="mps")
    stage.learn()
    stage.play(20, lambda t: {card: {9: 0.8 if t % 5 < 3 else 0.3}})
    together = stage.truth.pop(9)
    stage.truth |= {1: together / 2, 2: together / 2}
    stage.check()
    assert 9 not in stage.charged()


def test_one_process_on_two_cards(stage: Stage) -> None:
    """It pays for its part of both, and the one beside it for its part of one."""
    first, second = stage.card(), stage.card()
    stage.process(1, first, second)
    stage.process(2, second)
    stage.learn()
    stage.play(20, lambda _: {first: {1: 0.5}, second: {1: 0.2, 2: 0.6}})
    stage.check()
    assert stage.snapshot is not None
    of_first = {
        (row.device, row.mode): row.joules
        for row in stage.snapshot.energy.container_cards
        if row.owner.container == "job-1"
    }
    assert of_first[first.gpu.uuid, "active"] == pytest.approx(20 * 0.5 * 600, rel=TOLERANCE)
    assert of_first[second.gpu.uuid, "active"] == pytest.approx(20 * 0.2 * 600, rel=TOLERANCE)
    assert stage.snapshot.gpu.indexes == {first.gpu.uuid: "0", second.gpu.uuid: "1"}


def test_two_cards_of_different_models(stage: Stage) -> None:
    """A share of a large card is worth more joules than the same share of a small one."""
    large = stage.card(name="NVIDIA H100 80GB HBM3", idle_watts=72.0, dynamic_watts=618.0)
    small = stage.card(
        name="NVIDIA L4", idle_watts=16.4, dynamic_watts=54.0, architecture=8, memory_bytes=23034 << 20, pci_bus=0x51
    )
    stage.process(1, large)
    stage.process(2, small)
    stage.process(3, small)
    stage.learn()
    stage.play(20, lambda t: {large: {1: 0.5 if t % 4 < 2 else 1.0}, small: {2: 0.5, 3: 0.25}})
    stage.check()
    assert stage.charged("idle")[1] == pytest.approx(20 * large.idle_watts)
    assert stage.charged("idle")[2] == pytest.approx(20 * small.idle_watts / 2)


def test_a_card_without_a_counter_beside_one_that_has_one(stage: Stage) -> None:
    """Its power is integrated between the ticks: exact for a load that is steady over many of them."""
    counted = stage.card()
    gauged = stage.card(name="Tesla P40", idle_watts=50.0, dynamic_watts=180.0, architecture=4, counts=False)
    stage.process(1, counted, gauged)
    stage.process(2, gauged)
    stage.learn()
    stage.play(20, lambda _: {counted: {1: 0.8}, gauged: {1: 0.25, 2: 0.5}})
    stage.play(2, lambda _: {})
    stage.check()


@pytest.mark.parametrize("empty", [False, True], ids=["not supported", "empty while busy"])
def test_a_card_whose_use_only_the_newer_call_reports(stage: Stage, empty: bool) -> None:
    """Project-HAMi/HAMi#2015: on an RTX PRO 6000 Blackwell with driver 580 the older call reports nothing."""
    card = stage.card(name="NVIDIA RTX PRO 6000 Blackwell Server Edition", architecture=control.BLACKWELL)
    stage.process(1, card)
    stage.process(2, card)
    stage.learn()
    code = control.NOT_FOUND if empty else control.NOT_SUPPORTED
    stage.node.driver.fail("nvmlDeviceGetProcessUtilization", code=code)
    stage.play(20, lambda _: {card: {1: 0.6, 2: 0.2}})
    stage.check()


@pytest.mark.parametrize("code", [control.NOT_SUPPORTED, control.NOT_FOUND], ids=["not supported", "empty while busy"])
def test_a_card_whose_use_no_call_reports(stage: Stage, code: int) -> None:
    """Active joules of several holders stay unattributed, and a reason is shown; a single holder is charged all."""
    card = stage.card(architecture=control.BLACKWELL)
    alone = stage.card(pci_bus=0x51)
    stage.process(1, card)
    stage.process(2, card)
    stage.process(3, alone)
    stage.learn()
    for call in PROCESS_USE_CALLS:
        stage.node.driver.fail(call, code=code)
    stage.play(20, lambda _: {card: {1: 0.6, 2: 0.2}, alone: {3: 0.5}})
    assert stage.charged()[1] == stage.charged()[2] == 0.0
    assert stage.charged()[3] == pytest.approx(stage.truth[3], rel=TOLERANCE)
    assert stage.snapshot is not None
    nvml = next(source for source in stage.snapshot.exporter.sources if source.name == "nvml")
    assert nvml.up
    assert "by each of 2 processes" in nvml.message
    assert card.gpu.uuid in nvml.message
    assert "550" in nvml.fix
    stage.check_books()


def _not_idle(stage: Stage) -> float:
    """Unattributed joules with a reason other than idle."""
    assert stage.snapshot is not None
    return sum(joules for _, reason, joules in stage.snapshot.energy.unattributed if reason != "idle")


@pytest.mark.parametrize("holders", [1, 2])
@pytest.mark.parametrize("seconds", [20, 300])
def test_loaded_models_that_keep_a_card_in_a_higher_power_state(stage: Stage, holders: int, seconds: int) -> None:
    """ollama/ollama#8591: 50 W instead of 11 W at 0 %; what nobody uses is idle energy of those who hold it."""
    card = stage.card(name="Tesla P40", idle_watts=11.0, dynamic_watts=200.0)
    stage.learn()
    for pid in range(1, holders + 1):
        stage.process(pid, card)
    card.idle_watts = 50.0
    before = _not_idle(stage)
    stage.play(seconds, lambda _: {})
    assert _not_idle(stage) - before <= 0.05 * seconds * 50
    assert sum(stage.charged().values()) == 0.0
    assert stage.charged("idle")[1] == pytest.approx((seconds * 50) / holders, rel=0.25 if seconds == 20 else 0.02)
    stage.check_books()


def test_a_card_that_alternates_between_two_idle_levels(stage: Stage) -> None:
    """85 W for 12 s, 35 W for 8 s, at 0 % throughout: the driver lowers the clocks now and then."""
    card = stage.card(name="NVIDIA L40S", idle_watts=35.0, dynamic_watts=265.0)
    stage.process(1, card)
    stage.process(2, card)
    stage.learn()

    def script(t: float) -> Shares:
        card.idle_watts = 85.0 if int(t) % 20 < 12 else 35.0
        return {}

    before, burned = _not_idle(stage), card.joules
    stage.play(300, script)
    assert _not_idle(stage) - before <= 0.05 * (card.joules - burned)
    assert sum(stage.charged("idle").values()) == pytest.approx(card.joules - burned, rel=0.01)
    assert sum(stage.charged().values()) == 0.0


def test_instances_that_rest_above_the_idle_power(stage: Stage) -> None:
    """Under MIG the activity of the instances says that nobody uses the card."""
    card = stage.card(mig=["3g.40gb", "3g.40gb"], architecture=control.HOPPER)
    for pid, part in enumerate(card.gpu.mig, start=1):
        stage.node.process(pid)
        part.process(pid)
        part.gpm(control.GPM_SM_UTIL, 0.0)
    stage.learn()
    card.idle_watts = 110.0
    stage.play(20, lambda _: {})
    assert sum(stage.charged().values()) == 0.0
    assert stage.charged("idle")[1] == pytest.approx(20 * 110.0 / 2, rel=0.01)
    stage.check_books()
