"""Names the workload of a cgroup and the model of a process: from the cgroup path, then from metadata providers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Protocol

from ..records import HOST, GroupKey, Model, Namer, Process, SourceHealth, Workload
from .metadata.container_metadata import ContainerMetadata, MetadataProvider
from .paths import container, kubernetes, lxc, slurm, systemd
from .shared import is_shared

PathResolver = Callable[[str], Workload | None]
"""Maps a cgroup path (below the hierarchy's root, without the controller) to its workload, None without a match."""

PATHS: tuple[PathResolver, ...] = (
    kubernetes.resolve,
    slurm.resolve,
    container.resolve,
    lxc.resolve,
    systemd.resolve,
)
"""In order of precedence (pod, job, container, machine, unit): the first resolver that matches a path names it."""


class ModelResolver(Protocol):
    """Finds the model that a process works for."""

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

    ``providers`` are queried in order and never block. ``labels`` are the pod labels to export. `forget` removes all
    state of a group.
    """

    def __init__(
        self,
        providers: Sequence[MetadataProvider] = (),
        models: ModelResolver | None = None,
        labels: Collection[str] = (),
        paths: Sequence[PathResolver] = PATHS,
    ) -> None:
        self._providers = tuple(providers)
        self._models = models
        self._labels = tuple(sorted(labels))
        self._paths = tuple(paths)
        self._groups: dict[str, set[GroupKey]] = {}
        self._restored: dict[str, ContainerMetadata] = {}

    def workload(self, group: GroupKey) -> Workload:
        """Workload of a group, `HOST` if no path resolver matches. Never raises."""
        owner = self._by_path(group)
        if not self._providers or not (owner.container_id or owner.pod_uid):
            return owner
        for key in (owner.container_id, owner.pod_uid):
            if key:
                self._groups.setdefault(key, set()).add(group)
        metadata = self._metadata(owner)
        if metadata is not None and (metadata.container or not owner.container_id):
            return self._named(owner, metadata)
        # No metadata yet, or that of the pod without this container.
        if any(provider.expects(owner) for provider in self._providers):
            return owner._replace(provisional=True)
        return self._best(owner)

    def settled(self, group: GroupKey) -> Workload:
        """Workload of a group by the best name available now. The sandbox of a pod, which no API lists, is the pod."""
        return self._best(self._by_path(group))

    def model(self, group: GroupKey | None, process: Process) -> Model | None:
        """Model a process works for, None if it is not known to work for one."""
        if self._models is None:
            return None
        return self._models.resolve(process, group, *self.known(group))

    def known(self, group: GroupKey | None) -> tuple[Workload, ContainerMetadata | None]:
        """Workload of a group by the best name available now, and what a provider knows of it."""
        owner = HOST if group is None else self._by_path(group)
        return self._best(owner), self._metadata(owner)

    def is_shared(self, workload: Workload) -> bool:
        """Whether its row is the host's, a person's sessions, or that of a service that starts unrelated programs."""
        return is_shared(workload)

    def renamed(self) -> Collection[GroupKey]:
        """Groups with a name, or a process with a model, that is new or changed since the last call."""
        changed: set[GroupKey] = set()
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
        if workload.container_id:
            self._restored[workload.container_id] = metadata
        if workload.pod_uid and (workload.namespace or workload.pod_uid not in self._restored):
            self._restored[workload.pod_uid] = replace(metadata, container="", image="")

    def forget(self, group: GroupKey) -> None:
        """Remove all state of a group that no longer exists."""
        owner = self._by_path(group)
        for key in (owner.container_id, owner.pod_uid):
            groups = self._groups.get(key)
            if groups is not None:
                groups.discard(group)
                if not groups:
                    del self._groups[key]
                    self._restored.pop(key, None)

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
        return next((owner for resolve in self._paths if (owner := resolve(group.path))), HOST)

    def _metadata(self, owner: Workload) -> ContainerMetadata | None:
        found = next((metadata for provider in self._providers if (metadata := provider.find(owner))), None)
        if found is not None and (found.container or not owner.container_id):
            return found
        return self._restored.get(owner.container_id) or found or self._restored.get(owner.pod_uid)

    def _best(self, owner: Workload) -> Workload:
        metadata = self._metadata(owner)
        return owner if metadata is None else self._named(owner, metadata)

    def _named(self, owner: Workload, metadata: ContainerMetadata) -> Workload:
        return owner._replace(
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
