"""Snapshots to publish: one of a busy GPU node with every family, and rows to make others of."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from exporter.exposition.metrics.prerender import ScrapeBody
from exporter.exposition.web.access import Access
from exporter.exposition.web.server import ServerOptions
from exporter.impact.values import Embodied, Factors, Impact
from exporter.records import (
    HOST,
    Allocation,
    Component,
    Device,
    GpuState,
    Model,
    ProcessOwner,
    SourceHealth,
    UnattributedReason,
    Workload,
)
from exporter.snapshot import (
    AccountRow,
    Activity,
    CardRow,
    DeviceRow,
    EmbodiedView,
    ExporterState,
    GpuView,
    ImpactView,
    NodeEnergy,
    NodeRow,
    RegionRow,
    RegionView,
    RegionWattsRow,
    Snapshot,
    TokenRow,
    TokenSourceRow,
    TokenView,
)
from tests.support.served import LOCAL, Exporter, WebFolder

GPU = "GPU-1c2d3e4f-0000-1111-2222-33334444555"


def make_row(
    serial: int,
    owner: Workload | ProcessOwner | Model,
    joules: Mapping[Any, float],
    watts: Mapping[Any, float] | None = None,
    ratios: Mapping[Any, float] | None = None,
) -> AccountRow:
    """Make an account row: joules by (component, mode), watts and ratios by component; idle GPU joules are unused."""
    watts, ratios = watts or {}, ratios or {}
    gpu: dict[Any, float] = {cell: amount for cell, amount in joules.items() if cell[0] == "gpu"}
    activities: dict[Activity, float] = {}
    if gpu and not isinstance(owner, ProcessOwner):
        activities["idle"] = gpu.pop(("gpu", "idle"), 0.0)
        if isinstance(owner, Model):
            activities["mixed"] = sum(gpu.values())
    return AccountRow(
        serial,
        owner,
        tuple(joules),
        tuple(joules.values()),
        tuple(watts),
        tuple(watts.values()),
        tuple(ratios),
        tuple(ratios.values()),
        activities=activities,
    )


FACTORS = Factors(
    380.9,
    -0.012,
    1.2,
    "EUR",
    "DE",
    "operator",
    "impact.file",
    "location",
    "lifecycle",
    "2024",
    credits=True,
    intensity_at=1.7e9,
    price_at=1.7e9 + 900,
    marginal=791.0,
    marginal_at=1.7e9 + 300,
)
QWEN = ("Qwen/Qwen2.5-7B", "prod", "")
PLACE = ("prod", "qwen-0", "vllm")
_TRAINING = ("llama", "research")
REGIONS = RegionView(
    counts=tuple(
        RegionRow("forward", _TRAINING, kind, 12.5)
        for kind in ("gpu", "cpu", "seconds", "gpu_seconds", "runs", "units/samples")
    ),
    watts=(RegionWattsRow("forward", _TRAINING, "gpu", 410.0, 395.0, 425.0, "regression"),),
    rejected={"rate": 2},
    lost=1,
    programs=1,
)
TOKENS = TokenView(
    (TokenRow(("", "", ""), QWEN, "output", 4200.0), TokenRow(("", "", ""), QWEN, "requests", 17.0)),
    (TokenRow(PLACE, QWEN, "cached_prompt", 310.0),),
    (TokenSourceRow(PLACE, QWEN[0], "vllm", ("qwen", 'odd "name"'), "counter", read=True),),
    {QWEN: 1.0},
)
IMPACT = ImpactView(
    FACTORS, FACTORS.rates, Impact(900.0, 0.5, 0.01), {"idle": Impact(100.0, 0.1, 0.0)}, Impact(50.0), Impact(1.0)
)


HELD = ("serving", "llama-70b-server-7f9c4d5b8-x2x7q", "vllm", "kubernetes")


def make_busy_node(sequence: int = 1, demo: bool = False) -> Snapshot:
    """Make a snapshot of a node with two sockets, four GPUs and many workloads; later sequences used more."""
    wave = 1 + 0.25 * math.sin(sequence / 17) + 0.05 * math.sin(sequence * 1.7)
    seconds = 40_000.0 + sequence
    jobs = [
        ("serving", "llama-70b-server-7f9c4d5b8-x2x7q", "vllm", "kubernetes", 611.0, 41.0, 70.0),
        ("serving", "llama-70b-server-7f9c4d5b8-m9k4t", "vllm", "kubernetes", 540.0, 37.0, 70.0),
        ("research", "finetune-mistral-0", "trainer", "kubernetes", 402.0, 66.0, 0.0),
        ("serving", "embeddings-59d8c-zz8lp", "tei", "kubernetes", 0.0, 24.0, 64.0),
        ("", "", "slurm-8841", "slurm", 0.0, 31.0, 0.0),
        ("monitoring", "prometheus-0", "prometheus", "kubernetes", 0.0, 6.4, 0.0),
        ("", "", "postgres", "docker", 0.0, 4.9, 0.0),
        ("", "", "containerd.service", "systemd", 0.0, 2.1, 0.0),
        ("", "", "sshd.service", "systemd", 0.0, 0.08, 0.0),
    ]
    containers = [
        make_row(
            100 + i,
            Workload(namespace, pod, container, runtime, f"c0ffee{i:02}", f"uid-{i}", "registry.example/ai/serve:1.4"),
            {("cpu", "active"): cpu * seconds, ("dram", "active"): cpu * 0.2 * seconds}
            | ({("gpu", "active"): gpu * seconds, ("gpu", "idle"): idle * seconds} if gpu or idle else {}),
            {"cpu": cpu * wave, "dram": cpu * 0.2 * wave} | ({"gpu": gpu * wave + idle} if gpu or idle else {}),
            {"cpu": min(1.0, cpu / 400)} | ({"gpu": 0.2} if gpu else {}),
        )
        for i, (namespace, pod, container, runtime, gpu, cpu, idle) in enumerate(jobs)
    ]
    containers.append(make_row(99, HOST, {("cpu", "active"): 3.2 * seconds}, {"cpu": 3.2}, {"cpu": 0.01}))
    llama, mistral = (
        Model("meta-llama/Llama-3.1-70B-Instruct", "serving", "inference", "argv"),
        Model("mistralai/Mistral-7B-v0.3", "research", "training", "argv"),
    )
    embedder = Model("BAAI/bge-large-en-v1.5", "serving", "inference", "env")
    models = [
        make_row(
            200,
            llama,
            {("gpu", "active"): 1151 * seconds, ("gpu", "idle"): 140 * seconds},
            {"gpu": 1291 * wave},
            {"gpu": 0.5},
        ),
        make_row(201, mistral, {("gpu", "active"): 402 * seconds}, {"gpu": 402 * wave, "cpu": 66.0}, {"gpu": 0.2}),
        make_row(202, embedder, {("gpu", "idle"): 64 * seconds}, {"gpu": 64.0}, {"gpu": 0.0}),
    ]
    processes = [
        make_row(
            300 + i,
            ProcessOwner(4000 + i, "python3", namespace, pod, container),
            {("gpu", "active"): gpu * seconds, ("cpu", "active"): cpu * seconds},
            {"gpu": gpu * wave, "cpu": cpu * wave},
            {"cpu": cpu / 400},
        )
        for i, (namespace, pod, container, _, gpu, cpu, _) in enumerate(jobs[:4])
    ]
    devices = [
        DeviceRow(
            Device(f"package-{i}", "cpu", "rapl", "measured", f"CPU package {i}", 64.0, socket=i),
            120 * seconds,
            112.0 * wave,
            48.0,
            "learned",
            0.41,
            None,
            None,
            612,
            0,
            False,
        )
        for i in range(2)
    ]
    devices.append(
        DeviceRow(
            Device("core-0", "cpu", "rapl", "measured", "CPU cores 0", 64.0, within="package-0"),
            80 * seconds,
            80 * wave,
            None,
            "",
            0.41,
            None,
            None,
            611,
            1,
            False,
        )
    )
    bmc = Device("bmc-1", "platform", "bmc", "measured", "chassis 1", 0.0, scope="node", period_seconds=10.0)
    devices.append(DeviceRow(bmc, 900 * seconds, 900.0 * wave, None, "", None, None, None, 0, 0, False, True))
    devices.append(
        DeviceRow(
            Device("dram-estimate", "dram", "estimate", "estimated", "Memory", 1.0, method="utilization_model"),
            44 * seconds,
            44.0,
            20.0,
            "prior",
            None,
            31.0,
            60.0,
            0,
            0,
            False,
            idle_low_watts=12.0,
            idle_high_watts=28.0,
        )
    )
    devices += [
        DeviceRow(
            Device(f"{GPU}{i}", "gpu", "nvml", "measured", f"NVIDIA H100 80GB HBM3 #{i}", 1.0),
            440 * seconds,
            (540.0, 611.0, 402.0, 64.0)[i] * wave,
            70.0,
            "learned",
            (0.96, 0.93, 0.88, 0.0)[i],
            None,
            None,
            0,
            0,
            i == 3,
            i != 3,
            1_795_392_000.0 + sequence - 40 * (i == 3),
            (1.01, 0.99, 1.02, None)[i],
        )
        for i in range(4)
    ]
    gpus = [
        GpuState(
            f"{GPU}{i}",
            str(i),
            gpu_model="NVIDIA H100 80GB HBM3",
            driver_version="570.86.15",
            pci_bus_id=f"00000000:{0x18 + i:02X}:00.0",
            power_limit_watts=700.0,
            memory_used_bytes=(71e9, 71e9, 48e9, 6e9)[i],
            memory_total_bytes=85899345920.0,
            temperature_celsius=61.0 - 9 * i,
            utilization_ratio=(0.96, 0.93, 0.88, 0.0)[i],
            sm_active_ratio=(0.71, 0.68, 0.62, 0.0)[i],
            tensor_active_ratio=(0.34, 0.31, 0.44, 0.0)[i],
            dram_active_ratio=(0.58, 0.55, 0.37, 0.0)[i],
            power_utilization_ratio=(0.61, 0.44, None, 0.0)[i],
            clock_hertz=(("sm", 1.98e9), ("memory", 2.6e9)),
            throttle_seconds=(("power_cap", 412.5), ("thermal", 0.0)),
            ecc_errors=(("corrected", 3.0), ("uncorrected", 0.0)),
            memory_repair=(("pending", 0.0), ("failed", 0.0)),
            xid_errors=(0.0, 2.0, 0.0, 0.0)[i],
            last_xid=(None, 31.0, None, None)[i],
        )
        for i in range(4)
    ]
    gpus.append(GpuState(f"MIG-{GPU}", "4", "1", gpu_model="NVIDIA H100 80GB HBM3", sm_active_ratio=0.5))
    now = 1_795_392_000.0 + sequence
    sources = (
        SourceHealth("rapl", True, None, "", "", {}, now, 3.2),
        SourceHealth("nvml", True, None, "", "", {"timeout": 2}, now, 21.9),
        SourceHealth("estimate", True, None, "", "", {}, now, 0.4),
        SourceHealth(
            "hwmon", False, "not_found", "no power sensor in /sys/class/hwmon", "", {"not_found": 41}, 0.0, 0.1
        ),
        SourceHealth(
            "kubelet",
            False,
            "permission",
            "/var/lib/kubelet/pod-resources/kubelet.sock: Permission denied",
            "run as root, or mount the socket into the container",
            {"permission": 7},
            now - 4000,
            0.2,
        ),
    )
    unattributed: tuple[tuple[Component, UnattributedReason, float], ...] = (
        ("cpu", "idle", 96 * seconds),
        ("cpu", "exited", 1.5 * seconds),
        ("cpu", "kernel", 2 * seconds),
        ("gpu", "gap", 812.5),
        ("other", "unknown", 130 * seconds),
    )
    retired: tuple[tuple[Component, float], ...] = (("cpu", 5 * seconds), ("gpu", 41 * seconds))
    unnamed: tuple[tuple[Component, float], ...] = (("cpu", 1.5), ("gpu", 0.0))
    booked: defaultdict[str, float] = defaultdict(float)
    for row in containers:
        for (component, _), joules in zip(row.cells, row.joules, strict=True):
            booked[component] += joules
    for component, joules in [(component, joules) for component, _, joules in unattributed] + [*retired, *unnamed]:
        booked[component] += joules
    return Snapshot(
        sequence,
        now,
        5000.0 + sequence,
        1.0,
        demo,
        impact=IMPACT,
        embodied=EmbodiedView(Embodied(4.7, 37.5, "NVIDIA, ecologits"), 7200.0, {HELD: 3600.0}),
        tokens=TOKENS,
        regions=REGIONS,
        energy=NodeEnergy(
            tuple(devices),
            (
                NodeRow("cpu", booked["cpu"], 224 * wave),
                NodeRow("dram", booked["dram"], 44.0),
                NodeRow("gpu", booked["gpu"], 1617 * wave),
                NodeRow("other", booked["other"], 131.5),
            ),
            tuple(containers),
            tuple(processes),
            tuple(models),
            {100: llama, 101: llama, 102: mistral, 103: embedder},
            unattributed,
            retired,
            unnamed,
            cpu_prices={101: 11.5, 102: 27.25},
            container_cards=tuple(
                CardRow(row.owner, f"{GPU}{number % 4}", mode, joules)
                for number, row in enumerate(containers)
                for (component, mode), joules in zip(row.cells, row.joules, strict=True)
                if component == "gpu" and isinstance(row.owner, Workload)
            ),
            process_models={300: llama, 301: llama, 302: mistral},
        ),
        gpu=GpuView(
            states=tuple(gpus),
            indexes={gpu.uuid: gpu.index for gpu in gpus if not gpu.gpu_instance},
            allocations=(
                Allocation(f"{GPU}0", *jobs[0][:3], gpu="0"),
                Allocation(f"{GPU}1", *jobs[1][:3], 2.0, gpu="1"),
                Allocation(f"{GPU}1", *jobs[2][:3], gpu="1"),
                Allocation(f"MIG-{GPU}", *jobs[3][:3], 1 / 7, "1", "4"),
            ),
        ),
        exporter=ExporterState(
            sources=sources,
            samples=40_001 + sequence,
            sample_seconds=171.3,
            overruns=2,
            series_dropped=(("process", 12), ("container", 0)),
            counted_since=now - seconds,
            start_time=now - 3600,
        ),
    )


@pytest.fixture
def row() -> Callable[..., AccountRow]:
    """Return the maker of account rows."""
    return make_row


@pytest.fixture
def busy_node() -> Callable[..., Snapshot]:
    """Return the maker of the busy node's snapshots."""
    return make_busy_node


@pytest.fixture
def serve(busy_node: Callable[..., Snapshot]) -> Iterator[Callable[..., Exporter]]:
    """Start exporters that have a snapshot; all are stopped at the end."""
    with ExitStack() as stack:

        def start(
            options: ServerOptions | None = None,
            body: ScrapeBody | None = None,
            web: str | Access | None = None,
            telemetry_path: str = "/metrics",
        ) -> Exporter:
            access = Access(web) if isinstance(web, str) else web
            exporter = Exporter(options or ServerOptions(listen=LOCAL), body, access, telemetry_path)
            stack.callback(exporter.server.stop)
            exporter.snapshot = busy_node()
            exporter.now = exporter.snapshot.monotonic_at + 1
            return exporter

        yield start


@pytest.fixture
def web(tmp_path: Path) -> WebFolder:
    """Certificates and an empty folder for a web configuration."""
    return WebFolder(tmp_path)
