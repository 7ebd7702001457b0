"""Names of containers from the process that watches each of them, where a path has only an id or may be numbered.

conmon(8) is the parent of the first process of a Podman container, with its id and name on the command line: so
rootless containers, each user's API being another, have names. LXC appends ``-1`` to the group of a container whose
old group still exists; its monitor has the name.
"""

from __future__ import annotations

import re
from itertools import pairwise

from ...host import Host
from ...records import GroupKey, Workload
from ..paths.systemd import printable
from ..proc import command_line, process_stat

_DEPTH = 32
_ATTEMPTS = 16
"""Processes of a container whose ancestors are read: some exit before, and a monitor may have been killed."""

_MOST = 20_000
_NUMBERED = re.compile(r"/lxc(?:\.payload|\.monitor)?[./-]([^/\0]+-[0-9]+)(?=[/\0]|\Z)")
_LXC_TITLE = "[lxc monitor] "


class ContainerMonitors:
    """Names of containers by the key of each, as far as they are known; reads two small files for each ancestor."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._names: dict[str, str] = {}
        self._attempts: dict[str, int] = {}

    def key(self, group: GroupKey, owner: Workload) -> str:
        """What a container is known by: Podman's id, LXC's group if its name may be numbered; "" for any other."""
        if owner.runtime == "podman":
            return owner.container_id
        match = _NUMBERED.search(group.path) if owner.runtime == "systemd" else None
        return f"lxc {match[1]}" if match and printable(match[1]) == owner.container else ""

    def awaits(self, key: str) -> bool:
        """Whether its name may still be found."""
        return bool(key) and key not in self._names and self._attempts.get(key, 0) < _ATTEMPTS

    def named(self, key: str, owner: Workload) -> Workload:
        """The container with its name, if that is known."""
        name = self._names.get(key)
        return owner if name is None else owner._replace(container=name)

    def learn(self, key: str, pid: int) -> bool:
        """Look for the monitor of one of its processes; True if the name is known since then."""
        if not self.awaits(key) or len(self._names) >= _MOST:
            return False
        self._attempts[key] = self._attempts.get(key, 0) + 1
        for _ in range(_DEPTH):
            words = command_line(self._host, pid).decode("utf-8", "replace").rstrip("\0").split("\0")
            if name := _lxc_name(key, words) if key.startswith("lxc ") else _conmon_name(key, words):
                self._names[key] = name
                return True
            stat = process_stat(self._host, pid)
            if stat is None or stat.parent <= 1:
                return False
            pid = stat.parent
        return False

    def forget(self, key: str) -> None:
        """The container was removed."""
        self._names.pop(key, None)
        self._attempts.pop(key, None)


def _conmon_name(container_id: str, words: list[str]) -> str:
    """``conmon … -c ID … -n NAME …``, of this container."""
    if words[0].rpartition("/")[2] != "conmon":
        return ""
    options: dict[str, str] = {}
    for option, value in pairwise(words):
        options.setdefault(option, value)
    return options.get("-n", "") if options.get("-c") == container_id else ""


def _lxc_name(key: str, words: list[str]) -> str:
    """``[lxc monitor] FOLDER NAME``, if the group is called like this container, or like that with a number."""
    title = words[0].rstrip()
    name = title.rpartition(" ")[2] if title.startswith(_LXC_TITLE) else ""
    return name if name and re.fullmatch(rf"lxc {re.escape(name)}(?:-[0-9]+)?", key) else ""
