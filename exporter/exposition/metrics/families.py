"""Parts of the table of metrics: families, levels of accounts, and the sources of samples."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import isfinite
from operator import attrgetter
from typing import Any, Literal, NamedTuple

from ... import __version__
from ...records import REASONS, Model, SourceHealth, Workload
from ...snapshot import AccountRow, DeviceRow, Snapshot
from .labels import clean, escape, escape_help, is_shown

Kind = Literal["counter", "gauge"]
Quantity = Literal["joules", "watts", "ratios"]
Sample = tuple[tuple[str, ...], float | None]
"""Label values in the order of the family's label names, and the value; None is unknown: no series."""

_NOT_IN_A_NAME = re.compile("[^a-zA-Z0-9_]")

UNITS = ("joules", "watts", "ratio", "seconds", "bytes", "celsius", "hertz")
"""Units a metric name may end in; OpenMetrics repeats them in ``# UNIT``."""


@dataclass(frozen=True, slots=True)
class Family:
    """One row of the table. ``name`` is the full name in text format 0.0.4 (counters end in ``_total``)."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...]
    samples: Callable[[Snapshot], Iterable[Sample]]

    @property
    def stem(self) -> str:
        """Name of the family in OpenMetrics: a counter's without ``_total``."""
        return self.name.removesuffix("_total")

    @property
    def unit(self) -> str:
        """Unit the name ends in, "" for plain numbers."""
        return next((unit for unit in UNITS if self.stem.endswith(f"_{unit}")), "")

    def series(self, snapshot: Snapshot) -> Iterator[tuple[dict[str, str], float]]:
        """Yield labels and value of each series: clean labels, finite values, no duplicates (the first is kept)."""
        seen = set()
        for values, value in self.samples(snapshot):
            labels = tuple(map(clean, values))
            if value is not None and isfinite(value) and labels not in seen:
                seen.add(labels)
                named = zip(self.labels, labels, strict=True)
                yield {name: text for name, text in named if is_shown(name, text)}, value

    def header(self, *, openmetrics: bool) -> bytes:
        """The lines before its samples."""
        if not openmetrics:
            return f"# HELP {self.name} {escape_help(self.help)}\n# TYPE {self.name} {self.kind}\n".encode()
        unit = f"# UNIT {self.stem} {self.unit}\n" if self.unit else ""
        return f"# TYPE {self.stem} {self.kind}\n{unit}# HELP {self.stem} {escape(self.help)}\n".encode()


class Level(NamedTuple):
    """A kind of account: its label names, its rows in a snapshot, and the label values of an owner."""

    name: str
    labels: tuple[str, ...]
    rows: Callable[[Snapshot], tuple[AccountRow, ...]]
    values: Callable[[Any], tuple[str, ...]]

    def unique(self, snapshot: Snapshot) -> Iterable[AccountRow]:
        """The rows of a snapshot; of rows with the same labels only the newest, because a pid may have been reused."""
        rows = sorted(self.rows(snapshot), key=attrgetter("serial"))
        return {self.values(row.owner): row for row in rows}.values()


PROCESS = Level(
    "process",
    ("pid", "comm", "namespace", "pod", "container"),
    attrgetter("energy.processes"),
    lambda owner: (str(owner.pid), owner.comm, owner.namespace, owner.pod, owner.container),
)
CONTAINER = Level(
    "container",
    ("namespace", "pod", "container", "runtime"),
    attrgetter("energy.containers"),
    attrgetter("key"),
)
MODEL = Level(
    "model",
    ("model_name", "namespace", "phase", "variant"),
    attrgetter("energy.models"),
    attrgetter("key"),
)
LEVELS = (PROCESS, CONTAINER, MODEL)


@dataclass(frozen=True, slots=True)
class AccountFamily(Family):
    """A family of a `Level`: its lines are cached per account, because an unchanged account keeps its row."""

    level: Level
    quantity: Quantity


@dataclass(frozen=True, slots=True)
class ContainerInfo(Family):
    """Identity of the accounts of a level: its lines are cached per account too, and also have `chosen_labels`."""

    level: Level

    def series(self, snapshot: Snapshot) -> Iterator[tuple[dict[str, str], float]]:
        """Yield the samples, each with the chosen labels of its account too."""
        for row, (identity, _) in zip(self.level.unique(snapshot), self.samples(snapshot), strict=True):
            assert isinstance(row.owner, Workload)
            labels = dict(zip(self.labels, identity, strict=True)) | chosen_labels(row.owner.labels)
            yield {name: clean(value) for name, value in labels.items() if is_shown(name, value)}, 1.0


def account(level: Level, suffix: str, quantity: Quantity, help_text: str) -> AccountFamily:
    """Family of one quantity of a level of accounts."""
    counter = quantity == "joules"

    def samples(snapshot: Snapshot) -> Iterator[Sample]:
        for row in level.unique(snapshot):
            owner = level.values(row.owner)
            if quantity == "joules":
                for cell, value in zip(row.cells, row.joules, strict=True):
                    yield (*owner, *cell), value
            elif quantity == "watts":
                for component, value in zip(row.components, row.watts, strict=True):
                    yield (*owner, component), value
            else:
                for component, value in zip(row.busy_components, row.ratios, strict=True):
                    yield (*owner, component), value

    return AccountFamily(
        f"energy_{level.name}_{suffix}",
        "counter" if counter else "gauge",
        help_text,
        (*level.labels, "component", *(("mode",) if counter else ())),
        samples,
        level,
        quantity,
    )


def level_families() -> Iterator[AccountFamily]:
    """Joules, watts and utilization of every level."""
    subjects = {
        "process": "a process (the top ones by joules, and every GPU process)",
        "container": "a container, systemd unit, Slurm job or the host itself",
        "model": "the processes that work for an AI model",
    }
    for level in LEVELS:
        subject = subjects[level.name]
        yield account(
            level,
            "joules_total",
            "joules",
            f"Energy attributed to {subject}, in joules; mode=idle is its share of idle power, such as that of a GPU "
            "that it holds without using.",
        )
        yield account(
            level,
            "power_watts",
            "watts",
            f"Power attributed to {subject}, in watts, active and idle, over the last sample interval; prefer rate() "
            "of the joules, which is exact.",
        )
        yield account(
            level,
            "utilization_ratio",
            "ratios",
            f"Busy seconds per second of {subject} over the node's whole capacity of that component (all CPUs, "
            "all GPUs), from 0 to 1.",
        )


def plain(name: str, kind: Kind, help_text: str, value: Callable[[Snapshot], float | None]) -> Family:
    """Family of one series without labels."""
    return Family(name, kind, help_text, (), lambda snapshot: (((), value(snapshot)),))


DEVICE_LABELS = ("component", "device", "source")


def of_device(name: str, kind: Kind, help_text: str, value: Callable[[DeviceRow], float | None]) -> Family:
    """Family with a series per device."""

    def samples(snapshot: Snapshot) -> Iterator[Sample]:
        for row in snapshot.energy.devices:
            yield (row.device.component, row.device.id, row.device.source), value(row)

    return Family(name, kind, help_text, DEVICE_LABELS, samples)


def of_meter(name: str, help_text: str, value: Callable[[DeviceRow], float]) -> Family:
    """Family with a series per device that has a hardware energy counter: power gauges and estimates cannot wrap."""

    def samples(snapshot: Snapshot) -> Iterator[Sample]:
        for row in snapshot.energy.devices:
            if row.device.quality != "estimated" and row.device.method != "power_integrated":
                yield (row.device.id,), value(row)

    return Family(name, "counter", help_text, ("device",), samples)


def of_source(name: str, kind: Kind, help_text: str, value: Callable[[SourceHealth], float | None]) -> Family:
    """Family with a series per source."""
    return Family(
        name, kind, help_text, ("source",), lambda snapshot: (((s.name,), value(s)) for s in snapshot.exporter.sources)
    )


IDENTITY = (
    *("container_id", "pod_uid", "image", "owner_kind", "owner_name"),
    *("model_name", "model_source", "variant"),
)
"""Labels of ``energy_container_info`` beyond those of a container."""


def container_identity(owner: Workload, model: Model | None) -> tuple[str, ...]:
    """Label values of ``energy_container_info`` for a `Workload` and the model it works for."""
    return (*owner.info_labels, *((model.model_name, model.source, model.variant) if model else ("", "", "")))


def chosen_labels(labels: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The exposed pod labels as label names and values, in the form of kube-state-metrics: ``label_app``.

    If two differ only in characters that a label name cannot contain, the first is kept.
    """
    named: dict[str, str] = {}
    for label, value in labels:
        named.setdefault("label_" + _NOT_IN_A_NAME.sub("_", label), value)
    return named


def container_info(snapshot: Snapshot) -> Iterator[Sample]:
    """Identity of each container account."""
    for row in CONTAINER.unique(snapshot):
        assert isinstance(row.owner, Workload)
        yield container_identity(row.owner, snapshot.energy.container_models.get(row.serial)), 1


def container_prices(snapshot: Snapshot) -> Iterator[Sample]:
    """Learned joules per busy CPU second of each container account."""
    for row in snapshot.energy.containers if snapshot.energy.cpu_prices else ():
        yield CONTAINER.values(row.owner), snapshot.energy.cpu_prices.get(row.serial)


def retired_devices(snapshot: Snapshot) -> Iterator[Sample]:
    """Joules of devices that are no longer exposed, by each component that can have devices, from 0."""
    for node in snapshot.energy.nodes:
        if node.component != "other":
            yield (node.component,), snapshot.energy.retired_devices.get(node.component, 0.0)


def power_source_info(snapshot: Snapshot) -> Iterator[Sample]:
    """Source, quality and method of each device."""
    for row in snapshot.energy.devices:
        device = row.device
        yield (device.component, device.id, device.source, device.quality, device.method), 1


def idle_info(snapshot: Snapshot) -> Iterator[Sample]:
    """Method of each device's idle power."""
    for row in snapshot.energy.devices:
        if row.idle_watts is not None:
            yield (row.device.component, row.device.id, row.device.source, row.idle_method), 1


def failures(snapshot: Snapshot) -> Iterator[Sample]:
    """Failures of each source by reason; every reason starts at 0."""
    for source in snapshot.exporter.sources:
        for reason in REASONS:
            yield (source.name, reason), source.failures.get(reason, 0)


def build_info(snapshot: Snapshot) -> Iterator[Sample]:
    """Version of the exporter and of Python, and whether the data are simulated."""
    yield (__version__, platform.python_version(), "true" if snapshot.demo else "false"), 1
