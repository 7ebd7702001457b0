"""Immutable values that flow read → name → divide → publish: SI base units only, no I/O, no clock.

Values created for every active process or group on every tick are named tuples, because those are created
three times faster than frozen dataclasses; everything else is a frozen dataclass with slots.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from .owners import HOST as HOST
from .owners import NOWHERE as NOWHERE
from .owners import UNKNOWN_RUNTIME as UNKNOWN_RUNTIME
from .owners import Model as Model
from .owners import ModelKey as ModelKey
from .owners import ModelPlace as ModelPlace
from .owners import Place as Place
from .owners import ProcessOwner as ProcessOwner
from .owners import Workload as Workload
from .owners import WorkloadKey as WorkloadKey
from .regions import RegionReport as RegionReport

Component = Literal["cpu", "dram", "gpu", "platform", "other"]
Quality = Literal["measured", "estimated", "simulated"]
Mode = Literal["active", "idle"]
Reason = Literal["not_found", "permission", "driver", "timeout", "implausible", "error"]
UnattributedReason = Literal["idle", "exited", "kernel", "gap", "unknown"]
Listing = Literal["complete", "late", "partial"]
CountKind = Literal["prompt", "cached_prompt", "output", "requests"]
Scope = Literal["outlet", "supply", "node", "board", "part"]

NODE = "node"  # the whole machine in ``Device.within``, whether or not a meter covers it
REASONS: tuple[Reason, ...] = ("not_found", "permission", "driver", "timeout", "implausible", "error")
"""Every reason why a source may be down; the label values of ``energy_source_failures_total``."""


class Unavailable(Exception):  # noqa: N818 - a state of the meter, not an error of the program
    """A meter or file cannot be read now; ``fix`` is one sentence for the operator.

    The only exception that leaves :mod:`exporter.host` and the sources. ``reason`` is one of `REASONS`.
    """

    def __init__(self, reason: Reason, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.reason: Reason = reason
        self.message = message
        self.fix = fix


@dataclass(frozen=True, slots=True)
class Device:
    """One metered thing of this node.

    ``id`` is unique and stable across restarts (``package-0``, ``dram-0``, ``GPU-<uuid>``). ``within`` names the device
    whose joules already include this one's; such a device is shown but never summed, nor one within `NODE`, whose scope
    is unknown. ``capacity`` is busy seconds per second at full use: the CPUs of a socket, 1.0 for a GPU, 0 where no
    usage covers what the meter covers. ``max_watts`` is the ceiling above which a reading is called implausible.
    ``socket`` is the CPU package number for meters of a socket (its CPU, its DRAM, its whole module), else None.
    ``idle_watts`` is set only where the source itself defines the idle power (the estimate's model), ``idle_share``
    (idle power over power at full use: least, assumed, most) where it can be assumed until it is learned. ``method`` is
    how joules are obtained: ``energy_counter``, ``power_integrated``, ``utilization_model`` or ``simulated``.
    A ``fallback`` is summed only where no other meter measures its component: what it measures may include theirs.
    ``contains`` are patterns of the ids of devices of other sources that are within this one.
    """

    id: str
    component: Component
    source: str
    quality: Quality
    name: str
    capacity: float
    within: str | None = None
    max_watts: float = 2000.0
    socket: int | None = None
    idle_watts: float | None = None
    method: str = "energy_counter"
    idle_share: tuple[float, float, float] | None = None
    scope: Scope = "board"
    period_seconds: float = 0.0
    step_joules: float = 0.0
    fallback: bool = False
    contains: tuple[str, ...] = ()


class EnergyReading(NamedTuple):
    """A cumulative joule counter read at ``at`` (boot-time seconds); ``wraps_at`` joules, None if it never wraps.

    ``watts`` is the device's own power gauge at the same moment, where it has one, and ``agreement_ratio`` the
    counter's increase over that gauge's integral in the last window.
    """

    device: Device
    at: float
    joules: float
    wraps_at: float | None
    watts: float | None = None
    agreement_ratio: float | None = None


class PowerReading(NamedTuple):
    """Momentary power in watts, read at ``at`` (boot-time seconds)."""

    device: Device
    at: float
    watts: float


class CounterStep(NamedTuple):
    """A new value of an energy counter: it was not there yet at boot time ``after``, and it was there at ``at``."""

    after: float
    at: float
    joules: float


class CardSteps(NamedTuple):
    """Values of one device's energy counter between two readings. They add no joules to those of the readings."""

    device: str
    steps: tuple[CounterStep, ...]


class PowerBounds(NamedTuple):
    """Bounds of an estimated device's true power, in watts."""

    device: str
    low_watts: float
    high_watts: float


PATH_SEPARATOR = "\0"  # between several paths of one `GroupKey`: no path can contain it


class GroupKey(NamedTuple):
    """Identity of a cgroup: its path below the hierarchy's root and its inode (a path alone is reused).

    A process that has other groups in other trees is in a group of its own, with all its ``paths`` and inode 0.
    """

    path: str
    inode: int

    @property
    def paths(self) -> list[str]:
        """Its path, or its paths in several trees; the one that counts CPU time is first, if it adds anything."""
        return self.path.split(PATH_SEPARATOR)


class ProcessKey(NamedTuple):
    """Identity of a process: pid and start time in clock ticks since boot (a pid alone is reused)."""

    pid: int
    start_ticks: int


class Process(NamedTuple):
    """A process: ``comm`` as the kernel reports it (decoded, not cleaned), ``kernel`` for kernel threads."""

    key: ProcessKey
    comm: str
    kernel: bool = False


class ProcessUse(NamedTuple):
    """CPU seconds one process used since the last tick."""

    process: Process
    seconds: float


class GroupUse(NamedTuple):
    """CPU seconds a cgroup itself (children excluded) used since the last tick.

    ``processes`` are the members that are known to have run; their sum never exceeds ``seconds``: processes that
    have already exited account for the rest. ``listing`` is "late" if other members may have run too, which a later
    tick finds, and "partial" if some can never be known. ``reaped`` is the part of the rest that exited children of
    members used, by the member that waited for them.
    """

    group: GroupKey
    seconds: float
    processes: tuple[ProcessUse, ...]
    listing: Listing = "complete"
    reaped: tuple[ProcessUse, ...] = ()


@dataclass(frozen=True, slots=True)
class CpuUse:
    """CPU time since the last tick; only groups whose counter moved are listed.

    ``busy_seconds`` = Σ ``groups`` + ``kernel_seconds`` + ``exited_seconds`` + ``outside_seconds``. The last are those
    of the machine beyond the groups that can be seen from here, and of processes whose cgroup cannot be read.
    ``window_seconds`` is the time the deltas cover. ``started`` and ``ended`` are the groups that appeared and were
    removed, ``exited`` the processes that ended, so that accounts start at 0 and expire.
    """

    at: float
    window_seconds: float
    busy_seconds: float
    groups: tuple[GroupUse, ...] = ()
    kernel_seconds: float = 0.0
    exited_seconds: float = 0.0
    started: tuple[GroupKey, ...] = ()
    ended: tuple[GroupKey, ...] = ()
    exited: tuple[ProcessKey, ...] = ()
    outside_seconds: float = 0.0


class MachineUse(NamedTuple):
    """Busy CPU seconds by /proc/stat, None where it is not of the metered machine.

    ``partial`` says why the visible groups are only part of that machine, "" if they are all of it.
    """

    busy_seconds: float | None
    window_seconds: float
    partial: str = ""


class Allocation(NamedTuple):
    """A card, or a part of one, that the cluster has allocated to a container, whether or not anything runs on it.

    ``device`` is the cluster's id: the UUID of a card or MIG device, or a PCI address. `exporter.accounting.
    gpu_allocations` resolves it to the card's UUID, index (``gpu``) and ``gpu_instance``. ``share`` is its weight
    among the claims on the card: the slice fraction under MIG, the number of replicas when time-sliced, else 1.0.
    """

    device: str
    namespace: str
    pod: str
    container: str
    share: float = 1.0
    gpu_instance: str = ""
    gpu: str = ""

    @property
    def place(self) -> Place:
        """The container it belongs to."""
        return (self.namespace, self.pod, self.container)


class GpuUse(NamedTuple):
    """GPU-busy seconds of one process on one device since the last tick.

    A process that holds the card (has a context or memory on it) without using it has ``seconds`` 0. ``hold`` is its
    weight when idle joules are divided among the holders: the slice fraction under MIG, else 1.0. ``group`` is its
    cgroup, None if unknown. ``process`` is None for processes that the driver reports and /proc does not show. Without
    either it is not ``known``. ``reported`` is False where the driver reports no use by process: then ``seconds`` are
    unknown and not 0. ``gpu_instance`` is the MIG instance that it holds.
    """

    device: str
    group: GroupKey | None
    process: Process | None
    seconds: float
    hold: float = 1.0
    reported: bool = True
    gpu_instance: str = ""

    @property
    def known(self) -> bool:
        """Whether its owner can be named: otherwise its joules are attributed to no process."""
        return self.process is not None and self.group is not None

    @property
    def pid(self) -> int | None:
        """Its pid, None if unknown."""
        return None if self.process is None else self.process.key.pid


@dataclass(frozen=True, slots=True)
class GpuState:
    """State of a GPU or, with ``gpu_instance`` set, of one of its MIG instances; None is unknown.

    ``mig_uuids`` are the MIG devices of an instance, ``slice_ratio`` its fraction of the card's slices.
    ``window_seconds`` is the time since its source last read it, which its `GpuUse` covers; None is one tick.
    """

    uuid: str
    index: str
    gpu_instance: str = ""
    mig_uuids: tuple[str, ...] = ()
    slice_ratio: float = 1.0
    gpu_model: str = ""
    driver_version: str = ""
    pci_bus_id: str = ""
    power_limit_watts: float | None = None
    memory_used_bytes: float | None = None
    memory_total_bytes: float | None = None
    temperature_celsius: float | None = None
    utilization_ratio: float | None = None
    sm_active_ratio: float | None = None
    tensor_active_ratio: float | None = None
    dram_active_ratio: float | None = None
    power_utilization_ratio: float | None = None
    clock_hertz: tuple[tuple[str, float], ...] = ()
    throttle_seconds: tuple[tuple[str, float], ...] = ()
    ecc_errors: tuple[tuple[str, float], ...] = ()
    memory_repair: tuple[tuple[str, float], ...] = ()
    xid_errors: float | None = None
    last_xid: float | None = None
    window_seconds: float | None = None


class TokenUse(NamedTuple):
    """What a model server counted since the last reading: tokens of three kinds, and requests.

    ``step`` is the smallest difference its counters show, in tokens: 1.0, or more where it rounds them. ``read`` is
    whether its last page was read. ``method`` is counter, rounded_counter, histogram_sum or simulated.
    """

    process: Process
    group: GroupKey | None
    server: str
    served_models: tuple[str, ...]
    method: str
    read: bool
    counts: Mapping[CountKind, float]
    step: float = 1.0


class Problem(NamedTuple):
    """A part of a source that failed while the rest of it was read."""

    reason: Reason
    message: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """Everything one source read in one tick; what it does not measure stays empty.

    ``socket_busy_seconds`` maps a CPU package number to CPU seconds used since the source's last read. ``machine`` is
    the same for the whole machine. ``allocations`` replace all earlier ones; None means no news. ``rest_seconds`` is
    how long the source need not be read again, because waking a thread costs more than an unchanged reading is worth.
    ``asleep`` are ids or PCI addresses of devices that a read would wake. ``tokens`` is of all servers,
    ``regions`` of all programs; None: no news. ``steps`` are of the counters that were read more often. ``pending``: it
    has asked, and has no answer yet.
    """

    meters: tuple[EnergyReading | PowerReading, ...] = ()
    bounds: tuple[PowerBounds, ...] = ()
    cpu: CpuUse | None = None
    socket_busy_seconds: Mapping[int, float] = field(default_factory=dict)
    machine: MachineUse | None = None
    gpu_uses: tuple[GpuUse, ...] = ()
    gpus: tuple[GpuState, ...] = ()
    allocations: tuple[Allocation, ...] | None = None
    problems: tuple[Problem, ...] = ()
    rest_seconds: float = 0.0
    asleep: tuple[str, ...] = ()
    tokens: tuple[TokenUse, ...] | None = None
    regions: RegionReport | None = None
    steps: tuple[CardSteps, ...] = ()
    pending: bool = False


@dataclass(frozen=True, slots=True)
class SourceHealth:
    """Health of a source: ``last_success`` is Unix seconds (0 = never), ``failures`` counts by reason."""

    name: str
    up: bool
    reason: Reason | None
    message: str
    fix: str
    failures: Mapping[Reason, int]
    last_success: float
    read_seconds: float
