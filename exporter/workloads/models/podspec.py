"""Evidence of a model in the specification of a pod or container, for processes that do not show it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..metadata.container_metadata import ContainerMetadata

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
"""Maps the kind of the owner to the phase that it suggests without other evidence."""

_IMAGES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("vllm/vllm-openai", ("vllm", "serve")),
    ("huggingface/text-generation-inference", ("text-generation-launcher",)),
    ("huggingface/text-embeddings-inference", ("text-embeddings-router",)),
    ("ggml-org/llama.cpp:server", ("llama-server",)),
    ("michaelf34/infinity", ("infinity_emb",)),
)
"""Maps a part of an image's name to its entry point, for pods that specify only the arguments."""

_SANDBOXES = re.compile(r"(?:\S*/)?(?:runsc-sandbox|qemu-system-\w+|cloud-hypervisor|firecracker|kata-qemu)(?=\s|\Z)")


def is_sandbox(program: str) -> bool:
    """Whether a program is the sandbox of a container runtime (gVisor, Kata), which hides the processes inside."""
    return _SANDBOXES.match(program) is not None


def entry_point(metadata: ContainerMetadata) -> list[str]:
    """Command of a container, as far as known; arguments alone follow the entry point of a known image."""
    words = list(metadata.command)
    if not words or words[0].startswith("-"):
        words = [*next((entry for part, entry in _IMAGES if part in metadata.image), ()), *words]
    return words
