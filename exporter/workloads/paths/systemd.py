"""Services, scopes and users, as systemd lays them out (systemd.slice(5), systemd.unit(5), cgroups.8)."""

from __future__ import annotations

import re

from ...records import Workload

_USER = re.compile(r"user-[0-9]+\.slice")
_ESCAPED = re.compile(rb"\\x([0-9a-fA-F]{2})")


def resolve(path: str) -> Workload | None:
    """The outermost service or scope: what it delegates below itself is its own. A user is one row, not one per app.

    Slices hold no processes themselves, and groups of mounts and sockets only short helpers of systemd (Docker makes
    one mount unit per container): these are nobody's.
    """
    for part in path.split("/"):
        if _USER.fullmatch(part) or part.endswith((".service", ".scope")):
            return Workload(container=unit_name(part), runtime="systemd")
    return None


def unit_name(directory: str) -> str:
    r"""A unit's name for people: ``a\x2db.service`` → ``a-b.service``.

    A leading "_" is taken away: systemd puts it before names that the kernel's own files might have, and before "_"
    (cg_escape in src/basic/cgroup-util.c). Escapes that hide unprintable bytes stay as they are.
    """
    name = printable(directory.removeprefix("_"))
    decoded = _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), name.encode()).decode("utf-8", "replace")
    return decoded if decoded.isprintable() else name


def printable(name: str) -> str:
    """A name fit for a label: bytes that are no UTF-8, which Python keeps as surrogates, become ``?`` (fault 45)."""
    return name.encode("utf-8", "replace").decode()
