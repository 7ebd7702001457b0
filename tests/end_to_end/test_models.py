"""Joules of models, end to end: real process families in cgroups with the layout of pods."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.support.fake_kubernetes_api import Pod
from tests.support.kubernetes_node import NAMESPACE, Node
from tests.support.live import BUSY, Auditor, Exporter, Scrape, tree
from tests.support.patience import wait_for

JOULES = "energy_model_joules_total"
CONTAINER_JOULES = "energy_container_joules_total"

VLLM = f"""
import ctypes, os

def set_title(title):  # as setproctitle does: over the command line that /proc shows
    with open("/proc/self/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    ctypes.memmove(start, title.encode()[: end - start - 1].ljust(end - start, b"\\0"), end - start)

if os.fork() == 0:
    set_title("VLLM::EngineCore")
    for rank in range(2):
        if os.fork() == 0:
            set_title(f"VLLM::Worker_TP{{rank}}")
            break
{BUSY}
"""
"""A server with an engine core and two tensor-parallel workers, with the titles of vLLM's."""


@dataclass
class Cluster:
    """A node with an exporter, and programs to run in its pods."""

    node: Node
    exporter: Exporter
    auditor: Auditor

    def start(self, pod: Pod, *command: str, program: str = "vllm") -> str:
        """Run ``program`` in a pod; returns its group."""
        script = self.node.folder / "bin" / program
        words = [sys.executable, str(script), *command] if command else []
        group = self.node.run(pod, command=words)
        self.node.server.add(pod)
        return group

    def end(self, pod: Pod) -> None:
        """Remove it from node and cluster."""
        self.node.tree.remove(self.node.group(pod).rpartition("/")[0])
        self.node.server.delete(pod["metadata"]["uid"])

    def scrape(self) -> Scrape:
        return self.exporter.scrape()

    def joules(self, model: str, phase: str = "inference") -> float:
        return self.scrape().total(JOULES, model_name=model, namespace=NAMESPACE, phase=phase, component="cpu")

    def wait_for_model(self, model: str, phase: str = "inference") -> None:
        """Wait until a model has joules under this name and phase."""
        wait_for(lambda: self.joules(model, phase) > 0, f"model {model}")

    def info(self, pod: Pod) -> dict[str, str]:
        return self.scrape().info(pod=pod["metadata"]["name"], container="main")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with tree() as cgroups:
        node = Node(tmp_path_factory.mktemp("node"), cgroups)
        (node.folder / "bin").mkdir()
        for name, text in (("vllm", VLLM), ("run.py", BUSY), ("train.py", BUSY)):
            (node.folder / "bin" / name).write_text(text)
        node.server.add(node.pod("first"))
        yield Cluster(node, *node.watch())
        node.close()


@pytest.fixture
def cluster(shared: Cluster) -> Iterator[Cluster]:
    yield shared
    shared.node.tree.remove("kubepods.slice")
    shared.auditor.check()
    # However late a name was, no model had a series without its namespace before the one with it.
    assert {model for model in shared.auditor.models if model[1] != NAMESPACE} == set()


def test_workers_work_for_the_model_of_their_parent(cluster: Cluster) -> None:
    pod = cluster.node.pod("qwen-0", owner=("StatefulSet", "qwen"))
    cluster.start(pod, "serve", "Qwen/Qwen2.5-7B-Instruct", "--tensor-parallel-size", "2")
    cluster.wait_for_model("Qwen/Qwen2.5-7B-Instruct")
    wait_for(lambda: cluster.info(pod)["model_name"] == "Qwen/Qwen2.5-7B-Instruct", "one model for all of them")
    assert cluster.info(pod)["model_source"] == "command"

    def by_container_and_model() -> tuple[float, float]:
        scrape = cluster.scrape()
        container = scrape.total(CONTAINER_JOULES, pod="qwen-0", container="main", component="cpu", mode="active")
        return container, scrape.total(JOULES, model_name="Qwen/Qwen2.5-7B-Instruct", component="cpu", mode="active")

    before = by_container_and_model()
    wait_for(lambda: by_container_and_model()[0] > before[0] + 20, "twenty joules")
    container, model = (now - then for now, then in zip(by_container_and_model(), before, strict=True))
    assert model == pytest.approx(container, rel=1e-6), "every joule of the container is its model's"

    def family() -> int:
        return len(cluster.scrape().find("energy_process_joules_total", pod="qwen-0", component="cpu", mode="active"))

    wait_for(lambda: family() == 4, "the server, its engine core and two workers")


@pytest.mark.parametrize(
    ("where", "name"), [("annotations", "mistralai/Mistral-Small-3.2"), ("labels", "mistral-small")]
)
def test_a_model_by_annotation_or_label(cluster: Cluster, where: str, name: str) -> None:
    metadata = {"ai-energy-exporter/model-name": name}
    if where == "annotations":
        pod = cluster.node.pod("by-annotations", owner=("Job", "tune"), annotations=metadata)
    else:
        pod = cluster.node.pod("by-labels", owner=("Job", "tune"), labels=metadata)
    cluster.start(pod)
    cluster.wait_for_model(name, "training")
    wait_for(lambda: cluster.info(pod)["model_name"] == name, "the model of the container")
    assert cluster.info(pod)["model_source"] == where.removesuffix("s")


@pytest.mark.parametrize(
    ("kind", "phase"), [("Job", "training"), ("ReplicaSet", "inference"), ("PyTorchJob", "training"), ("", "unknown")]
)
def test_the_owner_determines_the_phase_if_the_program_does_not(cluster: Cluster, kind: str, phase: str) -> None:
    pod = cluster.node.pod(f"owned-{kind.lower()}", owner=(kind, "llama"))
    cluster.start(pod, "--model_name_or_path", f"meta/llama-{kind or 'unowned'}", program="run.py")
    cluster.wait_for_model(f"meta/llama-{kind or 'unowned'}", phase)


def test_the_program_takes_precedence_over_the_owner(cluster: Cluster) -> None:
    pod = cluster.node.pod("trainer", owner=("ReplicaSet", "trainer"))
    cluster.start(pod, "--model_name_or_path", "google/gemma-3-4b", program="train.py")
    cluster.wait_for_model("google/gemma-3-4b", "training")


def test_a_models_counter_survives_a_rollout(cluster: Cluster) -> None:
    """The pod of the next version has another name, uid and container; the model's series continues."""
    old = cluster.node.pod("roll-7c9d-a", owner=("ReplicaSet", "roll-7c9d"), labels={"pod-template-hash": "7c9d"})
    cluster.start(old, "serve", "Qwen/Qwen3-32B")
    cluster.wait_for_model("Qwen/Qwen3-32B")
    new = cluster.node.pod("roll-5b8e-b", owner=("ReplicaSet", "roll-5b8e"), labels={"pod-template-hash": "5b8e"})
    cluster.start(new, "serve", "Qwen/Qwen3-32B")
    wait_for(lambda: cluster.info(new).get("model_name") == "Qwen/Qwen3-32B", "the model of the new pod")
    cluster.end(old)
    before = cluster.joules("Qwen/Qwen3-32B")
    wait_for(lambda: cluster.joules("Qwen/Qwen3-32B") > before + 5, "more joules")
    assert {model for model in cluster.auditor.models if model[0] == "Qwen/Qwen3-32B"} == {
        ("Qwen/Qwen3-32B", NAMESPACE, "inference")
    }
    assert {cluster.info(pod)["owner_name"] for pod in (old, new)} == {"roll"}


def test_several_models_in_one_container_stay_apart(cluster: Cluster) -> None:
    pod = cluster.node.pod("both")
    group = cluster.start(pod, "serve", "org/embedder")
    cluster.node.tree.start(group, [sys.executable, str(cluster.node.folder / "bin/vllm"), "serve", "org/reranker"])
    cluster.wait_for_model("org/embedder")
    cluster.wait_for_model("org/reranker")
    wait_for(lambda: cluster.info(pod)["model_name"] == "", "no single model")
    for model in ("org/embedder", "org/reranker"):
        before = cluster.joules(model)
        wait_for(lambda model=model, least=before + 1: cluster.joules(model) > least, f"joules of {model}")  # type: ignore[misc]


def test_a_late_name_makes_no_second_series_of_the_model(cluster: Cluster) -> None:
    """Its namespace is that of the pod, which is pending: joules used meanwhile are counted once it is known."""
    pod = cluster.node.pod("late-0")
    cluster.node.run(pod, command=[sys.executable, str(cluster.node.folder / "bin/vllm"), "serve", "org/late"])
    wait_for(lambda: cluster.scrape().total("energy_unnamed_joules") > 3, "joules without a name")
    waited = cluster.scrape().total("energy_unnamed_joules", component="cpu")
    assert cluster.joules("org/late") == 0
    cluster.node.server.add(pod)
    cluster.wait_for_model("org/late")
    assert cluster.joules("org/late") > 0.9 * waited
