"""The table of metrics: every family with its name, kind, help, labels and where its samples come from."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal, NamedTuple

from .. import __version__
from ..records import REASONS, AccountRow, DeviceRow, GpuState, Model, Snapshot, SourceHealth

Kind = Literal["counter", "gauge"]
Quantity = Literal["joules", "watts", "ratios"]
Sample = tuple[tuple[str, ...], float | None]
"""Label values in the order of the family's label names, and the value; None is unknown: no series."""

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


class Level(NamedTuple):
    """A kind of account: its label names, its rows in a snapshot, and the label values of an owner."""

    name: str
    labels: tuple[str, ...]
    rows: Callable[[Snapshot], tuple[AccountRow, ...]]
    values: Callable[[Any], tuple[str, ...]]


PROCESS = Level(
    "process",
    ("pid", "comm", "namespace", "pod", "container"),
    attrgetter("processes"),
    lambda owner: (str(owner.pid), owner.comm, owner.namespace, owner.pod, owner.container),
)
CONTAINER = Level(
    "container",
    ("namespace", "pod", "container", "runtime"),
    attrgetter("containers"),
    attrgetter("namespace", "pod", "container", "runtime"),
)
MODEL = Level(
    "model",
    ("model_name", "namespace", "phase"),
    attrgetter("models"),
    attrgetter("model_name", "namespace", "phase"),
)
LEVELS = (PROCESS, CONTAINER, MODEL)


@dataclass(frozen=True, slots=True)
class AccountFamily(Family):
    """A family of a `Level`: its lines are cached per account, because an unchanged account keeps its row."""

    level: Level
    quantity: Quantity


@dataclass(frozen=True, slots=True)
class ContainerInfo(Family):
    """Identity of the accounts of a level: its lines are cached per account too."""

    level: Level


def _account(level: Level, suffix: str, quantity: Quantity, help_text: str) -> AccountFamily:
    counter = quantity == "joules"

    def samples(snapshot: Snapshot) -> Iterator[Sample]:
        for row in level.rows(snapshot):
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


def _levels() -> Iterator[AccountFamily]:
    subjects = {
        "process": "a process (the top ones by joules, and every GPU process)",
        "container": "a container, systemd unit, Slurm job or the host itself",
        "model": "the processes that work for an AI model",
    }
    for level in LEVELS:
        subject = subjects[level.name]
        yield _account(
            level,
            "joules_total",
            "joules",
            f"Energy charged to {subject}, in joules; mode=idle is its share of idle power, such as that of a GPU "
            "it holds without using.",
        )
        yield _account(
            level,
            "power_watts",
            "watts",
            f"Power charged to {subject}, in watts, active and idle together: the mean over the last sample "
            "interval, a convenience; rate() of the joules is exact.",
        )
        yield _account(
            level,
            "utilization_ratio",
            "ratios",
            f"Busy seconds per second of {subject} over the node's whole capacity of that component (all CPUs, "
            "all GPUs), from 0 to 1.",
        )


def _plain(name: str, kind: Kind, help_text: str, value: Callable[[Snapshot], float | None]) -> Family:
    return Family(name, kind, help_text, (), lambda snapshot: (((), value(snapshot)),))


_DEVICE_LABELS = ("component", "device", "source")


def _device(name: str, kind: Kind, help_text: str, value: Callable[[DeviceRow], float | None]) -> Family:
    def samples(snapshot: Snapshot) -> Iterator[Sample]:
        for row in snapshot.devices:
            yield (row.device.component, row.device.id, row.device.source), value(row)

    return Family(name, kind, help_text, _DEVICE_LABELS, samples)


def _meter(name: str, help_text: str, value: Callable[[DeviceRow], float]) -> Family:
    """Of devices with a hardware energy counter: a power gauge or an estimate has none that could wrap."""

    def samples(snapshot: Snapshot) -> Iterator[Sample]:
        for row in snapshot.devices:
            if row.device.quality == "measured" and row.device.method != "power_integrated":
                yield (row.device.id,), value(row)

    return Family(name, "counter", help_text, ("device",), samples)


_GPU_LABELS = ("gpu", "uuid", "gpu_instance")


def _gpu(name: str, help_text: str, value: Callable[[GpuState], float | None]) -> Family:
    def samples(snapshot: Snapshot) -> Iterator[Sample]:
        for gpu in snapshot.gpus:
            yield (gpu.index, gpu.uuid, gpu.gpu_instance), value(gpu)

    return Family(name, "gauge", help_text, _GPU_LABELS, samples)


def _gpu_parts(
    name: str, kind: Kind, help_text: str, label: str, parts: Callable[[GpuState], Iterable[tuple[str, float]]]
) -> Family:
    def samples(snapshot: Snapshot) -> Iterator[Sample]:
        for gpu in snapshot.gpus:
            for part, value in parts(gpu):
                yield (gpu.index, gpu.uuid, gpu.gpu_instance, part), value

    return Family(name, kind, help_text, (*_GPU_LABELS, label), samples)


def _source(name: str, kind: Kind, help_text: str, value: Callable[[SourceHealth], float | None]) -> Family:
    return Family(
        name, kind, help_text, ("source",), lambda snapshot: (((s.name,), value(s)) for s in snapshot.sources)
    )


def _gpu_info(snapshot: Snapshot) -> Iterator[Sample]:
    for gpu in snapshot.gpus:
        yield (gpu.index, gpu.uuid, gpu.gpu_instance, gpu.gpu_model, gpu.driver_version, gpu.pci_bus_id), 1


def container_identity(owner: Any, model: Model | None) -> tuple[str, ...]:
    """Label values of ``energy_container_info`` for a `Workload` and the model it works for."""
    return (*owner, *((model.model_name, model.source) if model else ("", "")))


def _container_info(snapshot: Snapshot) -> Iterator[Sample]:
    for row in snapshot.containers:
        yield container_identity(row.owner, snapshot.container_models.get(row.serial)), 1


def _power_source_info(snapshot: Snapshot) -> Iterator[Sample]:
    for row in snapshot.devices:
        device = row.device
        yield (device.component, device.id, device.source, device.quality, device.method), 1


def _idle_info(snapshot: Snapshot) -> Iterator[Sample]:
    for row in snapshot.devices:
        if row.idle_watts is not None:
            yield (row.device.component, row.device.id, row.device.source, row.idle_method), 1


def _failures(snapshot: Snapshot) -> Iterator[Sample]:
    for source in snapshot.sources:
        for reason in REASONS:
            yield (source.name, reason), source.failures.get(reason, 0)


def _build_info(snapshot: Snapshot) -> Iterator[Sample]:
    yield (__version__, platform.python_version(), "true" if snapshot.demo else "false"), 1


CATALOGUE: tuple[Family, ...] = (
    # the node
    Family(
        "energy_node_joules_total",
        "counter",
        "Energy the node used, in joules, by disjoint component: sum() is the node; other is what a platform meter "
        "shows beyond cpu, dram and gpu.",
        ("component",),
        lambda snapshot: (((n.component,), n.joules) for n in snapshot.nodes),
    ),
    Family(
        "energy_node_power_watts",
        "gauge",
        "Power of the node by disjoint component, in watts: the mean over the last sample interval; absent when no "
        "device of the component could be read.",
        ("component",),
        lambda snapshot: (((n.component,), n.watts) for n in snapshot.nodes),
    ),
    # its devices
    _device(
        "energy_device_joules_total",
        "counter",
        "Energy of one metered device, in joules, integrated across wraps and resets of its hardware counter; "
        "devices may include each other, so never sum these: the node metric does.",
        lambda row: row.joules,
    ),
    _device(
        "energy_device_power_watts",
        "gauge",
        "Power of one metered device, in watts: the mean over the last sample interval; absent when it was not read.",
        lambda row: row.watts,
    ),
    _device(
        "energy_device_idle_watts",
        "gauge",
        "Idle power of a device, in watts, learned from its lower envelope of power against utilization, configured "
        "or assumed: energy_device_idle_info says which.",
        lambda row: row.idle_watts,
    ),
    Family(
        "energy_device_idle_info",
        "gauge",
        "Always 1; says how a device's idle power is known: learned, configured, or prior (assumed until learned).",
        (*_DEVICE_LABELS, "method"),
        _idle_info,
    ),
    _device(
        "energy_device_utilization_ratio",
        "gauge",
        "Busy seconds per second of a device over its own capacity, from 0 to 1.",
        lambda row: row.utilization_ratio,
    ),
    _device(
        "energy_device_power_low_watts",
        "gauge",
        "Lower bound of an estimated device's true power, in watts; absent for measured devices.",
        lambda row: row.low_watts,
    ),
    _device(
        "energy_device_power_high_watts",
        "gauge",
        "Upper bound of an estimated device's true power, in watts; absent for measured devices.",
        lambda row: row.high_watts,
    ),
    _device(
        "energy_device_stuck",
        "gauge",
        "1 while a device's energy counter does not move although the device is busy, else 0; nothing is invented "
        "in its place.",
        lambda row: float(row.stuck),
    ),
    # GPUs
    _gpu(
        "energy_gpu_power_limit_watts",
        "Power limit enforced by the GPU's driver, in watts.",
        lambda gpu: gpu.power_limit_watts,
    ),
    _gpu(
        "energy_gpu_memory_used_bytes",
        "GPU memory in use, in bytes.",
        lambda gpu: gpu.memory_used_bytes,
    ),
    _gpu(
        "energy_gpu_memory_total_bytes",
        "GPU memory installed (of the instance under MIG), in bytes.",
        lambda gpu: gpu.memory_total_bytes,
    ),
    _gpu(
        "energy_gpu_temperature_celsius",
        "GPU core temperature, in degrees Celsius.",
        lambda gpu: gpu.temperature_celsius,
    ),
    _gpu(
        "energy_gpu_utilization_ratio",
        "Share of time during which at least one kernel ran on the GPU, from 0 to 1: time in use, not how much of "
        "the chip was.",
        lambda gpu: gpu.utilization_ratio,
    ),
    _gpu(
        "energy_gpu_sm_active_ratio",
        "Share of the GPU's streaming multiprocessors that had work, averaged over time, from 0 to 1.",
        lambda gpu: gpu.sm_active_ratio,
    ),
    _gpu(
        "energy_gpu_tensor_active_ratio",
        "Share of cycles in which the GPU's tensor cores were active, from 0 to 1.",
        lambda gpu: gpu.tensor_active_ratio,
    ),
    _gpu(
        "energy_gpu_dram_active_ratio",
        "Share of cycles in which the GPU's memory interface moved data, from 0 to 1.",
        lambda gpu: gpu.dram_active_ratio,
    ),
    _gpu_parts(
        "energy_gpu_clock_hertz",
        "gauge",
        "Clock of a GPU domain, in hertz.",
        "domain",
        lambda gpu: gpu.clock_hertz,
    ),
    _gpu_parts(
        "energy_gpu_throttle_seconds_total",
        "counter",
        "Time the GPU's clocks were held down, in seconds, by reason.",
        "reason",
        lambda gpu: gpu.throttle_seconds,
    ),
    Family(
        "energy_gpu_info",
        "gauge",
        "Always 1; names a GPU (or MIG instance), to be joined on uuid.",
        (*_GPU_LABELS, "gpu_model", "driver_version", "pci_bus_id"),
        _gpu_info,
    ),
    # who used it
    *_levels(),
    ContainerInfo(
        "energy_container_info",
        "gauge",
        "Always 1; identity of a container, and the model all its processes work for, if they work for one.",
        (*CONTAINER.labels, "container_id", "pod_uid", "image", "model_name", "model_source"),
        _container_info,
        CONTAINER,
    ),
    # what nobody used
    Family(
        "energy_unattributed_joules_total",
        "counter",
        "Energy that no workload caused or that cannot be told whose it is, in joules: idle power kept by the node, "
        "exited processes, the kernel, gaps between samples, unknown.",
        ("component", "reason"),
        lambda snapshot: (((component, reason), value) for component, reason, value in snapshot.unattributed),
    ),
    Family(
        "energy_retired_joules_total",
        "counter",
        "Energy of containers that ended and are no longer exposed, in joules: node = containers + unattributed + "
        "retired, always.",
        ("component",),
        lambda snapshot: (((component,), value) for component, value in snapshot.retired),
    ),
    _plain(
        "energy_conservation_error_ratio",
        "gauge",
        "Largest relative error of devices = containers + unattributed + retired over all components; rounding only, "
        "below 1e-9.",
        lambda snapshot: snapshot.conservation_error_ratio,
    ),
    # how well it is known
    Family(
        "energy_power_source_info",
        "gauge",
        "Always 1; says where a device's joules come from, whether they are measured or estimated, and by which "
        "method.",
        (*_DEVICE_LABELS, "quality", "method"),
        _power_source_info,
    ),
    _source(
        "energy_source_up",
        "gauge",
        "1 if the source's last read succeeded, else 0; the status page and the log name the reason and the fix.",
        lambda source: float(source.up),
    ),
    Family(
        "energy_source_failures_total",
        "counter",
        "Reads of a source, or of a part of it, that failed, by reason; every reason starts at 0.",
        ("source", "reason"),
        _failures,
    ),
    _source(
        "energy_source_last_success_timestamp_seconds",
        "gauge",
        "Unix time of the source's last successful read, in seconds; absent if it never succeeded.",
        lambda source: source.last_success or None,
    ),
    _source(
        "energy_source_read_seconds_total",
        "counter",
        "Time spent reading the source, in seconds.",
        lambda source: source.read_seconds,
    ),
    _meter(
        "energy_counter_wraps_total",
        "Times a device's hardware energy counter wrapped and was continued exactly.",
        lambda row: row.wraps,
    ),
    _meter(
        "energy_counter_resets_total",
        "Times a device's hardware energy counter went back without a plausible wrap: nothing was charged for that "
        "interval.",
        lambda row: row.resets,
    ),
    # the sampler and the exporter itself
    _plain(
        "energy_samples_total",
        "counter",
        "Samples taken; the exporter samples on its own timer, not per scrape, because power must be integrated "
        "more often than it is scraped.",
        lambda snapshot: snapshot.samples,
    ),
    _plain(
        "energy_sample_seconds_total",
        "counter",
        "Time spent taking samples, in seconds.",
        lambda snapshot: snapshot.sample_seconds,
    ),
    _plain(
        "energy_sample_overruns_total",
        "counter",
        "Samples skipped because the previous one was not finished; energy counters lose nothing by it.",
        lambda snapshot: snapshot.overruns,
    ),
    _plain(
        "energy_sample_interval_seconds",
        "gauge",
        "Configured time between samples, in seconds.",
        lambda snapshot: snapshot.interval_seconds,
    ),
    _plain(
        "energy_sample_timestamp_seconds",
        "gauge",
        "Unix time of the sample this scrape shows, in seconds; time() minus it is the age of the data.",
        lambda snapshot: snapshot.taken_at,
    ),
    Family(
        "energy_series_dropped_total",
        "counter",
        "Accounts left out of a level because its limit was reached; their energy stays in the level above.",
        ("level",),
        lambda snapshot: (((level,), count) for level, count in snapshot.series_dropped),
    ),
    _plain(
        "energy_config_last_reload_successful",
        "gauge",
        "1 if the configuration was loaded when last asked, 0 if the old one had to be kept.",
        lambda snapshot: float(snapshot.config_reload_ok),
    ),
    Family(
        "energy_exporter_build_info",
        "gauge",
        "Always 1; version of the exporter and of Python, and whether it shows simulated data.",
        ("version", "python_version", "demo"),
        _build_info,
    ),
)
"""Every family in the order of the exposition; `process_*` of the exporter itself comes from prometheus_client."""
