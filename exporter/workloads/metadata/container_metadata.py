"""Container metadata, and the protocol of its providers, which may be slow or unavailable.

A provider is the Kubernetes API server, the kubelet, or the socket of a container engine.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ...records import SourceHealth, Workload


@dataclass(frozen=True, slots=True)
class ContainerMetadata:
    """Names of a container or, with ``container`` "", of a pod. Unknown fields are "" or empty.

    ``labels`` and ``annotations`` are all those of the pod (outside Kubernetes, of the container); only the ones
    selected in the configuration are exported. ``command`` (entry point and arguments) and ``environment`` (literal
    variables) are those that the container is started with, taken from the specification with its references
    (``$(NAME)`` of Kubernetes) expanded: evidence for the model, never exported. ``runtime`` is the
    engine, where the path of the container does not name it.
    """

    namespace: str = ""
    pod: str = ""
    container: str = ""
    pod_uid: str = ""
    image: str = ""
    owner_kind: str = ""
    owner_name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    runtime: str = ""


class MetadataProvider(Protocol):
    """Keeps `ContainerMetadata` up to date in its own thread. The tick calls it, so no method may block.

    The thread starts on the first call. Workloads are looked up by ``container_id``, then by ``pod_uid``.
    """

    def find(self, workload: Workload) -> ContainerMetadata | None:
        """Metadata of a workload whose cgroup path holds only ids, None if it is not known (yet)."""

    def expects(self, workload: Workload) -> bool:
        """Whether this provider covers the workload and has no metadata of it yet."""

    def changed(self) -> Collection[str]:
        """Each ``container_id`` and ``pod_uid`` whose metadata is new or different since the last call."""

    def health(self) -> SourceHealth:
        """Health, exported as ``energy_source_up`` like that of a source, and shown by ``doctor``."""

    def retry(self) -> None:
        """Retry at once if it is down, regardless of its backoff."""

    def close(self) -> None:
        """Stop the thread."""
