"""What a pod of the exporter may do, and that every name which one object says of another is there.

Both return complaints, so that tests can also show that they do complain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tests.support.manifests import Object, identity, mounts, of_kind, pods

READ_ONLY = {"/sys/class", "/sys/devices", "/sys/bus", "/sys/fs/cgroup", "/var/lib/kubelet/pod-resources"}
WRITABLE = {"/var/lib/ai-energy-exporter", "/run/ai-energy-exporter"}
NONROOT = 65532

PROVIDED = {
    ("Secret", "ai-energy-exporter", "ai-energy-exporter-bmc"),  # overlays/bmc: yours
    ("Secret", "ai-energy-exporter", "ai-energy-exporter-tls"),  # overlays/mtls: yours, or cert-manager's
    ("RuntimeClass", "", "nvidia"),  # overlays/gpu: the GPU operator's
    ("Namespace", "", "monitoring"),  # where Prometheus is
}
"""What the manifests mention and somebody else makes; docs/deploy-kubernetes.md says of each who."""


def security(objects: Sequence[Object], *, root: bool = True) -> Iterator[str]:
    """Complaints about rights. ``root``: whether the pods are to run as uid 0."""
    for name, pod in pods(objects):
        for complaint in (*_pod(pod, root), *_containers(pod), *_volumes(pod)):
            yield f"{name}: {complaint}"
    yield from _rights(objects)
    for found in of_kind(objects, "Namespace"):
        levels = {key: value for key, value in found["metadata"]["labels"].items() if "pod-security" in key}
        if levels != {f"pod-security.kubernetes.io/{mode}": "privileged" for mode in ("enforce", "audit", "warn")}:
            yield f"namespace: {levels}"


def _pod(pod: Object, root: bool) -> Iterator[str]:
    wanted: dict[str, Any] = {
        "hostPID": True,
        "hostNetwork": False,
        "hostIPC": False,
        "automountServiceAccountToken": True,
        "tolerations": [{"operator": "Exists"}],
        "priorityClassName": "ai-energy-exporter",
        "enableServiceLinks": False,
    }
    for field, value in wanted.items():
        if pod.get(field) != value:
            yield f"{field} is {pod.get(field)!r}"
    if pod["nodeSelector"].get("kubernetes.io/os") != "linux":
        yield "not only on Linux"
    if pod["terminationGracePeriodSeconds"] < 6:
        yield "no time to end"
    if not pod.get("hostUsers", True):
        yield "its root is not the host's"
    if pod.get("initContainers"):
        yield "an init container"
    context = pod["securityContext"]
    user = 0 if root else NONROOT
    if (context["runAsUser"], context["runAsGroup"], context.get("runAsNonRoot", False)) != (user, user, not root):
        yield f"runs as {context}"
    if context["seccompProfile"] != {"type": "RuntimeDefault"}:
        yield "another seccomp profile"


def _containers(pod: Object) -> Iterator[str]:
    for container in pod["containers"]:
        context = container["securityContext"]
        wanted: dict[str, Any] = {
            "privileged": False,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        if context != wanted:  # so neither another user, nor an unmasked /proc, nor a profile of its own
            yield f"securityContext is {context}"
        resources = container["resources"]
        if "cpu" in resources["limits"]:
            yield "has a CPU limit"
        if "memory" not in resources["limits"] or set(resources["requests"]) != {"cpu", "memory"}:
            yield f"resources are {resources}"
        if any("hostPort" in port for port in container["ports"]):
            yield "has a hostPort"
        if any("nvidia.com/gpu" in kind for kind in (resources["limits"], resources["requests"])):
            yield "takes a GPU"
        if {"startupProbe", "readinessProbe", "livenessProbe"} - set(container):
            yield "lacks a probe"


def _volumes(pod: Object) -> Iterator[str]:
    seen = set()
    for mount, volume in mounts(pod):
        path = volume.get("hostPath", {}).get("path")
        if path is not None:
            seen.add(path)
        if path in WRITABLE:
            if volume["hostPath"]["type"] != "DirectoryOrCreate" or mount.get("readOnly"):
                yield f"cannot write {path}"
        elif not mount.get("readOnly"):
            yield f"may write {mount['mountPath']}"
        elif path is not None and volume["hostPath"]["type"] != "Directory":
            yield f"{path} may be made"
        if "subPath" in mount or mount.get("mountPropagation", "None") != "None":
            yield f"{mount['mountPath']}: subPath or mountPropagation"
    if seen != READ_ONLY | WRITABLE:
        yield f"sees {sorted(seen)}"
    if {volume["name"] for volume in pod["volumes"]} != {mount["name"] for mount, _ in mounts(pod)}:
        yield "a volume that nobody mounts"


def _rights(objects: Sequence[Object]) -> Iterator[str]:
    for found in of_kind(objects, "Role", "RoleBinding"):
        yield f"{found['kind']}: not needed"
    for found in of_kind(objects, "ClusterRole"):
        if found["rules"] != [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}]:
            yield f"rights are {found['rules']}"
        if "aggregationRule" in found:
            yield "rights of others"
    for found in of_kind(objects, "ServiceAccount"):
        if found["automountServiceAccountToken"]:
            yield "the token goes to every pod"


def references(objects: Sequence[Object]) -> Iterator[str]:
    """Names, ports and selectors that nothing answers to."""
    there = {identity(found) for found in objects} | PROVIDED
    for wanted in _names(objects):
        if wanted not in there:
            yield f"there is no {' '.join(filter(None, wanted))}"
    labels = [
        (found["metadata"]["namespace"], found["spec"]["template"]["metadata"]["labels"])
        for found in of_kind(objects, "DaemonSet")
    ]
    services = [(item["metadata"]["namespace"], item["metadata"]["labels"]) for item in of_kind(objects, "Service")]
    for found, selector, targets in _selectors(objects, labels, services):
        namespace = found["metadata"]["namespace"]
        matching = [place for place, has in targets if selector.items() <= has.items()]
        if not selector or set(matching) != {namespace}:
            yield f"{found['kind']} selects {selector}: {matching}"
        if found["kind"] == "DaemonSet" and len(matching) > 1:
            yield f"DaemonSet {found['metadata']['name']} takes the pods of another"
        elif found["kind"] != "DaemonSet" and len(matching) < len(targets):
            yield f"{found['kind']} misses some"
    yield from _ports(objects)
    if len(of_kind(objects, "PodMonitor", "ServiceMonitor")) > 1:
        yield "scraped twice"


_Named = Iterator[tuple[str, str, str]]


def _names(objects: Sequence[Object]) -> _Named:
    for found in objects:
        if found["metadata"].get("namespace"):
            yield "Namespace", "", found["metadata"]["namespace"]
        if found["kind"] in _NAMED_BY:
            yield from _NAMED_BY[found["kind"]](found)


def _named_by_binding(found: Object) -> _Named:
    yield found["roleRef"]["kind"], "", found["roleRef"]["name"]
    for subject in found["subjects"]:
        yield subject["kind"], subject["namespace"], subject["name"]


def _named_by_constraints(found: Object) -> _Named:
    for user in found["users"]:
        _, _, namespace, name = user.split(":")
        yield "ServiceAccount", namespace, name


def _named_by_policy(found: Object) -> _Named:
    for rule in found["spec"]["ingress"]:
        for peer in rule["from"]:
            name = peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
            if not name.startswith("openshift-"):
                yield "Namespace", "", name


def _named_by_daemonset(found: Object) -> _Named:
    namespace, template = found["metadata"]["namespace"], found["spec"]["template"]
    pod = template["spec"]
    yield "ServiceAccount", namespace, pod["serviceAccountName"]
    yield "PriorityClass", "", pod["priorityClassName"]
    if "runtimeClassName" in pod:
        yield "RuntimeClass", "", pod["runtimeClassName"]
    if "openshift.io/required-scc" in template["metadata"]["annotations"]:
        yield "SecurityContextConstraints", "", template["metadata"]["annotations"]["openshift.io/required-scc"]
    for volume in pod["volumes"]:
        for source in (volume, *volume.get("projected", {}).get("sources", ())):
            if "configMap" in source:
                yield "ConfigMap", namespace, source["configMap"]["name"]
            if "secret" in source:
                yield "Secret", namespace, source["secret"].get("secretName") or source["secret"]["name"]


_NAMED_BY: dict[str, Callable[[Object], _Named]] = {
    "ClusterRoleBinding": _named_by_binding,
    "SecurityContextConstraints": _named_by_constraints,
    "NetworkPolicy": _named_by_policy,
    "DaemonSet": _named_by_daemonset,
}


_Labelled = list[tuple[str, dict[str, str]]]


def _selectors(
    objects: Sequence[Object], labels: _Labelled, services: _Labelled
) -> Iterator[tuple[Object, dict[str, str], _Labelled]]:
    for found in objects:
        spec = found.get("spec", {})
        if found["kind"] in ("DaemonSet", "PodMonitor"):
            yield found, spec["selector"]["matchLabels"], labels
        elif found["kind"] == "NetworkPolicy":
            yield found, spec["podSelector"]["matchLabels"], labels
        elif found["kind"] == "Service":
            yield found, spec["selector"], labels
        elif found["kind"] == "ServiceMonitor":
            yield found, spec["selector"]["matchLabels"], services


def _ports(objects: Sequence[Object]) -> Iterator[str]:
    for name, pod in pods(objects):
        (container,) = pod["containers"]
        ports = {port["name"] for port in container["ports"]}
        wanted = {probe["httpGet"]["port"] for kind, probe in container.items() if kind.endswith("Probe")}
        for found in of_kind(objects, "Service", "NetworkPolicy", "PodMonitor"):
            spec = found["spec"]
            rules = [port["port"] for rule in spec.get("ingress", ()) for port in rule["ports"]]
            scraped = [endpoint["port"] for endpoint in spec.get("podMetricsEndpoints", ())]
            wanted |= {*rules, *scraped, *(port["targetPort"] for port in spec.get("ports", ()))}
        if wanted - ports:
            yield f"{name} has no port {sorted(wanted - ports)}"
    offered = {port["name"] for found in of_kind(objects, "Service") for port in found["spec"]["ports"]}
    for found in of_kind(objects, "ServiceMonitor"):
        for endpoint in found["spec"]["endpoints"]:
            if endpoint["port"] not in offered:
                yield f"the Service has no port {endpoint['port']}"
