"""What a tick publishes: complete, immutable, replaced by one assignment."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, NamedTuple, get_args

from .impact.values import NO_IMPACT, UNKNOWN_RATES, Embodied, Factors, Impact, Rates, Settled
from .records import (
    Allocation,
    Component,
    CountKind,
    Device,
    GpuState,
    Mode,
    Model,
    ModelPlace,
    Place,
    ProcessOwner,
    SourceHealth,
    UnattributedReason,
    Workload,
    WorkloadKey,
)

Activity = Literal["idle", "throttled", "compute_bound", "memory_bound", "underused", "host_bound", "mixed", "unknown"]
ACTIVITIES: tuple[Activity, ...] = get_args(Activity)
"""What a GPU does while a workload holds it, as `exporter.accounting.activity` decides."""

NO_ACTIVITIES: Mapping[Activity, float] = MappingProxyType({})

_NOTHING = Settled()


class AccountRow(NamedTuple):
    """One account after a tick; an account that did not change keeps the same row object.

    ``cells[i]`` names ``joules[i]``: a component and mode. ``components[i]`` names ``watts[i]`` (mean
    over the last tick, active and idle together). ``busy_components[i]`` names ``ratios[i]``: busy seconds
    per second over the node's capacity for that component (a DRAM meter has joules but no busy seconds;
    a machine without meters has busy seconds but no joules). ``serial`` is unique per account for the
    exporter's lifetime, so a renderer may cache the account's labels under it. ``settled`` has the impact of each
    cell's joules up to the last change of the rates. ``activities`` are the GPU joules of a model by what the card did,
    all of them; of a container only those of ``idle`` cards.
    """

    serial: int
    owner: Workload | ProcessOwner | Model
    cells: tuple[tuple[Component, Mode], ...]
    joules: tuple[float, ...]
    components: tuple[Component, ...]
    watts: tuple[float, ...]
    busy_components: tuple[Component, ...]
    ratios: tuple[float, ...]
    settled: Mapping[tuple[Component, Mode], Settled] = {}
    activities: Mapping[Activity, float] = NO_ACTIVITIES

    def impacts(self, rates: Rates) -> dict[Mode, Impact]:
        """Grams and money by mode; a cell that is new, and still published at 0, has none yet."""
        found: dict[Mode, Impact] = {}
        settled = self.settled
        for (component, mode), joules in zip(self.cells, self.joules, strict=True):
            before = settled.get((component, mode), _NOTHING)
            impact = before.impact(joules, rates) if joules >= before.joules else NO_IMPACT
            found[mode] = found.get(mode, NO_IMPACT).plus(impact)
        return found


class CardRow(NamedTuple):
    """Joules of a container on one GPU; ``device`` is "" for those of an earlier version, which kept no cards."""

    owner: Workload
    device: str
    mode: Mode
    joules: float


class DeviceRow(NamedTuple):
    """One device after a tick; None is unknown (a device that was not read in this tick has no watts).

    ``up`` is whether this tick has a reading of it, None for one that sleeps or whose source is switched off.
    ``last_read`` is the time of its last reading in Unix seconds; ``agreement_ratio`` as in `EnergyReading`.
    """

    device: Device
    joules: float
    watts: float | None
    idle_watts: float | None
    idle_method: str
    utilization_ratio: float | None
    low_watts: float | None
    high_watts: float | None
    wraps: int
    resets: int
    stuck: bool
    up: bool | None = None
    last_read: float | None = None
    agreement_ratio: float | None = None
    idle_low_watts: float | None = None
    idle_high_watts: float | None = None


class NodeRow(NamedTuple):
    """Node total of one disjoint component; watts None when no device of it was read this tick."""

    component: Component
    joules: float
    watts: float | None


@dataclass(frozen=True, slots=True)
class NodeEnergy:
    """The node's joules: from its devices, and attributed to its workloads."""

    devices: tuple[DeviceRow, ...] = ()
    nodes: tuple[NodeRow, ...] = ()
    containers: tuple[AccountRow, ...] = ()
    processes: tuple[AccountRow, ...] = ()
    models: tuple[AccountRow, ...] = ()
    container_models: Mapping[int, Model] = field(default_factory=dict)
    """Container account serial → its model, where all its recognised processes work for one."""
    unattributed: tuple[tuple[Component, UnattributedReason, float], ...] = ()
    retired: tuple[tuple[Component, float], ...] = ()
    unnamed: tuple[tuple[Component, float], ...] = ()
    """Joules of containers that are not published yet, because their names are still being looked up."""
    retired_devices: Mapping[Component, float] = field(default_factory=dict)
    """Joules that are in ``nodes`` and not in ``devices``, because their devices are retired."""
    cpu_prices: Mapping[int, float] = field(default_factory=dict)
    """Container account serial → joules per busy CPU second, where they are learned and identifiable."""
    container_cards: tuple[CardRow, ...] = ()
    """The GPU joules of ``containers`` by card: their sum is that of the component ``gpu``."""
    process_models: Mapping[int, Model] = field(default_factory=dict)
    """Process account serial → the model that the process works for; processes without one are not in it."""

    @property
    def conservation_error_ratio(self) -> float:
        """Largest relative difference, over components, between the devices' joules and the published sum.

        Computed on access, so that a tick that is not scraped does not pay for it.
        """
        sums: defaultdict[Component, float] = defaultdict(float)
        # By column, because nearly all rows have the same cells and a scrape waits for this.
        tables: defaultdict[tuple[tuple[Component, Mode], ...], list[tuple[float, ...]]] = defaultdict(list)
        for row in self.containers:
            tables[row.cells].append(row.joules)
        for cells, table in tables.items():
            for (component, _), column in zip(cells, zip(*table, strict=True), strict=True):
                sums[component] += sum(column)
        for component, _, joules in self.unattributed:
            sums[component] += joules
        for component, joules in (*self.retired, *self.unnamed):
            sums[component] += joules
        off = [abs(sums[node.component] - node.joules) / (node.joules or 1.0) for node in self.nodes]
        return max(off, default=0.0)


@dataclass(frozen=True, slots=True)
class ImpactView:
    """Grams and money: the factors in force, and the impact of what is not in a row of an account.

    ``node`` = containers + ``unattributed`` + ``retired`` + ``unnamed``, as for joules.
    """

    factors: Factors = field(default_factory=Factors)
    rates: Rates = UNKNOWN_RATES
    node: Impact = NO_IMPACT
    unattributed: Mapping[UnattributedReason, Impact] = field(default_factory=dict)
    retired: Impact = NO_IMPACT
    unnamed: Impact = NO_IMPACT


class TokenRow(NamedTuple):
    """A counter of tokens or requests: of a container, or of a model as a whole, where ``place`` is empty.

    ``model`` is name, namespace and variant.
    """

    place: Place
    model: ModelPlace
    kind: CountKind
    total: float


class TokenSourceRow(NamedTuple):
    """A model server; ``model_name`` and ``place`` are empty while unknown. Else as in `exporter.records.TokenUse`."""

    place: Place
    model_name: str
    server: str
    served_models: tuple[str, ...]
    method: str
    read: bool
    variant: str = ""


@dataclass(frozen=True, slots=True)
class TokenView:
    """Tokens and requests. ``steps`` is by model the smallest difference its counters show."""

    models: tuple[TokenRow, ...] = ()
    containers: tuple[TokenRow, ...] = ()
    sources: tuple[TokenSourceRow, ...] = ()
    steps: Mapping[ModelPlace, float] = field(default_factory=dict)


class RegionRow(NamedTuple):
    """A counter of a region of a program; ``owner`` is name and namespace of its model, the name empty without one.

    ``kind`` is a component's name for joules, ``seconds``, ``gpu_seconds``, ``runs``, or ``units/`` and a unit.
    """

    region: str
    owner: tuple[str, str]
    kind: str
    total: float


class RegionWattsRow(NamedTuple):
    """Watts of a region while it is the innermost one, with their 90 % interval, and how they were found."""

    region: str
    owner: tuple[str, str]
    component: Component
    watts: float
    low_watts: float
    high_watts: float
    method: str


@dataclass(frozen=True, slots=True)
class RegionView:
    """Regions of programs. ``rejected`` are ignored messages by reason, ``lost`` runs that were never reported.

    ``programs`` is how many processes report regions.
    """

    counts: tuple[RegionRow, ...] = ()
    watts: tuple[RegionWattsRow, ...] = ()
    rejected: Mapping[str, int] = field(default_factory=dict)
    lost: int = 0
    programs: int = 0


@dataclass(frozen=True, slots=True)
class EmbodiedView:
    """Embodied carbon of GPUs by held time: GPU seconds of the node, and of each published container by its labels."""

    per_hour: Embodied
    node: float = 0.0
    containers: Mapping[WorkloadKey, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GpuView:
    """State of the GPUs, and the containers that they are allocated to.

    ``indexes`` maps the UUID of each card to its index as last reported, also while it sleeps.
    """

    states: tuple[GpuState, ...] = ()
    allocations: tuple[Allocation, ...] = ()
    indexes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ExporterState:
    """The exporter's own state: health of its sources, ticks so far and their total duration in seconds.

    ``counted_since`` is when the counters started at 0, in Unix seconds: the start of the exporter, or that of the
    run whose state file it continues; None where the state file does not say.
    """

    sources: tuple[SourceHealth, ...] = ()
    samples: int = 0
    sample_seconds: float = 0.0
    overruns: int = 0
    series_dropped: tuple[tuple[str, int], ...] = ()
    counted_since: float | None = None
    start_time: float = 0.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that a scrape publishes; replaced by one assignment after each tick.

    ``sequence`` grows by one with each tick. ``taken_at`` is Unix seconds, for display and health checks only; ages are
    computed from ``monotonic_at``.
    """

    sequence: int
    taken_at: float
    monotonic_at: float
    interval_seconds: float
    demo: bool = False
    energy: NodeEnergy = field(default_factory=NodeEnergy)
    gpu: GpuView = field(default_factory=GpuView)
    impact: ImpactView | None = None
    """None where neither carbon intensity nor price was ever known."""
    embodied: EmbodiedView | None = None
    """None unless the operator has set the embodied carbon of a GPU."""
    tokens: TokenView = field(default_factory=TokenView)
    regions: RegionView = field(default_factory=RegionView)
    exporter: ExporterState = field(default_factory=ExporterState)
