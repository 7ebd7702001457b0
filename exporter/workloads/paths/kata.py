"""Sandboxes of Kata Containers: a pod's machine, and beside it the group of what runs it on the host.

The machine is in ``…/podUID/kata_ID``; its shim, virtiofsd and vhost threads are in ``/kata_overhead/ID``, which does
not name the pod (kata-containers/kata-containers#4886, src/runtime/virtcontainers/sandbox.go).
"""

from __future__ import annotations

import re

from ...records import GroupKey, Workload
from . import kubernetes
from .container import KATA
from .engine import CONTAINER_ID

_SANDBOX = re.compile(rf"[/:]kata_({CONTAINER_ID})(?:\.scope)?(?=/|\Z)")
_OVERHEAD = re.compile(rf"/kata_overhead/({CONTAINER_ID})(?=/|\Z)")


class Sandboxes:
    """Which pod each sandbox is of, from the paths seen so far."""

    def __init__(self) -> None:
        self._pods: dict[str, str] = {}
        self._machines: dict[GroupKey, str] = {}
        self._overheads: dict[GroupKey, str] = {}
        self._changed: set[GroupKey] = set()

    def add(self, group: GroupKey) -> None:
        """A group appeared."""
        if "kata_" not in group.path:
            return
        if match := _OVERHEAD.search(group.path):
            self._overheads[group] = match[1]
        elif (match := _SANDBOX.search(group.path)) and (pod := kubernetes.resolve(group.path)):
            self._pods[match[1]] = pod.pod_uid
            self._machines[group] = match[1]
            self._changed |= {each for each, sandbox in self._overheads.items() if sandbox == match[1]}

    def pod_of(self, owner: Workload) -> Workload:
        """The pod of a sandbox, if it is known; every other workload as it is."""
        if owner.runtime != KATA or not (pod := self._pods.get(owner.container_id)):
            return owner
        return Workload(pod=pod, runtime="kubernetes", pod_uid=pod)

    def awaits(self, owner: Workload) -> bool:
        """Whether its pod may still be found."""
        return owner.runtime == KATA

    def changed(self) -> set[GroupKey]:
        """Groups whose pod is known since the last call."""
        changed, self._changed = self._changed, set()
        return changed

    def forget(self, group: GroupKey) -> None:
        """A group was removed; the pod of its sandbox stays known while one of its groups exists."""
        sandbox = self._machines.pop(group, None) or self._overheads.pop(group, None)
        if sandbox and sandbox not in self._machines.values() and sandbox not in self._overheads.values():
            self._pods.pop(sandbox, None)
