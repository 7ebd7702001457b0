"""What runs on the simulated node: a table of workloads and their loads over time, no engine.

A "day" of the demo lasts half an hour, so that daily waves are seen in one sitting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import pi, sin
from typing import NamedTuple

from ...records import HOST, Model, Workload

Wave = Callable[[float], float]
"""A load over time: seconds since the simulation began → busy cores, or busy ratio of a GPU (or GPU instance)."""

DAY = 1800.0

# --- loads over time --------------------------------------------------------------------------------------------------


def steady(level: float) -> Wave:
    """Always the same."""
    return lambda _: level


def daily(mean: float, swing: float, phase: float = 0.0) -> Wave:
    """Rises and falls once a (demo) day; ``phase`` is a part of the day."""
    return lambda t: mean + swing * sin(2 * pi * (t / DAY + phase))


def pulse(rest: float, peak: float, every: float, lasts: float) -> Wave:
    """``peak`` for the first ``lasts`` of every ``every`` seconds, else ``rest``."""
    return lambda t: peak if t % every < lasts else rest


def bursts(peak: float, pace: float = 1.0) -> Wave:
    """Silence and bursts without a visible period: beating sines, cut off below zero."""
    return lambda t: max(0.0, peak * (sin(t * pace / 7) + sin(t * pace / 17.3) + sin(t * pace / 41.9)) / 3)


def least(*waves: Wave) -> Wave:
    """Whatever holds the load down most."""
    return lambda t: min(wave(t) for wave in waves)


# --- who runs ---------------------------------------------------------------------------------------------------------


class GpuLoad(NamedTuple):
    """What a process does on a card (index into `demo_hardware.CARDS`) or one instance of it."""

    card: int
    busy: Wave
    memory_bytes: float
    tensor: float = 0.0
    """Tensor-core activity while busy, ratio."""
    dram: float = 0.0
    """Memory activity while busy, ratio."""
    instance: str = ""


class Member(NamedTuple):
    """A process: its share of the group's CPU seconds, and its GPU. What no member has, exited children used."""

    comm: str
    share: float
    gpu: GpuLoad | None = None


class Life(NamedTuple):
    """A job that starts every ``every`` seconds and lasts ``lasts``; at the beginning it is ``age`` into that."""

    every: float
    lasts: float
    age: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Tenant:
    """A workload in its cgroup. ``{id}``, ``{uid}``, ``{run}`` in names are filled in when it starts."""

    path: str
    owner: Workload
    cpu: Wave
    members: tuple[Member, ...]
    model: tuple[str, str] | None = None
    """Model name and phase."""
    life: Life | None = None
    first_socket: float = 0.5
    """Share of its CPU seconds on socket 0."""

    def run(self, time: float) -> int | None:
        """Which run of it is alive at ``time``, None between two runs."""
        if self.life is None:
            return 0
        run, age = divmod(time + self.life.age, self.life.every)
        return int(run) if age < self.life.lasts else None


def pod(namespace: str, name: str, container: str, image: str) -> tuple[str, Workload]:
    """Path and owner of a container in a Kubernetes pod."""
    slice_ = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid_}.slice"
    owner = Workload(namespace, name, container, "kubernetes", "{id}", "{uid}", image)
    return slice_ + "/cri-containerd-{id}.scope", owner


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
    return path, Workload(container=f"job_{job}", runtime="slurm")


VLLM = "vllm/vllm-openai:v0.8.5"
TRAINING = GpuLoad(0, least(pulse(1.05, 0.45, 20, 2), pulse(1.05, 0.04, 300, 20)), 74e9, 0.62, 0.44)
"""Runs into the power limit, waits for data every 20 s, and writes a checkpoint every 5 min."""

TENANTS = (
    # GPU 0: one training job of its own
    Tenant(
        *pod("team-nlp", "llama-3-1-8b-sft-0", "trainer", "nvcr.io/nvidia/pytorch:25.04-py3"),
        cpu=pulse(9.0, 3.0, 300, 20),
        members=(
            Member("pt_main_thread", 0.16, TRAINING),
            Member("torchrun", 0.01),
            *(Member("pt_data_worker", 0.1) for _ in range(8)),
        ),
        model=("meta-llama/Llama-3.1-8B", "training"),
        first_socket=1.0,
    ),
    # GPU 1: two models share it
    Tenant(
        *pod("team-nlp", "qwen2-5-7b-chat-6f7c9d5b8-x2lqp", "vllm", VLLM),
        cpu=daily(2.2, 1.2),
        members=(
            Member("VLLM::EngineCor", 0.6, GpuLoad(1, daily(0.34, 0.22), 34e9, 0.21, 0.71)),
            Member("vllm", 0.38),
        ),
        model=("Qwen/Qwen2.5-7B-Instruct", "inference"),
    ),
    Tenant(
        *pod("team-nlp", "mistral-7b-rag-5b8d7c6f4-9kzwt", "vllm", VLLM),
        cpu=bursts(2.5),
        members=(
            Member("VLLM::EngineCor", 0.55, GpuLoad(1, bursts(0.4), 36e9, 0.26, 0.66)),
            Member("vllm", 0.4),
        ),
        model=("mistralai/Mistral-7B-Instruct-v0.3", "inference"),
    ),
    # GPU 2: split three ways
    Tenant(
        *pod("team-vision", "sdxl-render-7c5f8b9d6-m4v8s", "comfyui", "yanwk/comfyui-boot:cu126-slim"),
        cpu=pulse(0.6, 1.8, 90, 60),
        members=(Member("python3", 0.95, GpuLoad(2, pulse(0.08, 0.92, 90, 60), 22e9, 0.48, 0.39, "1")),),
        model=("stabilityai/stable-diffusion-xl-base-1.0", "inference"),
    ),
    Tenant(
        *pod("platform", "bge-m3-embed-58d9c7b6f5-tq2nh", "tei", "ghcr.io/huggingface/text-embeddings-inference:1.7"),
        cpu=daily(1.0, 0.5, 0.3),
        members=(Member("text-embeddings", 0.98, GpuLoad(2, daily(0.45, 0.3, 0.3), 6e9, 0.33, 0.41, "5")),),
        model=("BAAI/bge-m3", "inference"),
    ),
    Tenant(
        *pod("team-vision", "jupyter-mara", "notebook", "quay.io/jupyter/pytorch-notebook:cuda12-2025-04-14"),
        cpu=bursts(1.2, 0.4),
        members=(Member("python3", 0.7, GpuLoad(2, pulse(0.0, 0.5, 240, 25), 5e9, 0.12, 0.22, "13")),),
        model=("facebook/dinov2-base", "unknown"),
    ),
    # GPU 3: a model that nobody asks anything
    Tenant(
        *pod("team-vision", "gemma-3-27b-demo-84f6b7d9c-hw7jr", "vllm", VLLM),
        cpu=steady(0.06),
        members=(
            Member("VLLM::EngineCor", 0.7, GpuLoad(3, steady(0.0), 71e9)),
            Member("vllm", 0.28),
        ),
        model=("google/gemma-3-27b-it", "inference"),
    ),
    # CPU only: a model, jobs that come and go, and the rest of a working node
    Tenant(
        *service("ollama.service"),
        cpu=bursts(14.0, 0.7),
        members=(Member("ollama", 0.99),),
        model=("llama3.2:3b", "inference"),
    ),
    Tenant(
        *pod("team-nlp", "tokenize-shard-{run}", "tokenize", "python:3.12-slim"),
        cpu=steady(3.0),
        members=(Member("python", 0.9),),
        life=Life(every=150, lasts=95, age=40),
    ),
    Tenant(
        *pod("team-vision", "thumbnails-{run}", "convert", "dpokidov/imagemagick:7.1.1"),
        cpu=steady(1.6),
        members=(Member("bash", 0.02),),
        life=Life(every=120, lasts=50),
    ),
    Tenant(
        *pod("platform", "ingress-nginx-controller-6d8f5c7b9-2xv5c", "controller", "ingress-nginx/controller:v1.12.1"),
        cpu=daily(0.3, 0.15),
        members=(Member("nginx-ingress-c", 0.2), Member("nginx", 0.39), Member("nginx", 0.39)),
    ),
    Tenant(
        *pod("platform", "prometheus-k8s-0", "prometheus", "quay.io/prometheus/prometheus:v3.3.0"),
        cpu=pulse(0.4, 1.5, 30, 4),
        members=(Member("prometheus", 1.0),),
    ),
    Tenant(
        *docker("ci-runner", "ghcr.io/actions/actions-runner:2.323.0"),
        cpu=pulse(0.1, 6.0, 200, 110),
        members=(Member("Runner.Worker", 0.15),),
    ),
    Tenant(
        *docker("open-webui", "ghcr.io/open-webui/open-webui:0.6"),
        cpu=daily(0.3, 0.2),
        members=(Member("uvicorn", 1.0),),
    ),
    Tenant(
        *podman("label-studio", "docker.io/heartexlabs/label-studio:1.17"),
        cpu=bursts(1.0, 0.5),
        members=(Member("uwsgi", 0.5), Member("uwsgi", 0.5)),
    ),
    Tenant(
        *slurm(48213),
        cpu=pulse(8.0, 2.0, 400, 30),
        members=tuple(Member("lmp_mpi", 0.12) for _ in range(8)),
        first_socket=0.0,
    ),
    Tenant(*service("kubelet.service"), cpu=steady(0.25), members=(Member("kubelet", 0.95),)),
    Tenant(*service("containerd.service"), cpu=steady(0.18), members=(Member("containerd", 0.7),)),
    Tenant(*service("docker.service"), cpu=steady(0.06), members=(Member("dockerd", 0.9),)),
    Tenant(*service("ssh.service"), cpu=pulse(0.0, 0.02, 60, 2), members=(Member("sshd", 0.5),)),
    Tenant(
        "/user.slice/user-1000.slice/session-3.scope",
        Workload(container="user-1000.slice", runtime="systemd"),
        cpu=bursts(0.8, 0.3),
        members=(Member("bash", 0.05), Member("vim", 0.1)),
    ),
    Tenant("/", HOST, cpu=steady(0.12), members=()),
)

KERNEL_CORES = 0.35
EXITED_CORES = 0.03


def model_of(tenant: Tenant) -> Model | None:
    """The tenant's model as the exporter would name it."""
    if tenant.model is None:
        return None
    name, phase = tenant.model
    return Model(name, tenant.owner.namespace, phase, "demo")
