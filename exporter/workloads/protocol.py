"""What the ledger and the sampler expect of a namer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal, NamedTuple, Protocol

from ..records import GroupKey, Model, Process, SourceHealth, Workload

ServerRole = Literal["", "prefill", "decode"]


class ModelServer(NamedTuple):
    """A process that is recognised as a model server, and the port on which it publishes its counters.

    ``dialect`` is the name of its metrics' dialect. ``role`` is set for a server that does one half of each request
    only. ``parent`` is the pid of the process that started it, ``model`` the name in its command line, for
    servers that are read through their parent.
    """

    process: Process
    group: GroupKey | None
    dialect: str
    port: int
    role: ServerRole = ""
    parent: int = 0
    model: str = ""


class Namer(Protocol):
    """Names groups and processes: called once per group and process, and again for those in `renamed`.

    A namer whose names are complete at once subclasses this and keeps the later methods as they are.
    """

    def workload(self, group: GroupKey) -> Workload:
        """Owner of a group; never raises, `HOST` if nothing else owns it."""

    def settled(self, group: GroupKey) -> Workload:
        """Owner of a group by the best name available now, for a group that has waited long enough."""
        return self.workload(group)._replace(provisional=False)

    def model(self, group: GroupKey | None, process: Process) -> Model | None:
        """Model that a process works for, None if none is known."""

    def pod_labels(self, workload: Workload) -> Mapping[str, str] | None:  # noqa: ARG002 - no labels are known here
        """All labels of its pod, None if they are not known (yet)."""
        return None

    def learn(self, group: GroupKey | None, process: Process) -> None:  # noqa: ARG002 - nothing is learned here
        """Take the names of its container from a process, while that has none; see `renamed`."""
        return

    def is_shared(self, workload: Workload) -> bool:
        """Whether its row collects unrelated work, so that it never belongs to one model as a whole."""
        return workload.runtime == "host"

    def renamed(self) -> Collection[GroupKey]:
        """Groups that have new names, or processes with new models, since the last call."""
        return ()

    def remember(self, workload: Workload) -> None:  # noqa: ARG002 - nothing is remembered here
        """Keep the names that an earlier run resolved; their provider may be down now."""
        return

    def forget(self, group: GroupKey) -> None:  # noqa: ARG002 - as above
        """The group was removed; a new group at its path will have another inode."""
        return

    def servers(self) -> tuple[ModelServer, ...]:
        """Model servers among the processes named so far; some may have ended. May be called from any thread."""
        return ()

    def health(self) -> tuple[SourceHealth, ...]:
        """Health of the metadata providers: an API server, an engine's socket."""
        return ()

    def retry(self) -> None:
        """Retry providers that are down at once, regardless of their backoff."""
        return

    def close(self) -> None:
        """Stop background work."""
        return
