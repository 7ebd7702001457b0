"""Containers and allocations of every kind that Kubernetes has."""

from __future__ import annotations

import json
import time
from typing import Any

from exporter.sources.podresources.grpc import call
from exporter.sources.podresources.wire import decode

from .cluster import JOULES, Cluster
from .machine import NODE
from .node import SOCKET, wait_for
from .observed import cgroups, shown, stripped
from .workloads import NAMESPACE, container, in_namespace, job, namespace, pod, running

LONG = "n" * 63
"""The longest name of a namespace or container; with a pod of that length a file name of the kubelet is near 255."""

STATUSES = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")

DRIVER = "gpu.nvidia.com"


def kinds(cluster: Cluster) -> None:
    """Init, sidecar and ephemeral containers, each class of quality of service, the longest names."""
    node = cluster.node
    node.apply(namespace(LONG))
    fixed = container("main", 0.1) | {"resources": {"limits": {"cpu": "100m", "memory": "16Mi"}}}
    any_ = container("main", 0.1) | {"resources": {}}
    before = [container("before", 0.3, "-for=3s"), container("sidecar", 0.1) | {"restartPolicy": "Always"}]
    dotted = f"{'p' * 60}.{'q' * 60}"
    node.apply(
        pod("kinds", container("main", 0.1), initContainers=before),
        pod("guaranteed", fixed),
        pod("besteffort", any_),
        in_namespace(LONG, pod(dotted, container("c" * 63, 0.1))),
    )
    names = {("kinds", "main"), ("kinds", "sidecar"), ("guaranteed", "main"), ("besteffort", "main")}
    cluster.until(lambda scrape: shown(scrape, NAMESPACE, "kinds", "before"), "joules of the init container")
    node_of = ("--image=check.example/worker:1", "--profile=general", "--container=debugger", "--arguments-only")
    wait_for(lambda: _phase(cluster, "kinds") == "Running", "the pod")
    node.kubectl("-n", NAMESPACE, "debug", "kinds", *node_of, "--", "-duty=0.2")
    for name, main in sorted(names | {("kinds", "debugger")}):
        cluster.until(lambda scrape, p=name, m=main: shown(scrape, NAMESPACE, p, m), f"joules of {name} {main}")  # type: ignore[misc]
    cluster.until(lambda scrape: shown(scrape, LONG, dotted, "c" * 63), "joules under long names")
    pods = [each for each in cluster.pods() if each["metadata"]["name"] in dict(names)]
    cluster.recorded["cgroups_of_kinds"] = cgroups(running(pods, STATUSES))
    objects = node.get("pods", "-n", NAMESPACE)
    objects["items"] = [each for each in objects["items"] if each["metadata"]["name"] in dict(names)]
    cluster.recorded["pods_of_kinds"] = stripped(objects)
    node.kubectl("-n", NAMESPACE, "delete", "pod", *dict(names), "--wait=false")
    node.kubectl("delete", "namespace", LONG, "--wait=false")
    cluster.check_audit()


def recreated(cluster: Cluster) -> None:
    """A StatefulSet's pod is deleted, once with force: the next of that name has another uid, and no counter falls."""
    for force in ((), ("--force", "--grace-period=0")):
        (old,) = [each for each in cluster.pods() if each["metadata"]["name"] == "trainer-0"]
        joules = cluster.scrape().total(JOULES, pod="trainer-0", component="cpu")
        cluster.node.kubectl("-n", NAMESPACE, "delete", "pod", "trainer-0", *force)
        uid = wait_for(lambda: _new_uid(cluster, "trainer-0", old["metadata"]["uid"]), "the next pod")  # noqa: B023
        cluster.until(lambda scrape: _has_uid(scrape, "trainer-0", uid), "its row", 120)  # noqa: B023
        cluster.until(
            lambda scrape: scrape.total(JOULES, pod="trainer-0", component="cpu") > joules,  # noqa: B023
            "more joules",
        )
    cluster.check_audit()


def brief(cluster: Cluster) -> None:
    """Jobs that end within a fifth of a second: what was read of them has their names."""
    cluster.node.apply(job("brief", container("main", 0.9, "-for=200ms"), completions=20, parallelism=5))
    cluster.wait_for_job("brief", 20)
    time.sleep(35.0)  # after half a minute without a name, ids are exported
    scrape = cluster.scrape()
    rows = [labels for labels, _ in scrape.find(JOULES) if labels["runtime"] == "kubernetes"]
    named = {labels["pod"] for labels in rows if labels["pod"].startswith("brief-")}
    in_container = {labels["pod"] for labels in rows if labels["pod"].startswith("brief-") and labels["container"]}
    cluster.recorded["brief_pods"] = {"completed": 20, "with_joules": len(named), "in_container": len(in_container)}
    assert not [labels for labels in rows if not labels["namespace"]], "rows without names"
    assert named
    cluster.check_audit()


def claims(cluster: Cluster) -> None:
    """Dynamic resource allocation: a claim of a template, one that two pods share, an extended resource."""
    node = cluster.node
    node.start_driver(DRIVER)
    pool = {"name": NODE, "generation": 1, "resourceSliceCount": 1}
    devices = [{"name": f"gpu-{number}"} for number in range(3)]
    chosen = {"selectors": [{"cel": {"expression": f'device.driver == "{DRIVER}"'}}]}
    spec = {"driver": DRIVER, "nodeName": NODE, "pool": pool, "devices": devices}
    request = {"devices": {"requests": [{"name": "card", "exactly": {"deviceClassName": DRIVER}}]}}
    node.apply(
        _resource("ResourceSlice", f"{NODE}-gpus", spec),
        _resource("DeviceClass", DRIVER, {**chosen, "extendedResourceName": "check.example/gpu"}),
        in_namespace(NAMESPACE, _resource("ResourceClaimTemplate", "own", {"spec": request})),
        in_namespace(NAMESPACE, _resource("ResourceClaim", "shared", request)),
    )
    using = container() | {"resources": {"claims": [{"name": "card"}]}}
    node.apply(
        pod("claiming", using, resourceClaims=[{"name": "card", "resourceClaimTemplateName": "own"}]),
        pod("sharing-1", using, resourceClaims=[{"name": "card", "resourceClaimName": "shared"}]),
        pod("sharing-2", using, resourceClaims=[{"name": "card", "resourceClaimName": "shared"}]),
        pod("extended", container(gpus={"check.example/gpu": 1})),
    )
    names = ("claiming", "sharing-1", "sharing-2", "extended")
    wait_for(lambda: all(_phase(cluster, name) == "Running" for name in names), "the pods", 90)
    message = call(str(SOCKET), "/v1.PodResourcesLister/List", 5.0)
    given = {each.pod: (each.driver, each.kind, each.device) for each in decode(message) if each.driver}
    assert given.keys() == set(names), given
    assert given["sharing-1"] == given["sharing-2"], given
    assert {each[:2] for each in given.values()} == {(DRIVER, NODE)}, given
    assert len({each[2] for each in given.values()}) == 3, given
    cluster.recorded["pod_resources_of_claims"] = message.hex()
    cluster.recorded["claimed"] = {name: device for name, (_, _, device) in given.items()}
    node.kubectl("-n", NAMESPACE, "delete", "pod", *names)
    node.stop("draplugin")
    cluster.check_audit()


def _phase(cluster: Cluster, name: str) -> str:
    text = cluster.node.kubectl("get", "pod", name, "-n", NAMESPACE, "--output=json", check=False)
    return str(json.loads(text)["status"].get("phase", "")) if text else ""


def _new_uid(cluster: Cluster, name: str, old: str) -> str:
    for each in cluster.pods():
        if each["metadata"]["name"] == name and each["metadata"]["uid"] != old:
            return str(each["metadata"]["uid"])
    return ""


def _has_uid(scrape: Any, name: str, uid: str) -> bool:
    return any(labels["pod_uid"] == uid for labels, _ in scrape.find("energy_container_info", pod=name))


def _resource(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "resource.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
