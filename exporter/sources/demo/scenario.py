"""The parts of a workload of the simulated node, and the path of its cgroup."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ...records import Model, Workload
from .waves import Wave


class GpuLoad(NamedTuple):
    """The load of a process on a card (index into `hardware.CARDS`) or one instance of it."""

    card: int
    busy: Wave
    memory_bytes: float
    tensor: float = 0.0
    """Tensor-core activity while busy, ratio."""
    dram: float = 0.0
    """Memory activity while busy, ratio."""
    instance: str = ""


class Member(NamedTuple):
    """A process: its share of the group's CPU seconds, and its GPU load. Exited children used the remainder."""

    comm: str
    share: float
    gpu: GpuLoad | None = None


class Life(NamedTuple):
    """A job that starts every ``every`` seconds and lasts ``lasts``; it is ``age`` old when the simulation starts."""

    every: float
    lasts: float
    age: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Tenant:
    """A workload in its cgroup. ``{id}``, ``{uid}``, ``{run}`` in names are replaced when it starts."""

    path: str
    owner: Workload
    cpu: Wave
    members: tuple[Member, ...]
    model: tuple[str, str] | None = None
    """Model name and phase."""
    life: Life | None = None
    first_socket: float = 0.5
    """Share of its CPU seconds on socket 0."""
    allocated_idle: tuple[int, ...] = ()
    """Cards that are allocated to it but not used."""

    @property
    def allocated(self) -> tuple[tuple[int, str], ...]:
        """The cards, and instances of them, that Kubernetes has allocated to it; none outside Kubernetes."""
        if self.owner.runtime != "kubernetes":
            return ()
        used = dict.fromkeys((member.gpu.card, member.gpu.instance) for member in self.members if member.gpu)
        return (*used, *((card, "") for card in self.allocated_idle))

    def run(self, time: float) -> int | None:
        """Number of its run at ``time`` (s), None between two runs."""
        if self.life is None:
            return 0
        run, age = divmod(time + self.life.age, self.life.every)
        return int(run) if age < self.life.lasts else None


def pod(
    namespace: str, name: str, container: str, image: str, owner: str = "", cost_center: str = ""
) -> tuple[str, Workload]:
    """Path and owner of a container in a Kubernetes pod; ``owner`` is ``Kind/name`` of the pod's controller."""
    slice_ = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid_}.slice"
    kind, _, name_of_owner = owner.partition("/")
    labels = (("app", name_of_owner or name), *((("cost-center", cost_center),) if cost_center else ()))
    workload = Workload(
        namespace, name, container, "kubernetes", "{id}", "{uid}", image, kind, name_of_owner, tuple(labels)
    )
    return slice_ + "/cri-containerd-{id}.scope", workload


def docker(name: str, image: str) -> tuple[str, Workload]:
    """Path and owner of a Docker container."""
    return "/system.slice/docker-{id}.scope", Workload("", "", name, "docker", "{id}", "", image)


def podman(name: str, image: str) -> tuple[str, Workload]:
    """Path and owner of a Podman container."""
    return "/machine.slice/libpod-{id}.scope/container", Workload("", "", name, "podman", "{id}", "", image)


def service(name: str) -> tuple[str, Workload]:
    """Path and owner of a systemd service."""
    return f"/system.slice/{name}", Workload(container=name, runtime="systemd")


def slurm(job: int) -> tuple[str, Workload]:
    """Path and owner of a Slurm job."""
    path = f"/system.slice/slurmstepd.scope/job_{job}/step_batch/user/task_0"
    return path, Workload(container=f"job_{job}", runtime="slurm", labels=(("slurm_job_id", str(job)),))


def model_of(tenant: Tenant) -> Model | None:
    """The tenant's model as the exporter would name it."""
    if tenant.model is None:
        return None
    name, phase = tenant.model
    return Model(name, tenant.owner.namespace, phase, "demo")
