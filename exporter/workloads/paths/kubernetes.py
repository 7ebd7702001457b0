"""Pods and their containers, in the layout of the kubelet's cgroup manager.

Sources: kubernetes pkg/kubelet/cm/cgroup_manager_linux.go and pod_container_manager_linux.go (both drivers),
containerd internal/cri, cri-o internal/config/cgmgr.
"""

from __future__ import annotations

import re

from ...records import Workload
from .engine import engine_and_id, short_id

# The uid of a static pod is the MD5 of its manifest: 32 digits without dashes. The systemd driver writes "_" for "-",
# which separates the levels in a slice's name.
_UID = "[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32}"
_POD = re.compile(rf"(?:[^:]*-)?pod({_UID})(?:\.slice)?(?::.*)?")


def resolve(path: str) -> Workload | None:
    """Pod (``container`` is "" for the pod's own group) or container, named by uid and id.

    Everything that a pod starts inside itself (Docker in Docker, kind) belongs to the pod: budgets are per namespace,
    and only the outermost pod has a namespace of this cluster. The group of a QoS class matches nothing.
    """
    parts = path.split("/")
    for index, part in enumerate(parts):
        if pod := _POD.fullmatch(part):
            uid = pod[1].replace("_", "-")
            found = next((name for name in map(engine_and_id, parts[index:]) if name), ("", ""))
            return Workload(
                pod=uid, container=short_id(found[1]), runtime="kubernetes", container_id=found[1], pod_uid=uid
            )
    return None
