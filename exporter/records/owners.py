"""The owners of energy: workloads, models and processes, by the labels of their series."""

from __future__ import annotations

from typing import NamedTuple

Place = tuple[str, str, str]  # of a container of a cluster: namespace, pod and container name
WorkloadKey = tuple[str, str, str, str]
ModelKey = tuple[str, str, str, str]
ModelPlace = tuple[str, str, str]


class Workload(NamedTuple):
    """The owner of a cgroup, in cAdvisor's label names; ``runtime`` as in the metrics reference. Unknown is "".

    ``key`` identifies its series. ``owner_kind`` and ``owner_name`` are what started it (Deployment, Job, a Slurm
    user), ``labels`` the chosen pod labels, sorted. While it is ``provisional``, ``pod`` and ``container`` are ids
    whose names have not been looked up yet.
    """

    namespace: str = ""
    pod: str = ""
    container: str = ""
    runtime: str = "host"
    container_id: str = ""
    pod_uid: str = ""
    image: str = ""
    owner_kind: str = ""
    owner_name: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    provisional: bool = False

    @property
    def place(self) -> Place:
        """Namespace, pod and container, as an `Allocation` has them."""
        return (self.namespace, self.pod, self.container)

    @property
    def key(self) -> WorkloadKey:
        """What identifies its series; two instances with the same key are one account."""
        return (self.namespace, self.pod, self.container, self.runtime)

    @property
    def info_labels(self) -> tuple[str, ...]:
        """``key``, container id, pod UID, image, owner kind and owner name: the values of ``energy_container_info``."""
        return (*self.key, self.container_id, self.pod_uid, self.image, self.owner_kind, self.owner_name)


UNKNOWN_RUNTIME = "unknown"  # of a container whose path has an id and no engine

HOST = Workload(container="host", runtime="host")  # the row for cgroups that no container, unit or job owns

NOWHERE = Workload(runtime=UNKNOWN_RUNTIME)  # of a process whose cgroup cannot be read; it has no row


class Model(NamedTuple):
    """A running AI model; ``phase`` is training, inference or unknown, ``source`` how it was recognised.

    ``variant`` distinguishes what is served under one name: a precision or quantization (``awq``, ``fp16``,
    ``Q4_K_M``), or what the operator says. Unknown is "".
    """

    model_name: str
    namespace: str = ""
    phase: str = "unknown"
    source: str = ""
    variant: str = ""

    @property
    def key(self) -> ModelKey:
        """What identifies its series."""
        return (self.model_name, self.namespace, self.phase, self.variant)

    @property
    def place(self) -> ModelPlace:
        """Name, namespace and variant: what its tokens and joules have in common, whatever its phase."""
        return (self.model_name, self.namespace, self.variant)


class ProcessOwner(NamedTuple):
    """Labels of a process series."""

    pid: int
    comm: str
    namespace: str
    pod: str
    container: str
