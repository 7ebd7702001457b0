"""Status pages of very different nodes, as the exporter serves them after ten minutes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from exporter.exposition.status.history import History
from exporter.exposition.status.page import Page
from exporter.exposition.status.reference import reference_page
from exporter.records import Device, GpuState, Mode, ProcessOwner, SourceHealth, Workload
from exporter.snapshot import AccountRow, CardRow, DeviceRow, ExporterState, NodeEnergy, NodeRow, Snapshot
from tests.exposition.conftest import make_busy_node, make_row

NODE = "gpu-node-17.cluster.example"
SECONDS = 600

ABSENT = (
    ("rapl", "/sys/class/powercap: no RAPL zone: a virtual machine, or a CPU or kernel without RAPL",
     "on bare metal: sudo modprobe -a intel_rapl_common intel_rapl_msr; in a virtual machine there is nothing to do"),
    ("nvml", "no NVIDIA driver: libnvidia-ml.so.1 not found", "nothing to do without an NVIDIA GPU"),
    ("hwmon", "/sys/class/hwmon: no hwmon chip here measures power or energy", "nothing to do on most machines"),
    ("drm", "/sys/class/drm: no GPU here is driven by amdgpu, i915 or xe", "nothing to do on machines without one"),
    ("podresources", "/var/lib/kubelet/pod-resources/kubelet.sock: No such file or directory",
     "nothing to do outside Kubernetes"),
)  # fmt: skip


def sources(now: float) -> tuple[SourceHealth, ...]:
    """Those of a virtual machine: an estimate, and five meters that it does not have."""
    absent = [SourceHealth(name, False, "not_found", why, fix, {}, 0.0, 0.1) for name, why, fix in ABSENT]
    up = [SourceHealth(name, True, None, "", "", {}, now, 0.4) for name in ("estimate", "cgroups", "procfs")]
    return (*absent, *up)


def virtual_machine(sequence: int = 1) -> Snapshot:
    """A small machine without a meter, a GPU or a model."""
    now, watts = 1_795_392_000.0 + sequence, 4.0 + sequence % 7 / 10
    joules = 4.3 * sequence
    device = Device("cpu-estimate", "cpu", "estimate", "estimated", "AMD EPYC", 2.0, method="utilization_model")
    shares = (("host", "host", 0.5), ("postgres", "docker", 0.2), ("cron.service", "systemd", 1e-6))
    cells = ("cpu", "active")
    return Snapshot(
        sequence,
        now,
        5000.0 + sequence,
        1.0,
        energy=NodeEnergy(
            devices=(DeviceRow(device, joules, watts, 1.6, "prior", 0.4, 1.9, 4.4, 0, 0, False, True, now),),
            nodes=(NodeRow("cpu", joules, watts),),
            containers=tuple(
                make_row(i, Workload(container=name, runtime=runtime), {cells: joules * part}, {"cpu": watts * part})
                for i, (name, runtime, part) in enumerate(shares)
            ),
            processes=(
                make_row(9, ProcessOwner(812, "postgres", "", "", "postgres"), {cells: joules * 0.2}, {"cpu": 0.8}),
            ),
            unattributed=(("cpu", "idle", joules * (0.3 - 1e-6)),),
        ),
        exporter=ExporterState(sources(now), sequence, 0.002 * sequence, counted_since=now - sequence),
    )


def crowded(sequence: int = 1) -> Snapshot:
    """The busy node with long names, 400 pods, 300 processes and 16 cards."""
    base = make_busy_node(sequence)
    short, long = "llama-3-3-70b-vllm-7f9c4d5b8", "a-very-long-deployment-name-that-a-platform-team-generated-7f9c4d5b8"

    def many(
        rows: tuple[AccountRow, ...], count: int, owner: Callable[[int], Workload | ProcessOwner]
    ) -> tuple[AccountRow, ...]:
        made = [rows[i % len(rows)]._replace(serial=1000 + count + i, owner=owner(i)) for i in range(count)]
        return (*rows, *made)

    def pod(i: int) -> Workload:
        return Workload(
            f"namespace-of-team-{i % 7}", f"{short if i % 3 else long}-{i:05}", "inference-server", "kubernetes"
        )

    def process(i: int) -> ProcessOwner:
        return ProcessOwner(
            100_000 + i, "pt_main_thread", f"namespace-of-team-{i % 7}", f"{short if i % 3 else long}-{i:05}", "server"
        )

    def modes(i: int) -> tuple[tuple[Mode, float], ...]:
        return ("active", 120.0 * (i % 4)), ("idle", 35.0)

    card = base.gpu.states[0]
    cards = [replace(card, uuid=f"GPU-{i:08x}-0000-1111-2222-333344445555", index=str(i)) for i in range(16)]
    meter = next(row for row in base.energy.devices if row.device.component == "gpu")
    meters = [meter._replace(device=replace(meter.device, id=card.uuid)) for card in cards]
    held = tuple(
        CardRow(pod(10 * i + half), card.uuid, mode, 900.0 + sequence * watts)
        for i, card in enumerate(cards)
        for half in range(2)
        for mode, watts in modes(i)
    )
    mig = GpuState(cards[3].uuid, "3", "7", gpu_model="NVIDIA H100 80GB HBM3 MIG 1g.10gb", sm_active_ratio=0.5)
    return replace(
        base,
        energy=replace(
            base.energy,
            containers=many(base.energy.containers, 400, pod),
            processes=many(base.energy.processes, 300, process),
            container_cards=held,
            devices=(*[row for row in base.energy.devices if row.device.component != "gpu"], *meters),
        ),
        gpu=replace(base.gpu, states=(*cards, mig), indexes={card.uuid: card.index for card in cards}),
    )


def unmetered(sequence: int = 1) -> Snapshot:
    """A machine where no meter can be read, one of them for lack of a permission."""
    now = 1_795_392_000.0 + sequence
    denied = SourceHealth("rapl", False, "permission", "energy_uj: Permission denied", "run as root", {}, 0.0, 0.0)
    others = [source for source in sources(now) if source.name not in {"rapl", "estimate"}]
    return Snapshot(sequence, now, now, 1.0, exporter=ExporterState((denied, *others), sequence, counted_since=now))


def demo(sequence: int = 1) -> Snapshot:
    """The busy node, simulated."""
    return make_busy_node(sequence, demo=True)


def after_ten_minutes(node: Callable[[int], Snapshot]) -> tuple[Page, Snapshot]:
    """The page of a node that was observed for ten minutes, and its last snapshot."""
    history = History()
    for sequence in range(1, SECONDS, 2):
        history.observe(node(sequence))
    return Page(history, NODE), node(SECONDS)


def pages() -> dict[str, tuple[bytes, Page]]:
    """Path → the page of each kind of node, and the `Page` whose headers it is served with."""
    made = {"/vm": after_ten_minutes(virtual_machine), "/busy": after_ten_minutes(make_busy_node)}
    made["/crowded"] = after_ten_minutes(crowded)
    made["/demo"] = after_ten_minutes(demo)
    made["/unmetered"] = after_ten_minutes(unmetered)
    first = Page(History(), NODE)
    shown = {path: (page(snapshot), page) for path, (page, snapshot) in made.items()}
    return {**shown, "/waiting": (first(None), first), "/reference": (reference_page(), first)}
