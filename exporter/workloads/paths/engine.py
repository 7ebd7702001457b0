"""Cgroup names of container engines: ``[engine-]<64 hex>[.scope]``."""

from __future__ import annotations

import re

CONTAINER_ID = "[0-9a-f]{64}"

# runc and crun turn "slice:prefix:id" into "prefix-id.scope" with the systemd driver, and use it unchanged as a
# directory name with the cgroupfs driver (runc docs/systemd.md), as containerd does without SystemdCgroup=true.
_NAME = re.compile(rf"(?:[^:]*:)?(?:([a-z][a-z-]*)[-:])?({CONTAINER_ID})(?:\.scope)?")


def engine_and_id(part: str) -> tuple[str, str] | None:
    """Engine prefix ("" for a bare id) and container id of one path component, None if it has none."""
    match = _NAME.fullmatch(part)
    return (match[1] or "", match[2]) if match else None


def short_id(container_id: str) -> str:
    """First 12 digits, as listed by every engine."""
    return container_id[:12]
