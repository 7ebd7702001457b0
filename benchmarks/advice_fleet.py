"""A fleet of which every waste is known: ten models on three kinds of GPU for 30 days, in steps of five minutes.

Loads rise and fall with the hour and the weekday, and differ by chance from day to day and step to step; ``seed``
decides it all. `facts` is what the queries of `exporter.analysis.fleet` answer of it, `exposition` the same as series.
What is planted, and what only looks like waste:

| model | planted | looks like waste, and is none |
|---|---|---|
| chat-idle | held without a request (stop_idle, a bound: its GPU was never seen empty) | |
| chat-night | held from 22 to 6 o'clock (stop_idle, observed) | |
| assist | four replicas for the load of one or two (consolidate) | |
| code-cap | 12 % less active energy at 500 W, tried for six days (power_cap) | |
| code-clock | 18 % less active energy at 1110 MHz, tried for six days (clock_lock) | |
| embed | 150 W of CPU that poll (host_cpu) | |
| train-loader | 35 % of its joules wait for the host (data_loader) | GPUs that differ by 3 % |
| train-straggle | one stage works half as much again as three (straggler) | 8 % host-bound |
| train-night | runs in the evening, while the grid is cleanest at noon (move_in_time) | |
| clean | | a limit tried for six days without effect, CPU that follows the load, two full replicas |

A node of the zone SE has two free GPUs (free_gpus), and all models on H100 could run there (move_in_region).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from random import Random

from exporter.analysis.facts import Card, Facts, Fleet, Grid, Subject, Zone
from exporter.analysis.fleet_queries import QUIET_SHARE

START = 1_790_640_000
"""A Tuesday, 00:00 UTC."""
DAYS, STEP, HOUR = 30, 300, 3600
PER_DAY, PER_HOUR = 86400 // STEP, HOUR // STEP
KWH = 3.6e6
PRICE = 0.25
BARE = {"NVIDIA H100 80GB HBM3": 70.0}
H100, A100, L40S = "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB", "NVIDIA L40S"
LIMITS = {H100: 700.0, A100: 400.0, L40S: 350.0}
CLOCKS = {H100: 1980e6, A100: 1410e6, L40S: 2520e6}
HELD = {H100: 118.0, A100: 62.0, L40S: 36.0}

Values = list[float]


@dataclass(frozen=True)
class Planted:
    """What a lever would really save: kWh, or grams, of 30 days like the mean of the process, not of this window."""

    model: str
    lever: str
    kwh: float | None = None
    grams: float | None = None


@dataclass
class Track:
    """A model in steps of five minutes."""

    name: str
    gpu_model: str
    count: int = 1
    phase: str = "inference"
    active: Values = field(default_factory=list)
    idle: Values = field(default_factory=list)
    cpu: Values = field(default_factory=list)
    tokens: Values = field(default_factory=list)
    replicas: Values = field(default_factory=list)
    limit: Values = field(default_factory=list)
    clock: Values = field(default_factory=list)
    mix: dict[str, float] = field(default_factory=lambda: {"compute_bound": 0.4, "memory_bound": 0.2, "mixed": 0.4})
    """Shares of the GPU joules of steps in which it works; in the others they are idle."""
    tensor: Sequence[float] = (0.4,)
    """Of each card."""
    busy: float = 0.7

    @property
    def activities(self) -> dict[str, Values]:
        """GPU joules by activity."""
        whole = [one + other if one > 0 else 0.0 for one, other in zip(self.active, self.idle, strict=True)]
        found = {name: [share * joules for joules in whole] for name, share in self.mix.items()}
        found["idle"] = [other if one <= 0 else 0.0 for one, other in zip(self.active, self.idle, strict=True)]
        return found

    @property
    def uuids(self) -> list[str]:
        """Its cards."""
        return [f"GPU-{self.name}-{number}" for number in range(self.count)]


class Loads:
    """Loads of one process: the product of hour, weekday, the day's chance and the step's."""

    def __init__(self, random: Random, swing: float, days: int = DAYS) -> None:
        self.values: Values = []
        level = 0.0
        for day in range(days):
            level = 0.4 * level + random.gauss(0.0, 0.08)
            week = 0.8 if day % 7 in (4, 5) else 1.0
            for step in range(PER_DAY):
                hour = 1 - swing * math.cos(2 * math.pi * (step / PER_DAY - 1 / 12))
                self.values.append(max(0.01, hour * week * math.exp(level) * random.gauss(1.0, 0.1)))


def watts(load: float, most: float) -> float:
    """Active watts of a replica at a share ``load`` of its capacity: less for each token, the fuller the batch."""
    return most * float(load**0.6)


def intensity(step: int) -> float:
    """Grams per kWh of the zone DE in a step: lowest at noon."""
    return MEAN_INTENSITY + 120.0 * math.cos(2 * math.pi * (step % PER_DAY) / PER_DAY)


MEAN_INTENSITY, OTHER_ZONE = 380.0, 40.0
_LONG = 4
"""Months over which means of the process are taken."""
FAILED_DAYS = (9, 10)
"""On which two of four replicas failed, so that the others had twice the load."""


class Written:
    """The fleet of one seed: ``tracks`` and what is ``planted`` in them."""

    def __init__(self, seed: int, days: int = DAYS) -> None:
        self.random = Random(seed)
        self.days = days
        self.steps = days * PER_DAY
        self.tracks: list[Track] = []
        self.planted: list[Planted] = []
        for build in (
            *(self._chat_idle, self._chat_night, self._assist, self._code_cap, self._code_clock, self._embed),
            *(self._train_loader, self._train_straggle, self._train_night, self._clean),
        ):
            build()
        self.planted.append(Planted("n-free", "free_gpus", kwh=2 * BARE[H100] * 720 / 1000))

    def _add(self, track: Track, *planted: Planted) -> Track:
        card = track.gpu_model
        track.limit = track.limit or [LIMITS[card]] * self.steps
        track.clock = track.clock or [CLOCKS[card]] * self.steps
        track.cpu = track.cpu or [0.05 * (one + other) for one, other in zip(track.active, track.idle, strict=True)]
        self.tracks.append(track)
        self.planted += planted
        if card == H100:  # of the joules that it used in this window
            kwh = math.fsum((*track.active, *track.idle, *track.cpu)) / KWH
            self.planted.append(Planted(track.name, "move_in_region", grams=kwh * (MEAN_INTENSITY - OTHER_ZONE)))
        return track

    def _held(self, card: str, count: int = 1) -> Values:
        """Idle joules of cards that are held all the time, a few percent apart from day to day."""
        days = [self.random.gauss(1.0, 0.02) for _ in range(self.days)]
        return [HELD[card] * count * STEP * days[step // PER_DAY] for step in range(self.steps)]

    def _chat_idle(self) -> None:
        context = 16.0
        self._add(
            Track(
                "chat-idle", L40S, active=[0.0] * self.steps, idle=self._held(L40S), tokens=[0.0] * self.steps, busy=0.0
            ),
            Planted("chat-idle", "stop_idle", kwh=context * 720 / 1000),
        )

    def _chat_night(self) -> None:
        loads = Loads(self.random, 0.3, self.days).values
        hours = 8.0
        for day in range(self.days):
            first = self.random.gauss(22.0, 0.4)
            night = range(round(first * PER_HOUR), round((first + self.random.gauss(hours, 0.4)) * PER_HOUR))
            for step in night:
                place = day * PER_DAY + step - PER_DAY  # of the night before
                if 0 <= place < self.steps:
                    loads[place] = 0.0
                if day == self.days - 1 and place + PER_DAY < self.steps:
                    loads[place + PER_DAY] = 0.0
        track = self._serving("chat-night", H100, 1, loads, 420.0)
        spared = hours - 1 / 6  # the first ten minutes of a gap are not counted
        self._add(track, Planted("chat-night", "stop_idle", kwh=(HELD[H100] - BARE[H100]) * spared * 30 / 1000))

    def _serving(
        self, name: str, card: str, replicas: int, loads: Values, most: float, effect: Values | None = None
    ) -> Track:
        """A served model: ``loads`` of the whole in shares of one replica's capacity, ``effect`` on active joules."""
        noise = self.random.gauss
        active = [
            replicas * watts(load / replicas, most) * STEP * noise(1.0, 0.03) * (effect[step] if effect else 1.0)
            if load > 0
            else 0.0
            for step, load in enumerate(loads)
        ]
        return Track(
            name,
            card,
            replicas,
            active=active,
            idle=self._held(card, replicas),
            tokens=[1000.0 * load * STEP for load in loads],
            replicas=[float(replicas)] * self.steps,
            tensor=(0.3,) * replicas,
        )

    def _assist(self) -> None:
        scale, most = 0.8, 250.0
        loads = [scale * load for load in Loads(self.random, 0.5, self.days).values]
        replicas = [2.0 if day_of(step) in FAILED_DAYS else 4.0 for step in range(self.steps)]
        track = self._serving("assist", A100, 4, loads, most)
        for step, count in enumerate(replicas):
            if count == 2:
                track.active[step] = 2 * watts(loads[step] / 2, most) * STEP * self.random.gauss(1.0, 0.03)
                track.idle[step] /= 2
        track.replicas = replicas
        self._add(track, Planted("assist", "consolidate", kwh=math.nan))

    def consolidation_kwh(self, largest: float) -> float:
        """What the fewest replicas of at most a load of ``largest`` each would save ``assist`` in 30 days, in mean."""
        saved, count = 0.0, 0
        failed = len(FAILED_DAYS) / self.days
        for each in range(_LONG):
            for load in Loads(Random(f"truth {each}"), 0.5).values:
                whole = 0.8 * load
                for number, share in ((4, 1 - failed), (2, failed)):
                    fewest = min(number, max(1, math.ceil(whole / largest - 1e-9)))
                    now, then = (many * (HELD[A100] + watts(whole / many, 250.0)) for many in (number, fewest))
                    saved += share * (now - then)
                count += 1
        return saved / count * 720 / 1000

    def _tried(self, first: int, last: int, factor: float) -> Values:
        return [factor if first <= day_of(step) < last else 1.0 for step in range(self.steps)]

    def _code_cap(self) -> None:
        loads = [0.55 * load for load in Loads(self.random, 0.4, self.days).values]
        effect = self._tried(4, 10, 0.88)
        track = self._serving("code-cap", H100, 1, loads, 520.0, effect)
        track.limit = [500.0 if one < 1 else 700.0 for one in effect]
        self._add(track, Planted("code-cap", "power_cap", kwh=0.12 * self._mean_active(0.55, 0.4, 520.0)))

    def _code_clock(self) -> None:
        loads = [0.5 * load for load in Loads(self.random, 0.4, self.days).values]
        effect = self._tried(12, 18, 0.82)
        track = self._serving("code-clock", A100, 1, loads, 260.0, effect)
        track.clock = [1110e6 if one < 1 else 1410e6 for one in effect]
        track.mix = {"memory_bound": 0.7, "mixed": 0.3}
        self._add(track, Planted("code-clock", "clock_lock", kwh=0.18 * self._mean_active(0.5, 0.4, 260.0)))

    @staticmethod
    def _mean_active(scale: float, swing: float, most: float) -> float:
        """Active kWh of 30 days of a replica, on average."""
        found = [
            watts(scale * load, most) for each in range(_LONG) for load in Loads(Random(f"mean {each}"), swing).values
        ]
        return math.fsum(found) / len(found) * 720 / 1000

    def _embed(self) -> None:
        loads = [0.5 * load for load in Loads(self.random, 0.4, self.days).values]
        track = self._serving("embed", L40S, 1, loads, 180.0)
        track.cpu = [(150.0 + 30.0 * load) * STEP * self.random.gauss(1.0, 0.05) for load in loads]
        self._add(track, Planted("embed", "host_cpu", kwh=150.0 * 720 / 1000))

    def _training(self, name: str, card: str, count: int, each: float) -> Track:
        days = [self.random.gauss(1.0, 0.03) for _ in range(self.days)]
        active = [
            count * each * STEP * days[step // PER_DAY] * self.random.gauss(1.0, 0.03) for step in range(self.steps)
        ]
        return Track(name, card, count, "training", active, self._held(card, count), tensor=(0.5,) * count, busy=0.95)

    def _train_loader(self) -> None:
        track = self._training("train-loader", H100, 2, 300.0)
        track.mix = {"host_bound": 0.35, "compute_bound": 0.4, "mixed": 0.25}
        track.tensor = (0.36, 0.35)
        waits = 0.35 * 2 * 418.0 * 720 / 1000
        self._add(track, Planted("train-loader", "data_loader", kwh=0.8 * waits))

    def _train_straggle(self) -> None:
        track = self._training("train-straggle", H100, 4, 400.0)
        track.mix = {"compute_bound": 0.6, "mixed": 0.32, "host_bound": 0.08}
        track.tensor = (0.6, 0.4, 0.4, 0.4)
        spared = 3 * 400.0 * (1 - 0.4 / 0.6) * 720 / 1000
        self._add(track, Planted("train-straggle", "straggler", kwh=0.6 * spared))

    def _train_night(self) -> None:
        track = self._training("train-night", A100, 2, 250.0)
        for step in range(self.steps):
            if not 18 * PER_HOUR <= step % PER_DAY < 24 * PER_HOUR:
                track.active[step] = track.idle[step] = 0.0
        track.cpu = []
        day = range(18 * PER_HOUR, PER_DAY)
        whole = 2 * 250.0 * STEP / KWH
        now = math.fsum(intensity(step) * whole for step in day)
        best = min(math.fsum(intensity(step + shift) * whole for step in day) for shift in range(0, PER_DAY, PER_HOUR))
        self._add(track, Planted("train-night", "move_in_time", grams=30 * (now - best)))

    def _clean(self) -> None:
        loads = [1.5 * load for load in Loads(self.random, 0.1, self.days).values]
        sham = self._tried(20, 26, 0.5)
        track = self._serving("clean", H100, 2, loads, 380.0)
        track.limit = [600.0 if one < 1 else 700.0 for one in sham]
        track.cpu = [0.4 * one * self.random.gauss(1.0, 0.05) for one in track.active]
        self._add(track)


def day_of(step: int) -> int:
    """The day of a step, from 0."""
    return step // PER_DAY


def hourly(values: Sequence[float], reduce: Callable[[Sequence[float]], float] = math.fsum) -> Values:
    """Steps of an hour."""
    return [reduce(values[first : first + PER_HOUR]) for first in range(0, len(values), PER_HOUR)]


def quiet(track: Track) -> tuple[Values, Values]:
    """Joules and seconds of gaps of more than ten minutes, as the query has them."""
    still = [
        one <= QUIET_SHARE * (one + other) and other > 0 for one, other in zip(track.active, track.idle, strict=True)
    ]
    gap = [now and before for now, before in zip(still, [False, *still], strict=False)]
    return (
        [idle if now else 0.0 for idle, now in zip(track.idle, gap, strict=True)],
        [float(STEP) if now else 0.0 for now in gap],
    )


def facts(written: Written) -> Fleet:
    """What `exporter.analysis.fleet.read` would find."""
    grid = Grid(START, HOUR, written.days * 24)
    subjects = [_facts(track, grid) for track in written.tracks]
    free = [2 * BARE[H100] * HOUR] * grid.length
    subjects.append(Facts(Subject("node", "", "", "n-free"), grid, idle=free))
    known = hourly([intensity(step) for step in range(written.steps)], _mean)
    zones = (
        Zone("DE", known, frozenset((H100, A100, L40S))),
        Zone("SE", [OTHER_ZONE] * grid.length, frozenset((H100,))),
    )
    return Fleet(grid, subjects, BARE, zones)


def _facts(track: Track, grid: Grid) -> Facts:
    gaps, seconds = quiet(track)
    serves = track.phase != "training"
    whole = math.fsum(track.active) / track.count
    cards = [
        Card(
            uuid,
            track.gpu_model,
            whole,
            *(track.busy, tensor, 0.3, track.busy, 0.6),
            power_watts=(whole + math.fsum(track.idle) / track.count) / grid.seconds,
            limit_watts=LIMITS[track.gpu_model],
            throttled=0.0,
        )
        for uuid, tensor in zip(track.uuids, _each(track), strict=True)
    ]
    return Facts(
        Subject("model", "", "ai", track.name, track.phase),
        grid,
        active=hourly(track.active),
        idle=hourly(track.idle),
        cpu=hourly(track.cpu),
        activities={name: hourly(values) for name, values in track.activities.items()},
        quiet=hourly(gaps),
        quiet_seconds=hourly(seconds),
        output_tokens=hourly(track.tokens) if serves else (),
        prompt_tokens=[2 * count for count in hourly(track.tokens)] if serves else (),
        replicas=hourly(track.replicas, _mean) if serves and track.replicas else (),
        power_limit=hourly(track.limit, _mean),
        clock=hourly(track.clock, max),
        cards=cards,
        zone="DE",
    )


def _each(track: Track) -> list[float]:
    return [track.tensor[number % len(track.tensor)] for number in range(track.count)]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def counters(written: Written) -> Iterator[tuple[str, str, Values]]:
    """Name, labels and growth in each step of every counter."""
    for track in written.tracks:
        at = f'instance="n-{track.name}",namespace="ai"'
        model = f'{at},model_name="{track.name}",phase="{track.phase}"'
        for component, mode, values in (
            ("gpu", "active", track.active),
            ("gpu", "idle", track.idle),
            ("cpu", "active", track.cpu),
        ):
            yield "energy_model_joules_total", f'{model},component="{component}",mode="{mode}"', values
        for activity, values in track.activities.items():
            yield "energy_model_activity_joules_total", f'{model},activity="{activity}"', values
        for number, uuid in enumerate(track.uuids):
            pod = f'{at},pod="{track.name}-{number}",container="main"'
            for mode, values in (("active", track.active), ("idle", track.idle)):
                part = [joules / track.count for joules in values]
                yield "energy_container_gpu_joules_total", f'{pod},gpu="0",uuid="{uuid}",mode="{mode}"', part
            whole = [(one + other) / track.count for one, other in zip(track.active, track.idle, strict=True)]
            yield "energy_gpu_joules_total", f'instance="n-{track.name}",gpu="0",uuid="{uuid}"', whole
        if track.phase != "training":
            for kind, times in (("output", 1.0), ("prompt", 2.0)):
                labels = f'{at},model_name="{track.name}",kind="{kind}"'
                yield "energy_model_tokens_total", labels, [times * count for count in track.tokens]
        joules = [math.fsum(values) for values in zip(track.active, track.idle, track.cpu, strict=True)]
        grams = [one / KWH * intensity(step) for step, one in enumerate(joules)]
        yield "energy_model_carbon_grams_total", f'{model},mode="active"', grams
        yield "energy_model_cost_total", f'{model},mode="active",currency="EUR"', [PRICE * one / KWH for one in joules]
    free = [BARE[H100] * STEP] * written.steps
    for number in range(2):
        yield "energy_gpu_joules_total", f'instance="n-free",gpu="{number}",uuid="GPU-free-{number}"', free
    double = [2 * joules for joules in free]
    yield "energy_unattributed_joules_total", 'instance="n-free",component="gpu",reason="idle"', double
    yield "energy_node_joules_total", 'instance="n-free",component="gpu"', double


def gauges(written: Written) -> Iterator[tuple[str, str, Values]]:
    """Name, labels and value in each step of every gauge; NaN where there is no sample."""
    steady = [1.0] * written.steps
    for track in written.tracks:
        at = f'instance="n-{track.name}"'
        for number, (uuid, tensor) in enumerate(zip(track.uuids, _each(track), strict=True)):
            card = f'{at},gpu="0",uuid="{uuid}",gpu_instance=""'
            pod = f'{at},namespace="ai",pod="{track.name}-{number}",container="main"'
            yield "energy_gpu_info", f'{card},gpu_model="{track.gpu_model}"', steady
            yield (
                "energy_container_info",
                f'{pod},model_name="{track.name}",image="v1",owner_name="{track.name}"',
                steady,
            )
            yield "energy_gpu_power_limit_watts", card, track.limit
            yield "energy_gpu_clock_hertz", f'{card},domain="sm"', track.clock
            for name, value in (
                ("utilization", track.busy),
                ("sm_active", track.busy),
                ("tensor_active", tensor),
                ("dram_active", 0.3),
            ):
                yield f"energy_gpu_{name}_ratio", card, [value] * written.steps
            yield "energy_gpu_memory_used_bytes", card, [48e9] * written.steps
            yield "energy_gpu_memory_total_bytes", card, [80e9] * written.steps
            if track.replicas:
                here = [1.0 if number < count else math.nan for count in track.replicas]
                yield "energy_container_tokens_total", f'{pod},model_name="{track.name}",kind="output"', here
        yield "energy_carbon_intensity_grams_per_kilowatt_hour", at, [intensity(step) for step in range(written.steps)]
        yield "energy_impact_info", f'{at},zone="DE"', steady
    yield "energy_carbon_intensity_grams_per_kilowatt_hour", 'instance="n-free"', [OTHER_ZONE] * written.steps
    yield "energy_impact_info", 'instance="n-free",zone="SE"', steady
    for number in range(2):
        yield (
            "energy_gpu_info",
            f'instance="n-free",uuid="GPU-free-{number}",gpu_instance="",gpu_model="{H100}"',
            steady,
        )


def exposition(written: Written, first: int, last: int, every: int = 150) -> Iterator[str]:
    """OpenMetrics of the steps from ``first`` up to ``last``, a sample every ``every`` seconds."""
    families: dict[str, list[str]] = {}
    for name, labels, growth in counters(written):
        held = [0.0, *accumulate(growth)]
        rows = families.setdefault(name, [])
        for second in range(first * STEP, last * STEP, every):
            step, rest = divmod(second, STEP)
            rows.append(f"{name}{{{labels}}} {held[step] + growth[step] * rest / STEP:.3f} {START + second}")
    for name, labels, values in gauges(written):
        rows = families.setdefault(name, [])
        for second in range(first * STEP, last * STEP, every):
            value = values[second // STEP]
            if not math.isnan(value):
                rows.append(f"{name}{{{labels}}} {value:g} {START + second}")
    for name, rows in families.items():
        yield f"# TYPE {name.removesuffix('_total')} {'counter' if name.endswith('_total') else 'gauge'}"
        yield from rows
    yield "# EOF"
