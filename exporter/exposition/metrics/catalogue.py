"""The table of metrics: every family with its name, kind, help, labels and where its samples come from."""

from __future__ import annotations

from .families import (
    CONTAINER,
    DEVICE_LABELS,
    GPU_LABELS,
    ContainerInfo,
    Family,
    build_info,
    container_info,
    failures,
    gpu_allocated,
    gpu_info,
    idle_info,
    level_families,
    of_device,
    of_gpu,
    of_gpu_parts,
    of_meter,
    of_source,
    plain,
    power_source_info,
    retired_devices,
)

CATALOGUE: tuple[Family, ...] = (
    # the node
    Family(
        "energy_node_joules_total",
        "counter",
        "Energy the node used, in joules, by disjoint component: sum() is the node; other is what a platform meter "
        "shows beyond cpu, dram and gpu.",
        ("component",),
        lambda snapshot: (((n.component,), n.joules) for n in snapshot.energy.nodes),
    ),
    Family(
        "energy_node_power_watts",
        "gauge",
        "Power of the node by disjoint component, in watts: the mean over the last sample interval; absent when no "
        "device of the component could be read.",
        ("component",),
        lambda snapshot: (((n.component,), n.watts) for n in snapshot.energy.nodes),
    ),
    # its devices
    of_device(
        "energy_device_joules_total",
        "counter",
        "Energy of one metered device, in joules, integrated across wraps and resets of its hardware counter; "
        "devices may include each other, so never sum these: the node metric does. After a restart it is there before "
        "the device is read again.",
        lambda row: row.joules,
    ),
    of_device(
        "energy_device_power_watts",
        "gauge",
        "Power of one metered device, in watts: the mean over the last sample interval; absent when it was not read.",
        lambda row: row.watts,
    ),
    of_device(
        "energy_device_idle_watts",
        "gauge",
        "Idle power of a device, in watts, learned from its lower envelope of power against utilization, configured "
        "or assumed: energy_device_idle_info says which.",
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
        "Always 1; says how a device's idle power is known: learned, configured, or prior (assumed: by the "
        "model of an estimate, or until it is learned).",
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
        "1 while a device's energy counter does not move although the device is busy, else 0; nothing is invented "
        "in its place.",
        lambda row: float(row.stuck),
    ),
    of_device(
        "energy_device_up",
        "gauge",
        "1 if the last sample has a believable reading of the device, 0 if it has none, as of a GPU that fell off the "
        "bus or, after a restart, one whose driver is not loaded; absent while the device sleeps, because reading it "
        "would wake it, and while its source is switched off. One that is 0 for a week is given up: its series end.",
        lambda row: None if row.up is None else float(row.up),
    ),
    of_device(
        "energy_device_last_reading_timestamp_seconds",
        "gauge",
        "Unix time of the device's last believable reading, in seconds; a value the driver merely repeats is none. "
        "time() minus it is the age of what is known of the device.",
        lambda row: row.last_read,
    ),
    of_device(
        "energy_device_agreement_ratio",
        "gauge",
        "What the device's energy counter counted over what its own power gauge adds up to, in the last window (the "
        "first minute, then every five): 0.95 to 1.05 under steady load, wider where the load swings faster than it "
        "is sampled, and seen at 0.6 on idle cards; below 0.5 or above 2 one of the two is broken and the source "
        "fails with reason implausible. Absent without both, and until a window has passed.",
        lambda row: row.agreement_ratio,
    ),
    Family(
        "energy_device_retired_joules_total",
        "counter",
        "Energy of devices that are no longer exposed, in joules, because they were given up or a meter took the place "
        "of the CPU's estimate: with those exposed that are not part of another one, they make the node.",
        ("component",),
        retired_devices,
    ),
    # GPUs
    of_gpu(
        "energy_gpu_power_limit_watts",
        "Power limit enforced by the GPU's driver, in watts.",
        lambda gpu: gpu.power_limit_watts,
    ),
    of_gpu(
        "energy_gpu_memory_used_bytes",
        "GPU memory in use, in bytes.",
        lambda gpu: gpu.memory_used_bytes,
    ),
    of_gpu(
        "energy_gpu_memory_total_bytes",
        "GPU memory installed (of the instance under MIG), in bytes.",
        lambda gpu: gpu.memory_total_bytes,
    ),
    of_gpu(
        "energy_gpu_temperature_celsius",
        "GPU core temperature, in degrees Celsius.",
        lambda gpu: gpu.temperature_celsius,
    ),
    of_gpu(
        "energy_gpu_utilization_ratio",
        "Share of time during which at least one kernel ran on the GPU, from 0 to 1: time in use, not how much of "
        "the chip was.",
        lambda gpu: gpu.utilization_ratio,
    ),
    of_gpu(
        "energy_gpu_sm_active_ratio",
        "Share of the GPU's streaming multiprocessors that had work, averaged over time, from 0 to 1.",
        lambda gpu: gpu.sm_active_ratio,
    ),
    of_gpu(
        "energy_gpu_tensor_active_ratio",
        "Share of cycles in which the GPU's tensor cores were active, from 0 to 1.",
        lambda gpu: gpu.tensor_active_ratio,
    ),
    of_gpu(
        "energy_gpu_dram_active_ratio",
        "Share of cycles in which the GPU's memory interface moved data, from 0 to 1.",
        lambda gpu: gpu.dram_active_ratio,
    ),
    of_gpu_parts(
        "energy_gpu_clock_hertz",
        "gauge",
        "Clock of a GPU domain, in hertz.",
        "domain",
        lambda gpu: gpu.clock_hertz,
    ),
    of_gpu_parts(
        "energy_gpu_throttle_seconds_total",
        "counter",
        "Time the GPU's clocks were held down, in seconds, by reason.",
        "reason",
        lambda gpu: gpu.throttle_seconds,
    ),
    of_gpu_parts(
        "energy_gpu_ecc_errors_total",
        "counter",
        "Memory errors of the GPU by whether ECC corrected them, over its lifetime: increase() tells the recent ones; "
        "absent where ECC is off.",
        "error",
        lambda gpu: gpu.ecc_errors,
    ),
    of_gpu_parts(
        "energy_gpu_memory_repair",
        "gauge",
        "1 if a bad memory page or row of the GPU waits for the next reset to be taken out of use (pending), or could "
        "not be (failed: replace the card), else 0.",
        "state",
        lambda gpu: gpu.memory_repair,
    ),
    Family(
        "energy_gpu_xid_errors_total",
        "counter",
        "Xid errors that the driver told of the GPU since the exporter started; it tells none of a GPU that fell off "
        "the bus (Xid 79): energy_device_up does.",
        GPU_LABELS,
        lambda snapshot: (((g.index, g.uuid, g.gpu_instance), g.xid_errors) for g in snapshot.gpu.states),
    ),
    of_gpu(
        "energy_gpu_last_xid",
        "Number of the last Xid error of the GPU since the exporter started, as in NVIDIA's catalog; absent if there "
        "was none.",
        lambda gpu: gpu.last_xid,
    ),
    Family(
        "energy_gpu_info",
        "gauge",
        "Always 1; names a GPU (or MIG instance), to be joined on uuid.",
        (*GPU_LABELS, "gpu_model", "driver_version", "pci_bus_id"),
        gpu_info,
    ),
    Family(
        "energy_gpu_allocated_ratio",
        "gauge",
        "Part of a GPU that Kubernetes gave to a container, whether or not it is used, from 0 to 1: a MIG device is "
        "its fraction of the GPU's slices, and containers that share a GPU have equal parts for equal requests.",
        (*GPU_LABELS, "namespace", "pod", "container"),
        gpu_allocated,
    ),
    # who used it
    *level_families(),
    ContainerInfo(
        "energy_container_info",
        "gauge",
        "Always 1; identity of a container, and the model all its processes work for, if they work for one; chosen "
        "pod labels are there as label_<name>.",
        (
            *CONTAINER.labels,
            "container_id",
            "pod_uid",
            "image",
            "owner_kind",
            "owner_name",
            "model_name",
            "model_source",
        ),
        container_info,
        CONTAINER,
    ),
    # what nobody used
    Family(
        "energy_unattributed_joules_total",
        "counter",
        "Energy that no workload caused or that cannot be told whose it is, in joules: idle power kept by the node, "
        "exited processes, the kernel, gaps between samples, unknown.",
        ("component", "reason"),
        lambda snapshot: (((component, reason), value) for component, reason, value in snapshot.energy.unattributed),
    ),
    Family(
        "energy_retired_joules_total",
        "counter",
        "Energy of containers that ended and are no longer exposed, in joules: node = containers + unattributed + "
        "retired, always.",
        ("component",),
        lambda snapshot: (((component,), value) for component, value in snapshot.energy.retired),
    ),
    Family(
        "energy_unnamed_joules",
        "gauge",
        "Energy of containers that are not exposed yet because their names are on the way, in joules: for at most "
        "half a minute after their start, node = containers + unattributed + retired + this.",
        ("component",),
        lambda snapshot: (((component,), value) for component, value in snapshot.energy.unnamed),
    ),
    plain(
        "energy_conservation_error_ratio",
        "gauge",
        "Largest relative error of devices = containers + unattributed + retired over all components; rounding only, "
        "below 1e-9.",
        lambda snapshot: snapshot.energy.conservation_error_ratio,
    ),
    # how well it is known
    Family(
        "energy_power_source_info",
        "gauge",
        "Always 1; says where a device's joules come from, whether they are measured or estimated, and by which "
        "method.",
        (*DEVICE_LABELS, "quality", "method"),
        power_source_info,
    ),
    of_source(
        "energy_source_up",
        "gauge",
        "1 if the source's last read succeeded, else 0; the status page and the log name the reason and the fix.",
        lambda source: float(source.up),
    ),
    Family(
        "energy_source_failures_total",
        "counter",
        "Reads of a source, or of a part of it, that failed, by reason; every reason starts at 0. A failure that lasts "
        "counts once a minute.",
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
        "Times a device's hardware energy counter went back without a plausible wrap: nothing was charged for that "
        "interval.",
        lambda row: row.resets,
    ),
    # the sampler and the exporter itself
    plain(
        "energy_samples_total",
        "counter",
        "Samples taken; the exporter samples on its own timer, not per scrape, because power must be integrated "
        "more often than it is scraped.",
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
        "Samples skipped because the previous one was not finished; energy counters lose nothing by it.",
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
        "Unix time of the sample this scrape shows, in seconds; time() minus it is the age of the data.",
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
        "Always 1; version of the exporter and of Python, and whether it shows simulated data.",
        ("version", "python_version", "demo"),
        build_info,
    ),
)
"""Every family in the order of the exposition; what the exporter measures of itself follows it."""
