"""What a real API server, kubelet and containerd answered in ``make cluster-check`` is read as it was meant."""

from __future__ import annotations

import json
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
