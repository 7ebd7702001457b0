"""What a real API server, kubelet and containerd answered in ``make cluster-check`` is read as it was meant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter.host import Host
from exporter.sources.podresources.cards import DeviceResolver
from exporter.sources.podresources.wire import decode
from exporter.sources.usage.identity import parse_cgroup
from exporter.workloads.metadata.pod_parser import read_pod
from exporter.workloads.paths.precedence import by_path
from tests.support.repository import REPOSITORY

RECORDED = REPOSITORY / "tests/cluster/kubernetes-1.37.2.json"


@pytest.fixture(scope="module")
def recorded() -> Any:
    return json.loads(RECORDED.read_text(encoding="utf-8"))


def test_pods_of_the_api_server_have_names_for_every_cgroup_of_the_kubelet(recorded: Any) -> None:
    names: dict[str, Any] = {}
    for pod in recorded["pods"]["items"]:
        uid, entries = read_pod(pod)
        assert uid == pod["metadata"]["uid"]
        names |= entries
    assert recorded["cgroups"]
    for identity, lines in recorded["cgroups"].items():
        owner = by_path([parse_cgroup("\n".join(lines))])
        assert (owner.runtime, owner.container_id) == ("kubernetes", identity)
        found = names[identity]
        assert found.pod_uid
        assert names[owner.pod_uid].pod == found.pod
        assert (found.container, found.image) != ("", "")


def test_owners_are_those_that_made_the_pods(recorded: Any) -> None:
    owners = {}
    for pod in recorded["pods"]["items"]:
        uid, entries = read_pod(pod)
        owners[entries[uid].pod] = (entries[uid].owner_kind, entries[uid].owner_name)
    assert owners["trainer-0"] == ("StatefulSet", "trainer")
    assert ("Deployment", "chat") in owners.values()
    assert ("Job", "nightly-1") in owners.values()
    assert ("Node", "node-1") in owners.values()


def test_devices_of_the_kubelet_are_the_shares_that_were_requested(recorded: Any) -> None:
    resolver, shares = DeviceResolver(Host()), dict.fromkeys(recorded["allocated"], 0.0)
    seen = set()
    for each in decode(bytes.fromhex(recorded["pod_resources"])):
        part = resolver.resolve(each)
        assert part is not None, each
        seen.add((each.kind, each.pod))
        shares[each.pod] += part.share
        if part.device.startswith("GPU-"):
            assert part.device == recorded["uuids"][each.pod]
    assert seen == {
        ("nvidia.com/gpu", "whole"),
        ("nvidia.com/gpu", "both"),
        ("nvidia.com/gpu.shared", "shares"),
        ("nvidia.com/gpu.shared", "share"),
        ("nvidia.com/mig-1g.10gb", "slice"),
        ("nvidia.com/mig-2g.20gb", "slices"),
    }
    assert shares["shares"] == 3 * shares["share"]


def test_the_manifest_gives_the_rights_that_were_used_and_no_others(recorded: Any) -> None:
    documents = yaml.safe_load_all((REPOSITORY / "deploy/kubernetes/base/rbac.yaml").read_text(encoding="utf-8"))
    (role,) = [each for each in documents if each["kind"] == "ClusterRole"]
    given = {f"{verb} {kind}" for rule in role["rules"] for verb in rule["verbs"] for kind in rule["resources"]}
    assert set(recorded["rights_used"]) == given


def test_the_kubelet_gives_the_names_that_the_api_server_gives(recorded: Any) -> None:
    """All but the uid of a static pod: only the API server has a mirror of it."""
    told: dict[str, dict[str, Any]] = {}
    for source in ("pods", "pods_of_kubelet"):
        told[source] = {}
        for pod in recorded[source]["items"]:
            told[source] |= read_pod(pod)[1]
    differ, common = set(), told["pods"].keys() & told["pods_of_kubelet"].keys()
    assert len(common) > 10
    for identity in common:
        ours, theirs = told["pods"][identity], told["pods_of_kubelet"][identity]
        for field in ("namespace", "pod", "container", "image", "owner_kind", "owner_name", "command", "pod_uid"):
            if getattr(ours, field) != getattr(theirs, field):
                differ.add((ours.pod, field))
    assert differ == {("static-node-1", "pod_uid")}


def test_init_sidecar_and_ephemeral_containers_and_each_class_of_service_have_names(recorded: Any) -> None:
    names: dict[str, Any] = {}
    for pod in recorded["pods_of_kinds"]["items"]:
        names |= read_pod(pod)[1]
    found = set()
    for identity, lines in recorded["cgroups_of_kinds"].items():
        owner = by_path([parse_cgroup("\n".join(lines))])
        assert (owner.runtime, owner.container_id) == ("kubernetes", identity)
        found.add((names[identity].pod, names[identity].container))
    ones = {("kinds", "main"), ("kinds", "sidecar"), ("kinds", "debugger")}
    assert found == ones | {("guaranteed", "main"), ("besteffort", "main")}


def test_claims_are_the_cards_that_the_scheduler_chose(recorded: Any, tmp_path: Path) -> None:
    """A claim of a template, one that two pods share, and an extended resource."""
    for number in range(3):
        folder = tmp_path / f"driver/nvidia/gpus/0000:0{number + 1}:00.0"
        folder.mkdir(parents=True)
        (folder / "information").write_text(f"Model: \t NVIDIA H100\nDevice Minor: \t {number}\n")
    resolver, found = DeviceResolver(Host(procfs=str(tmp_path))), {}
    for each in decode(bytes.fromhex(recorded["pod_resources_of_claims"])):
        if each.driver:
            part = resolver.resolve(each)
            assert part is not None, each
            found[each.pod] = part.device
    cards = {name: f"0000:0{int(device.removeprefix('gpu-')) + 1}:00.0" for name, device in recorded["claimed"].items()}
    assert found == cards
    assert found["sharing-1"] == found["sharing-2"]
    assert len(set(found.values())) == 3


def test_a_kubelet_of_before_1_34_lists_ended_pods_without_devices(recorded: Any) -> None:
    message = bytes.fromhex(recorded["pod_resources_of_ended_pods"])
    assert b"ended-" in message
    assert not [each for each in decode(message) if each.pod.startswith("ended-")]
