"""Pods and their containers, as the kubelet's cgroup manager lays them out.

Sources: kubernetes pkg/kubelet/cm/cgroup_manager_linux.go and pod_container_manager_linux.go (both drivers),
containerd internal/cri, cri-o internal/config/cgmgr.
"""

from __future__ import annotations

import re

from ...records import Workload
from .engine import engine_and_id, short_id

# A static pod's uid is the MD5 of its manifest: 32 digits without dashes. The systemd driver writes "_" for "-",
# which a slice's name reserves for nesting.
_UID = "[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32}"
_POD = re.compile(rf"(?:[^:]*-)?pod({_UID})(?:\.slice)?(?::.*)?")


def resolve(path: str) -> Workload | None:
    """Pod (``container`` "" for the pod's own group) or container; names are uid and id until an API tells better.

    Whatever a pod starts inside itself (Docker in Docker, kind) is the pod's: budgets are per namespace, and only
    the outermost pod has one that the cluster knows. Groups of a QoS class own nothing.
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
