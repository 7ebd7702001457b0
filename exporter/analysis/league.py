"""Collects a report from Prometheus: energy, grams, money and tokens by model, namespace, workload, node, label."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .growth import Growth, Growths, Labels
from .lines import Amounts, Line, Report, add_up
from .prometheus import Prometheus, QueryError
from .window import Window

_LEAST_RATIO = 1e-6
"""A remainder below this share of the node is rounding, and no line."""

NO_MODEL = "(no model)"
IDLE = "idle power of the nodes"
_REASONS = {
    "idle": IDLE,
    "kernel": "the kernel",
    "exited": "processes that ended",
    "gap": "gaps between samples",
    "unknown": "no known owner, such as fans and disks",
}
BETWEEN = "in no counter of a workload"
"""What the node used and nothing else shows: containers that came and went between two scrapes, or have no name yet."""

_PLACE = ("cluster", "instance", "namespace", "pod", "container")


@dataclass(frozen=True, slots=True)
class Level:
    """What a report is by: ``family`` of the metrics (model, container, node) and their ``labels``.

    ``owner`` names labels of `energy_container_info` that replace those of the container.
    """

    family: str
    labels: tuple[str, ...]
    owner: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Labels of the lines."""
        return ("cluster", "namespace", *self.owner) if self.owner else self.labels


LEVELS = {
    "model": Level("model", ("cluster", "namespace", "model_name", "variant", "phase")),
    "namespace": Level("container", ("cluster", "namespace")),
    "workload": Level("container", _PLACE, ("owner_kind", "owner_name")),
    "node": Level("node", ("cluster", "instance")),
}


def level(by: str) -> Level:
    """The level of a name, or of ``label:NAME``, a pod label that the exporter exposes. Raises ValueError."""
    if by.startswith("label:") and by != "label:":
        return Level("container", _PLACE, (f"label_{by.removeprefix('label:')}",))
    if by not in LEVELS:
        raise ValueError(f"{by}: one of {', '.join(LEVELS)}, label:NAME")
    return LEVELS[by]


def steps(by: Level, window: Window) -> int:
    """How often `Growths` calls ``advance`` for one report."""
    families = {by.family, "container", "unattributed", "node"} if by.family != "node" else {"node"}
    return len(Growths.parts(window)) * (4 * len(families) + (by.family == "model"))


def collect(prometheus: Prometheus, growths: Growths, by: Level, window: Window, matchers: str = "") -> Report:
    """The report of a window. Raises `QueryError`, also if there is no data."""
    since, covered = _coverage(prometheus, window, matchers)
    nodes = _amounts(growths, "node", (), window)
    total = add_up(nodes.values()).by_component()
    if by.family == "node":
        lines = _amounts(growths, "node", by.labels, window)
        return Report(window, by.names, _lines(lines), (), total, covered, since)
    found = _amounts(growths, by.family, by.labels, window)
    if by.owner:
        found = _by_owner(found, _owners(prometheus, by.owner, window, matchers))
    used = add_up(found.values())
    if by.family == "model":
        found = _with_tokens(found, growths.of("energy_model_tokens_total", by.labels[:-1], window, 'kind="output"'))
        containers = add_up(_amounts(growths, "container", (), window).values())
        rest = containers.plus(used, -1.0)
        if rest.total_joules > _LEAST_RATIO * total.total_joules:
            found["", "", NO_MODEL, "", ""] = rest
        used = containers
    shared = [
        (_REASONS.get(reason, reason), amounts.by_component())
        for (reason,), amounts in _amounts(growths, "unattributed", ("reason",), window).items()
    ]
    shared.sort(key=lambda item: -item[1].total_joules)
    rest = total.plus(used.by_component(), -1.0).plus(add_up(amounts for _, amounts in shared), -1.0)
    if abs(rest.total_joules) > _LEAST_RATIO * total.total_joules:
        shared.append((BETWEEN, rest))
    return Report(window, by.names, _lines(found), shared, total, covered, since)


def _lines(found: Mapping[Labels, Amounts]) -> list[Line]:
    lines = [Line(names, amounts) for names, amounts in found.items()]
    return sorted(lines, key=lambda line: (-line.used.total_joules, line.names))


def _coverage(prometheus: Prometheus, window: Window, matchers: str) -> tuple[float, float]:
    """First sample in the window, and for how many seconds there are any. Raises `QueryError` if there is none."""
    step = max(60.0, float(int(window.seconds / 500)))
    nodes = f"count(energy_node_joules_total{{{matchers}}})"
    times = prometheus.times(nodes, window.start, window.end, step)
    if len(times) < 2:
        raise QueryError(
            f"{prometheus.url}: no samples of energy_node_joules_total"
            f"{f' with {matchers}' if matchers else ''} in this window; is an exporter scraped?"
        )
    return times[0], min(window.seconds, len(times) * step)


def _amounts(growths: Growths, family: str, labels: Sequence[str], window: Window) -> dict[Labels, Amounts]:
    """Joules, grams and money of a family of counters by some labels."""
    cell = {"node": ("component",), "unattributed": ("component",)}.get(family, ("component", "mode"))
    count = len(labels)

    def read(metric: str, *further: str) -> Growth:
        return growths.of(f"energy_{family}_{metric}_total", (*labels, *further), window)

    joules: defaultdict[Labels, dict[tuple[str, str], float]] = defaultdict(dict)
    for key, amount in read("joules", *cell).items():
        joules[key[:count]][key[count], key[count + 1] if len(cell) > 1 else ""] = amount
    grams = read("carbon_grams")
    cost: defaultdict[Labels, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    for sign, metric in ((1.0, "cost"), (-1.0, "credit")):
        for key, amount in read(metric, "currency").items():
            cost[key[:count]][key[count]] += sign * amount
    return {key: Amounts(cells, grams.get(key), dict(cost.get(key, {}))) for key, cells in joules.items()}


def _owners(
    prometheus: Prometheus, wanted: Sequence[str], window: Window, matchers: str
) -> Callable[[Labels], tuple[str, ...]]:
    """Labels that `energy_container_info` has of a place; the last ones in the window."""
    known: dict[Labels, tuple[str, ...]] = {}
    for part in Growths.parts(window):
        query = (
            f"group by ({', '.join((*_PLACE, *wanted))}) "
            f"(last_over_time(energy_container_info{{{matchers}}}[{part.seconds:.0f}s]))"
        )
        for labels, _ in prometheus.instant(query, part.end):
            owner = tuple([labels.get(label, "") for label in wanted])
            if any(owner):
                known[tuple([labels.get(label, "") for label in _PLACE])] = owner

    def owner_of(place: Labels) -> tuple[str, ...]:
        return known.get(place) or tuple(["" for _ in wanted])

    return owner_of


def _by_owner(found: Mapping[Labels, Amounts], owner_of: Callable[[Labels], tuple[str, ...]]) -> dict[Labels, Amounts]:
    summed: defaultdict[Labels, Amounts] = defaultdict(Amounts)
    for place, amounts in found.items():
        cluster, _, namespace, pod, container = place
        owner = owner_of(place)
        if len(owner) > 1 and not any(owner):  # without an owner it is the pod, outside Kubernetes the container
            owner = ("Pod", pod) if pod else ("", container)
        key = (cluster, namespace, *owner)
        summed[key] = summed[key].plus(amounts)
    return dict(summed)


def _with_tokens(found: Mapping[Labels, Amounts], tokens: Growth) -> dict[Labels, Amounts]:
    """Tokens belong to a model's line of inference, to the one of unknown phase where there is none."""
    counted = dict(found)
    for model, amount in tokens.items():
        for phase in ("inference", "unknown"):
            key = (*model, phase)
            if key in counted:
                counted[key] = counted[key].plus(Amounts(tokens=amount))
                break
    return counted
