"""Metadata of a pod and its containers, from the object as the API server and the kubelet return it.

A field that is missing or of another type than documented is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from .container_metadata import ContainerMetadata
from .json_values import MAX_ENTRIES, MAX_TEXT, mapping, mappings, sequence, text, texts

_MANIFEST = re.compile("[0-9a-f]{32}")
_VARIABLE = re.compile(r"\$(\$|\([A-Za-z_.-][A-Za-z0-9_.-]*\))")
_KINDS = (
    ("containers", "containerStatuses"),
    ("initContainers", "initContainerStatuses"),
    ("ephemeralContainers", "ephemeralContainerStatuses"),
)


def read_pod(pod: object) -> tuple[str, dict[str, ContainerMetadata]]:
    """Uid of a pod, and the metadata of every id that a cgroup path may hold: container ids and the pod's own.

    The uid is "" if the object is not a pod.
    """
    metadata = mapping(mapping(pod).get("metadata"))
    uid = text(metadata.get("uid"))
    if not uid:
        return "", {}
    spec, status = mapping(mapping(pod).get("spec")), mapping(mapping(pod).get("status"))
    kind, name = _owner(metadata) or _node_of_static(metadata, spec)
    pod_metadata = ContainerMetadata(
        namespace=text(metadata.get("namespace")),
        pod=text(metadata.get("name")),
        pod_uid=uid,
        owner_kind=kind,
        owner_name=name,
        labels=texts(metadata.get("labels")),
        annotations=texts(metadata.get("annotations")),
    )
    entries = dict.fromkeys(_uids(uid, pod_metadata.annotations), pod_metadata)
    for specs, statuses in _KINDS:
        by_name = {text(each.get("name")): each for each in mappings(spec.get(specs))}
        for container_status in mappings(status.get(statuses)):
            container = None
            for container_id in _container_ids(container_status):
                container_spec = by_name.get(text(container_status.get("name")), {})
                container = container or _container(pod_metadata, container_spec, container_status)
                entries[container_id] = container
    return uid, entries


def _uids(uid: str, annotations: Mapping[str, str]) -> Iterator[str]:
    yield uid
    # The kubelet runs a static pod under the hash of its manifest; the API has a mirror pod with another uid. Any other
    # pod may carry this annotation too, but uids have dashes, so it never matches another pod.
    manifest = annotations.get("kubernetes.io/config.hash", "")
    if "kubernetes.io/config.mirror" in annotations and _MANIFEST.fullmatch(manifest):
        yield manifest


def _node_of_static(metadata: Mapping[str, Any], spec: Mapping[str, Any]) -> tuple[str, str]:
    """The owner that the mirror of a static pod has; the kubelet lists static pods themselves, which have none."""
    source = mapping(metadata.get("annotations")).get("kubernetes.io/config.source")
    return ("Node", text(spec.get("nodeName"))) if source in ("file", "http") else ("", "")


def _owner(metadata: Mapping[str, Any]) -> tuple[str, str] | None:
    """Kind and name of the owner, without a request: the Deployment of a ReplicaSet, the RayJob of a RayCluster."""
    references = list(mappings(metadata.get("ownerReferences")))
    if not references:
        return None
    reference = next((each for each in references if each.get("controller") is True), references[0])
    kind, name = text(reference.get("kind")), text(reference.get("name"))
    labels = mapping(metadata.get("labels"))
    if kind == "ReplicaSet":
        for label, parent in (("pod-template-hash", "Deployment"), ("rollouts-pod-template-hash", "Rollout")):
            template = text(labels.get(label))
            if template and name.endswith(f"-{template}"):
                return parent, name.removesuffix(f"-{template}")
    if kind == "RayCluster":  # KubeRay labels what a RayJob or RayService created (ray-operator/utils/constant.go)
        origin, origin_name = (text(labels.get(f"ray.io/originated-from-{key}")) for key in ("crd", "cr-name"))
        if origin and origin_name:
            return origin, origin_name
    return kind, name


def _container_ids(status: Mapping[str, Any]) -> Iterator[str]:
    """Ids of a container and the one it replaced: ``containerd://3f4e…``, ``cri-o://…``, "" while it is created."""
    states = [mapping(status.get(state)) for state in ("state", "lastState")]
    for holder in (status, *(mapping(state.get("terminated")) for state in states)):
        _, scheme, container_id = text(holder.get("containerID")).partition("://")
        if scheme and container_id:
            yield container_id


def _container(pod: ContainerMetadata, spec: Mapping[str, Any], status: Mapping[str, Any]) -> ContainerMetadata:
    environment = _environment(spec.get("env"))
    command = [*sequence(spec.get("command")), *sequence(spec.get("args"))][:MAX_ENTRIES]
    return ContainerMetadata(
        namespace=pod.namespace,
        pod=pod.pod,
        container=text(status.get("name")),
        pod_uid=pod.pod_uid,
        # From the specification: the runtime may report a digest, or another name of the same image.
        image=text(spec.get("image")) or text(status.get("image")),
        owner_kind=pod.owner_kind,
        owner_name=pod.owner_name,
        labels=pod.labels,
        annotations=pod.annotations,
        command=tuple([_expand(word[:MAX_TEXT], environment) for word in command if isinstance(word, str)]),
        environment=environment,
    )


def _environment(entries: object) -> dict[str, str]:
    """Literal variables; values from secrets and config maps are not part of the pod object."""
    environment: dict[str, str] = {}
    for entry in [*mappings(entries)][:MAX_ENTRIES]:
        name, value = entry.get("name"), entry.get("value")
        if isinstance(name, str) and isinstance(value, str) and len(value) <= MAX_TEXT:
            environment[name] = _expand(value, environment)
    return environment


def _expand(word: str, environment: Mapping[str, str]) -> str:
    """Expand ``$(NAME)`` to its value, if known, and ``$$`` to ``$``, as the kubelet does."""
    if "$" not in word:
        return word

    def value(match: re.Match[str]) -> str:
        return "$" if match[1] == "$" else environment.get(match[1][1:-1], match[0])

    return _VARIABLE.sub(value, word)[:MAX_TEXT]
