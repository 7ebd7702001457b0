"""Containers started by an engine itself (Docker, Podman, containerd by nerdctl), and CRI containers outside pods.

Sources: moby daemon/oci_linux.go, podman libpod/container_internal_linux.go and pod_internal_linux.go,
nerdctl pkg/cmd/container, buildah run_linux.go, runc docs/systemd.md; real ones by `make runtimes-check`.
"""

from __future__ import annotations

import re

from ...records import UNKNOWN_RUNTIME, Workload
from .engine import CONTAINER_ID, engine_and_id, short_id
from .systemd import printable, unit_name

KATA = "kata"
"""Runtime of a sandbox of Kata Containers whose pod is not known."""

_RUNTIMES = {
    "docker": "docker",
    "libpod": "podman",
    "libpod-conmon": "podman",
    "libpod-payload": "podman",
    "nerdctl": "containerd",
    "cri-containerd": "kubernetes",
    "crio": "kubernetes",
    "crio-conmon": "kubernetes",
    "runc": "runc",
    "crun": "crun",
}

# Docker with the cgroupfs driver uses a bare id, under /docker or any --cgroup-parent: GitHub's runner and ECS set one.
# So does containerd, under the name of its namespace. Below any other parent, an id alone does not name its engine.
_BARE_UNDER = {
    "docker": "docker",
    "moby": "docker",
    "actions_job": "docker",
    "default": "containerd",
    "buildkit": "containerd",
    "services.linuxkit": "containerd",
    "k8s.io": "kubernetes",
    "kata_overhead": KATA,
    "vc": KATA,
}
_NAMED_UNDER = ("default", "k8s.io", "services.linuxkit")
"""Namespaces of containerd whose containers may have names of their own: ``ctr run IMAGE NAME``."""

_PODMAN_POD = re.compile(rf"(?:.*-)?libpod_pod_({CONTAINER_ID})\.slice")
_HEALTH_CHECK = re.compile(rf"({CONTAINER_ID})(?:-startup)?(?:-[0-9a-f]+)?\.service")

# Each step of a build runs in a container with a random name, below the engine's group or, by an OCI runtime without
# the systemd driver, in a group named "slice:prefix:id".
_BUILDKIT_STEP = re.compile(r"(?:[^:]*:docker:|docker-)[a-z0-9]{25}(?:\.scope)?")
_BUILDAH_STEP = re.compile(r"(?:(?:runc|crun)-)?buildah-buildah[0-9]+(?:\.scope)?")
_OCI_SCOPE = re.compile(r"(runc|crun)-(.+)\.scope", re.DOTALL)
"""A container that ``runc --systemd-cgroup run NAME`` started without an engine."""


def resolve(path: str) -> Workload | None:
    """The innermost container. Everything inside it, even systemd, belongs to it, and so do Podman's health checks."""
    parts = ["", "", *path.split("/")]
    for index in range(len(parts) - 1, 1, -1):
        grandparent, parent, part = parts[index - 2 : index + 1]
        if build := _build(part, parent):
            return build
        if pod_id := _podman_pod_id(part, parent):
            return Workload(pod=short_id(pod_id), runtime="podman", pod_uid=pod_id)
        if match := _HEALTH_CHECK.fullmatch(part):
            return Workload(container=short_id(match[1]), runtime="podman", container_id=match[1])
        if (found := engine_and_id(part)) is None:
            if match := _OCI_SCOPE.fullmatch(part):
                return Workload(container=unit_name(match[2]), runtime=match[1])
            continue
        engine, container_id = found
        runtime = _RUNTIMES.get(engine) if engine else _runtime_under(parent, grandparent)
        if runtime is not None:
            pod_id = _podman_pod_id(parent, grandparent)
            return Workload(
                pod=short_id(pod_id),
                container=short_id(container_id),
                runtime=runtime,
                container_id=container_id,
                pod_uid=pod_id,
            )
    return _named(parts[2:])


def _named(parts: list[str]) -> Workload | None:
    """A container of containerd that has a name instead of an id, in the namespace that the path begins with."""
    if len(parts) > 2 and parts[1] in _NAMED_UNDER and parts[2]:
        return Workload(container=printable(parts[2]), runtime="containerd")
    return None


def _runtime_under(parent: str, grandparent: str) -> str:
    return _BARE_UNDER.get(parent) or ("docker" if grandparent == "ecs" else UNKNOWN_RUNTIME)


def _podman_pod_id(part: str, parent: str) -> str:
    if match := _PODMAN_POD.fullmatch(part):
        return match[1]
    found = engine_and_id(part) if parent == "libpod_parent" else None
    return found[1] if found and not found[0] else ""


def _build(part: str, parent: str) -> Workload | None:
    """One row for all steps of all builds of an engine."""
    if (parent == "docker" and part == "buildkit") or _BUILDKIT_STEP.fullmatch(part):
        return Workload(container="buildkit", runtime="docker")
    return Workload(container="buildah", runtime="podman") if _BUILDAH_STEP.fullmatch(part) else None
