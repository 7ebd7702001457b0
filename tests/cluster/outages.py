"""What goes away and comes back: the kubelet, the API server, rights, tokens, the whole node."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Mapping
from typing import Any

from exporter.accounting.checkpoint import decode as read_state
from exporter.records import Unavailable
from exporter.sources.podresources.grpc import call
from exporter.sources.podresources.wire import decode
from tests.support.live import Scrape

from .cluster import JOULES, OURS, STATE, Cluster
from .node import SOCKET, wait_for
from .observed import allocations, shown
from .workloads import NAMESPACE, container, job, pod


def kubelet_restart(cluster: Cluster) -> None:
    """The kubelet is away for some seconds, and starts again: pods run on, allocations stay."""
    before = allocations(cluster.scrape())
    cluster.node.stop("kubelet")
    time.sleep(12.0)
    assert allocations(cluster.scrape()) == before
    cluster.node.start("kubelet")
    cluster.recorded["pod_resources_after_restart"] = _answers(cluster, before, 20.0)
    wait_for(lambda: cluster.node.offers(cluster.devices), "the devices", 120, every_seconds=0.5)
    cluster.until(lambda scrape: scrape.total("energy_source_up", source="podresources") == 1.0, "PodResources")
    assert allocations(cluster.scrape()) == before
    cluster.check_audit()


def api_restart(cluster: Cluster) -> None:
    """The API server is away for some seconds: known names stay, new ones come afterwards."""
    cluster.node.stop("kube-apiserver")
    cluster.until(lambda scrape: scrape.total("energy_source_up", source="kubernetes") == 0.0, "the failure")
    assert cluster.scrape().info(namespace=NAMESPACE, pod="trainer-0", container="trainer")
    cluster.node.start("kube-apiserver")
    cluster.node.wait_for_api()
    cluster.node.apply(pod("later", container("main", 0.1)))
    cluster.until(lambda scrape: shown(scrape, NAMESPACE, "later", "main"), "names of what came later", 180)
    cluster.check_audit()


def rights_taken(cluster: Cluster) -> None:
    """The role's binding is gone, and back: a reason and a fix meanwhile, names again afterwards."""
    binding = cluster.node.kubectl("get", "clusterrolebinding", OURS, "--output=json")
    cluster.node.kubectl("delete", "clusterrolebinding", OURS)
    try:
        _refused(cluster)
    finally:
        cluster.node.kubectl("apply", "--filename=-", stdin=binding)
    cluster.until(lambda scrape: shown(scrape, NAMESPACE, "unknown", "main"), "names again", 120)
    cluster.check_audit()


def _refused(cluster: Cluster) -> None:
    _restart_api(cluster)  # a watch that is open goes on without the right
    cluster.until(lambda scrape: _failed(scrape, "permission") > 0, "the refusal", 90)
    cluster.node.apply(pod("unknown", container("main", 0.1)))
    time.sleep(3.0)
    assert not cluster.scrape().info(namespace=NAMESPACE, pod="unknown", container="main")
    line = _told(cluster, "status 403")
    assert 'resource "pods"' in line["cause"], line
    assert "list, watch" in line["fix"], line
    cluster.recorded["forbidden"] = line["cause"]


def token_lost(cluster: Cluster) -> None:
    """The service account is made anew, which ends its tokens: a reason, and a new pod has a new token."""
    account = json.loads(cluster.node.kubectl("get", "serviceaccount", OURS, "-n", OURS, "--output=json"))
    cluster.node.kubectl("delete", "serviceaccount", OURS, "-n", OURS)
    del account["metadata"]["uid"], account["metadata"]["resourceVersion"]
    cluster.node.apply(account)
    _restart_api(cluster)
    cluster.until(lambda scrape: scrape.total("energy_source_up", source="kubernetes") == 0.0, "the refusal", 90)
    cluster.recorded["unauthorized"] = _told(cluster, "status 401")["cause"]
    restart(cluster)
    cluster.until(lambda scrape: scrape.total("energy_source_up", source="kubernetes") == 1.0, "a new token")


def _restart_api(cluster: Cluster) -> None:
    cluster.node.stop("kube-apiserver")
    cluster.node.start("kube-apiserver")
    cluster.node.wait_for_api()


def _answers(cluster: Cluster, allocated: dict[str, float], seconds: float) -> list[tuple[float, int, int]]:
    """How PodResources answers after a start: seconds since then, bytes, devices; each answer that differs.

    Whatever it answers, the exporter's allocations stay.
    """
    began, seen = time.monotonic(), list[tuple[float, int, int]]()
    while (now := time.monotonic() - began) < seconds:
        try:
            message = call(str(SOCKET), "/v1.PodResourcesLister/List", 5.0)
        except Unavailable:
            counts = (-1, -1)
        else:
            counts = (len(message), len(list(decode(message))))
        if not seen or seen[-1][1:] != counts:
            seen.append((round(now, 2), *counts))
        assert allocations(cluster.scrape()) == allocated
        time.sleep(0.05)
    return seen


def _told(cluster: Cluster, what: str) -> dict[str, str]:
    """The last line of the exporter's log with this cause."""
    return [line for line in cluster.log() if what in line.get("cause", "")][-1]


def _failed(scrape: Scrape, reason: str) -> float:
    return scrape.total("energy_source_failures_total", source="kubernetes", reason=reason)


def restart(cluster: Cluster) -> None:
    """``kubectl rollout restart``: counters continue from the state file."""
    before = cluster.scrape()
    cluster.node.kubectl("-n", OURS, "rollout", "restart", "daemonset")
    cluster.rolled_out()
    after = cluster.scrape()
    for name in ("energy_node_joules_total", JOULES):
        assert after.total(name) >= before.total(name) > 0, name
    cluster.check_audit()


def older_kubelet(cluster: Cluster) -> None:
    """A kubelet as before Kubernetes 1.34, which lists ended pods too: an ended pod has no card."""
    cluster.node.configure_kubelet(featureGates={"KubeletPodResourcesListUseActivePods": False})
    cluster.node.apply(job("ended", container("main", 0.2, "-for=15s", gpus={"nvidia.com/gpu": 1})))
    cluster.until(lambda scrape: _of_job(scrape, "ended"), "the job's card")
    wait_for(lambda: cluster.node.get("job", "ended", "-n", NAMESPACE)["status"].get("succeeded"), "the job", 60)
    message = call(str(SOCKET), "/v1.PodResourcesLister/List", 5.0)
    cluster.recorded["pod_resources_of_ended_pods"] = message.hex()
    time.sleep(15.0)  # the kubelet is asked every 10 s
    assert not _of_job(cluster.scrape(), "ended")
    cluster.node.apply(pod("next", container(gpus={"nvidia.com/gpu": 1})))
    cluster.until(lambda scrape: "next" in allocations(scrape), "the card of the next pod")
    assert not _of_job(cluster.scrape(), "ended")
    cluster.node.kubectl("-n", NAMESPACE, "delete", "pod", "next")
    cluster.node.configure_kubelet()
    cluster.check_audit()


def reboot(cluster: Cluster) -> None:
    """The node starts anew: new sandboxes and containers, a meter at 0, a state file of another boot."""
    before = cluster.scrape()
    node = cluster.node
    identities = {identity for each in cluster.pods() for identity in _container_ids(each)}
    node.go_down()
    _of_another_boot()
    cluster.meter.restart()
    cluster.audit.forget_processes()
    node.go_up(cluster.devices)
    wait_for(lambda: cluster.exporter() is not None, "the exporter's pod", 120, every_seconds=0.5)
    cluster.until(lambda scrape: shown(scrape, NAMESPACE, "trainer-0", "trainer"), "names", 120)
    running = [each for each in cluster.pods() if each["status"].get("phase") == "Running"]
    assert not identities & {identity for each in running for identity in _container_ids(each)}
    after = cluster.scrape()
    for name in ("energy_node_joules_total", JOULES):
        assert after.total(name) >= before.total(name) > 0, name
    cluster.recorded["pods_after_reboot"] = sorted(
        (each["metadata"]["name"], each["status"].get("phase"), each["status"].get("reason", ""))
        for each in cluster.pods()
    )
    cluster.recorded["allocated_after_reboot"] = allocations(cluster.scrape())
    cluster.check_audit()


def _of_job(scrape: Scrape, name: str) -> bool:
    return any(each.startswith(f"{name}-") for each in allocations(scrape))


def _container_ids(pod_object: Mapping[str, Any]) -> list[str]:
    statuses = pod_object["status"].get("containerStatuses", ())
    return [each["containerID"] for each in statuses if each.get("containerID")]


def _of_another_boot() -> None:
    """Change the boot id in the state file: that of this machine cannot be changed, not even for a namespace."""
    path = STATE / "state"
    state = read_state(path.read_bytes())
    first, _, rest = path.read_bytes().partition(b"\n")
    text = first.partition(b" ")[2].replace(state.boot_id.encode(), b"0" * 8 + state.boot_id[8:].encode())
    path.write_bytes(b"%08x %b\n" % (zlib.crc32(text), text) + rest)
