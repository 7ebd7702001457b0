"""What the specification of a pod or container says of its model when its processes cannot be asked."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..metadata.container_metadata import Facts

OWNER_PHASES: Mapping[str, str] = {
    **dict.fromkeys(
        (
            *(
                "Job",
                "CronJob",
                "JobSet",
                "RayJob",
                "TrainJob",
                "PyTorchJob",
                "TFJob",
                "MPIJob",
                "XGBoostJob",
                "JAXJob",
            ),
            *("PaddleJob", "MXJob", "AdaptDLJob", "SlurmJob"),
        ),
        "training",
    ),
    **dict.fromkeys(
        (
            *("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "InferenceService", "LLMInferenceService"),
            *("LeaderWorkerSet", "RayService", "Revision", "SeldonDeployment", "NIMService", "DynamoGraphDeployment"),
        ),
        "inference",
    ),
}
"""Kind of the owner → the phase that it suggests where nothing else tells."""

_IMAGES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("vllm/vllm-openai", ("vllm", "serve")),
    ("huggingface/text-generation-inference", ("text-generation-launcher",)),
    ("huggingface/text-embeddings-inference", ("text-embeddings-router",)),
    ("ggml-org/llama.cpp:server", ("llama-server",)),
    ("michaelf34/infinity", ("infinity_emb",)),
)
"""Part of an image's name → its entry point, for pods that give only the arguments."""

_SANDBOXES = re.compile(r"(?:\S*/)?(?:runsc-sandbox|qemu-system-\w+|cloud-hypervisor|firecracker|kata-qemu)(?=\s|\Z)")
_REFERENCE = re.compile(r"\$\((\w+)\)")


def is_sandbox(program: str) -> bool:
    """Whether a program is a sandbox of a runtime, which stands for everything that runs inside: gVisor, Kata."""
    return _SANDBOXES.match(program) is not None


def entry_point(facts: Facts) -> list[str]:
    """The command a container is asked to run, with ``$(NAME)`` expanded as the kubelet does, as far as it is known."""
    words = list(facts.command)
    if not words or words[0].startswith("-"):
        words = [*next((entry for part, entry in _IMAGES if part in facts.image), ()), *words]
    return [_REFERENCE.sub(lambda match: facts.environment.get(match[1], match[0]), word) for word in words]
