"""Services, scopes and users, in the layout of systemd (systemd.slice(5), systemd.unit(5), cgroups.8)."""

from __future__ import annotations

import re

from ...records import Workload

_USER = re.compile(r"user-[0-9]+\.slice")
_ESCAPED = re.compile(rb"\\x([0-9a-fA-F]{2})")


def resolve(path: str) -> Workload | None:
    """The outermost service or scope, which includes every cgroup below it. A user is one row, not one per app.

    Slices contain no processes themselves, and mount and socket units only short-lived helpers of systemd (Docker
    creates one mount unit per container): they match nothing.
    """
    for part in path.split("/"):
        if _USER.fullmatch(part) or part.endswith((".service", ".scope")):
            return Workload(container=unit_name(part), runtime="systemd")
    return None


def unit_name(directory: str) -> str:
    r"""Readable name of a unit: ``a\x2db.service`` → ``a-b.service``.

    A leading "_" is removed: systemd adds it to names that could clash with the kernel's files, and to names that
    begin with "_" (cg_escape in src/basic/cgroup-util.c). Escaped unprintable bytes stay escaped.
    """
    name = printable(directory.removeprefix("_"))
    decoded = _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), name.encode()).decode("utf-8", "replace")
    return decoded if decoded.isprintable() else name


def printable(name: str) -> str:
    """A name that is valid as a label: bytes that are not UTF-8 (in Python, surrogates) become ``?``."""
    return name.encode("utf-8", "replace").decode()
