"""Finds the listening sockets of a port in a network namespace, and which of them a process holds."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from ..host import Host, list_dir, names_in, read_file, unavailable
from ..records import Unavailable

_LISTEN = "0A"
_MAX_TABLE_BYTES = 1 << 19
"""The kernel lists listening sockets before all others (tcp4_seq_ops): a busy host's table is not read whole."""

_MAX_PROCESSES = 256
"""Descendants of a process that are looked at."""

Address = IPv4Address | IPv6Address

_ONE_SERVER = (
    frozenset({IPv4Address("0.0.0.0"), IPv6Address("::")}),
    frozenset({IPv4Address("127.0.0.1"), IPv6Address("::1")}),
)
"""Addresses that one server listens at by default, and at ``localhost``."""


class TablesUnreadable(Exception):  # noqa: N818 - the state of the world, not a mistake
    """The tables of sockets of a network namespace cannot be read."""


class _Listening(NamedTuple):
    """A listening socket; ``user`` is the uid that made it."""

    address: Address
    user: str
    inode: str


def addresses_of(host: Host, pid: int, port: int) -> tuple[set[Address], set[Address]]:
    """The addresses at which a process, or else one it started, listens on ``port``, and those at which others do.

    An address is in both where they share it (SO_REUSEPORT). Where it is unknown whose the sockets are, one address,
    and those that one server has by default, are those of the process. Raises `TablesUnreadable`, and `Unavailable` if
    the addresses are of several servers.
    """
    sockets = _listening(host, pid, port)
    if not sockets:
        return set(), set()
    try:
        own, family = _sockets_held(host, pid, {each.inode for each in sockets})
    except Unavailable:
        return _by_default(sockets, pid, port), set()
    bound = {each.address for each in sockets if each.inode in own}
    return bound, {each.address for each in sockets if each.inode not in family}


def _by_default(sockets: Sequence[_Listening], pid: int, port: int) -> set[Address]:
    addresses = {each.address for each in sockets}
    if len(addresses) > 1 and not (addresses in _ONE_SERVER and len({each.user for each in sockets}) == 1):
        listed = ", ".join(sorted(map(str, addresses)))
        raise Unavailable(
            "permission",
            f"port {port} is listened on at {listed}, and which of these sockets is of pid {pid} cannot be read",
            "run the exporter as root or with CAP_SYS_PTRACE, or give each server a port of its own",
        )
    return addresses


def _listening(host: Host, pid: int, port: int) -> list[_Listening]:
    """The sockets of a process's network namespace that listen on a port. Raises `TablesUnreadable`."""
    found: list[_Listening] = []
    readable = False
    for table in ("net/tcp", "net/tcp6"):
        try:
            data = read_file(host.proc(str(pid), table), _MAX_TABLE_BYTES)
        except Unavailable:
            continue
        readable = True
        for line in data.decode("ascii", "replace").splitlines()[1:]:
            words = line.split(None, 10)
            if len(words) < 11 or words[3] != _LISTEN:  # of a cut table the last line may be incomplete
                break
            address, _, hexadecimal = words[1].partition(":")
            if int(hexadecimal, 16) == port:
                found.append(_Listening(_address(address), words[7], words[9]))
    if not readable:
        raise TablesUnreadable
    return found


def _address(hexadecimal: str) -> Address:
    """An address as /proc/net/tcp has it: words of four bytes in the machine's order."""
    words = (bytes.fromhex(hexadecimal[start : start + 8])[::-1] for start in range(0, len(hexadecimal), 8))
    address = ip_address(b"".join(words))
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _sockets_held(host: Host, pid: int, inodes: set[str]) -> tuple[set[str], set[str]]:
    """Those of ``inodes`` that a process holds, else the nearest of its descendants, and those that any of them holds.

    A launcher's server is its child; a child holds what it inherited, so a process is asked before its descendants.
    Raises `Unavailable` if they cannot be read.
    """
    own: set[str] = set()
    family: set[str] = set()
    level = [pid]
    seen = {pid}
    while level:
        held = {inode for each in level for inode in _held(host, each)} & inodes
        own = own or held
        family |= held
        level = [child for each in level for child in _children(host, each) if child not in seen]
        seen.update(level)
        if len(seen) > _MAX_PROCESSES and family != inodes:
            raise Unavailable("error", f"pid {pid} has more than {_MAX_PROCESSES} descendants")
    return own, family


def _held(host: Host, pid: int) -> Iterator[str]:
    """Inodes of the sockets that a process holds; none of one that has ended. Raises `Unavailable`."""
    folder = host.proc(str(pid), "fd")
    try:
        for name in list_dir(folder):
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                target = os.readlink(f"{folder}/{name}")
                if target.startswith("socket:["):
                    yield target[8:-1]
    except OSError as error:
        raise unavailable(error, folder) from None
    except Unavailable:
        if not _has_ended(host, pid):
            raise


def _has_ended(host: Host, pid: int) -> bool:
    """Whether a process does not exist, or is a zombie, whose descriptors only root may look for."""
    folder = host.proc(str(pid))
    try:
        return host.text(f"{folder}/stat").rpartition(")")[2].split()[:1] == ["Z"]
    except Unavailable:
        return not os.path.isdir(folder)


def _children(host: Host, pid: int) -> Iterator[int]:
    """Processes that a process has started. Raises `Unavailable`, also where the kernel does not list them."""
    folder = host.proc(str(pid), "task")
    for thread in names_in(folder):
        try:
            yield from map(int, host.text(f"{folder}/{thread}/children").split())
        except Unavailable:
            if os.path.isdir(f"{folder}/{thread}"):  # else the thread has ended
                raise
