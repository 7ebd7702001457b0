"""Groups that came and went between two walks: the removed directories that inotify(7) reports and no walk has seen.

What such a group used is in its parent's counter only, together with the last use of others that ended. Where inotify
cannot be had (its limits are per user, fs.inotify.max_user_*), no such group is known.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
from collections import defaultdict
from collections.abc import Iterator

from .cgroup_tree import Group

_DELETE = 0x200
_CREATE = 0x100
"""Without it, two removals of the same name are one event."""

_ONLY_DIRECTORIES = 0x0100_0000
_MASK = _DELETE | _CREATE | _ONLY_DIRECTORIES
_IS_DIRECTORY = 0x4000_0000
_OVERFLOW = 0x4000
_HEAD = struct.Struct("iIII")


class Removals:
    """Watches the directories of groups that have children."""

    def __init__(self) -> None:
        self._fd = -1
        self._poll = select.poll()
        self._watched: dict[Group, int] = {}
        self._groups: dict[int, Group] = {}
        self._awaited: defaultdict[Group, set[str]] = defaultdict(set)
        self._early: defaultdict[Group, set[str]] = defaultdict(set)
        self._unseen: set[Group] = set()
        try:
            self._libc = ctypes.CDLL(None)
            self._fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, AttributeError):
            return
        if self._fd >= 0:
            self._poll.register(self._fd, select.POLLIN)

    def watch(self, group: Group) -> None:
        """Watch a group that has children; watching it again does nothing."""
        if self._fd < 0 or group in self._watched:
            return
        number = self._libc.inotify_add_watch(self._fd, os.fsencode(group.directory), _MASK)
        self._watched[group] = number
        if number >= 0:
            self._groups[number] = group

    def forget(self, group: Group) -> None:
        """A group no longer exists, or is read as a part of its parent."""
        number = self._watched.pop(group, -1)
        if self._groups.pop(number, None) is not None:
            self._libc.inotify_rm_watch(self._fd, number)
        self._awaited.pop(group, None)
        self._early.pop(group, None)
        self._unseen.discard(group)

    def removed(self, group: Group, name: str) -> None:
        """A walk found that a child is gone, whether or not its removal was reported yet."""
        if name in self._early[group]:
            self._early[group].remove(name)
        elif self._watched.get(group, -1) >= 0:
            self._awaited[group].add(name)

    def settle(self, group: Group) -> None:
        """All that a group's counter shows was attributed: what came and went before does not matter any more."""
        self._unseen.discard(group)

    def came_and_went(self, group: Group) -> bool:
        """Whether a child of a group was made and removed unseen since it was last settled."""
        self.read()
        return group in self._unseen

    def any_below(self, group: Group) -> bool:
        """Whether a group, which is gone itself, or one below it had a child that came and went unseen."""
        self.read()
        return not self._unseen.isdisjoint(group.tree())

    def read(self) -> None:
        """Read what was reported since the last call."""
        if not self._poll.poll(0):  # a read that fails costs several times as much
            return
        for number, mask, name in self._events():
            if mask & _OVERFLOW:
                self._awaited.clear()
                self._early.clear()
            group = self._groups.get(number)
            if group is None or not mask & _IS_DIRECTORY or not mask & _DELETE or name in group.joined:
                continue
            if name in self._awaited[group]:
                self._awaited[group].remove(name)
            elif name in group.children and name not in self._early[group]:
                self._early[group].add(name)
            else:
                self._unseen.add(group)

    def close(self) -> None:
        """Stop watching."""
        if self._fd >= 0:
            self._poll.unregister(self._fd)
            os.close(self._fd)
            self._fd = -1
        self._watched.clear()
        self._groups.clear()

    def _events(self) -> Iterator[tuple[int, int, str]]:
        while self._fd >= 0:
            try:
                data = os.read(self._fd, 65536)
            except OSError:  # EAGAIN: no more
                return
            at = 0
            while at < len(data):
                number, mask, _, length = _HEAD.unpack_from(data, at)
                at += _HEAD.size
                yield number, mask, os.fsdecode(data[at : at + length].rstrip(b"\0"))
                at += length
