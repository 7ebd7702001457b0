"""Reads the arms of a comparison from Prometheus: blocks of joules and work, what they ran on, latency and errors."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from .growth import expression
from .paired import Block
from .prometheus import Prometheus, Sample, TooMuchDataError
from .window import DAY_SECONDS, Window

Boundary = Literal["gpu", "gpu+cpu+dram", "node"]
Unit = Literal["output token", "request", "hour"]

_ALIASES = {"model": "model_name", "node": "instance"}
_ANYWHERE = ("namespace", "cluster", "instance", "job")
_OF_MODELS = ("model_name", "variant", "phase")
_OF_CONTAINERS = ("pod", "container", "image", "owner_kind", "owner_name", "container_id", "runtime")
_PLACE = "cluster, instance, namespace, pod, container"
_MATCHER = re.compile(r'\s*(\w+)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"\s*')
_WORD = re.compile(r"([\w.:-]+)=(.*)", re.DOTALL)
_ALIVE_RATIO = 0.8
"""Share of the usual samples of a block that a series needs: else it started, ended or was not scraped in the block."""

GUARD_RAILS = (
    (
        "mean latency of a request, s",
        "vllm:e2e_request_latency_seconds|sglang:e2e_request_latency_seconds|tgi_request_duration",
    ),
    ("mean time to first token, s", "vllm:time_to_first_token_seconds|sglang:time_to_first_token_seconds"),
    ("mean time per output token, s", "vllm:time_per_output_token_seconds|vllm:inter_token_latency_seconds"),
)
"""Histograms of model servers, and what their mean is."""

FAILED = 'finished_reason=~"abort|error"'
OUTPUT = 'kind="output"'
PODS = 'pod!=""'
SM = 'domain="sm"'


@dataclass(frozen=True, slots=True)
class Selector:
    """Which series are an arm: ``matchers`` of every metric, ``model`` of those of models, ``identity`` of containers.

    It is of containers where it has a label that only they have: an image, an owner, a pod label.
    """

    text: str
    matchers: str
    model: str
    identity: str
    of_containers: bool


def selector(text: str) -> Selector:
    """Of ``model=NAME,variant=awq``, ``image=…``, ``label:team=red``, or matchers in braces. Raises ValueError."""
    found: list[tuple[str, str, str]] = []
    if text.strip().startswith("{"):
        rest = text.strip().strip("{}")
        while rest:
            match = _MATCHER.match(rest)
            if match is None:
                raise ValueError(f'{text}: not matchers such as {{model_name="a", variant="awq"}}')
            found.append((match[1], match[2], match[3]))
            rest = rest[match.end() :].removeprefix(",")
    else:
        for part in text.split(","):
            word = _WORD.fullmatch(part.strip())
            if word is None or (not word[2] and word[1] != "variant"):
                raise ValueError(f"{text}: not LABEL=VALUE, such as model=org/chat,variant=awq")
            name = f"label_{word[1][6:]}" if word[1].startswith("label:") else word[1]
            found.append((re.sub(r"\W", "_", name), "=", word[2].replace("\\", "\\\\").replace('"', '\\"')))
    known: dict[str, list[str]] = {"all": [], "model": [], "container": []}
    for name, sign, value in found:
        label = _ALIASES.get(name, name)
        of_container = label in _OF_CONTAINERS or label.startswith("label_")
        if not of_container and label not in (*_ANYWHERE, *_OF_MODELS):
            raise ValueError(f"{text}: {name} is no label of models or containers")
        kind = "container" if of_container else "model" if label in _OF_MODELS else "all"
        known[kind].append(f'{label}{sign}"{value}"')
    identity = [matcher for matcher in known["model"] if not matcher.startswith("phase")] + known["container"]
    if not known["model"] and not known["container"]:
        raise ValueError(f"{text}: names no model, image or label")
    return Selector(
        text, ",".join(known["all"]), ",".join(known["model"]), ",".join(identity), bool(known["container"])
    )


@dataclass(slots=True)
class Sums:
    """What one block has: joules by component and mode, tokens by kind, requests; and the samples of its series."""

    joules: dict[tuple[str, str], float] = field(default_factory=dict)
    tokens: dict[str, float] = field(default_factory=dict)
    requests: float | None = None
    node_joules: float | None = None
    servers: float | None = None
    samples: float = 0.0
    token_samples: float | None = None
    ran_on: set[str] = field(default_factory=set)
    clock_hertz: float | None = None


@dataclass(frozen=True, slots=True)
class Arm:
    """One arm: the blocks of its window, by their start, that can be compared, and what was left out and why.

    ``ran_on`` is what all its blocks have: GPU, driver, image, power limit.
    """

    selector: Selector
    window: Window
    blocks: Mapping[float, Sums]
    ran_on: frozenset[str]
    dropped: Mapping[str, int]
    idle_joules: float
    guard_rails: Mapping[str, float]
    cost: Mapping[str, float]
    cost_joules: float

    def total(self, what: Callable[[Sums], float | None]) -> float:
        """Sum over its blocks."""
        return sum(what(sums) or 0.0 for sums in self.blocks.values())


def steps(window: Window) -> int:
    """How often `read` calls ``advance``."""
    return len(window.parts(DAY_SECONDS))


def read(
    prometheus: Prometheus,
    chosen: Selector,
    window: Window,
    block_seconds: float,
    boundary: Boundary = "gpu+cpu+dram",
    matchers: str = "",
    advance: Callable[[], None] = lambda: None,
) -> Arm:
    """The blocks of an arm, aligned to whole multiples of ``block_seconds``. Raises `QueryError`."""
    reader = _Reader(prometheus, chosen, block_seconds, boundary, matchers)
    reader.check(window)
    for part in window.parts(DAY_SECONDS):
        reader.read(part)
        advance()
    kept, dropped, ran_on = _kept(reader.blocks)
    idle = {start: sums for start, sums in kept.items() if sums.tokens and not sums.tokens.get("output")}
    waste = sum(sum(sums.joules.values()) for sums in idle.values())
    if idle:
        dropped["without a token"] = len(idle)
    kept = {start: sums for start, sums in kept.items() if start not in idle}
    cost, cost_joules = reader.cost(window)
    return Arm(chosen, window, kept, ran_on, dropped, waste, reader.guard_rails(window), cost, cost_joules)


def _kept(blocks: Mapping[float, Sums]) -> tuple[dict[float, Sums], Counter[str], frozenset[str]]:
    """Blocks in which every series was alive and nothing below it changed."""
    dropped: Counter[str] = Counter()
    present = {start: sums for start, sums in sorted(blocks.items()) if sums.joules}
    usual = _median([sums.samples for sums in present.values()])
    usual_tokens = _median([sums.token_samples for sums in present.values() if sums.token_samples is not None])
    alive = {}
    for start, sums in present.items():
        short = sums.samples < _ALIVE_RATIO * usual
        if usual_tokens and (sums.token_samples or 0.0) < _ALIVE_RATIO * usual_tokens:
            short = True
        if short:
            dropped["a series started, ended or was not scraped"] += 1
        else:
            alive[start] = sums
    common = Counter(frozenset(sums.ran_on) for sums in alive.values()).most_common(1)
    ran_on = common[0][0] if common else frozenset()
    kept = {start: sums for start, sums in alive.items() if sums.ran_on == ran_on}
    if len(kept) < len(alive):
        dropped["another GPU, driver, image or power limit, or one that changed"] = len(alive) - len(kept)
    return kept, dropped, ran_on


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2] if values else 0.0


class _Reader:
    def __init__(
        self, prometheus: Prometheus, chosen: Selector, seconds: float, boundary: Boundary, matchers: str
    ) -> None:
        self._prometheus = prometheus
        self._chosen = chosen
        self._seconds = seconds
        self._boundary = boundary
        self._everywhere = matchers
        self._all = _and(matchers, chosen.matchers)
        self._series = _and(self._all, "" if chosen.of_containers else chosen.model)
        self._served = _and(self._all, chosen.identity)
        self._level = "container" if chosen.of_containers else "model"
        self._window = f"[{seconds:.0f}s]"
        self.blocks: defaultdict[float, Sums] = defaultdict(Sums)

    def check(self, window: Window) -> None:
        """Raises ValueError if the arm is of both phases: serving and training have no work in common."""
        if self._chosen.of_containers or "phase" in self._chosen.model:
            return
        query = f"group by (phase) (last_over_time(energy_model_joules_total{{{self._series}}}[{window.seconds:.0f}s]))"
        phases = {sample.labels.get("phase", "") for sample in self._prometheus.instant(query, window.end)}
        if "training" in phases and len(phases) > 1:
            raise ValueError(f"{self._chosen.text}: it trains and serves; add phase=inference or phase=training")

    def read(self, part: Window) -> None:
        """Read the blocks that lie in a part of the window."""
        joules = f"energy_{self._level}_joules_total"
        for labels, start, value in self._range(self._growth(joules, "component", "mode"), part):
            cell = (labels.get("component", ""), labels.get("mode", ""))
            if self._boundary != "gpu" or cell[0] == "gpu":
                self.blocks[start].joules[cell] = value
        for _, start, value in self._range(self._alive(joules, self._series), part):
            self.blocks[start].samples = value
        tokens = f"energy_{self._level}_tokens_total"
        for labels, start, value in self._range(self._growth(tokens, "kind"), part):
            self.blocks[start].tokens[labels.get("kind", "")] = value
        served = self._all if self._chosen.of_containers else self._served
        for _, start, value in self._range(self._alive(tokens, served), part):
            self.blocks[start].token_samples = value
        if not self._chosen.of_containers:
            for _, start, value in self._range(self._growth("energy_model_requests_total"), part):
                self.blocks[start].requests = value
        servers = _and(served, OUTPUT)
        counted = self._of_identity(f"count by ({_PLACE}) (energy_container_tokens_total{{{servers}}})")
        for _, start, value in self._range(f"count({counted})", part):
            self.blocks[start].servers = value
        self._read_hardware(part)
        if self._boundary == "node":
            grown = expression("energy_node_joules_total", self._everywhere, ("cluster", "instance"), self._seconds)
            for _, start, value in self._range(f"sum({grown} and on (cluster, instance) {self._hosts()})", part):
                self.blocks[start].node_joules = value

    def _read_hardware(self, part: Window) -> None:
        for labels, start, _ in self._range(f"group by (image) ({self._info()})", part):
            if labels.get("image"):
                self.blocks[start].ran_on.add(f"image {labels['image']}")
        used = f"increase(energy_container_gpu_joules_total{{{self._all}}}{self._window}) > 0"
        cards = f"group by (cluster, instance, uuid) ({used} and on ({_PLACE}) {self._info()})"
        on = "on (cluster, instance, uuid)"
        info = f"last_over_time(energy_gpu_info{{{self._everywhere}}}{self._window})"
        described = self._range(f"group by (gpu_model, driver_version) ({info} and {on} {cards})", part)
        if not described:  # which cards it held is not known: all of its nodes
            cards, on = self._hosts(), "on (cluster, instance)"
            described = self._range(f"group by (gpu_model, driver_version) ({info} and {on} {cards})", part)
        for labels, start, _ in described:
            for name, label in (("GPU", "gpu_model"), ("driver", "driver_version")):
                if labels.get(label):
                    self.blocks[start].ran_on.add(f"{name} {labels[label]}")
        for end in ("min", "max"):
            limit = f"{end}_over_time(energy_gpu_power_limit_watts{{{self._everywhere}}}{self._window})"
            for _, start, value in self._range(f"{end}({limit} and {on} {cards})", part):
                self.blocks[start].ran_on.add(f"power limit {value:.0f} W")
        domain = _and(self._everywhere, SM)
        clock = f"avg_over_time(energy_gpu_clock_hertz{{{domain}}}{self._window})"
        for _, start, value in self._range(f"avg({clock} and {on} {cards})", part):
            self.blocks[start].clock_hertz = value

    def _info(self) -> str:
        return f"last_over_time(energy_container_info{{{self._served}}}{self._window})"

    def _of_identity(self, expr: str) -> str:
        """Only what is of the arm's containers, where it is of containers."""
        return f"({expr}) and on ({_PLACE}) {self._info()}" if self._chosen.of_containers else expr

    def _growth(self, metric: str, *by: str, seconds: float = 0.0) -> str:
        seconds = seconds or self._seconds
        if not self._chosen.of_containers:
            matchers = self._served if metric.endswith(("tokens_total", "requests_total")) else self._series
            return expression(metric, matchers, by, seconds)
        grown = expression(metric, self._all, (*_PLACE.split(", "), *by), seconds)
        return f"sum by ({', '.join(by)}) ({self._of_identity(grown)})"

    def _alive(self, metric: str, matchers: str) -> str:
        return f"min({self._of_identity(f'count_over_time({metric}{{{matchers}}}{self._window})')})"

    def _hosts(self) -> str:
        series = f"energy_{self._level}_joules_total{{{self._series}}}"
        return f"group by (cluster, instance) ({self._of_identity(series)})"

    def _range(self, query: str, part: Window) -> list[tuple[Mapping[str, str], float, float]]:
        """Labels, start of the block and value, for blocks that lie in ``part``."""
        first = -(-part.start // self._seconds) * self._seconds + self._seconds
        if first > part.end:
            return []
        return [
            (series.labels, at - self._seconds, value)
            for series in self._prometheus.range(query, first, part.end, self._seconds)
            for at, value in zip(series.times, series.values, strict=True)
        ]

    def cost(self, window: Window) -> tuple[dict[str, float], float]:
        """Money by currency, credits subtracted, at the end of the window, a week at most, and its joules."""
        seconds = min(window.seconds, 7 * DAY_SECONDS)
        money: defaultdict[str, float] = defaultdict(float)
        for sign, counter in ((1.0, "cost"), (-1.0, "credit")):
            paid = self._growth(f"energy_{self._level}_{counter}_total", "currency", seconds=seconds)
            for sample in self._prometheus.instant(paid, window.end):
                money[sample.labels.get("currency", "")] += sign * sample.value
        used = self._growth(f"energy_{self._level}_joules_total", seconds=seconds)
        return dict(money), sum(sample.value for sample in self._prometheus.instant(used, window.end))

    def guard_rails(self, window: Window) -> dict[str, float]:
        """Means of the servers' histograms in the window, and the share of requests that failed; only what is there.

        What the engine refuses to read at once is not there either: it is no part of the verdict.
        """
        span = f"[{window.seconds:.0f}s]"
        in_pods = _and(self._served, PODS)
        pods = f"group by (namespace, pod) (last_over_time(energy_container_info{{{in_pods}}}{span}))"

        def summed(metrics: str, further: str = "") -> str:
            selected = _and(f'__name__=~"{metrics}"', further)
            return f"sum(increase({{{selected}}}{span}) and on (namespace, pod) {pods})"

        found = {}
        for name, histograms in GUARD_RAILS:
            sums, counts = (f"(?:{histograms})_{end}" for end in ("sum", "count"))
            for sample in self._if_allowed(f"{summed(sums)} / {summed(counts)}", window.end):
                found[name] = sample.value
        requests = "vllm:request_success_total"
        failed = f"({summed(requests, FAILED)} or 0 * {summed(requests)}) / {summed(requests)}"
        for sample in self._if_allowed(failed, window.end):
            found["share of requests that were aborted"] = sample.value
        return found

    def _if_allowed(self, query: str, at: float) -> list[Sample]:
        try:
            return self._prometheus.instant(query, at)
        except TooMuchDataError:
            return []


def _and(*matchers: str) -> str:
    return ",".join(filter(None, matchers))


def unit_of(arms: Sequence[Arm]) -> Unit:
    """The finest unit of work that is known of both: output tokens, requests, or hours."""
    if all(arm.total(lambda sums: sums.tokens.get("output")) > 0 for arm in arms):
        return "output token"
    if all(arm.total(lambda sums: sums.requests) > 0 for arm in arms):
        return "request"
    return "hour"


def blocks_of(
    arm: Arm, unit: Unit, block_seconds: float, boundary: Boundary, *, active: bool, by_server: bool
) -> list[Block]:
    """Blocks of an arm in a unit of work; ``active``: without idle joules, ``by_server``: at the load of a server."""
    found = []
    for start, sums in sorted(arm.blocks.items()):
        joules = sum(value for (_, mode), value in sums.joules.items() if not active or mode != "idle")
        if boundary == "node":
            if sums.node_joules is None:
                continue
            joules = sums.node_joules
        output, prompt = sums.tokens.get("output", 0.0), sums.tokens.get("prompt", 0.0)
        work = {"output token": output, "request": sums.requests or 0.0, "hour": block_seconds / 3600}[unit]
        if work <= 0 or joules <= 0:
            continue
        servers = sums.servers if by_server and sums.servers else 1.0
        load = 1.0 if unit == "hour" else work / block_seconds / servers
        length = output / sums.requests if unit == "output token" and sums.requests else 0.0
        mix = prompt / output if unit == "output token" and output else 0.0
        found.append(Block(start, joules, work, load, mix, length))
    return found
