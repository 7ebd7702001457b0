"""What an operator does, one step after the other, and what must be true after each. Steps take what the last left."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

from exporter.sources.podresources.grpc import call
from tests.support.live import Scrape

from .cluster import JOULES, OURS, STATE, Cluster
from .kinds import brief, claims, kinds, recreated
from .machine import NODE
from .node import SOCKET, fetch, wait_for
from .observed import ALLOCATED, allocations, cgroups, commands, shown, stripped
from .outages import (
    api_restart,
    kubelet_restart,
    older_kubelet,
    reboot,
    restart,
    rights_taken,
    token_lost,
)
from .programs import WORKER
from .workloads import NAMESPACE, container, cron_job, deployment, job, namespace, pod, static_pod

DOCTOR = (
    "price        works   0.25 EUR per kWh",  # from the ConfigMap
    f"state file   ok      {STATE}/state can be written",
    "/host/sys/class/hwmon",
    "address      ok      :9400 is in use by an exporter that runs with these settings",
    "kubernetes   works",
)
"""What doctor says by ``kubectl exec``, if it has the settings of the exporter in the pod."""

OWNERS = {"chat": "Deployment", "trainer": "StatefulSet", "nightly": "Job"}


def base(cluster: Cluster) -> None:
    """``kubectl apply -k``, rollout, probes, doctor."""
    cluster.write_kustomization()
    cluster.deploy()
    cluster.watch()
    ours = cluster.exporter()
    assert ours is not None
    (status,) = ours["status"]["containerStatuses"]
    assert status["restartCount"] == 0, status
    address = ours["status"]["podIP"]
    for path in ("ready", "healthy"):
        assert fetch(f"http://{address}:9401/-/{path}")
    events = cluster.node.get("events", "-n", OURS)["items"]
    unhealthy = [each["message"] for each in events if each["reason"] == "Unhealthy"]
    cluster.recorded["probe_failures_at_start"] = unhealthy
    doctor = cluster.exec("ai-energy-exporter", "doctor")
    cluster.recorded["doctor"] = doctor.splitlines()
    for setting in DOCTOR:
        assert setting in doctor, f"doctor does not have {setting!r}:\n{doctor}"
    assert cluster.exec("ai-energy-exporter", "healthcheck") == "healthy\n"
    scrape = cluster.scrape()
    for source in ("kubernetes", "podresources", "nvml", "rapl"):
        assert scrape.total("energy_source_up", source=source) == 1.0, f"{source}: {doctor}"
    assert cluster.until(lambda scrape: shown(scrape, OURS, ours["metadata"]["name"], "exporter"), "itself")


def names(cluster: Cluster) -> None:
    """Namespaces, pods, containers and owners of everything that makes pods."""
    static = cluster.node.scratch / "static"
    static.mkdir(exist_ok=True)
    (static / "static.json").write_text(json.dumps(static_pod("static", container())))
    cluster.node.apply(namespace(NAMESPACE))
    cluster.node.apply(
        deployment(
            "chat", container("server", 0.1, "--", "--model", "acme/chat"), container("sidecar", 0.02), replicas=2
        ),
        deployment("trainer", container("trainer", 0.1), kind="StatefulSet"),
        job("tokenize", container("main", 0.3, "-for=4s")),
        cron_job("nightly", container("main", 0.05, "-for=600s"), schedule="0 0 1 1 *"),
        pod("alone", container(), initContainers=[container("before", 0.3, "-for=2s")]),
    )
    cluster.node.kubectl("-n", NAMESPACE, "create", "job", "nightly-1", "--from=cronjob/nightly")
    found = cluster.wait_for_running(8)
    for each, status in found:
        name = each["metadata"]["name"]
        cluster.until(
            lambda scrape, pod=name, main=status["name"]: shown(scrape, NAMESPACE, pod, main),  # type: ignore[misc]
            f"joules of {name}",
        )
        info = cluster.scrape().info(namespace=NAMESPACE, pod=name, container=status["name"])
        expected = {
            "runtime": "kubernetes",
            "container_id": status["containerID"].partition("://")[2],
            "pod_uid": each["metadata"]["uid"],
            "image": WORKER,
        }
        assert expected.items() <= info.items(), (expected, info)
        owner = next((kind for prefix, kind in OWNERS.items() if name.startswith(prefix)), None)
        if owner:
            assert info["owner_kind"] == owner, info
    cluster.recorded["cgroups"] = cgroups(found)
    from_kubelet = json.loads(cluster.node.kubectl("get", "--raw", f"/api/v1/nodes/{NODE}/proxy/pods"))
    cluster.recorded["pods_of_kubelet"] = stripped(from_kubelet, NAMESPACE)
    cluster.recorded["pods"] = stripped(cluster.node.get("pods", "-A", f"--field-selector=spec.nodeName={NODE}"))


def finished(cluster: Cluster) -> None:
    """A Job's pod has ended: its joules stay, under its names."""
    wait_for(lambda: cluster.node.get("job", "tokenize", "-n", NAMESPACE)["status"].get("succeeded"), "the job", 60)
    (ended,) = [each for each in cluster.pods() if each["metadata"]["name"].startswith("tokenize")]
    name = ended["metadata"]["name"]
    cluster.until(lambda scrape: shown(scrape, NAMESPACE, name, "main"), "joules of the ended job")
    time.sleep(5.0)  # its group is read for the last time when it is removed
    scrape = cluster.scrape()
    joules = scrape.total(JOULES, pod=name, component="cpu")
    time.sleep(3.0)
    assert cluster.scrape().total(JOULES, pod=name, component="cpu") == joules
    before = scrape.total(JOULES, pod="alone", container="before")
    assert before > 0, "no joules for the init container"


def allocation(cluster: Cluster) -> None:
    """Whole cards, replicas and MIG devices that a device plugin offers."""
    cluster.node.apply(
        pod("whole", container(gpus={"nvidia.com/gpu": 1})),
        pod("both", container("a", gpus={"nvidia.com/gpu": 1}), container("b")),
        pod("shares", container(gpus={"nvidia.com/gpu.shared": 3})),
        pod("share", container(gpus={"nvidia.com/gpu.shared": 1})),
        pod("slice", container(gpus={"nvidia.com/mig-1g.10gb": 1})),
        pod("slices", container(gpus={"nvidia.com/mig-2g.20gb": 1})),
    )
    expected = {"whole": 1.0, "both": 1.0, "shares": 0.75, "share": 0.25, "slice": 0.142857, "slices": 0.285714}
    cluster.until(lambda scrape: allocations(scrape) == expected, "the allocations", 120)
    scrape = cluster.scrape()
    uuids = {labels["pod"]: labels["uuid"] for labels, _ in scrape.find(ALLOCATED)}
    assert {uuids["whole"], uuids["both"]} == {gpu.uuid for gpu in cluster.whole}
    assert uuids["shares"] == uuids["share"] == cluster.shared.uuid
    cluster.until(lambda scrape: scrape.total(JOULES, pod="shares", component="gpu", mode="idle") > 0, "idle joules")
    message = call(str(SOCKET), "/v1.PodResourcesLister/List", 5.0)
    cluster.recorded["pod_resources"] = message.hex()
    cluster.recorded["allocated"] = expected
    cluster.recorded["uuids"] = uuids


def crash_loop(cluster: Cluster) -> None:
    """A container that the kubelet starts again in the same pod: one row, which only grows."""
    cluster.node.apply(pod("crashing", container("main", 0.5, "-for=2s", "-exit=1")))

    def restarts() -> int:
        (status,) = cluster.node.get("pod", "crashing", "-n", NAMESPACE)["status"].get("containerStatuses") or [{}]
        return int(status.get("restartCount", 0))

    wait_for(lambda: restarts() >= 1, "a restart", 60, every_seconds=0.5)
    first = cluster.scrape().total(JOULES, pod="crashing", component="cpu")
    wait_for(lambda: restarts() >= 3, "restarts", 120, every_seconds=1)
    scrape = cluster.scrape()
    assert scrape.total(JOULES, pod="crashing", component="cpu") > first > 0
    containers = {labels["container"] for labels, _ in scrape.find(JOULES, pod="crashing")}
    assert containers <= {"main", ""}, containers
    cluster.node.kubectl("-n", NAMESPACE, "delete", "pod", "crashing", "--wait=false")


def deleted(cluster: Cluster) -> None:
    """Deletion and eviction: the pod's joules stay its own."""
    scrape = cluster.scrape()
    joules = {name: scrape.total(JOULES, pod=name) for name in ("alone", "both")}
    cluster.node.kubectl("-n", NAMESPACE, "delete", "pod", "alone")
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "both", "namespace": NAMESPACE}}
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/both/eviction"
    cluster.node.kubectl("create", "--raw", path, "--filename=-", stdin=json.dumps(eviction))
    wait_for(lambda: not {"alone", "both"} & {each["metadata"]["name"] for each in cluster.pods()}, "their end", 60)
    cluster.until(lambda scrape: "both" not in allocations(scrape), "the end of the allocation")
    scrape = cluster.scrape()
    for name, before in joules.items():
        assert scrape.total(JOULES, pod=name) >= before > 0, name
    cluster.check_audit()


def churn(cluster: Cluster) -> None:
    """60 pods that come and go: each has joules, and all of it is the node's."""
    cluster.node.apply(job("churn", container("main", 0.2, "-for=3s"), completions=60, parallelism=12))
    cluster.wait_for_job("churn", 60)
    made = {
        each["metadata"]["name"]
        for each in cluster.pods()
        # A pod that the kubelet did not admit (OutOfcpu, while those that end still count) never ran.
        if each["metadata"]["name"].startswith("churn") and each["status"]["phase"] == "Succeeded"
    }
    seen = cluster.until(lambda scrape: _of(scrape, made) if len(_of(scrape, made)) == 60 else None, "60 pods")
    assert set(seen) == made
    scrape = cluster.scrape()
    assert not [labels for labels, _ in scrape.find(JOULES, pod="") if labels["runtime"] == "kubernetes"]
    cluster.recorded["churn_joules"] = [round(min(seen.values()), 2), round(max(seen.values()), 2)]
    cluster.check_audit()


def upgrade(cluster: Cluster) -> None:
    """A newer image: rollout, counters continue, no second exporter meanwhile."""
    cluster.node.containerd("images", "tag", f"docker.io/library/{OURS}:0.1.0", f"docker.io/library/{OURS}:0.2.0")
    before = cluster.scrape()
    cluster.write_kustomization("0.2.0")
    cluster.deploy()
    ours = cluster.exporter()
    assert ours is not None
    assert ours["spec"]["containers"][0]["image"].endswith(":0.2.0")
    after = cluster.scrape()
    assert after.total("energy_node_joules_total") >= before.total("energy_node_joules_total")
    assert allocations(after).keys() <= allocations(before).keys() | {"later"}
    cluster.check_audit()


def rights_used(cluster: Cluster) -> None:
    """The API server's audit log: the exporter used the rights that the manifest gives, each of them, and no others."""
    used: set[str] = set()
    for line in cluster.node.audit_log.read_text().splitlines():
        event = json.loads(line)
        thing = event.get("objectRef", {})
        path = event["requestURI"].partition("?")[0]
        used.add(f"{event['verb']} {thing.get('resource') or path}")
    cluster.recorded["rights_used"] = sorted(used)
    rules = cluster.node.get("clusterrole", OURS)["rules"]
    given = {f"{verb} {resource}" for rule in rules for verb in rule["verbs"] for resource in rule["resources"]}
    assert used == given, (used, given)


def removal(cluster: Cluster) -> None:
    """``kubectl delete -k``: nothing stays but the state on the node, which docs/upgrade.md says to remove."""
    cluster.remove()
    for kind in ("clusterrole", "clusterrolebinding", "priorityclass", "namespace"):
        items = cluster.node.get(kind)["items"]
        assert not [each for each in items if each["metadata"]["name"].startswith(OURS)], kind
    wait_for(lambda: not any(commands("ai-energy-exporter")), "the end of the exporter", 30)
    cluster.recorded["left_on_node"] = sorted(
        str(path) for path in (STATE, Path("/run/ai-energy-exporter")) if path.exists()
    )
    assert (STATE / "state").exists()


STEPS = (
    base,
    names,
    finished,
    allocation,
    crash_loop,
    deleted,
    kubelet_restart,
    api_restart,
    rights_taken,
    token_lost,
    restart,
    churn,
    kinds,
    recreated,
    brief,
    claims,
    older_kubelet,
    reboot,
    upgrade,
    rights_used,
    removal,
)


def _of(scrape: Scrape, names: set[str]) -> Mapping[str, float]:
    return {name: joules for name in names if (joules := scrape.total(JOULES, pod=name, container="main")) > 0}
