"""What the pods may do and how they are kept, of the base and every overlay; and that what breaks it is noticed."""

from __future__ import annotations

import copy
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exporter.host import Host
from exporter.network.http_client import HttpClient
from exporter.records import Workload
from exporter.workloads.metadata.kubernetes_api import API_FIXES, ApiServer
from exporter.workloads.metadata.provider import BackgroundProvider
from exporter.workloads.models.launchers import LAUNCHERS
from tests.support.fake_kubernetes_api import FakeApiServer, container_id, make_pod, uid
from tests.support.manifests import (
    DOCUMENT,
    FOLDER,
    OVERLAYS,
    Object,
    example,
    of_kind,
    pods,
    render,
    rendered,
    variables,
)
from tests.support.patience import wait_for
from tests.support.policy import references, security
from tests.support.repository import REPOSITORY

ROOTLESS = "overlays/nonroot"

each = pytest.mark.parametrize("name", OVERLAYS)


@each
def test_rights(name: str) -> None:
    assert list(security(render(name), root=name != ROOTLESS)) == []


@each
def test_references(name: str) -> None:
    assert list(references(render(name))) == []


def test_the_servicemonitor_selects_the_service() -> None:
    assert list(references([*render("base"), *render("parts/servicemonitor")])) == []


def test_what_others_provide_is_documented() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    for word in ("ai-energy-exporter-tls", "RuntimeClass", "`monitoring`", "cert-manager"):
        assert word in text, word


Spoil = Callable[[dict[str, Object], Object, Object], Any]

SPOILED: dict[str, Spoil] = {
    "hostPID is": lambda _, pod, __: pod.update(hostPID=False),
    "hostNetwork is": lambda _, pod, __: pod.update(hostNetwork=True),
    "tolerations is": lambda _, pod, __: pod.pop("tolerations"),
    "runs as": lambda _, pod, __: pod["securityContext"].update(runAsUser=1000),
    "another seccomp profile": lambda _, pod, __: pod["securityContext"]["seccompProfile"].update(type="Unconfined"),
    "not only on Linux": lambda _, pod, __: pod["nodeSelector"].clear(),
    "an init container": lambda _, pod, __: pod.update(initContainers=[{"name": "chown"}]),
    "no time to end": lambda _, pod, __: pod.update(terminationGracePeriodSeconds=1),
    "'privileged': True": lambda _, __, main: main["securityContext"].update(privileged=True),
    "SYS_ADMIN": lambda _, __, main: main["securityContext"]["capabilities"].update(add=["SYS_ADMIN"]),
    "'readOnlyRootFilesystem': False": lambda _, __, main: main["securityContext"].update(readOnlyRootFilesystem=False),
    "Unmasked": lambda _, __, main: main["securityContext"].update(procMount="Unmasked"),
    "has a CPU limit": lambda _, __, main: main["resources"]["limits"].update(cpu="1"),
    "resources are": lambda _, __, main: main["resources"]["limits"].pop("memory"),
    "has a hostPort": lambda _, __, main: main["ports"][0].update(hostPort=9400),
    "takes a GPU": lambda _, __, main: main["resources"]["limits"].update({"nvidia.com/gpu": 1}),
    "lacks a probe": lambda _, __, main: main.pop("startupProbe"),
    "may write /host/sys/class": lambda _, __, main: main["volumeMounts"][1].pop("readOnly"),
    "/sys/class may be made": lambda _, pod, __: pod["volumes"][1]["hostPath"].update(type="DirectoryOrCreate"),
    "sees ['/', ": lambda _, pod, __: pod["volumes"][1]["hostPath"].update(path="/"),
    "a volume that nobody mounts": lambda _, pod, __: pod["volumes"].append({"name": "spare", "emptyDir": {}}),
    "rights are": lambda all_, _, __: all_["ClusterRole"]["rules"][0]["resources"].append("secrets"),
    "'get'": lambda all_, _, __: all_["ClusterRole"]["rules"][0]["verbs"].append("get"),
    "the token goes to every pod": lambda all_, _, __: all_["ServiceAccount"].update(automountServiceAccountToken=True),
    "namespace:": lambda all_, _, __: all_["Namespace"]["metadata"]["labels"].popitem(),
    "no ServiceAccount": lambda _, pod, __: pod.update(serviceAccountName="default"),
    "no PriorityClass": lambda all_, _, __: all_["PriorityClass"]["metadata"].update(name="other"),
    "no RuntimeClass": lambda _, pod, __: pod.update(runtimeClassName="kata"),
    "no ConfigMap": lambda _, pod, __: pod["volumes"][0]["configMap"].update(name="gone"),
    "no ClusterRole": lambda all_, _, __: all_["ClusterRoleBinding"]["roleRef"].update(name="view"),
    "Service selects": lambda all_, _, __: all_["Service"]["spec"]["selector"].update(app="other"),
    "NetworkPolicy selects": lambda all_, _, __: all_["NetworkPolicy"]["spec"]["podSelector"].update(matchLabels={}),
    "has no port ['http']": lambda all_, _, __: all_["Service"]["spec"]["ports"][0].update(targetPort="http"),
    "has no port ['metrics']": lambda _, __, main: main["ports"][0].update(name="http-metrics"),
    "has no port ['probe']": lambda _, __, main: main["livenessProbe"]["httpGet"].update(port="probe"),
    "scraped twice": lambda all_, _, __: all_.update(Pod=render("parts/podmonitor")[0], Service2=_second_monitor()),
}


def _second_monitor() -> Object:
    (found,) = render("parts/servicemonitor")
    return found


@pytest.mark.parametrize("complaint", SPOILED)
def test_what_breaks_it_is_noticed(complaint: str) -> None:
    objects = {found["kind"]: found for found in copy.deepcopy(render("base"))}
    pod = objects["DaemonSet"]["spec"]["template"]["spec"]
    SPOILED[complaint](objects, pod, pod["containers"][0])
    on_progress = [*security([*objects.values()]), *references([*objects.values()])]
    assert [line for line in on_progress if complaint in line], on_progress


@each
def test_rollout(name: str) -> None:
    for found in of_kind(render(name), "DaemonSet"):
        assert found["spec"]["updateStrategy"] == {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxUnavailable": "10%"},  # no surge: the state file has one owner
        }


@each
def test_priority_evicts_nobody(name: str) -> None:
    (found,) = of_kind(render(name), "PriorityClass")
    assert (found["preemptionPolicy"], found["globalDefault"]) == ("Never", False)
    assert 0 < found["value"] < 1_000_000_000  # what is above belongs to the system


def _measured(file: str, pattern: str) -> float:
    return max(map(float, re.findall(pattern, (REPOSITORY / "docs" / file).read_text(encoding="utf-8"), re.MULTILINE)))


@each
def test_memory_is_twice_what_was_measured(name: str) -> None:
    """Of 1,000 new pods a minute, and of the process that calls NVML where there is one."""
    churn = _measured("kubernetes.md", r"^\| [0-4] .*\| ([\d.]+) +\|$")
    child = _measured("nvidia.md", r"The child has ([\d.]+) MiB resident")
    for daemonset, pod in pods(render(name)):
        needed = churn + (child if daemonset.endswith("-gpu") else 0)
        (container,) = pod["containers"]
        limit, request = (
            int(container["resources"][kind]["memory"].removesuffix("Mi")) for kind in ("limits", "requests")
        )
        assert 2 * needed <= limit <= 2.2 * needed
        assert 40 < request < needed + 20


def test_the_network_policy_lets_in_scrapes_and_out_the_api_server_and_model_servers() -> None:
    (found,) = of_kind(render("base"), "NetworkPolicy")
    spec = found["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    (into,) = spec["ingress"]
    assert into["ports"] == [{"port": "metrics", "protocol": "TCP"}]
    assert [list(peer) for peer in into["from"]] == [["namespaceSelector"]]
    server, models = spec["egress"]
    assert server == {"ports": [{"port": port, "protocol": "TCP"} for port in (443, 6443)]}
    assert models["to"] == [{"namespaceSelector": {}}]
    assert {port["protocol"] for port in models["ports"]} == {"TCP"}
    usual = {launcher.metrics.port for launcher in LAUNCHERS if launcher.metrics is not None} - {0}
    assert {port["port"] for port in models["ports"]} == usual | {80}


def test_every_node_has_one_exporter_with_gpus_or_without() -> None:
    found = {
        item["metadata"]["name"]: item["spec"]["template"] for item in of_kind(render("overlays/gpu"), "DaemonSet")
    }
    assert set(found) == {"ai-energy-exporter", "ai-energy-exporter-gpu"}
    others, gpus = found["ai-energy-exporter"]["spec"], found["ai-energy-exporter-gpu"]["spec"]
    required = others["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (term,) = required["nodeSelectorTerms"]
    assert term == {"matchExpressions": [{"key": "nvidia.com/gpu.present", "operator": "NotIn", "values": ["true"]}]}
    assert gpus["nodeSelector"] == {"kubernetes.io/os": "linux", "nvidia.com/gpu.present": "true"}
    assert "runtimeClassName" not in others
    assert gpus["runtimeClassName"] == "nvidia"
    given = variables(gpus["containers"][0])
    assert (given["NVIDIA_VISIBLE_DEVICES"], given["NVIDIA_DRIVER_CAPABILITIES"]) == ("all", "utility")
    assert "NVIDIA_MIG_MONITOR_DEVICES" not in given  # the runtime refuses it without privileges


@pytest.mark.parametrize("part", ["parts/podmonitor", "parts/servicemonitor"])
def test_monitors_keep_the_labels_of_workloads(part: str) -> None:
    (found,) = render(part)
    (endpoint,) = found["spec"].get("podMetricsEndpoints") or found["spec"]["endpoints"]
    assert endpoint["honorLabels"] is True
    node, dropped = endpoint["relabelings"]
    assert (node["sourceLabels"], node["targetLabel"]) == (["__meta_kubernetes_pod_node_name"], "instance")
    assert dropped["action"] == "labeldrop"
    assert set(dropped["regex"].split("|")) == {"pod", "container", "namespace", "service", "endpoint"}


def test_openshift_allows_what_the_pod_asks_for_and_no_more() -> None:
    objects = render("overlays/openshift")
    (scc,) = of_kind(objects, "SecurityContextConstraints")
    allowed = {key for key, value in scc.items() if key.startswith("allow") and value}
    assert allowed == {"allowHostPID", "allowHostDirVolumePlugin"}
    assert (scc["requiredDropCapabilities"], scc["defaultAddCapabilities"]) == (["ALL"], [])
    assert scc["readOnlyRootFilesystem"] is True
    ((_, pod),) = pods(objects)
    assert scc["runAsUser"] == {"type": "MustRunAs", "uid": pod["securityContext"]["runAsUser"]}
    used = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
    assert used | {"projected"} <= set(scc["volumes"])


def test_requests_to_the_api_server_are_exactly_what_the_role_allows() -> None:
    """The exporter's own client against a server that records its requests."""
    with FakeApiServer() as server:
        server.add(make_pod(1))
        provider = BackgroundProvider(ApiServer(HttpClient(server.url, API_FIXES), "node-1"), Host())
        try:
            provider.find(Workload(pod="", runtime="kubernetes", container_id=container_id(1), pod_uid=uid(1)))
            wait_for(lambda: server.watching)
        finally:
            provider.close()
        requested = {("watch" if "watch" in request.query else "list", request.path) for request in server.requests}
    (role,) = of_kind(render("base"), "ClusterRole")
    (rule,) = role["rules"]
    assert requested == {(verb, f"/api/v1/{resource}") for verb in rule["verbs"] for resource in rule["resources"]}


def test_patches_of_overlays_can_be_combined(tmp_path: Path) -> None:
    """As the documentation has it: copied beside a kustomization of your own."""
    shutil.copytree(FOLDER, tmp_path / "kubernetes")
    for overlay in ("mtls", "nonroot"):
        shutil.copy(FOLDER / "overlays" / overlay / "daemonset.yaml", tmp_path / f"{overlay}.yaml")
    shutil.copy(FOLDER / "overlays/mtls/web.yaml", tmp_path)
    (tmp_path / "kustomization.yaml").write_text(example("patchesStrategicMerge"))
    objects = rendered(tmp_path)
    assert list(security(objects, root=False)) == []
    assert list(references(objects)) == []
    ((_, pod),) = pods(objects)
    ((_, base),) = pods(render("base"))
    assert set(variables(pod["containers"][0])) - set(variables(base["containers"][0])) == {
        "AI_ENERGY_SOURCE_PODRESOURCES",
        "AI_ENERGY_WEB_CONFIG_FILE",
    }
