"""What the steps of the check ask of a scrape, of the API and of ``/proc``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tests.support.live import Scrape

from .cluster import JOULES

ALLOCATED = "energy_gpu_allocated_ratio"


def shown(scrape: Scrape, space: str, pod: str, container: str) -> bool:
    row = {"namespace": space, "pod": pod, "container": container, "runtime": "kubernetes"}
    return scrape.total(JOULES, component="cpu", mode="active", **row) > 0


def allocations(scrape: Scrape) -> dict[str, float]:
    return {labels["pod"]: round(ratio, 6) for labels, ratio in scrape.find(ALLOCATED)}


def cgroups(found: list[tuple[dict[str, object], dict[str, object]]]) -> dict[str, list[str]]:
    """``/proc/PID/cgroup`` of the first process of each container, by the container's id."""
    wanted = {str(status["containerID"]).partition("://")[2] for _, status in found}
    seen: dict[str, list[str]] = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            lines = Path("/proc", pid, "cgroup").read_text().splitlines()
        except OSError:
            continue
        for identity in wanted:
            if any(line.endswith(identity) for line in lines):
                seen[identity] = lines
    return seen


def stripped(answer: dict[str, Any], space: str = "") -> dict[str, Any]:
    """An answer, of one namespace, without what servers note about who wrote which field."""
    answer["items"] = [each for each in answer["items"] if space in ("", each["metadata"]["namespace"])]
    for each in answer["items"]:
        each["metadata"].pop("managedFields", None)
    return answer


def commands(word: str) -> list[str]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path("/proc", pid, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if f"bin/{word} " in command:
            found.append(command)
    return found
