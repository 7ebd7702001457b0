"""The names that container engines give their cgroups: ``[engine-]<64 hex>[.scope]``."""

from __future__ import annotations

import re

CONTAINER_ID = "[0-9a-f]{64}"

# runc and crun turn "slice:prefix:id" into "prefix-id.scope" when they talk to systemd, and use it as a directory
# name as it is when they do not (runc docs/systemd.md), as containerd without SystemdCgroup=true does.
_NAME = re.compile(rf"(?:[^:]*:)?(?:([a-z][a-z-]*)[-:])?({CONTAINER_ID})(?:\.scope)?")


def engine_and_id(part: str) -> tuple[str, str] | None:
    """Engine prefix ("" for a bare id) and container id of one path component, None if it names no container."""
    match = _NAME.fullmatch(part)
    return (match[1] or "", match[2]) if match else None


def short_id(container_id: str) -> str:
    """First 12 digits, as every engine's own listing shows it."""
    return container_id[:12]
