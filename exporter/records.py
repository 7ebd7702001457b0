"""Immutable values that flow read → divide → publish: SI base units only, no I/O, no clock.

Values created for every active process or group on every tick are named tuples, because those are made
three times faster than frozen dataclasses; everything else is a frozen dataclass with slots.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

Component = Literal["cpu", "dram", "gpu", "platform", "other"]
Quality = Literal["measured", "estimated"]
Mode = Literal["active", "idle"]
Reason = Literal["not_found", "permission", "driver", "timeout", "implausible", "error"]
Loss = Literal["idle", "exited", "kernel", "gap", "unknown"]

REASONS: tuple[Reason, ...] = ("not_found", "permission", "driver", "timeout", "implausible", "error")
"""Every reason for which a source may be down; the label set of ``energy_source_failures_total``."""


class Unavailable(Exception):  # noqa: N818 - it says what the meter is, not that the program erred
    """A meter or file cannot be read now; ``fix`` is the sentence that tells the operator what to do.

    The only exception that leaves :mod:`exporter.host` and the sources. ``reason`` is one of `REASONS`.
    """

    def __init__(self, reason: Reason, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.reason: Reason = reason
        self.message = message
        self.fix = fix


# --- what a source reads -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Device:
    """One metered thing of this node.

    ``id`` is unique and stable across restarts (``package-0``, ``dram-0``, ``GPU-<uuid>``).
    ``within`` names the device whose joules already include this one's; such a device is shown but never
    summed. ``capacity`` is busy seconds per second at full use: the CPUs of a socket, 1.0 for a GPU.
    ``max_watts`` is the ceiling above which a reading is called implausible. ``socket`` is the CPU
    package number for meters of a socket (its CPU, its DRAM, its whole module), else None. ``idle_watts`` is set
    only where the source itself defines the idle power (the estimate's model). ``method`` says how joules come to
    be: ``energy_counter``, ``power_integrated``, ``utilization_model`` or ``simulated``.
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


class EnergyReading(NamedTuple):
    """A cumulative joule counter read at ``at`` (boot-time seconds); ``wraps_at`` joules, None if it never wraps.

    ``watts`` is what the device's own power gauge said at the same moment, where it has one, and
    ``agreement_ratio`` what the counter counted over what that gauge adds up to, in the last window.
    """

    device: Device
    at: float
    joules: float
    wraps_at: float | None
    watts: float | None = None
    agreement_ratio: float | None = None


class PowerReading(NamedTuple):
    """Momentary watts read at ``at`` (boot-time seconds)."""

    device: Device
    at: float
    watts: float


class PowerBounds(NamedTuple):
    """Between which watts an estimated device's true power lies."""

    device: str
    low_watts: float
    high_watts: float


class GroupKey(NamedTuple):
    """Identity of a cgroup: its path below the hierarchy's root and its inode (a path alone is reused)."""

    path: str
    inode: int


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

    ``processes`` are those of its members that are known to have run; their sum never exceeds
    ``seconds``: what they do not explain was used by processes that exited already.
    """

    group: GroupKey
    seconds: float
    processes: tuple[ProcessUse, ...]


@dataclass(frozen=True, slots=True)
class CpuUse:
    """Who used the CPUs since the last tick; only groups that moved are listed.

    ``busy_seconds`` = Σ ``groups`` + ``kernel_seconds`` + ``exited_seconds``. ``window_seconds`` is the
    time the deltas cover. ``started``/``ended``/``exited`` say which groups came and went and which
    processes ended, so that accounts start at 0 and know when to expire.
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


class Allocation(NamedTuple):
    """A card, or a part of one, that the cluster has given to a container, whether or not anything runs on it.

    ``device`` is what the cluster calls it: the UUID of a card or MIG device, or a PCI address; once
    `exporter.accounting.gpu_allocations` has found the card, its UUID, with its index (``gpu``) and ``gpu_instance``.
    ``share`` is its weight among the claims on the card: the slice fraction under MIG, the number of
    replicas when time-sliced, else 1.0.
    """

    device: str
    namespace: str
    pod: str
    container: str
    share: float = 1.0
    gpu_instance: str = ""
    gpu: str = ""


class GpuUse(NamedTuple):
    """GPU-busy seconds of one process on one device since the last tick.

    A process that holds the card (has a context or memory on it) without using it has ``seconds`` 0.
    ``hold`` is its weight when idle joules are divided among the holders: the slice fraction under MIG,
    else 1.0. ``group`` is its cgroup, None if unknown. Pid 0 stands for processes that the driver names and
    /proc does not show: their joules stay unattributed.
    """

    device: str
    group: GroupKey | None
    process: Process
    seconds: float
    hold: float = 1.0


@dataclass(frozen=True, slots=True)
class GpuState:
    """What a GPU (or, with ``gpu_instance`` set, one MIG instance of it) reports of itself; None is unknown.

    Of an instance, ``mig_uuids`` are its MIG devices, and ``slice_ratio`` is its part of the card's slices.
    ``window_seconds`` is how long before this its source had read it: what `GpuUse` of it covers; None is a tick.
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
    clock_hertz: tuple[tuple[str, float], ...] = ()
    throttle_seconds: tuple[tuple[str, float], ...] = ()
    ecc_errors: tuple[tuple[str, float], ...] = ()
    memory_repair: tuple[tuple[str, float], ...] = ()
    xid_errors: float | None = None
    last_xid: float | None = None
    window_seconds: float | None = None


class Problem(NamedTuple):
    """A part of a source that failed while the rest of it went on."""

    reason: Reason
    message: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """All that one source learned in one tick; parts it does not know stay empty.

    ``socket_busy_seconds`` maps a CPU package number to CPU seconds used since the source's last read.
    ``allocations`` are all there are, until told anew; None says nothing of them.
    ``rest_seconds`` asks to be left alone for so long: waking a thread costs more than saying nothing.
    ``asleep`` are the ids of devices that are not read because that would wake them; one whose id nobody can know
    without waking it is named by its place.
    """

    meters: tuple[EnergyReading | PowerReading, ...] = ()
    bounds: tuple[PowerBounds, ...] = ()
    cpu: CpuUse | None = None
    socket_busy_seconds: Mapping[int, float] = field(default_factory=dict)
    gpu_uses: tuple[GpuUse, ...] = ()
    gpus: tuple[GpuState, ...] = ()
    allocations: tuple[Allocation, ...] | None = None
    problems: tuple[Problem, ...] = ()
    rest_seconds: float = 0.0
    asleep: tuple[str, ...] = ()


class Source(Protocol):
    """A meter or a teller of use. One class, one file, one line in the registry.

    ``read`` is called once a tick from the source's own thread. It finds its files on the first call,
    looks again when they vanish, raises `Unavailable` when nothing can be read, and puts partial failures
    into ``Reading.problems``. ``now`` is boot-time seconds.
    """

    @property
    def name(self) -> str:
        """Name in flags, labels and ``doctor``."""

    def read(self, now: float) -> Reading:
        """Read everything once."""

    def close(self) -> None:
        """Give back file descriptors."""


# --- whose it is ---------------------------------------------------------------------------------------


class Workload(NamedTuple):
    """Who owns a cgroup, in cAdvisor's label names; ``runtime`` as in the metrics reference. Unknown is "".

    The first four identify its series. ``owner_kind`` and ``owner_name`` tell what started it (Deployment, Job,
    a Slurm user), ``labels`` are the chosen pod labels, sorted. ``provisional`` says that ``pod`` and
    ``container`` are only ids, and that their names are still on the way.
    """

    namespace: str = ""
    pod: str = ""
    container: str = ""
    runtime: str = "host"
    container_id: str = ""
    pod_uid: str = ""
    image: str = ""
    owner_kind: str = ""
    owner_name: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    provisional: bool = False


HOST = Workload(container="host", runtime="host")
"""The row for what no container, unit or job owns."""


class Model(NamedTuple):
    """An AI model at work; ``phase`` is training, inference or unknown, ``source`` tells how it was recognised."""

    model_name: str
    namespace: str = ""
    phase: str = "unknown"
    source: str = ""


class Namer(Protocol):
    """Names groups and processes. Asked once per group and process, and again when it says `renamed`.

    Who knows everything at once subclasses this and leaves the later methods as they are.
    """

    def workload(self, group: GroupKey) -> Workload:
        """Owner of a group; never raises, `HOST` if nobody else owns it."""

    def settled(self, group: GroupKey) -> Workload:
        """Owner of a group by the best name there is now, for one that waited long enough for a better one."""
        return self.workload(group)._replace(provisional=False)

    def model(self, group: GroupKey | None, process: Process) -> Model | None:
        """Model a process works for, None if it is not known to work for one."""

    def renamed(self) -> Collection[GroupKey]:
        """Groups whose names, or whose processes' models, became known or changed since the last call."""
        return ()

    def remember(self, workload: Workload) -> None:  # noqa: ARG002 - nothing is remembered here
        """An earlier run knew this one; whoever could tell its names again may be down."""
        return

    def forget(self, group: GroupKey) -> None:  # noqa: ARG002 - as above
        """The group is gone; another of its path will have another inode."""
        return

    def health(self) -> tuple[SourceHealth, ...]:
        """How those are who know the names: an API server, an engine's socket."""
        return ()

    def retry(self) -> None:
        """Ask those that are down again at once, without waiting for the end of their backoff."""
        return

    def close(self) -> None:
        """End what runs in the background."""
        return


# --- what is published ---------------------------------------------------------------------------------


class ProcessOwner(NamedTuple):
    """Labels of a process series."""

    pid: int
    comm: str
    namespace: str
    pod: str
    container: str


@dataclass(frozen=True, slots=True)
class SourceHealth:
    """How a source is: ``last_success`` is Unix seconds (0 = never), ``failures`` counts by reason."""

    name: str
    up: bool
    reason: Reason | None
    message: str
    fix: str
    failures: Mapping[Reason, int]
    last_success: float
    read_seconds: float
