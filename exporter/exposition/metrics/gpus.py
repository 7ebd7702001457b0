"""Families of the state of GPUs, whole cards and MIG instances."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

from ...records import GpuState
from ...snapshot import Snapshot
from .cards import CARDS
from .families import Family, Kind, Sample

GPU_LABELS = ("gpu", "uuid", "gpu_instance")


def _of_gpu(name: str, help_text: str, value: Callable[[GpuState], float | None]) -> Family:
    """Family with a series per GPU and MIG instance."""

    def samples(snapshot: Snapshot) -> Iterator[Sample]:
        for gpu in snapshot.gpu.states:
            yield (gpu.index, gpu.uuid, gpu.gpu_instance), value(gpu)

    return Family(name, "gauge", help_text, GPU_LABELS, samples)


def _of_gpu_parts(
    name: str, kind: Kind, help_text: str, label: str, parts: Callable[[GpuState], Iterable[tuple[str, float]]]
) -> Family:
    """Family with several series per GPU."""

    def samples(snapshot: Snapshot) -> Iterator[Sample]:
        for gpu in snapshot.gpu.states:
            for part, value in parts(gpu):
                yield (gpu.index, gpu.uuid, gpu.gpu_instance, part), value

    return Family(name, kind, help_text, (*GPU_LABELS, label), samples)


def _gpu_info(snapshot: Snapshot) -> Iterator[Sample]:
    """Identity of each GPU."""
    for gpu in snapshot.gpu.states:
        yield (gpu.index, gpu.uuid, gpu.gpu_instance, gpu.gpu_model, gpu.driver_version, gpu.pci_bus_id), 1


def _gpu_allocated(snapshot: Snapshot) -> Iterator[Sample]:
    """Share of each GPU that is allocated to each container, by replicas or by MIG slices."""
    allocated: defaultdict[str, float] = defaultdict(float)
    for allocation in snapshot.gpu.allocations:
        allocated[allocation.device] += allocation.share
    for device, namespace, pod, container, share, gpu_instance, gpu in snapshot.gpu.allocations:
        yield (gpu, device, gpu_instance, namespace, pod, container), share / max(1.0, allocated[device])


GPUS: tuple[Family, ...] = (
    *CARDS,
    _of_gpu(
        "energy_gpu_power_limit_watts",
        "Power limit enforced by the GPU's driver, in watts.",
        lambda gpu: gpu.power_limit_watts,
    ),
    _of_gpu(
        "energy_gpu_memory_used_bytes",
        "GPU memory in use, in bytes.",
        lambda gpu: gpu.memory_used_bytes,
    ),
    _of_gpu(
        "energy_gpu_memory_total_bytes",
        "GPU memory installed (of the instance under MIG), in bytes.",
        lambda gpu: gpu.memory_total_bytes,
    ),
    _of_gpu(
        "energy_gpu_temperature_celsius",
        "GPU core temperature, in degrees Celsius.",
        lambda gpu: gpu.temperature_celsius,
    ),
    _of_gpu(
        "energy_gpu_utilization_ratio",
        "Share of time during which at least one kernel ran on the GPU, from 0 to 1; it does not show how much of the "
        "chip was used.",
        lambda gpu: gpu.utilization_ratio,
    ),
    _of_gpu(
        "energy_gpu_sm_active_ratio",
        "Share of the GPU's streaming multiprocessors that had work, averaged over time, from 0 to 1.",
        lambda gpu: gpu.sm_active_ratio,
    ),
    _of_gpu(
        "energy_gpu_tensor_active_ratio",
        "Share of cycles in which the GPU's tensor cores were active, from 0 to 1.",
        lambda gpu: gpu.tensor_active_ratio,
    ),
    _of_gpu(
        "energy_gpu_dram_active_ratio",
        "Share of cycles in which the GPU's memory interface moved data, from 0 to 1.",
        lambda gpu: gpu.dram_active_ratio,
    ),
    _of_gpu(
        "energy_gpu_power_utilization_ratio",
        "Power of an accelerator above rest over an unpublished maximum, the mean of the last minute, from 0 to 1: "
        "what AWS Trainium and Inferentia report in place of watts.",
        lambda gpu: gpu.power_utilization_ratio,
    ),
    _of_gpu_parts(
        "energy_gpu_clock_hertz",
        "gauge",
        "Clock of a GPU domain, in hertz.",
        "domain",
        lambda gpu: gpu.clock_hertz,
    ),
    _of_gpu_parts(
        "energy_gpu_throttle_seconds_total",
        "counter",
        "Time during which the GPU's clocks were throttled, in seconds, by reason.",
        "reason",
        lambda gpu: gpu.throttle_seconds,
    ),
    _of_gpu_parts(
        "energy_gpu_ecc_errors_total",
        "counter",
        "Memory errors over the GPU's lifetime, by whether ECC corrected them; absent where ECC is off.",
        "error",
        lambda gpu: gpu.ecc_errors,
    ),
    _of_gpu_parts(
        "energy_gpu_memory_repair",
        "gauge",
        "1 if a bad memory page or row of the GPU will be retired at the next reset (pending) or could not be retired "
        "(failed: replace the card), else 0.",
        "state",
        lambda gpu: gpu.memory_repair,
    ),
    Family(
        "energy_gpu_xid_errors_total",
        "counter",
        "Xid errors that the driver reported for the GPU since the exporter started; none is reported when a GPU falls "
        "off the bus (Xid 79), where energy_device_up becomes 0.",
        GPU_LABELS,
        lambda snapshot: (((g.index, g.uuid, g.gpu_instance), g.xid_errors) for g in snapshot.gpu.states),
    ),
    _of_gpu(
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
        _gpu_info,
    ),
    Family(
        "energy_gpu_allocated_ratio",
        "gauge",
        "Share of a GPU that Kubernetes allocated to a container, used or not, from 0 to 1: a MIG device is its "
        "fraction of the GPU's slices, and equal requests for a shared GPU have equal shares.",
        (*GPU_LABELS, "namespace", "pod", "container"),
        _gpu_allocated,
    ),
)
"""Families in the order of the exposition."""
