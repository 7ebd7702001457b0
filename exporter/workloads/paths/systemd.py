"""Services, scopes and users, in the layout of systemd (systemd.slice(5), systemd.unit(5), cgroups.8)."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from itertools import pairwise

from ...records import Workload

_USER = re.compile(r"user-[0-9]+\.slice")
_ESCAPED = re.compile(rb"\\x([0-9a-fA-F]{2})")

# Accept=yes starts NAME@COUNT-LOCAL:PORT-PEER:PORT.service for each connection, NAME@COUNT-PID-UID for a local one
# (systemd.socket(5), instance_from_socket in src/core/socket.c).
_CONNECTION = re.compile(
    r"([^@]+@)[0-9]+-(?:[0-9A-Fa-f.:]+:[0-9]+-[0-9A-Fa-f.:]+:[0-9]+|[1-9][0-9]{2,}-[0-9]+(?:-[0-9]+)?|vsock:[0-9-]+)"
    r"\.service"
)


def resolve(path: str) -> Workload | None:
    """The outermost service or scope, which includes every cgroup below it. A user is one row, not one per app.

    Slices contain no processes themselves, and mount and socket units only short-lived helpers of systemd (Docker
    creates one mount unit per container): they match nothing.
    """
    for part in path.split("/"):
        if _USER.fullmatch(part) or part.endswith((".service", ".scope")):
            return Workload(container=_template(unit_name(part)), runtime="systemd")
    return None


def split_resolver(units: Collection[str]) -> Callable[[str], Workload | None]:
    """Resolver of ``units``, each of which is one row for each group in it: services that sort work of others.

    A name without a type is a service, as for systemctl.
    """
    chosen = {unit if "." in unit else f"{unit}.service" for unit in units}

    def resolve_child(path: str) -> Workload | None:
        for part, child in pairwise(path.split("/") if chosen else ()):
            if child and part and (unit := unit_name(part)) in chosen:
                return Workload(container=f"{unit}/{unit_name(child)}", runtime="systemd")
        return None

    return resolve_child


def _template(unit: str) -> str:
    """A unit for one connection becomes its template, which is one row for all; others stay as they are."""
    match = _CONNECTION.fullmatch(unit)
    return f"{match[1]}.service" if match else unit


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
