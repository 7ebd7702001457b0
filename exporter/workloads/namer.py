"""Who owns a cgroup and which model a process works for: paths first, then those who know the names."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Protocol

from ..records import HOST, GroupKey, Model, Namer, Process, SourceHealth, Workload
from .metadata.container_metadata import Directory, Facts
from .paths import container, kubernetes, lxc, slurm, systemd
from .shared import is_shared

PathResolver = Callable[[str], Workload | None]
"""Owner of a cgroup path (below the hierarchy's root, without the controller), None if it is not this one's."""

PATHS: tuple[PathResolver, ...] = (
    kubernetes.resolve,
    slurm.resolve,
    container.resolve,
    lxc.resolve,
    systemd.resolve,
)
"""From the strongest claim to the weakest: pod, job, container, machine, unit; the first that knows a path wins."""


class ModelResolver(Protocol):
    """Tells which model a process works for."""

    def resolve(
        self, process: Process, group: GroupKey | None, workload: Workload, facts: Facts | None
    ) -> Model | None:
        """Model of a process, None if it is not known to work for one."""

    def changed(self) -> Collection[GroupKey]:
        """Groups of the processes whose answer may have changed since the last call."""

    def close(self) -> None:
        """End what runs in the background."""


class WorkloadNamer(Namer):
    """Names a group by its path at once, and by the names of its pod or container as soon as a directory knows them.

    ``directories`` are asked in order and never waited for. ``labels`` are the pod labels to keep for show.
    What is remembered of a group goes with `forget`.
    """

    def __init__(
        self,
        directories: Sequence[Directory] = (),
        models: ModelResolver | None = None,
        labels: Collection[str] = (),
        paths: Sequence[PathResolver] = PATHS,
    ) -> None:
        self._directories = tuple(directories)
        self._models = models
        self._labels = tuple(sorted(labels))
        self._paths = tuple(paths)
        self._groups: dict[str, set[GroupKey]] = {}
        self._remembered: dict[str, Facts] = {}

    def workload(self, group: GroupKey) -> Workload:
        """Owner of a group; never raises, `HOST` if nobody else owns it."""
        owner = self._by_path(group)
        if not self._directories or not (owner.container_id or owner.pod_uid):
            return owner
        for key in (owner.container_id, owner.pod_uid):
            if key:
                self._groups.setdefault(key, set()).add(group)
        facts = self._facts(owner)
        if facts is not None and (facts.container or not owner.container_id):
            return self._named(owner, facts)
        # Nothing is known, or the pod is and its new container is not.
        if any(directory.expects(owner) for directory in self._directories):
            return owner._replace(provisional=True)
        return self._best(owner)

    def settled(self, group: GroupKey) -> Workload:
        """Owner of a group by the best name there is now: a pod's sandbox, which no API names, is the pod's."""
        return self._best(self._by_path(group))

    def model(self, group: GroupKey | None, process: Process) -> Model | None:
        """Model a process works for, None if it is not known to work for one."""
        if self._models is None:
            return None
        owner = HOST if group is None else self._by_path(group)
        return self._models.resolve(process, group, self._best(owner), self._facts(owner))

    def is_shared(self, workload: Workload) -> bool:
        """Whether its row is the host's, a person's sessions, or that of a service that starts unrelated programs."""
        return is_shared(workload)

    def renamed(self) -> Collection[GroupKey]:
        """Groups whose names, or whose processes' models, became known or changed since the last call."""
        changed: set[GroupKey] = set()
        for directory in self._directories:
            for key in directory.changed():
                changed |= self._groups.get(key, set())
        if self._models is not None:
            changed.update(self._models.changed())
        return changed

    def remember(self, workload: Workload) -> None:
        """An earlier run knew this one: that holds for its container and its pod until a directory tells more."""
        facts = Facts(
            namespace=workload.namespace,
            pod=workload.pod,
            container=workload.container,
            pod_uid=workload.pod_uid,
            image=workload.image,
            owner_kind=workload.owner_kind,
            owner_name=workload.owner_name,
            labels=dict(workload.labels),
        )
        if workload.container_id:
            self._remembered[workload.container_id] = facts
        if workload.pod_uid and (workload.namespace or workload.pod_uid not in self._remembered):
            self._remembered[workload.pod_uid] = replace(facts, container="", image="")

    def forget(self, group: GroupKey) -> None:
        """The group is gone."""
        owner = self._by_path(group)
        for key in (owner.container_id, owner.pod_uid):
            groups = self._groups.get(key)
            if groups is not None:
                groups.discard(group)
                if not groups:
                    del self._groups[key]
                    self._remembered.pop(key, None)

    def health(self) -> tuple[SourceHealth, ...]:
        """How the directories are."""
        return tuple([directory.health() for directory in self._directories])

    def close(self) -> None:
        """End what runs in the background."""
        for directory in self._directories:
            directory.close()
        if self._models is not None:
            self._models.close()

    def _by_path(self, group: GroupKey) -> Workload:
        return next((owner for resolve in self._paths if (owner := resolve(group.path))), HOST)

    def _facts(self, owner: Workload) -> Facts | None:
        told = next((facts for directory in self._directories if (facts := directory.find(owner))), None)
        if told is not None and (told.container or not owner.container_id):
            return told
        return self._remembered.get(owner.container_id) or told or self._remembered.get(owner.pod_uid)

    def _best(self, owner: Workload) -> Workload:
        facts = self._facts(owner)
        return owner if facts is None else self._named(owner, facts)

    def _named(self, owner: Workload, facts: Facts) -> Workload:
        return owner._replace(
            namespace=facts.namespace,
            pod=facts.pod or owner.pod,
            container=facts.container,
            container_id=owner.container_id if facts.container else "",
            pod_uid=facts.pod_uid or owner.pod_uid,
            image=facts.image,
            owner_kind=facts.owner_kind,
            owner_name=facts.owner_name,
            labels=tuple([(label, facts.labels[label]) for label in self._labels if label in facts.labels]),
        )
