"""What is told of a container by somebody who may be late or down: an API server, an engine's socket."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ...records import SourceHealth, Workload


@dataclass(frozen=True, slots=True)
class Facts:
    """A container (or, with ``container`` "", a pod) by its names; unknown is "" or empty.

    ``labels`` and ``annotations`` are all of the pod's (of the container's, outside Kubernetes); nothing
    of them is shown unless somebody chose it. ``command`` is the entry point with its arguments as the pod asks
    for it, ``environment`` its literal variables: evidence for the model, never shown.
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


class Directory(Protocol):
    """Keeps `Facts` up to date from a thread of its own; asked from the tick, which it never makes wait.

    It starts that thread on the first question, and looks a container up by ``container_id``, else by ``pod_uid``.
    """

    def find(self, workload: Workload) -> Facts | None:
        """Facts about a workload that its cgroup path named by ids, None if they are not known (yet)."""

    def expects(self, workload: Workload) -> bool:
        """Whether facts about this workload can still come from here."""

    def changed(self) -> Collection[str]:
        """``container_id`` and ``pod_uid`` of those whose facts came or changed since the last call."""

    def health(self) -> SourceHealth:
        """As of any source: shown as ``energy_source_up`` and by ``doctor``."""

    def retry(self) -> None:
        """Try again at once if it is down, without waiting for the end of the backoff."""

    def close(self) -> None:
        """End the thread."""
