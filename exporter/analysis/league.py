"""Collects a report: energy, grams, money and tokens by model, namespace, workload, run, node, label."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

from . import amounts, runs
from .growth import PLACE, Growth, Labels, Source
from .lines import Amounts, Line, Report, add_up
from .window import MINUTE_SECONDS, Window

_NOT_IN_A_NAME = re.compile("[^a-zA-Z0-9_]")
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
    "workload": Level("container", PLACE, ("owner_kind", "owner_name")),
    "node": Level("node", ("cluster", "instance")),
    "run": Level("run", runs.LABELS),
}


def level(by: str) -> Level:
    """The level of a name, or of ``label:NAME``, a pod label that the exporter exposes. Raises ValueError."""
    if by.startswith("label:") and by != "label:":
        return Level("container", PLACE, (f"label_{_NOT_IN_A_NAME.sub('_', by.removeprefix('label:'))}",))
    if by not in LEVELS:
        raise ValueError(f"--by {by}: not one of {', '.join(LEVELS)}, label:NAME")
    return LEVELS[by]


def steps(by: Level, parts: int) -> int:
    """How often a `Source` calls ``advance`` for one report of a window with ``parts``."""
    families = {by.family, "container", "unattributed", "node"} - {"run"} if by.family != "node" else {"node"}
    reads = 4 * len(families) + len(families & set(amounts.UNUSED))
    return parts * (reads + (by.family == "model" or bool(by.owner)) + 2 * (by.family == "run"))


def collect(source: Source, by: Level, window: Window) -> Report:
    """The report of a window. Raises `QueryError`, also if there is no data."""
    since, covered = source.coverage(window)
    report = Report(window, by.names, [], [], Amounts(), covered, since, source.name, source.remarks(window))
    window = Window(max(window.start, since - MINUTE_SECONDS), window.end)
    total = add_up(amounts.read(source, "node", (), window).values()).by_component()
    shared: list[tuple[str, Amounts]] = []
    if by.family == "node":
        lines = _lines(amounts.read(source, "node", by.labels, window))
    else:
        lines, used = _used(source, by, window, _LEAST_RATIO * total.total_joules)
        for (reason,), unattributed in amounts.read(source, "unattributed", ("reason",), window).items():
            shared.append((_REASONS.get(reason, reason), unattributed.by_component()))
        shared.sort(key=lambda item: -item[1].total_joules)
        counted = replace(used.by_component(), tokens=None, unused=None)  # which nodes do not count
        rest = total.plus(counted, -1.0).plus(add_up(each for _, each in shared), -1.0)
        if abs(rest.total_joules) > _LEAST_RATIO * total.total_joules:
            shared.append((BETWEEN, rest))
    lines.sort(key=lambda line: (-line.used.total_joules, line.names))
    return replace(report, lines=lines, shared=shared, total=total)


def _used(source: Source, by: Level, window: Window, least_joules: float) -> tuple[list[Line], Amounts]:
    """The lines of workloads, and what all containers used; a remainder below ``least_joules`` is no line."""
    if by.family == "run":
        lines = runs.read(source, window)
        return lines, add_up(line.used for line in lines)
    found = _by_owner(source, by, window) if by.owner else amounts.read(source, by.family, by.labels, window)
    used = add_up(found.values())
    if by.family == "model":
        found = _with_tokens(found, source.of("energy_model_tokens_total", by.labels[:-1], window, 'kind="output"'))
        containers = add_up(amounts.read(source, "container", (), window).values())
        rest = containers.plus(used, -1.0)
        if rest.total_joules > least_joules:
            found["", "", NO_MODEL, "", ""] = rest
        used = containers
    return _lines(found), used


def _lines(found: Mapping[Labels, Amounts]) -> list[Line]:
    return [Line(names, each) for names, each in found.items()]


def _by_owner(source: Source, by: Level, window: Window) -> dict[Labels, Amounts]:
    """Amounts of the owners of containers; each day has the owners of that day."""
    summed: defaultdict[Labels, Amounts] = defaultdict(Amounts)
    for part in source.parts(window):
        owners = source.described(by.owner, part)
        nothing = tuple(["" for _ in by.owner])
        for place, used in amounts.of_containers(source, part).items():
            cluster, _, namespace, pod, container = place
            owner = owners.get(place, nothing)
            if len(owner) > 1 and not any(owner):  # without an owner it is the pod, outside Kubernetes the container
                owner = ("Pod", pod) if pod else ("", container)
            key = (cluster, namespace, *owner)
            summed[key] = summed[key].plus(used)
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
