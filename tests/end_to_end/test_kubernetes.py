"""Pod names end to end: the exporter as a process, cgroups with the kubelet's layout, an API server over TLS."""

from __future__ import annotations

import gc
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from exporter.accounting.attribution import Energy
from exporter.accounting.containers import NAMING_SECONDS
from exporter.accounting.ledger import Limits
from exporter.config.loading import load
from exporter.exposition.metrics.render import Renderer
from exporter.host import Host, boot_seconds
from exporter.records import GroupKey, SourceHealth, Workload
from exporter.service.assembly import make_sampler
from exporter.workloads.metadata.cache import LINGER_SECONDS, MetadataCache
from exporter.workloads.metadata.container_metadata import ContainerMetadata
from exporter.workloads.metadata.pod_parser import read_pod
from exporter.workloads.namer import WorkloadNamer
from tests.support.fake_kubernetes_api import Pod
from tests.support.kubernetes_node import LAYOUTS, NAMESPACE, Node
from tests.support.ledger_bench import PACKAGE, Bench, process, use
from tests.support.live import BUSY, Auditor, Exporter, Scrape, tree
from tests.support.patience import wait_for

JOULES = "energy_container_joules_total"
LABELS = "--kubernetes.labels=app.kubernetes.io/name"


def row(pod: Pod | str, container: str = "main") -> dict[str, str]:
    """Labels that identify the series of a container."""
    name = pod if isinstance(pod, str) else str(pod["metadata"]["name"])
    return {"namespace": NAMESPACE, "pod": name, "container": container, "runtime": "kubernetes"}


def shown(exporter: Exporter, pod: Pod, container: str = "main") -> bool:
    """Whether joules are exported under its names."""
    return exporter.scrape().total(JOULES, component="cpu", mode="active", **row(pod, container)) > 0


def unnamed(scrape: Scrape) -> float:
    """Joules of containers without a name so far."""
    return scrape.total("energy_unnamed_joules")


def failures(exporter: Exporter, reason: str) -> float:
    """Failed requests to the API server with this reason."""
    return exporter.scrape().total("energy_source_failures_total", source="kubernetes", reason=reason)


def under_ids(auditor: Auditor) -> set[tuple[str, str, str, str]]:
    """Series that were ever exported for a pod without a name."""
    return {seen for seen in auditor.seen if seen[3] == "kubernetes" and not seen[0]}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with tree() as cgroups:
        made = Node(tmp_path, cgroups)
        yield made
        made.close()


@dataclass
class Cluster:
    """A node with an exporter that has run for a while."""

    node: Node
    exporter: Exporter
    auditor: Auditor

    def run_named(self, pod: Pod) -> None:
        """Start a pod and wait for its name."""
        self.node.run(pod)
        self.node.server.add(pod)
        wait_for(lambda: shown(self.exporter, pod), f"the name of {pod['metadata']['name']}")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with tree() as cgroups:
        made = Node(tmp_path_factory.mktemp("node"), cgroups)
        made.server.add(made.pod("first"))
        exporter, auditor = made.watch()
        yield Cluster(made, exporter, auditor)
        made.close()


@pytest.fixture
def cluster(shared: Cluster) -> Iterator[Cluster]:
    yield shared
    shared.node.tree.remove("kubepods.slice")
    shared.auditor.check()
    assert under_ids(shared.auditor) == set()


@pytest.mark.parametrize(("kind", "names"), [("v2", "api"), ("v1", "kubelet")])
def test_every_runtime_and_driver_with_late_names(tmp_path: Path, kind: str, names: str) -> None:
    """Fault 49: slow. Joules are attributed immediately, exported under one name only, and none is lost."""
    with tree(kind) as cgroups:
        node = Node(tmp_path, cgroups)
        node.server.list_delay_seconds = 2.0
        pods = {}
        for layout in LAYOUTS:
            pod = pods[layout] = node.pod(
                f"llama-7c9d-{layout}",
                "vllm",
                "proxy",
                owner=("ReplicaSet", "llama-7c9d"),
                labels={"pod-template-hash": "7c9d", "app.kubernetes.io/name": f"llama {layout}"},
                runtime="cri-o" if "crio" in layout else "containerd",
            )
            node.run(pod, "vllm", layout)
            node.server.add(pod)
        exporter, auditor = node.watch(f"--kubernetes.names={names}", LABELS)
        try:
            wait_for(lambda: unnamed(exporter.scrape()) > 0, "joules without a name")
            wait_for(lambda: all(shown(exporter, pod, "vllm") for pod in pods.values()), "the names")
            auditor.check()
            scrape = exporter.scrape()
        finally:
            node.close()
        for layout, pod in pods.items():
            status = next(each for each in pod["status"]["containerStatuses"] if each["name"] == "vllm")
            assert scrape.info(**row(pod, "vllm")) == row(pod, "vllm") | {
                "container_id": status["containerID"].partition("://")[2],
                "pod_uid": pod["metadata"]["uid"],
                "image": "registry.example/vllm:v1",
                "owner_kind": "Deployment",
                "owner_name": "llama",
                "model_name": "",
                "model_source": "",
                "label_app_kubernetes_io_name": f"llama {layout}",
            }
        own = {(NAMESPACE, str(pod["metadata"]["name"]), "", "kubernetes") for pod in pods.values()}
        containers = {(NAMESPACE, str(pod["metadata"]["name"]), "vllm", "kubernetes") for pod in pods.values()}
        assert {seen for seen in auditor.seen if seen[3] == "kubernetes"} == own | containers


class TestPods:
    def test_a_pod_that_is_known_before_its_containers(self, cluster: Cluster) -> None:
        pod = cluster.node.pod("pending")
        early = {**pod, "status": {"phase": "Pending"}}
        cluster.node.server.add(early)
        cluster.node.run(pod)
        wait_for(lambda: unnamed(cluster.exporter.scrape()) > 0.5, "joules without a name")
        assert not shown(cluster.exporter, pod)
        waited = unnamed(cluster.exporter.scrape())
        cluster.node.server.add(pod)
        wait_for(lambda: shown(cluster.exporter, pod), "the name")
        assert cluster.exporter.scrape().total(JOULES, **row(pod)) >= waited, "earlier joules moved to the new name"

    def test_a_container_that_is_restarted_in_place(self, cluster: Cluster) -> None:
        """Fault 40: another id and another cgroup, the same series."""
        pod = cluster.node.pod("crashing")
        cluster.run_named(pod)
        before = cluster.exporter.scrape()
        cluster.node.tree.remove(cluster.node.group(pod))
        again = cluster.node.pod("crashing", attempt=1)
        group = cluster.node.run(again)
        wait_for(lambda: unnamed(cluster.exporter.scrape()) > 0, "joules of the new container")
        cluster.node.server.add(again)
        identity = group.rpartition("cri-containerd-")[2].removesuffix(".scope")
        wait_for(lambda: cluster.exporter.scrape().info(**row(pod))["container_id"] == identity, "the new container")
        after = cluster.exporter.scrape()
        assert len(after.find(JOULES, component="cpu", mode="active", **row(pod))) == 1
        assert after.total(JOULES, **row(pod)) > before.total(JOULES, **row(pod))

    def test_a_pod_that_is_gone_keeps_its_series(self, cluster: Cluster) -> None:
        """Fault 42: for `workload.linger`, so that Prometheus sees its last value."""
        pod = cluster.node.pod("done")
        cluster.run_named(pod)
        cluster.node.tree.remove(cluster.node.group(pod).rpartition("/")[0])
        cluster.node.server.delete(pod["metadata"]["uid"])
        cluster.auditor.check()
        assert shown(cluster.exporter, pod)

    def test_a_changed_owner_is_exported_in_the_same_series(self, cluster: Cluster) -> None:
        pod = cluster.node.pod("relabelled")
        cluster.run_named(pod)
        before = cluster.exporter.scrape().total(JOULES, **row(pod))
        pod["metadata"]["ownerReferences"] = [{"kind": "Job", "name": "j"}]
        cluster.node.server.add(pod)
        wait_for(lambda: cluster.exporter.scrape().info(**row(pod))["owner_kind"] == "Job", "the new owner")
        assert cluster.exporter.scrape().total(JOULES, **row(pod)) >= before


class TestTrouble:
    """Fault 49: after any failure of the API server, names continue, and nothing is lost or exported twice."""

    def test_a_connection_that_breaks_within_an_event(self, cluster: Cluster) -> None:
        server = cluster.node.server
        wait_for(lambda: server.watching, "the watch")
        server.drop_watches(b'{"type":"ADDED","object":{"metadata":{"name":"hal')
        cluster.run_named(cluster.node.pod("after-the-break"))

    @pytest.mark.parametrize("as_event", [False, True])
    def test_a_version_that_is_gone(self, cluster: Cluster, as_event: bool) -> None:
        server = cluster.node.server
        server.expired_as_event = as_event
        wait_for(lambda: server.watching, "the watch")
        lists = len(server.requests_with(watch=""))
        missed = cluster.node.pod(f"missed-{as_event}")
        server.drop_watches()
        server.add(missed)
        server.compact()
        cluster.node.run(missed)
        wait_for(lambda: shown(cluster.exporter, missed), "the pod that had no event")
        assert len(server.requests_with(watch="")) > lists

    def test_garbage_in_the_watch(self, cluster: Cluster) -> None:
        server = cluster.node.server
        before = failures(cluster.exporter, "implausible")

        def reported() -> bool:
            server.send(b"\x00\xff{not json}\n")
            return failures(cluster.exporter, "implausible") > before

        wait_for(reported, "the failure")
        cluster.run_named(cluster.node.pod("after-the-garbage"))


def test_a_token_that_expired_and_is_replaced(node: Node) -> None:
    """Fault 49."""
    first, second = node.pod("first"), node.pod("second")
    node.run(first)
    node.server.add(first)
    exporter, auditor = node.watch()
    wait_for(lambda: shown(exporter, first), "the first name")
    node.server.tokens = {"eyJhbGciOi.second"}
    node.server.drop_watches()
    wait_for(lambda: failures(exporter, "permission") > 0, "the rejection")
    assert exporter.scrape().total("energy_source_up", source="kubernetes") == 0
    assert any("status 401" in line and "fix=" in line for line in exporter.log)
    node.run(second)
    node.server.add(second)
    node.use_token("eyJhbGciOi.second")
    wait_for(lambda: shown(exporter, second), "the second name")
    assert exporter.scrape().total("energy_source_up", source="kubernetes") == 1
    auditor.check()
    assert under_ids(auditor) == set()


def test_a_server_that_is_down_at_the_start_and_comes_later(node: Node) -> None:
    """Fault 49."""
    pod = node.pod("early")
    node.run(pod)
    node.server_down()
    exporter, auditor = node.watch()
    wait_for(lambda: unnamed(exporter.scrape()) > 0, "joules without a name")
    scrape = exporter.scrape()
    assert scrape.total("energy_source_up", source="kubernetes") == 0
    assert scrape.total("energy_source_up", source="cgroups") == 1
    node.server_back(pod)
    wait_for(lambda: shown(exporter, pod), "the name")
    auditor.check()
    assert under_ids(auditor) == set()
    assert exporter.scrape().total("energy_source_up", source="kubernetes") == 1


def test_a_restart_while_the_server_is_down_keeps_the_names(node: Node) -> None:
    """Faults 49 and 53: names, and the model whose phase only the owner of the pod determines."""
    script = node.folder / "run.py"
    script.write_text(BUSY)
    pod = node.pod("tune-x", owner=("Job", "tune"))
    node.run(pod, command=[sys.executable, str(script), "--model_name_or_path", "Qwen/Qwen3-8B"])
    node.server.add(pod)
    state = [f"--state.file={node.folder}/state", LABELS]
    first, audited = node.watch(*state)
    wait_for(lambda: shown(first, pod), "the name")
    wait_for(lambda: first.scrape().total("energy_model_joules_total") > 0, "the model")
    audited.check()
    audited.stop()
    last = first.scrape()
    first.end(signal.SIGKILL)
    node.server_down()

    second, auditor = node.watch(*state)
    back = second.scrape()
    assert back.total("energy_source_up", source="kubernetes") == 0
    newcomer = node.pod("newcomer")
    node.run(newcomer)
    for name in (JOULES, "energy_model_joules_total"):
        expected = {key: value for key, value in last.items() if key[0] == name}
        assert {key: (value, back.get(key)) for key, value in expected.items() if back.get(key, -1.0) < value} == {}
    wait_for(lambda: second.scrape().info(**row(pod)) == last.info(**row(pod)), "all that was known of it")
    wait_for(lambda: second.scrape().total(JOULES, **row(pod)) > last.total(JOULES, **row(pod)) + 1, "more joules")
    wait_for(lambda: unnamed(second.scrape()) > 0, "joules of the newcomer")
    auditor.check()
    assert under_ids(auditor) == set()
    assert auditor.models == audited.models

    node.server_back(pod, newcomer)
    wait_for(lambda: shown(second, newcomer), "the name of the newcomer")
    auditor.check()
    assert under_ids(auditor) == set()
    assert auditor.models == audited.models


class Sampled:
    """The same node, sampled in this process with a clock that can skip half a minute."""

    def __init__(self, node: Node) -> None:
        self._skipped = 0.0
        settings = load(dict(flag.removeprefix("--").split("=", 1) for flag in node.flags), {})
        host = Host(
            sysfs=f"{node.folder}/sys", cgroupfs=str(node.tree.root), clock=lambda: boot_seconds() + self._skipped
        )
        self.sampler = make_sampler(settings, host)

    def scrape(self, skip: float = 0.0) -> Scrape:
        """One tick after so many seconds more."""
        self._skipped += skip
        return Scrape.parse(Renderer().body(self.sampler.tick()).decode())

    def names(self, scrape: Scrape) -> set[tuple[str, str, str]]:
        """Namespace, pod and container of all series of pods."""
        found = scrape.find(JOULES, runtime="kubernetes")
        return {(labels["namespace"], labels["pod"], labels["container"]) for labels, _ in found}


@pytest.fixture
def sampled(node: Node) -> Iterator[Sampled]:
    made = Sampled(node)
    yield made
    made.sampler.close()


def test_a_sandbox_is_the_pods_after_the_naming_time(node: Node, sampled: Sampled) -> None:
    """No API lists the "pause" container: its id may still get a name until the naming time has passed."""
    pod = node.pod("llama")
    node.run(pod)
    node.run(pod, "pause")
    node.server.add(pod)
    wait_for(lambda: sampled.scrape().total(JOULES, **row(pod)) > 0, "the name")
    scrape = sampled.scrape()
    waited = unnamed(scrape)
    assert waited > 0
    assert sampled.names(scrape) == {(NAMESPACE, "llama", "main"), (NAMESPACE, "llama", "")}
    assert scrape.total(JOULES, **row(pod, "")) < waited / 2
    scrape = sampled.scrape(NAMING_SECONDS + 1)
    assert sampled.names(scrape) == {(NAMESPACE, "llama", "main"), (NAMESPACE, "llama", "")}
    assert scrape.total(JOULES, **row(pod, "")) >= waited
    assert unnamed(scrape) == 0
    assert scrape["energy_conservation_error_ratio", ()] < 1e-9


def test_a_very_late_name_applies_to_all_joules(node: Node, sampled: Sampled) -> None:
    """Fault 49: after half a minute the ids are exported instead of hiding the joules any longer."""
    pod = node.pod("llama")
    group = node.run(pod)
    node.server_down()
    wait_for(lambda: unnamed(sampled.scrape()) > 0, "joules without a name")
    scrape = sampled.scrape(NAMING_SECONDS + 1)
    uid, identity = pod["metadata"]["uid"], group.rpartition("cri-containerd-")[2][:12]
    assert sampled.names(scrape) == {("", uid, identity), ("", uid, "")}
    before = scrape.total(JOULES, pod=uid)
    assert before > 0
    node.server_back(pod)
    wait_for(lambda: sampled.scrape().total(JOULES, **row(pod)) > before, "the name")
    scrape = sampled.scrape()
    assert sampled.names(scrape) == {(NAMESPACE, "llama", "main"), (NAMESPACE, "llama", "")}
    assert scrape["energy_conservation_error_ratio", ()] < 1e-9


# --- churn ----------------------------------------------------------------------------------------------


@dataclass
class CacheProvider:
    """A `BackgroundProvider` without its thread: the test writes into the cache."""

    cache: MetadataCache

    def find(self, workload: Workload) -> ContainerMetadata | None:
        return self.cache.find(workload.container_id) or self.cache.find(workload.pod_uid)

    def expects(self, workload: Workload) -> bool:
        return self.cache.find(workload.container_id or workload.pod_uid) is None

    def changed(self) -> set[str]:
        return self.cache.changed()

    def health(self) -> SourceHealth:
        return SourceHealth("kubernetes", True, None, "", "", {}, 0.0, 0.0)

    def retry(self) -> None:
        """It is never down."""

    def close(self) -> None:
        """No thread to stop."""


def test_a_thousand_pods_a_minute_leave_nothing_behind() -> None:
    """Fault 43: fourteen minutes, in which a pod lives six seconds, and every tenth ends before it has metadata."""
    bench: Bench
    cache = MetadataCache(lambda: bench.now)
    bench = Bench(Limits(container_max=2000), WorkloadNamer([CacheProvider(cache)]))
    seconds, each_tick = 3.0, 50
    alive: list[tuple[str, list[GroupKey]]] = []
    blocks: list[int] = []
    for tick in range(int(14 * 60 / seconds)):
        new = [_pod_groups(tick * each_tick + index) for index in range(each_tick)]
        gone, alive = (alive[:each_tick], alive[each_tick:]) if len(alive) > each_tick else ([], alive)
        alive += new
        for number, (uid, groups) in enumerate(gone):
            if number % 10:
                cache.put(*read_pod(_minimal(uid, groups[2])))
            cache.remove(uid)
        cache.expire()
        bench.tick(
            [use(groups[2], 0.01, (process(groups[2].inode), 0.01)) for _, groups in alive],
            started=[group for _, groups in new for group in groups],
            ended=[group for _, groups in gone for group in groups],
            exited=[process(groups[2].inode).key for _, groups in gone],
            energies=[Energy(PACKAGE, 100.0, 50.0)],
            seconds=seconds,
        )
        bench.ledger.take_closed()
        assert bench.error_ratio() < 1e-9
        assert len(bench.ledger.containers()) <= 2001
        if bench.now in (8 * 60, 14 * 60):
            gc.collect()
            blocks.append(sys.getallocatedblocks())
    assert len(cache) <= 2 * 1000 * (LINGER_SECONDS + 2 * seconds) / 60
    assert blocks[1] - blocks[0] < 6 * 1000, "not one object for each pod of six minutes"


def _pod_groups(number: int) -> tuple[str, list[GroupKey]]:
    """Uid of a pod, and the groups of the pod, its sandbox and its container."""
    uid = f"00000000-0000-4000-8000-{number:012x}"
    own = f"/kubepods/burstable/pod{uid}"
    paths = (own, f"{own}/{number:012x}{'a' * 52}", f"{own}/{number:012x}{'b' * 52}")
    return uid, [GroupKey(path, 3 * number + index + 1) for index, path in enumerate(paths)]


def _minimal(uid: str, group: GroupKey) -> Pod:
    name = f"job-{uid[-6:]}"
    return {
        "metadata": {"uid": uid, "name": name, "namespace": NAMESPACE},
        "spec": {"containers": [{"name": "main", "image": "demo"}]},
        "status": {
            "containerStatuses": [{"name": "main", "containerID": f"containerd://{group.path.rpartition('/')[2]}"}]
        },
    }


def test_a_burst_of_pods_at_that_rate(cluster: Cluster) -> None:
    """Fault 43: four seconds of it with real processes; none is exported under its ids; ended ones are named too."""
    node, pods = cluster.node, []
    began = time.monotonic()
    for number in range(60):
        pod = node.pod(f"burst-{number}")
        pods.append(pod)
        node.run(pod)
        if number >= 5:
            node.server.add(pods[number - 5])
        if number >= 10:
            node.tree.remove(node.group(pods[number - 10]).rpartition("/")[0])
            node.server.delete(pods[number - 10]["metadata"]["uid"])
        time.sleep(max(0.0, (number + 1) * 60 / 1000 - (time.monotonic() - began)))
    for pod in pods[-5:]:
        node.server.add(pod)

    def named() -> set[str]:
        return {pod for _, pod, container, _ in cluster.auditor.seen if (pod[:6], container) == ("burst-", "main")}

    # One that lived for less than a tick of a busy machine may be missed; its joules are its parent's.
    wait_for(lambda: len(named()) >= 40, "the names")
