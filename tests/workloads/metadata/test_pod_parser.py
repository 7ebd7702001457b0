"""Pods as the API server and the kubelet really return them, and invalid ones."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.workloads.metadata.container_metadata import ContainerMetadata
from exporter.workloads.metadata.json_values import MAX_TEXT
from exporter.workloads.metadata.pod_parser import read_pod
from tests.support.fake_kubernetes_api import Pod, container_id, make_pod, uid

A, B = container_id(0xA), container_id(0xB)


def edit(path: str, value: object) -> Pod:
    """A pod with one field set, such as ``metadata/labels``."""
    pod = make_pod(1)
    *parents, last = path.split("/")
    place: Any = pod
    for name in parents:
        place = place[int(name)] if name.isdigit() else place.setdefault(name, {})
    if isinstance(place, list):
        place[int(last)] = value
    else:
        place[last] = value
    return pod


def only(pod: Pod) -> ContainerMetadata:
    """Metadata of its only container."""
    return next(metadata for metadata in read_pod(pod)[1].values() if metadata.container)


def test_a_running_pod() -> None:
    pod = make_pod(1, "vllm-0", containers={"server": A, "sidecar": B})
    owner, entries = read_pod(pod)
    assert owner == uid(1)
    assert set(entries) == {uid(1), A, B}
    assert entries[A] == ContainerMetadata(
        namespace="team-nlp",
        pod="vllm-0",
        container="server",
        pod_uid=uid(1),
        image="registry.example/server:v1",
        labels={"app": "vllm-0", "team": "nlp"},
        annotations={"cni.projectcalico.org/podIP": "10.0.1.7/32"},
        command=("--port", "8000"),
        environment={"MODE": "fast"},
    )
    assert entries[B].container == "sidecar"
    assert (entries[uid(1)].pod, entries[uid(1)].container, entries[uid(1)].image) == ("vllm-0", "", "")
    assert entries[uid(1)].labels == entries[A].labels


def test_a_pod_that_is_still_pending_has_no_container_yet() -> None:
    for statuses in (None, [], [{"name": "main", "state": {"waiting": {"reason": "ContainerCreating"}}}]):
        assert set(read_pod(edit("status/containerStatuses", statuses))[1]) == {uid(1)}
    empty = {"name": "main", "containerID": "", "image": "x", "imageID": "", "lastState": {}}
    assert set(read_pod(edit("status/containerStatuses", [empty]))[1]) == {uid(1)}
    assert set(read_pod(edit("status", {}))[1]) == {uid(1)}


@pytest.mark.parametrize("scheme", ["containerd", "cri-o", "docker"])
def test_ids_of_every_runtime(scheme: str) -> None:
    pod = edit("status/containerStatuses/0/containerID", f"{scheme}://{B}")
    assert B in read_pod(pod)[1]


@pytest.mark.parametrize(
    ("specs", "statuses"),
    [("initContainers", "initContainerStatuses"), ("ephemeralContainers", "ephemeralContainerStatuses")],
)
def test_init_sidecar_and_debug_containers(specs: str, statuses: str) -> None:
    pod = edit(f"spec/{specs}", [{"name": "extra", "image": "tool:1", "command": ["run"]}])
    pod["status"][statuses] = [{"name": "extra", "containerID": f"containerd://{B}"}]
    extra = read_pod(pod)[1][B]
    assert (extra.container, extra.image, extra.command) == ("extra", "tool:1", ("run",))


def test_a_restarted_container_is_also_found_by_its_last_id() -> None:
    """Fault 40: its series continues under the same name."""
    pod = edit(
        "status/containerStatuses/0/lastState", {"terminated": {"exitCode": 137, "containerID": f"containerd://{B}"}}
    )
    entries = read_pod(pod)[1]
    assert entries[B] == entries[container_id(1)]


def test_a_container_in_crash_loop_has_its_id_in_its_state() -> None:
    pod = edit("status/containerStatuses/0", {"name": "main", "state": {"terminated": {"containerID": f"cri-o://{B}"}}})
    assert read_pod(pod)[1][B].container == "main"


def test_the_image_is_that_of_the_specification() -> None:
    assert only(make_pod(1)).image == "registry.example/main:v1"  # the status has sha256:…
    by_digest = "registry.example/main@sha256:" + "0" * 64
    assert only(edit("spec/containers/0/image", by_digest)).image == by_digest
    assert only(edit("spec/containers", [])).image == f"sha256:{1:064x}"


class TestOwners:
    def pod(self, kind: str, name: str, labels: dict[str, str] | None = None, *, controller: bool = True) -> Pod:
        pod = edit("metadata/ownerReferences", [{"kind": kind, "name": name, "controller": controller}])
        pod["metadata"]["labels"] |= labels or {}
        return pod

    @pytest.mark.parametrize(
        ("kind", "name", "labels", "owner"),
        [
            ("ReplicaSet", "web-5d4f8c7b9", {"pod-template-hash": "5d4f8c7b9"}, ("Deployment", "web")),
            ("ReplicaSet", "web-5d4f8c7b9", {}, ("ReplicaSet", "web-5d4f8c7b9")),
            ("ReplicaSet", "bare", {"pod-template-hash": "5d4f8c7b9"}, ("ReplicaSet", "bare")),
            ("ReplicaSet", "web-77c", {"rollouts-pod-template-hash": "77c"}, ("Rollout", "web")),
            ("Job", "train-29384720", {}, ("Job", "train-29384720")),
            ("StatefulSet", "db", {}, ("StatefulSet", "db")),
            ("DaemonSet", "agent", {}, ("DaemonSet", "agent")),
            ("PyTorchJob", "bert", {}, ("PyTorchJob", "bert")),
            ("RayCluster", "tune-raycluster-x7", {}, ("RayCluster", "tune-raycluster-x7")),
            (
                "RayCluster",
                "tune-raycluster-x7",
                {"ray.io/originated-from-crd": "RayJob", "ray.io/originated-from-cr-name": "tune"},
                ("RayJob", "tune"),
            ),
            ("Node", "node-1", {}, ("Node", "node-1")),
        ],
    )
    def test_what_people_know_as_the_owner(
        self, kind: str, name: str, labels: dict[str, str], owner: tuple[str, str]
    ) -> None:
        metadata = only(self.pod(kind, name, labels))
        assert (metadata.owner_kind, metadata.owner_name) == owner

    def test_the_controller_is_the_owner_whatever_comes_before_it(self) -> None:
        pod = self.pod("StatefulSet", "db")
        pod["metadata"]["ownerReferences"].insert(0, {"kind": "ConfigMap", "name": "x"})
        assert only(pod).owner_kind == "StatefulSet"
        assert only(self.pod("Workflow", "w", controller=False)).owner_kind == "Workflow"

    def test_a_pod_by_itself_has_none(self) -> None:
        assert (only(make_pod(1)).owner_kind, only(make_pod(1)).owner_name) == ("", "")


class TestStaticPods:
    HASH = "5d3bdb1e3d3d1b3b0f4f9c8f8c9a7e21"

    def mirror(self, manifest: str, **more: str) -> Pod:
        return edit("metadata/annotations", {"kubernetes.io/config.hash": manifest, **more})

    def test_its_cgroup_has_the_hash_of_its_manifest(self) -> None:
        owner, entries = read_pod(self.mirror(self.HASH, **{"kubernetes.io/config.mirror": self.HASH}))
        assert owner == uid(1)
        assert entries[self.HASH] == entries[uid(1)]
        assert entries[self.HASH].pod_uid == uid(1)  # as kube-state-metrics has it

    def test_as_the_kubelet_lists_it_the_node_owns_it(self) -> None:
        """Its mirror, which only the API server has, refers to the node; a pod with an owner keeps it."""
        pod = edit("metadata", {"uid": self.HASH, "annotations": {"kubernetes.io/config.source": "file"}})
        owner, entries = read_pod(pod)
        assert owner == self.HASH
        assert (entries[owner].owner_kind, entries[owner].owner_name) == ("Node", pod["spec"]["nodeName"])
        owned = {"ownerReferences": [{"kind": "Job", "name": "j"}], **pod["metadata"]}
        assert read_pod({**pod, "metadata": owned})[1][owner].owner_kind == "Job"

    def test_an_ordinary_pod_cannot_pass_for_another(self) -> None:
        """Anyone who may create a pod may write annotations: with a victim's uid it would take over its joules."""
        assert set(read_pod(self.mirror(self.HASH))[1]) == {uid(1), container_id(1)}
        forged = self.mirror(uid(2), **{"kubernetes.io/config.mirror": "yes"})
        assert set(read_pod(forged)[1]) == {uid(1), container_id(1)}


class TestCommands:
    def command(self, container: dict[str, Any]) -> tuple[str, ...]:
        return only(edit("spec/containers/0", {"name": "main", **container})).command

    def test_entry_point_and_arguments(self) -> None:
        assert self.command({"command": ["python", "-m"], "args": ["vllm"]}) == ("python", "-m", "vllm")

    def test_literal_variables_are_put_in(self) -> None:
        env = [{"name": "ORG", "value": "Qwen"}, {"name": "MODEL", "value": "$(ORG)/Qwen2.5"}]
        args = ["--model=$(MODEL)", "$(OTHER)", "$$(MODEL)", "$MODEL", "100$"]
        assert self.command({"args": args, "env": env}) == (
            "--model=Qwen/Qwen2.5",
            "$(OTHER)",
            "$(MODEL)",
            "$MODEL",
            "100$",
        )

    def test_what_comes_from_secrets_is_not_known(self) -> None:
        """Fault 47: the pod only refers to a secret."""
        env = [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}, {"name": "A", "value": "b"}]
        metadata = only(edit("spec/containers/0", {"name": "main", "env": env, "args": ["$(TOKEN)"]}))
        assert metadata.environment == {"A": "b"}
        assert metadata.command == ("$(TOKEN)",)

    def test_scripts_are_cut_and_files_left_out(self) -> None:
        """Fault 45: 1 MB of text."""
        metadata = only(edit("spec/containers/0", {"name": "main", "args": ["x" * 2**20] * 300}))
        assert len(metadata.command) == 256
        assert {len(word) for word in metadata.command} == {MAX_TEXT}
        labels = only(edit("metadata/annotations", {"small": "x", "last-applied": "x" * 2**18})).annotations
        assert labels == {"small": "x"}

    def test_variables_that_grow_are_cut(self) -> None:
        env = [{"name": "V0", "value": "x" * 1000}]
        env += [{"name": f"V{n}", "value": f"$(V{n - 1})" * 10} for n in range(1, 20)]
        metadata = only(edit("spec/containers/0", {"name": "main", "env": env}))
        assert max(map(len, metadata.environment.values())) == MAX_TEXT


class TestGarbage:
    """Fault 49: garbage is unknown, never an exception."""

    @pytest.mark.parametrize("thing", [None, 7, "x", [], {}, {"metadata": None}, {"metadata": {"uid": 7}}])
    def test_no_pod_at_all(self, thing: object) -> None:
        assert read_pod(thing) == ("", {})

    @pytest.mark.parametrize("wrong", [None, 7, "x", ["x", None, {}], {"a": [1]}, True])
    @pytest.mark.parametrize(
        "path",
        [
            *("metadata/name", "metadata/labels", "metadata/annotations", "metadata/ownerReferences", "spec", "status"),
            *("spec/containers", "spec/containers/0/env", "spec/containers/0/command", "status/containerStatuses"),
            *("spec/containers/0/image", "status/containerStatuses/0/containerID", "status/containerStatuses/0/state"),
        ],
    )
    def test_fields_of_another_kind(self, path: str, wrong: object) -> None:
        owner, entries = read_pod(edit(path, wrong))
        assert owner == uid(1)
        assert uid(1) in entries

    json = st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["name", "env", "value", "containerID", "state", "terminated"]), inner)
        ),
        max_leaves=8,
    )

    @given(json, json, json)
    def test_anything(self, containers: object, statuses: object, labels: object) -> None:
        pod = {
            "metadata": {"uid": "u", "labels": labels, "ownerReferences": containers},
            "spec": {"containers": containers},
            "status": {"containerStatuses": statuses},
        }
        assert "u" in read_pod(pod)[1]
