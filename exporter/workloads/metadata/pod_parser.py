"""Facts about a pod and its containers, from the object as the API server and the kubelet write it.

Every field may be missing or of another kind than documented: then it is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from .container_metadata import Facts

MAX_TEXT = 4096
"""Longer texts are left out of labels and environment, and cut in commands: they hold files, not names."""

MAX_ENTRIES = 256

_MANIFEST = re.compile("[0-9a-f]{32}")
_VARIABLE = re.compile(r"\$(\$|\([A-Za-z_.-][A-Za-z0-9_.-]*\))")
_KINDS = (
    ("containers", "containerStatuses"),
    ("initContainers", "initContainerStatuses"),
    ("ephemeralContainers", "ephemeralContainerStatuses"),
)


def read_pod(pod: object) -> tuple[str, dict[str, Facts]]:
    """Uid of a pod, and its facts by every id that a cgroup may name: container ids, and the pod's own.

    The uid is "" if the object is no pod.
    """
    metadata = _mapping(_mapping(pod).get("metadata"))
    uid = _text(metadata.get("uid"))
    if not uid:
        return "", {}
    spec, status = _mapping(_mapping(pod).get("spec")), _mapping(_mapping(pod).get("status"))
    kind, name = _owner(metadata)
    own = Facts(
        namespace=_text(metadata.get("namespace")),
        pod=_text(metadata.get("name")),
        pod_uid=uid,
        owner_kind=kind,
        owner_name=name,
        labels=_texts(metadata.get("labels")),
        annotations=_texts(metadata.get("annotations")),
    )
    entries = dict.fromkeys(_uids(uid, own.annotations), own)
    for specs, statuses in _KINDS:
        asked = {_text(each.get("name")): each for each in _mappings(spec.get(specs))}
        for told in _mappings(status.get(statuses)):
            facts = None
            for container_id in _container_ids(told):
                facts = facts or _container(own, asked.get(_text(told.get("name")), {}), told)
                entries[container_id] = facts
    return uid, entries


def _uids(uid: str, annotations: Mapping[str, str]) -> Iterator[str]:
    yield uid
    # The kubelet runs a static pod under the hash of its manifest; what the API shows is a mirror with another uid.
    # An ordinary pod may have this annotation too, but its uid has dashes, so that it can be taken for no other.
    manifest = annotations.get("kubernetes.io/config.hash", "")
    if "kubernetes.io/config.mirror" in annotations and _MANIFEST.fullmatch(manifest):
        yield manifest


def _owner(metadata: Mapping[str, Any]) -> tuple[str, str]:
    """Kind and name of what people know as the owner, without asking the API for it."""
    references = list(_mappings(metadata.get("ownerReferences")))
    reference = next(
        (each for each in references if each.get("controller") is True), references[0] if references else {}
    )
    kind, name = _text(reference.get("kind")), _text(reference.get("name"))
    labels = _mapping(metadata.get("labels"))
    if kind == "ReplicaSet":
        for label, parent in (("pod-template-hash", "Deployment"), ("rollouts-pod-template-hash", "Rollout")):
            template = _text(labels.get(label))
            if template and name.endswith(f"-{template}"):
                return parent, name.removesuffix(f"-{template}")
    if kind == "RayCluster":  # KubeRay says whether a RayJob or RayService made it (ray-operator/utils/constant.go)
        origin, origin_name = (_text(labels.get(f"ray.io/originated-from-{key}")) for key in ("crd", "cr-name"))
        if origin and origin_name:
            return origin, origin_name
    return kind, name


def _container_ids(told: Mapping[str, Any]) -> Iterator[str]:
    """The ids of a container and of the one it replaced: ``containerd://3f4e…``, ``cri-o://…``, "" while it is made."""
    states = [_mapping(told.get(state)) for state in ("state", "lastState")]
    for holder in (told, *(_mapping(state.get("terminated")) for state in states)):
        _, scheme, container_id = _text(holder.get("containerID")).partition("://")
        if scheme and container_id:
            yield container_id


def _container(pod: Facts, asked: Mapping[str, Any], told: Mapping[str, Any]) -> Facts:
    environment = _environment(asked.get("env"))
    command = [*_list(asked.get("command")), *_list(asked.get("args"))][:MAX_ENTRIES]
    return Facts(
        namespace=pod.namespace,
        pod=pod.pod,
        container=_text(told.get("name")),
        pod_uid=pod.pod_uid,
        # What was asked for: the runtime may tell a digest, or another name of the same image.
        image=_text(asked.get("image")) or _text(told.get("image")),
        owner_kind=pod.owner_kind,
        owner_name=pod.owner_name,
        labels=pod.labels,
        annotations=pod.annotations,
        command=tuple([_expand(word[:MAX_TEXT], environment) for word in command if isinstance(word, str)]),
        environment=environment,
    )


def _environment(entries: object) -> dict[str, str]:
    """Literal variables only: what comes from secrets and config maps is not in the pod."""
    environment: dict[str, str] = {}
    for entry in [*_mappings(entries)][:MAX_ENTRIES]:
        name, value = entry.get("name"), entry.get("value")
        if isinstance(name, str) and isinstance(value, str) and len(value) <= MAX_TEXT:
            environment[name] = _expand(value, environment)
    return environment


def _expand(word: str, environment: Mapping[str, str]) -> str:
    """``$(NAME)`` becomes its value where that is known, and ``$$`` becomes ``$``, as the kubelet does it."""
    if "$" not in word:
        return word

    def value(match: re.Match[str]) -> str:
        return "$" if match[1] == "$" else environment.get(match[1][1:-1], match[0])

    return _VARIABLE.sub(value, word)[:MAX_TEXT]


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _mappings(value: object) -> Iterator[Mapping[str, Any]]:
    return (entry for entry in _list(value) if isinstance(entry, dict))


def _text(value: object) -> str:
    return value if isinstance(value, str) and len(value) <= MAX_TEXT else ""


def _texts(value: object) -> dict[str, str]:
    pairs = [*_mapping(value).items()][:MAX_ENTRIES]
    return {name: text for name, text in pairs if isinstance(text, str) and len(text) <= MAX_TEXT}
