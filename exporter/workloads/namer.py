"""Names the workload of a cgroup and the model of a process: from the cgroup path, then from metadata providers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Protocol

from ..host import Host
from ..records import NOWHERE, GroupKey, Model, Process, SourceHealth, Workload
from .metadata.container_metadata import ContainerMetadata, MetadataProvider
from .metadata.container_monitors import ContainerMonitors
from .metadata.engine_state import EngineState
from .metadata.slurm_jobs import SlurmJobs
from .models.servers import ModelServers
from .paths.engine import short_id
from .paths.kata import Sandboxes
from .paths.precedence import PATHS, PathResolver, by_path
from .protocol import ModelServer, Namer
from .shared import is_shared

_CACHED_GROUPS = 8192
"""Groups whose path is resolved only once; of any others, again."""


class ModelResolver(Protocol):
    """Finds the model that a process works for, and the model servers among the processes."""

    servers: ModelServers

    def resolve(
        self, process: Process, group: GroupKey | None, workload: Workload, metadata: ContainerMetadata | None
    ) -> Model | None:
        """Model of a process, None if it is not known to work for one."""

    def changed(self) -> Collection[GroupKey]:
        """Groups of the processes whose model may have changed since the last call."""

    def close(self) -> None:
        """Stop background threads."""


class WorkloadNamer(Namer):
    """Names a group by its path at first, and by its pod and container as soon as a provider has their metadata.

    ``providers`` are queried in order and never block. ``labels`` are the pod labels to export. With ``host``, names of
    Slurm jobs come from their tasks and those of containers without an API from the engine's files or from the process
    that watches them. `forget` removes all state of a group.
    """

    def __init__(
        self,
        providers: Sequence[MetadataProvider] = (),
        models: ModelResolver | None = None,
        labels: Collection[str] = (),
        paths: Sequence[PathResolver] = PATHS,
        host: Host | None = None,
    ) -> None:
        self._providers = tuple(providers)
        self._models = models
        self._labels = tuple(sorted(labels))
        self._engines = None if host is None else EngineState(host)
        self._jobs = None if host is None else SlurmJobs(host)
        self._monitors = None if host is None else ContainerMonitors(host)
        # A container comes before the unit that it was started in, which is the last resort.
        self._paths = tuple(paths) if self._engines is None else (*paths[:-1], self._engines.resolve, *paths[-1:])
        self._resolve = lru_cache(_CACHED_GROUPS)(self._resolve_path)
        self._sandboxes = Sandboxes()
        self._learned: set[GroupKey] = set()
        self._groups: dict[str, set[GroupKey]] = {}
        self._restored: dict[str, ContainerMetadata] = {}

    def workload(self, group: GroupKey) -> Workload:
        """Workload of a group, `HOST` if no path resolver matches. Never raises."""
        self._sandboxes.add(group)
        owner = self._by_path(group)
        if self._sandboxes.awaits(owner):
            return owner._replace(provisional=True)
        for key in self._keys(group, owner):
            self._groups.setdefault(key, set()).add(group)
        if owner.container_id or owner.pod_uid:
            metadata = self._metadata(owner)
            if metadata is not None and (metadata.container or not owner.container_id):
                return self._named(owner, metadata)
            # No metadata yet, or that of the pod without this container.
            if any(provider.expects(owner) for provider in self._providers):
                return owner._replace(provisional=True)
        if self._monitors is not None and self._monitors.awaits(self._monitor_key(group)):
            return owner._replace(provisional=True)
        return self._best(owner)

    def settled(self, group: GroupKey) -> Workload:
        """Workload of a group by the best name available now. The sandbox of a pod, which no API lists, is the pod."""
        return self._best(self._by_path(group))

    def model(self, group: GroupKey | None, process: Process) -> Model | None:
        """Model a process works for, None if it is not known to work for one."""
        self.learn(group, process)
        owner = NOWHERE if group is None else self._by_path(group)
        return None if self._models is None else self._models.resolve(process, group, *self._best_and_metadata(owner))

    def learn(self, group: GroupKey | None, process: Process) -> None:
        """Take the names of its container or job from a process."""
        if group is None:
            return
        owner = self._resolve(group)
        if owner.runtime == "slurm":
            if self._jobs is not None and self._jobs.learn(owner, process.key.pid):
                self._learned.add(group)
        elif self._monitors is not None and self._monitors.learn(key := self._monitor_key(group), process.key.pid):
            self._learned |= self._groups.get(key, set())

    def known(self, group: GroupKey | None) -> tuple[Workload, ContainerMetadata | None]:
        """Workload of a group by the best name available now, and what a provider knows of it."""
        owner = NOWHERE if group is None else self._by_path(group)
        return self._best_and_metadata(owner)

    def pod_labels(self, workload: Workload) -> Mapping[str, str] | None:
        """All labels of its pod, None while no provider has them: restored names have only the chosen ones."""
        found = self._provided(workload)
        return None if found is None else found.labels

    def is_shared(self, workload: Workload) -> bool:
        """Whether its row is the host's, a person's sessions, or that of a service that starts unrelated programs."""
        return is_shared(workload)

    def renamed(self) -> Collection[GroupKey]:
        """Groups with a name, or a process with a model, that is new or changed since the last call."""
        changed, self._learned = self._learned, set()
        changed |= self._sandboxes.changed()
        for provider in self._providers:
            for key in provider.changed():
                changed |= self._groups.get(key, set())
        if self._models is not None:
            changed.update(self._models.changed())
        return changed

    def remember(self, workload: Workload) -> None:
        """Restore a workload of an earlier run: it names its container and pod until a provider has their metadata."""
        metadata = ContainerMetadata(
            namespace=workload.namespace,
            pod=workload.pod,
            container=workload.container,
            pod_uid=workload.pod_uid,
            image=workload.image,
            owner_kind=workload.owner_kind,
            owner_name=workload.owner_name,
            labels=dict(workload.labels),
        )
        if workload.container_id and not _has_id_only(workload):
            self._restored[workload.container_id] = metadata
        if workload.pod_uid and (workload.namespace or workload.pod_uid not in self._restored):
            self._restored[workload.pod_uid] = replace(metadata, container="", image="")

    def forget(self, group: GroupKey) -> None:
        """Remove all state of a group that no longer exists."""
        owner = self._by_path(group)
        self._sandboxes.forget(group)
        for key in self._keys(group, owner):
            groups = self._groups.get(key)
            if groups is not None:
                groups.discard(group)
                if not groups:
                    del self._groups[key]
                    self._restored.pop(key, None)
                    if self._jobs is not None and owner.runtime == "slurm":
                        self._jobs.forget(owner)
                    if self._monitors is not None:
                        self._monitors.forget(key)

    def servers(self) -> tuple[ModelServer, ...]:
        """Model servers among the processes named so far."""
        return () if self._models is None else self._models.servers.running()

    def health(self) -> tuple[SourceHealth, ...]:
        """Health of each provider."""
        return tuple([provider.health() for provider in self._providers])

    def retry(self) -> None:
        """Retry the providers that are down at once."""
        for provider in self._providers:
            provider.retry()

    def close(self) -> None:
        """Stop background threads."""
        for provider in self._providers:
            provider.close()
        if self._models is not None:
            self._models.close()

    def _by_path(self, group: GroupKey) -> Workload:
        owner = self._sandboxes.pod_of(self._resolve(group))
        if self._jobs is not None and owner.runtime == "slurm":
            return self._jobs.named(owner)
        return owner if self._monitors is None else self._monitors.named(self._monitor_key(group), owner)

    def _monitor_key(self, group: GroupKey) -> str:
        return "" if self._monitors is None else self._monitors.key(group, self._resolve(group))

    def _keys(self, group: GroupKey, owner: Workload) -> set[str]:
        """By what a group may get another name: its container, pod, job or monitor."""
        job = f"slurm {owner.container}" if owner.runtime == "slurm" else ""
        return {owner.container_id, owner.pod_uid, job, self._monitor_key(group)} - {""}

    def _resolve_path(self, group: GroupKey) -> Workload:
        owner = by_path(group.paths, self._paths)
        return owner if self._engines is None else self._engines.named(owner)

    def _provided(self, owner: Workload) -> ContainerMetadata | None:
        return next((metadata for provider in self._providers if (metadata := provider.find(owner))), None)

    def _metadata(self, owner: Workload) -> ContainerMetadata | None:
        found = self._provided(owner)
        if found is not None and (found.container or not owner.container_id):
            return found
        restored = self._restored.get(owner.container_id) if _has_id_only(owner) else None  # else its engine names it
        return restored or found or self._restored.get(owner.pod_uid)

    def _best(self, owner: Workload) -> Workload:
        return self._best_and_metadata(owner)[0]

    def _best_and_metadata(self, owner: Workload) -> tuple[Workload, ContainerMetadata | None]:
        metadata = self._metadata(owner)
        return (owner if metadata is None else self._named(owner, metadata)), metadata

    def _named(self, owner: Workload, metadata: ContainerMetadata) -> Workload:
        return owner._replace(
            runtime=metadata.runtime or owner.runtime,
            namespace=metadata.namespace,
            pod=metadata.pod or owner.pod,
            container=metadata.container,
            container_id=owner.container_id if metadata.container else "",
            pod_uid=metadata.pod_uid or owner.pod_uid,
            image=metadata.image,
            owner_kind=metadata.owner_kind,
            owner_name=metadata.owner_name,
            labels=tuple([(label, metadata.labels[label]) for label in self._labels if label in metadata.labels]),
        )


def _has_id_only(owner: Workload) -> bool:
    """Whether a container has no name but the digits of its id."""
    return owner.container == short_id(owner.container_id)
