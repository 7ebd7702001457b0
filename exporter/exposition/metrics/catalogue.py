"""The table of metrics: every family with its name, kind, help, labels and source of samples."""

from __future__ import annotations

from .activities import ACTIVITY
from .cards import CONTAINER_CARDS
from .families import (
    CONTAINER,
    DEVICE_LABELS,
    IDENTITY,
    ContainerInfo,
    Family,
    build_info,
    container_info,
    container_prices,
    failures,
    idle_info,
    level_families,
    of_device,
    of_meter,
    of_source,
    plain,
    power_source_info,
    retired_devices,
)
from .gpus import GPUS
from .impact import IMPACT
from .regions import REGIONS
from .tokens import TOKENS

CATALOGUE: tuple[Family, ...] = (
    # the node
    Family(
        "energy_node_joules_total",
        "counter",
        "Energy of the node by disjoint component, in joules: sum() is the node; other is what a platform meter counts "
        "beyond cpu, dram and gpu.",
        ("component",),
        lambda snapshot: (((n.component,), n.joules) for n in snapshot.energy.nodes),
    ),
    Family(
        "energy_node_power_watts",
        "gauge",
        "Power of the node by disjoint component, in watts, over the last sample interval; absent when no device of "
        "the component could be read.",
        ("component",),
        lambda snapshot: (((n.component,), n.watts) for n in snapshot.energy.nodes),
    ),
    # its devices
    of_device(
        "energy_device_joules_total",
        "counter",
        "Energy of one metered device, in joules, integrated across wraps and resets of its hardware counter; devices "
        "may include each other, so sum energy_node_joules_total instead.",
        lambda row: row.joules,
    ),
    of_device(
        "energy_device_power_watts",
        "gauge",
        "Power of one metered device, in watts, over the last sample interval, or between its last two values where it "
        "has them more rarely (energy_device_period_seconds); absent when the device was not read.",
        lambda row: row.watts,
    ),
    of_device(
        "energy_device_idle_watts",
        "gauge",
        "Idle power of a device, in watts: learned from its lower envelope of power against utilization, configured, "
        "or assumed, as energy_device_idle_info reports.",
        lambda row: row.idle_watts,
    ),
    of_device(
        "energy_device_idle_low_watts",
        "gauge",
        "Lower bound of a device's idle power that is assumed from a published share, in watts; absent once it is "
        "learned or configured.",
        lambda row: row.idle_low_watts,
    ),
    of_device(
        "energy_device_idle_high_watts",
        "gauge",
        "Upper bound of a device's idle power that is assumed from a published share, in watts; absent once it is "
        "learned or configured.",
        lambda row: row.idle_high_watts,
    ),
    Family(
        "energy_device_idle_info",
        "gauge",
        "Always 1; method of a device's idle power: learned, configured, or prior (assumed, from the model of an "
        "estimate or until it is learned).",
        (*DEVICE_LABELS, "method"),
        idle_info,
    ),
    of_device(
        "energy_device_utilization_ratio",
        "gauge",
        "Busy seconds per second of a device over its own capacity, from 0 to 1.",
        lambda row: row.utilization_ratio,
    ),
    of_device(
        "energy_device_power_low_watts",
        "gauge",
        "Lower bound of an estimated device's true power, in watts; absent for measured devices.",
        lambda row: row.low_watts,
    ),
    of_device(
        "energy_device_power_high_watts",
        "gauge",
        "Upper bound of an estimated device's true power, in watts; absent for measured devices.",
        lambda row: row.high_watts,
    ),
    of_device(
        "energy_device_stuck",
        "gauge",
        "1 while a device's energy counter does not move although the device is busy, else 0; the missing energy is "
        "not estimated.",
        lambda row: float(row.stuck),
    ),
    of_device(
        "energy_device_up",
        "gauge",
        "1 if the last sample has a plausible reading of the device, 0 if not, for example of a GPU that fell off the "
        "bus; absent while the device is suspended or its source is disabled. Of a device with a period: whether its "
        "value is overdue.",
        lambda row: None if row.up is None else float(row.up),
    ),
    of_device(
        "energy_device_period_seconds",
        "gauge",
        "Time between two values of a device that has them more rarely than once a sample, such as a BMC, in seconds.",
        lambda row: row.device.period_seconds or None,
    ),
    of_device(
        "energy_device_last_reading_timestamp_seconds",
        "gauge",
        "Unix time of the device's last plausible reading, in seconds, not counting values that the driver repeats.",
        lambda row: row.last_read,
    ),
    of_device(
        "energy_device_agreement_ratio",
        "gauge",
        "Energy by the device's energy counter divided by the integral of its power gauge, over the last window; below "
        "0.5 or above 2 the source fails with reason implausible; absent without both meters.",
        lambda row: row.agreement_ratio,
    ),
    Family(
        "energy_device_retired_joules_total",
        "counter",
        "Energy of devices that are no longer exposed, in joules: removed after a week without a reading, or an "
        "estimate that a meter replaced.",
        ("component",),
        retired_devices,
    ),
    *GPUS,
    # its users
    *level_families(),
    CONTAINER_CARDS,
    *ACTIVITY,
    *IMPACT,
    *TOKENS,
    *REGIONS,
    ContainerInfo(
        "energy_container_info",
        "gauge",
        "Always 1; identity of a container, the model that all its processes work for, if there is one, and the chosen "
        "pod labels as label_<name>.",
        (
            *CONTAINER.labels,
            *IDENTITY,
        ),
        container_info,
        CONTAINER,
    ),
    Family(
        "energy_container_joules_per_cpu_second",
        "gauge",
        "Active energy of the CPU per busy CPU second of a container, in joules, learned from how the meter varies "
        "with the running containers; only with --attribution.cpu=learned, and absent while it is not identifiable.",
        CONTAINER.labels,
        container_prices,
    ),
    # energy of no workload
    Family(
        "energy_unattributed_joules_total",
        "counter",
        "Energy that is attributed to no workload, in joules, by reason: idle power of the node, exited processes, the "
        "kernel, gaps between samples, unknown.",
        ("component", "reason"),
        lambda snapshot: (((component, reason), value) for component, reason, value in snapshot.energy.unattributed),
    ),
    Family(
        "energy_retired_joules_total",
        "counter",
        "Energy of containers that ended and are no longer exposed, in joules: node = containers + unattributed + "
        "retired.",
        ("component",),
        lambda snapshot: (((component,), value) for component, value in snapshot.energy.retired),
    ),
    Family(
        "energy_unnamed_joules",
        "gauge",
        "Energy of containers that is not in their counters yet, in joules: their names are being looked up, or the "
        "counters are new and stay at 0 for one scrape. Node = containers + unattributed + retired + this.",
        ("component",),
        lambda snapshot: (((component,), value) for component, value in snapshot.energy.unnamed),
    ),
    plain(
        "energy_conservation_error_ratio",
        "gauge",
        "Largest relative error of devices = containers + unattributed + retired over all components: rounding, below "
        "1e-9.",
        lambda snapshot: snapshot.energy.conservation_error_ratio,
    ),
    # sources and meters
    Family(
        "energy_power_source_info",
        "gauge",
        "Always 1; source of a device's joules, quality (measured, estimated, or simulated as by --demo), and method.",
        (*DEVICE_LABELS, "quality", "method"),
        power_source_info,
    ),
    of_source(
        "energy_source_up",
        "gauge",
        "1 if the source's last read succeeded, else 0; the status page and the log give the reason and the fix.",
        lambda source: float(source.up),
    ),
    Family(
        "energy_source_failures_total",
        "counter",
        "Failed reads of a source or of one of its devices, by reason; a lasting failure is counted once a minute.",
        ("source", "reason"),
        failures,
    ),
    of_source(
        "energy_source_last_success_timestamp_seconds",
        "gauge",
        "Unix time of the source's last successful read, in seconds; absent if it never succeeded.",
        lambda source: source.last_success or None,
    ),
    of_source(
        "energy_source_read_seconds_total",
        "counter",
        "Time spent reading the source, in seconds.",
        lambda source: source.read_seconds,
    ),
    of_meter(
        "energy_meter_wraps_total",
        "Times a device's hardware energy counter wrapped and was continued exactly.",
        lambda row: row.wraps,
    ),
    of_meter(
        "energy_meter_resets_total",
        "Times a device's hardware energy counter went backwards without a plausible wrap; no energy is attributed for "
        "that interval.",
        lambda row: row.resets,
    ),
    # the sampler and the exporter itself
    plain(
        "energy_samples_total",
        "counter",
        "Samples taken, on the exporter's own timer and not per scrape.",
        lambda snapshot: snapshot.exporter.samples,
    ),
    plain(
        "energy_sample_seconds_total",
        "counter",
        "Time spent taking samples, in seconds.",
        lambda snapshot: snapshot.exporter.sample_seconds,
    ),
    plain(
        "energy_sample_overruns_total",
        "counter",
        "Samples skipped because the previous one was not finished; energy counters lose nothing.",
        lambda snapshot: snapshot.exporter.overruns,
    ),
    plain(
        "energy_sample_interval_seconds",
        "gauge",
        "Configured time between samples, in seconds.",
        lambda snapshot: snapshot.interval_seconds,
    ),
    plain(
        "energy_sample_timestamp_seconds",
        "gauge",
        "Unix time of the sample that this scrape exposes, in seconds.",
        lambda snapshot: snapshot.taken_at,
    ),
    Family(
        "energy_series_dropped_total",
        "counter",
        "Accounts left out of a level because its limit was reached; their energy stays in the level above.",
        ("level",),
        lambda snapshot: (((level,), count) for level, count in snapshot.exporter.series_dropped),
    ),
    Family(
        "energy_exporter_build_info",
        "gauge",
        "Always 1; version of the exporter and of Python, and whether the data are simulated.",
        ("version", "python_version", "demo"),
        build_info,
    ),
)
"""Every family in the order of the exposition; the exporter's metrics about itself follow."""
