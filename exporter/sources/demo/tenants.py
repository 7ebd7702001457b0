"""The workloads of the simulated node and their loads over time: a table."""

from __future__ import annotations

from ...records import HOST, Workload
from .scenario import GpuLoad, Life, Member, Tenant, docker, pod, podman, service, slurm
from .waves import bursts, daily, least, pulse, steady

PYTORCH = "nvcr.io/nvidia/pytorch:25.04-py3"
VLLM = "vllm/vllm-openai:v0.8.5"
SGLANG = "lmsysorg/sglang:v0.4.6"
TGI = "ghcr.io/huggingface/text-generation-inference:3.2.3"
TEI = "ghcr.io/huggingface/text-embeddings-inference:1.7"
COMFY = "yanwk/comfyui-boot:cu126-slim"
NOTEBOOK = "quay.io/jupyter/pytorch-notebook:cuda12-2025-04-14"
MAGICK = "dpokidov/imagemagick:7.1.1"
INGRESS = "ingress-nginx/controller:v1.12.1"

TRAINING = GpuLoad(0, least(pulse(1.05, 0.45, 20, 2), pulse(1.05, 0.04, 300, 20)), 74e9, 0.62, 0.44)
"""Runs into the power limit, waits for data every 20 s, and writes a checkpoint every 5 min."""

TENANTS = (
    # GPU 0: one training job of its own
    Tenant(
        *pod("team-nlp", "llama-3-1-8b-sft-0", "trainer", PYTORCH, "Job/llama-3-1-8b-sft", "1201"),
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
        *pod("team-nlp", "qwen2-5-7b-chat-6f7c9d5b8-x2lqp", "vllm", VLLM, "Deployment/qwen2-5-7b-chat", "1201"),
        cpu=daily(2.2, 1.2),
        members=(
            Member("VLLM::EngineCor", 0.6, GpuLoad(1, daily(0.34, 0.22), 34e9, 0.21, 0.71)),
            Member("vllm", 0.38),
        ),
        model=("Qwen/Qwen2.5-7B-Instruct", "inference"),
    ),
    Tenant(
        *pod("team-nlp", "mistral-7b-rag-5b8d7c6f4-9kzwt", "tgi", TGI, "Deployment/mistral-7b-rag", "1201"),
        cpu=bursts(2.5),
        members=(
            Member("text-generation", 0.55, GpuLoad(1, bursts(0.4), 36e9, 0.26, 0.66)),
            Member("text-generation", 0.4),
        ),
        model=("mistralai/Mistral-7B-Instruct-v0.3", "inference"),
    ),
    # GPU 2: split three ways
    Tenant(
        *pod("team-vision", "sdxl-render-7c5f8b9d6-m4v8s", "comfyui", COMFY, "Deployment/sdxl-render", "1340"),
        cpu=pulse(0.6, 1.8, 90, 60),
        members=(Member("python3", 0.95, GpuLoad(2, pulse(0.08, 0.92, 90, 60), 22e9, 0.48, 0.39, "1")),),
        model=("stabilityai/stable-diffusion-xl-base-1.0", "inference"),
    ),
    Tenant(
        *pod("platform", "bge-m3-embed-58d9c7b6f5-tq2nh", "tei", TEI, "Deployment/bge-m3-embed"),
        cpu=daily(1.0, 0.5, 0.3),
        members=(Member("text-embeddings", 0.98, GpuLoad(2, daily(0.45, 0.3, 0.3), 6e9, 0.33, 0.41, "5")),),
        model=("BAAI/bge-m3", "inference"),
    ),
    Tenant(
        *pod("team-vision", "jupyter-mara", "notebook", NOTEBOOK, "StatefulSet/jupyter-mara", "1340"),
        cpu=bursts(1.2, 0.4),
        members=(Member("python3", 0.7, GpuLoad(2, pulse(0.0, 0.5, 240, 25), 5e9, 0.12, 0.22, "13")),),
        model=("facebook/dinov2-base", "unknown"),
    ),
    # GPU 3: a loaded model without requests
    Tenant(
        *pod("team-vision", "gemma-3-27b-demo-84f6b7d9c-hw7jr", "vllm", VLLM, "Deployment/gemma-3-27b-demo", "1340"),
        cpu=steady(0.06),
        members=(
            Member("VLLM::EngineCor", 0.7, GpuLoad(3, steady(0.0), 71e9)),
            Member("vllm", 0.28),
        ),
        model=("google/gemma-3-27b-it", "inference"),
    ),
    # GPU 4: allocated to a pod that has not even opened it
    Tenant(
        *pod("team-research", "lena-notebook-0", "notebook", NOTEBOOK, "StatefulSet/lena-notebook", "1422"),
        cpu=bursts(0.3, 0.2),
        members=(Member("jupyter-lab", 0.8),),
        allocated_idle=(4,),
    ),
    # GPUs 5 and 6: one model over two cards
    Tenant(
        *pod("platform", "llama-3-3-70b-0", "sglang", SGLANG, "LeaderWorkerSet/llama-3-3-70b", "1001"),
        cpu=daily(2.4, 1.0, 0.6),
        members=(
            Member("sglang::schedul", 0.4, GpuLoad(5, daily(0.58, 0.3, 0.6), 76e9, 0.31, 0.64)),
            Member("sglang::schedul", 0.4, GpuLoad(6, daily(0.58, 0.3, 0.6), 76e9, 0.31, 0.64)),
            Member("python3", 0.18),
        ),
        model=("meta-llama/Llama-3.3-70B-Instruct", "inference"),
    ),
    # GPU 7: runs of a sweep, and no process between two of them; its memory is worn
    Tenant(
        *pod("team-research", "pythia-sweep-{run}", "trainer", PYTORCH, "Job/pythia-sweep-{run}", "1422"),
        cpu=steady(4.0),
        members=(
            Member("pt_main_thread", 0.3, GpuLoad(7, pulse(0.97, 0.3, 60, 9), 41e9, 0.38, 0.35)),
            *(Member("pt_data_worker", 0.17) for _ in range(4)),
        ),
        model=("EleutherAI/pythia-1.4b", "training"),
        life=Life(every=900, lasts=720),
        first_socket=0.0,
    ),
    # CPU only: a model, jobs that come and go, and the rest of a working node
    Tenant(
        *service("ollama.service"),
        cpu=bursts(14.0, 0.7),
        members=(Member("ollama", 0.99),),
        model=("llama3.2:3b", "inference"),
    ),
    Tenant(
        *pod("team-nlp", "tokenize-shard-{run}", "tokenize", "python:3.12-slim", "Job/tokenize-shard-{run}", "1201"),
        cpu=steady(3.0),
        members=(Member("python", 0.9),),
        life=Life(every=150, lasts=95, age=40),
    ),
    Tenant(
        *pod("team-vision", "thumbnails-{run}", "convert", MAGICK, "Job/thumbnails-{run}", "1340"),
        cpu=steady(1.6),
        members=(Member("bash", 0.02),),
        life=Life(every=120, lasts=50),
    ),
    Tenant(
        *pod("platform", "ingress-nginx-6d8f5c7b9-2xv5c", "controller", INGRESS, "Deployment/ingress-nginx"),
        cpu=daily(0.3, 0.15),
        members=(Member("nginx-ingress-c", 0.2), Member("nginx", 0.39), Member("nginx", 0.39)),
    ),
    Tenant(
        *pod("platform", "prometheus-0", "prometheus", "prom/prometheus:v3.3.0", "StatefulSet/prometheus"),
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
