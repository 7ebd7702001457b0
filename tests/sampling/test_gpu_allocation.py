"""GPUs allocated by Kubernetes: a kubelet over gRPC, simulated cards, and the ledger."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from exporter.accounting.containers import OVERFLOW
from exporter.accounting.gpu_allocations import KEPT_SECONDS
from exporter.config.settings import Settings
from exporter.exposition.metrics.render import Renderer
from exporter.records import GroupKey, Mode, Model, Process, ProcessOwner, SourceHealth, Workload
from exporter.sampling.sampler import Sampler, SamplerOptions
from exporter.snapshot import Snapshot
from exporter.sources.nvml.source import NvmlSource
from exporter.sources.podresources.source import POLL_SECONDS, PodResourcesSource
from exporter.sources.protocol import Source
from exporter.sources.usage.cgroups import CgroupSource
from exporter.workloads.namer import WorkloadNamer
from exporter.workloads.protocol import Namer
from tests.support.cards import check_cards
from tests.support.fake_kubelet import Claim, Kubelet, Messages, claiming, pod
from tests.support.nvml import control
from tests.support.nvml.control import FakeDriver, Gpu, Mig
from tests.support.nvml.node import IDLE_WATTS, Node, fresh_bindings

WATTS = 240.0
"""Watts of a card in use, above its idle watts."""


class PodNames(Namer):
    """Knows a pod by its cgroup, ``/kubepods/<namespace>/<pod>/<container>``, once ``late`` has it no more."""

    def __init__(self) -> None:
        self.late: set[str] = set()
        self.come: set[GroupKey] = set()

    def workload(self, group: GroupKey) -> Workload:
        parts = group.path.split("/")[1:]
        if parts[0] != "kubepods" or len(parts) < 4:
            return Workload(container=parts[-1] or "host", runtime="host")
        if parts[2] in self.late:
            return Workload(
                pod="0a1b", container="c0ffee", runtime="kubernetes", container_id="c0ffee", provisional=True
            )
        return Workload(parts[1], parts[2], parts[3], "kubernetes", "c0ffee")

    def model(self, group: GroupKey | None, process: Process) -> Model | None:
        return None

    def pod_labels(self, workload: Workload) -> Mapping[str, str] | None:
        return {"app": workload.pod.rpartition("-")[0]} if workload.container_id else None

    def renamed(self) -> Collection[GroupKey]:
        come, self.come = self.come, set()
        return come

    def health(self) -> tuple[SourceHealth, ...]:
        return (SourceHealth("names", True, None, "", "", {}, 0.0, 0.0),)


class Cluster:
    """A node with cards, pods and a kubelet, sampled once a second; a card is idle unless a process uses it."""

    def __init__(self, node: Node, kubelet: Kubelet, namer: Namer | None = None, *, container_max: int = 5000) -> None:
        self.node = node
        self.kubelet = kubelet
        self.namer = namer or PodNames()
        self.cards: list[Gpu] = []
        self.options = SamplerOptions(
            interval_seconds=5.0,
            source_timeout_seconds=5.0,
            container_max=container_max,
            gpu_reservations=Settings().attribution_gpu_reservations,
        )
        self.sampler: Sampler | None = None
        self.snapshot: Snapshot | None = None

    def card(self, *, minor: int | None = None, mig: Sequence[Mig | str] = ()) -> Gpu:
        """Plug one in; with ``minor`` it is listed in the driver's /proc."""
        card = self.node.driver.add_gpu(mig=mig)
        self.cards.append(card)
        if minor is not None:
            self.node.write(
                f"proc/driver/nvidia/gpus/{card.pci[-12:].lower()}/information", f"Device Minor: \t {minor}\n"
            )
        return card

    def start(self, pid: int, place: str, *cards: Gpu) -> GroupKey:
        """Start a process of ``namespace/pod/container``, or of the host, that holds cards."""
        path = f"/kubepods/{place}" if "/" in place else f"/{place}"
        for folder in list(Path(path).parents)[:-1]:
            self.node.write(f"sys/fs/cgroup{folder}/cpu.stat", "usage_usec 0\n")
        group = self.node.process(pid, path)
        for card in cards:
            card.process(pid)
        return group

    def run(self, ticks: int, busy: dict[Gpu, dict[int, int]] | None = None) -> Snapshot:
        """Let seconds pass: ``busy`` are percents by card and pid. The totals must be right after each."""
        if self.sampler is None:
            options = replace(self.options, idle_watts={card.uuid: IDLE_WATTS for card in self.cards})
            sources: list[Source] = [
                NvmlSource(self.node.host, self.node.bindings),
                PodResourcesSource(self.node.host, str(self.kubelet.path)),
                CgroupSource(self.node.host),
            ]
            self.sampler = Sampler(sources, self.namer, self.node.host, options)
            self.sampler.tick()
        for _ in range(ticks):
            for card in self.cards:
                loads = (busy or {}).get(card, {})
                self.node.step({card: loads}, 0.0, WATTS if loads else 0.0)
                card.energy_joules += IDLE_WATTS + (WATTS if loads else 0.0)
            self.node.now += 1.0
            self.snapshot = self.sampler.tick()
            self.check()
        assert self.snapshot is not None
        return self.snapshot

    def check(self) -> None:
        """Nothing is lost and nothing is counted twice."""
        assert self.snapshot is not None
        assert self.snapshot.energy.conservation_error_ratio <= 1e-9
        check_cards(self.snapshot)
        attributed = sum(sum(row.joules) for row in self.snapshot.energy.containers)
        attributed += sum(joules for _, joules in (*self.snapshot.energy.retired, *self.snapshot.energy.unnamed))
        attributed += sum(joules for *_, joules in self.snapshot.energy.unattributed)
        assert attributed == pytest.approx(sum(row.joules for row in self.snapshot.energy.devices), rel=1e-9)

    def joules(self, mode: Mode = "idle") -> dict[str, float]:
        """GPU joules by ``namespace/pod/container``, zeros left out."""
        assert self.snapshot is not None
        found = {}
        for row in self.snapshot.energy.containers:
            assert isinstance(row.owner, Workload)
            joules = dict(zip(row.cells, row.joules, strict=True)).get(("gpu", mode), 0.0)
            if joules:
                found["/".join(row.owner[:3])] = joules
        return found

    def of_processes(self, mode: Mode = "idle") -> dict[int, float]:
        """GPU joules by pid."""
        assert self.snapshot is not None
        found = {}
        for row in self.snapshot.energy.processes:
            assert isinstance(row.owner, ProcessOwner)
            found[row.owner.pid] = dict(zip(row.cells, row.joules, strict=True)).get(("gpu", mode), 0.0)
        return found

    def nobodys(self) -> dict[str, float]:
        """Unattributed GPU joules by reason."""
        assert self.snapshot is not None
        return {
            reason: joules
            for component, reason, joules in self.snapshot.energy.unattributed
            if component == "gpu" and joules
        }


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> Messages:
    return Messages(tmp_path_factory.mktemp("proto"))


@pytest.fixture
def node(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    with FakeDriver(library, tmp_path) as driver:
        monkeypatch.setenv(control.STATE_VARIABLE, str(driver.path))
        yield Node(tmp_path, driver, fresh_bindings(library))


@pytest.fixture
def kubelet(messages: Messages) -> Iterator[Kubelet]:
    folder = tempfile.mkdtemp(prefix="kubelet-")  # a socket's path has at most 107 bytes
    made = Kubelet(messages, Path(folder) / "kubelet.sock")
    made.start()
    yield made
    made.stop()
    shutil.rmtree(folder)


@pytest.fixture
def cluster(node: Node, kubelet: Kubelet) -> Iterator[Cluster]:
    made = Cluster(node, kubelet)
    yield made
    if made.sampler is not None:
        made.sampler.close()


def test_a_card_that_is_given_and_idle_is_charged_to_its_pod(cluster: Cluster) -> None:
    """No process was ever on it, and the pod's cgroup was never seen."""
    card = cluster.card()
    cluster.kubelet.pods = [pod("research", "notebook-0", "jupyter", card.uuid)]
    cluster.run(20)
    assert cluster.joules() == {"research/notebook-0/jupyter": 20 * IDLE_WATTS}
    assert cluster.nobodys() == {}
    assert cluster.snapshot is not None
    (row,) = [row for row in cluster.snapshot.energy.containers if row.cells and row.cells[0][0] == "gpu"]
    assert (row.components, row.watts) == (("gpu",), (IDLE_WATTS,))
    assert cluster.kubelet.calls == 3, "it is asked every ten seconds"


def test_the_page_says_who_was_given_what(cluster: Cluster) -> None:
    cards = [cluster.card(), cluster.card(mig=["3g.40gb"])]
    cluster.kubelet.pods = [
        pod("a", "one", "main", f"{cards[0].uuid}::0", f"{cards[0].uuid}::1", f"{cards[0].uuid}::2"),
        pod("b", "two", "main", f"{cards[0].uuid}::3"),
        pod("c", "three", "main", cards[1].mig[0].uuid, resource="nvidia.com/mig-3g.40gb"),
    ]
    lines = Renderer().body(cluster.run(1)).decode().splitlines()
    shares = dict(line.rsplit(" ", 1) for line in lines if line.startswith("energy_gpu_allocated_ratio{"))
    head = "energy_gpu_allocated_ratio"
    assert {labels: float(value) for labels, value in shares.items()} == pytest.approx({
        f'{head}{{gpu="0",uuid="{cards[0].uuid}",gpu_instance="",namespace="a",pod="one",container="main"}}': 0.75,
        f'{head}{{gpu="0",uuid="{cards[0].uuid}",gpu_instance="",namespace="b",pod="two",container="main"}}': 0.25,
        f'{head}{{gpu="1",uuid="{cards[1].uuid}",gpu_instance="1",namespace="c",pod="three",container="main"}}': 3 / 7,
    })  # fmt: skip


def test_its_processes_pay_while_they_are_there(cluster: Cluster) -> None:
    card = cluster.card()
    cluster.kubelet.pods = [pod("serving", "llama-0", "vllm", card.uuid)]
    cluster.start(7, "serving/llama-0/vllm", card)
    cluster.run(10, {card: {7: 80}})
    assert cluster.joules("active") == pytest.approx({"serving/llama-0/vllm": 10 * WATTS})
    assert cluster.joules() == {"serving/llama-0/vllm": 10 * IDLE_WATTS}
    assert cluster.of_processes() == {7: 10 * IDLE_WATTS}
    card.end(7)
    cluster.node.end(7)
    cluster.run(10)
    assert cluster.of_processes()[7] == 10 * IDLE_WATTS
    assert cluster.joules() == {"serving/llama-0/vllm": 20 * IDLE_WATTS}, "one series goes on"


def test_time_slicing(cluster: Cluster) -> None:
    """A card of four replicas: two for a pod that works, one for an idle pod, one that is not allocated."""
    card = cluster.card()
    cluster.kubelet.pods = [
        pod("a", "works", "main", f"{card.uuid}::0", f"{card.uuid}::1"),
        pod("b", "sleeps", "main", f"{card.uuid}::2"),
    ]
    cluster.start(7, "a/works/main", card)
    cluster.run(12, {card: {7: 50}})
    assert cluster.joules() == pytest.approx({"a/works/main": 8 * IDLE_WATTS, "b/sleeps/main": 4 * IDLE_WATTS})
    assert cluster.joules("active") == pytest.approx({"a/works/main": 12 * WATTS})


def test_somebody_who_was_given_nothing(cluster: Cluster) -> None:
    """A process of the host on a card of a pod has one claim, as if it had been given a replica."""
    card = cluster.card()
    cluster.kubelet.pods = [pod("a", "idle", "main", card.uuid)]
    cluster.start(7, "xorg", card)
    cluster.run(10)
    assert cluster.joules() == pytest.approx({"a/idle/main": 5 * IDLE_WATTS, "//xorg": 5 * IDLE_WATTS})


def test_a_reservation_that_only_its_label_shows(cluster: Cluster) -> None:
    """KAI in a namespace of one's own: a fraction works on the card that the kubelet allocated to a pod that sleeps."""
    card = cluster.card()
    cluster.start(6, "mine/kai-resource-reservation-x/main")
    cluster.run(1)
    cluster.kubelet.pods = [pod("mine", "kai-resource-reservation-x", "main", card.uuid)]
    cluster.start(7, "team/fraction-0/main", card)
    cluster.run(20, {card: {7: 50}})
    assert cluster.joules() == pytest.approx({"team/fraction-0/main": 20 * IDLE_WATTS})
    assert cluster.joules("active") == pytest.approx({"team/fraction-0/main": 20 * WATTS})
    card.end(7)
    cluster.node.end(7)
    before = cluster.nobodys().get("idle", 0.0)
    cluster.run(10)
    assert cluster.joules() == pytest.approx({"team/fraction-0/main": 20 * IDLE_WATTS})
    assert cluster.nobodys()["idle"] == pytest.approx(before + 10 * IDLE_WATTS)


def test_mig(cluster: Cluster) -> None:
    """Fault 26: by slice, with or without a process; an unallocated slice is shared by all."""
    card = cluster.card(mig=["3g.40gb", "1g.10gb", "2g.20gb"])
    three, one, _ = card.mig
    cluster.kubelet.pods = [
        pod("a", "works", "main", three.uuid, resource="nvidia.com/mig-3g.40gb"),
        pod("b", "sleeps", "main", one.uuid, resource="nvidia.com/mig-1g.10gb"),
    ]
    cluster.start(7, "a/works/main")
    three.process(7)
    cluster.run(8)
    assert cluster.joules() == pytest.approx({"a/works/main": 6 * IDLE_WATTS, "b/sleeps/main": 2 * IDLE_WATTS})


def test_dra(cluster: Cluster) -> None:
    """A driver names cards by their minor, which need not be NVML's index."""
    first, second = cluster.card(minor=1), cluster.card(minor=0)
    cluster.kubelet.pods = [
        claiming("a", "one", "main", Claim("gpu.nvidia.com", "gpu-1")),
        claiming("b", "two", "main", Claim("gpu.nvidia.com", "gpu-0")),
        claiming("c", "three", "main", Claim("gpu.nvidia.com", "gpu-0")),
    ]
    cluster.start(7, "a/one/main", first)
    cluster.run(10)
    expected = {"a/one/main": 10 * IDLE_WATTS, "b/two/main": 5 * IDLE_WATTS, "c/three/main": 5 * IDLE_WATTS}
    assert cluster.joules() == pytest.approx(expected)
    assert {each.pod: each.device for each in cluster.run(1).gpu.allocations} == {
        "one": first.uuid,
        "two": second.uuid,
        "three": second.uuid,
    }


def test_names_that_come_late_find_the_same_account(cluster: Cluster) -> None:
    """What a pod's process paid before its name was known, and what its container pays, is one series."""
    names = cluster.namer
    assert isinstance(names, PodNames)
    names.late.add("llama-0")
    card = cluster.card()
    cluster.kubelet.pods = [pod("serving", "llama-0", "vllm", card.uuid)]
    group = cluster.start(7, "serving/llama-0/vllm", card)
    cluster.run(3)
    assert cluster.joules() == {}
    assert cluster.nobodys() == {}
    names.late.clear()
    names.come.add(group)
    cluster.run(1)
    assert cluster.joules() == {"serving/llama-0/vllm": 4 * IDLE_WATTS}


def test_pods_without_names(node: Node, kubelet: Kubelet) -> None:
    """Without an API to ask, a holder is one of those that were given the card, and keeps its ids for a name."""
    cluster = Cluster(node, kubelet, WorkloadNamer())
    card = cluster.card()
    cluster.kubelet.pods = [pod("a", "one", "main", f"{card.uuid}::0"), pod("b", "two", "main", f"{card.uuid}::1")]
    uid, container = "4d1b1a9e-7c80-4d10-9d3a-0c8f6a4b2e11", "3f" * 32
    group = node.process(
        7, f"/kubepods.slice/kubepods-pod{uid.replace('-', '_')}.slice/cri-containerd-{container}.scope"
    )
    assert group.path
    card.process(7)
    cluster.run(8)
    assert cluster.joules() == pytest.approx({
        f"/{uid}/{container[:12]}": 4 * IDLE_WATTS, "a/one/main": 2 * IDLE_WATTS, "b/two/main": 2 * IDLE_WATTS,
    })  # fmt: skip
    assert cluster.sampler is not None
    cluster.sampler.close()


def test_pids_that_this_proc_does_not_show(cluster: Cluster) -> None:
    """Fault 28: whose they are is known nevertheless, where a card was given to one container alone."""
    card, shared = cluster.card(), cluster.card()
    cluster.kubelet.pods = [
        pod("a", "one", "main", card.uuid, f"{shared.uuid}::0"),
        pod("b", "two", "main", f"{shared.uuid}::1"),
    ]
    card.process(645400)
    shared.process(645401)
    cluster.run(10, {card: {645400: 60}, shared: {645401: 60}})
    assert cluster.joules("active") == pytest.approx({"a/one/main": 10 * WATTS})
    assert cluster.joules() == pytest.approx({"a/one/main": 15 * IDLE_WATTS, "b/two/main": 5 * IDLE_WATTS})
    assert cluster.nobodys() == pytest.approx({"unknown": 10 * WATTS})


def test_an_account_ends_with_the_last_that_could_add_to_it(cluster: Cluster) -> None:
    """Fault 42: neither cgroup nor card is left; then it lingers, and its joules are retired."""
    card = cluster.card()
    cluster.kubelet.pods = [pod("ns", "job", "main", card.uuid)]
    group = cluster.start(7, "ns/job/main")
    cluster.run(5)
    shutil.rmtree(cluster.node.root / f"sys/fs/cgroup{group.path}")
    cluster.node.end(7)
    cluster.run(400)
    assert cluster.joules() == {"ns/job/main": 405 * IDLE_WATTS}, "its cgroup is gone, but it has the card"
    cluster.kubelet.pods = []
    cluster.run(int(POLL_SECONDS))
    charged = cluster.joules()["ns/job/main"]
    cluster.run(280)
    assert cluster.joules() == {"ns/job/main": charged}
    assert cluster.nobodys()["idle"] >= 280 * IDLE_WATTS
    snapshot = cluster.run(40)
    assert cluster.joules() == {}
    assert dict(snapshot.energy.retired)["gpu"] == pytest.approx(charged)


def test_a_card_passed_on(cluster: Cluster) -> None:
    """Energy is attributed from the kubelet's report of the allocation on, at most ten seconds late."""
    card = cluster.card()
    cluster.kubelet.pods = [pod("a", "first", "main", card.uuid)]
    cluster.run(15)
    cluster.kubelet.pods = [pod("b", "next", "main", card.uuid)]
    cluster.run(25)
    found = cluster.joules()
    assert sum(found.values()) == 40 * IDLE_WATTS
    assert 15 * IDLE_WATTS <= found["a/first/main"] <= (15 + POLL_SECONDS) * IDLE_WATTS


def test_the_kubelet_is_down(cluster: Cluster) -> None:
    """Fault 49: its last word counts for a while; energy is never lost."""
    card = cluster.card()
    cluster.kubelet.pods = [pod("ns", "pod", "main", card.uuid)]
    cluster.run(5)
    cluster.kubelet.stop()
    snapshot = cluster.run(200)
    assert cluster.joules() == {"ns/pod/main": 205 * IDLE_WATTS}
    (health,) = [source for source in snapshot.exporter.sources if source.name == "podresources"]
    assert (health.up, health.reason) == (False, "not_found")
    cluster.run(int(KEPT_SECONDS))
    charged = cluster.joules()["ns/pod/main"]
    assert charged == pytest.approx(KEPT_SECONDS * IDLE_WATTS, abs=(POLL_SECONDS + 5) * IDLE_WATTS)
    cluster.kubelet.start()
    cluster.run(70)
    assert cluster.joules()["ns/pod/main"] > charged


def test_more_containers_than_are_shown(node: Node, kubelet: Kubelet) -> None:
    """Fault 66: what is folded is not lost, and does not end with the first of those that are."""
    cluster = Cluster(node, kubelet, container_max=1)
    card = cluster.card()
    cluster.kubelet.pods = [pod("ns", f"pod-{n}", "main", f"{card.uuid}::{n}") for n in range(4)]
    cluster.run(10)
    kept = cluster.kubelet.pods[0]
    cluster.kubelet.pods = [kept]
    snapshot = cluster.run(30)
    assert OVERFLOW in [row.owner for row in snapshot.energy.containers]
    assert sum(cluster.joules().values()) == 40 * IDLE_WATTS
    assert cluster.sampler is not None
    cluster.sampler.close()


def test_a_full_node(cluster: Cluster) -> None:
    """Eight cards in 880 replicas for 110 pods."""
    cards = [cluster.card() for _ in range(8)]
    cluster.kubelet.pods = [pod("ns", f"pod-{n}", "main", *[f"{card.uuid}::{n}" for card in cards]) for n in range(110)]
    cluster.run(3)
    assert cluster.joules() == pytest.approx({f"ns/pod-{n}/main": 3 * 8 * IDLE_WATTS / 110 for n in range(110)})
