"""Rows that collect unrelated work: they never belong to one model as a whole."""

from __future__ import annotations

import re

from ..records import NOWHERE, Workload

_UNIT = re.compile(
    r"(?:user-[0-9]+|system|machine)\.slice|init\.scope|session-.+\.scope|tmux.*\.scope|"
    r"(?:user|getty|serial-getty|sshd?)@.*\.service|"
    r"(?:sshd?|crond?|atd|slurmd|slurmstepd|docker|containerd|podman|kubelet|k3s|rke2-.+|supervisord?|"
    r"gdm|sddm|lightdm|display-manager|jupyter.*|code-server.*|rstudio-server|rserver)\.(?:service|scope)"
)
"""Sessions of people, and services that start other people's programs."""


def is_shared(workload: Workload) -> bool:
    """Whether a workload is the host, a person's sessions, a service that starts unrelated programs, or unknown."""
    if workload.runtime == "systemd":
        return _UNIT.fullmatch(workload.container) is not None
    return workload.runtime == "host" or workload == NOWHERE
