"""Finds the listening sockets of a port in a network namespace, and which of them a process holds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from ..host import Host, list_dir, read_file, unavailable
from ..records import Unavailable

_LISTEN = "0A"
_MAX_TABLE_BYTES = 65_536
"""The kernel lists listening sockets before all others (tcp4_seq_ops): a busy host's table is not read whole."""

_MAX_PROCESSES = 256
"""Descendants of a process that are looked at."""

Address = IPv4Address | IPv6Address

_ONE_SERVER = (
    frozenset({IPv4Address("0.0.0.0"), IPv6Address("::")}),
    frozenset({IPv4Address("127.0.0.1"), IPv6Address("::1")}),
)
"""Addresses that one server listens at by default, and at ``localhost``."""


class Listening(NamedTuple):
    """A listening socket; ``inode`` is empty where the table does not name it."""

    address: Address
    user: str
    inode: str


class TablesUnreadable(Exception):  # noqa: N818 - the state of the world, not a mistake
    """The tables of sockets of a network namespace cannot be read."""


def addresses_of(host: Host, pid: int, port: int) -> tuple[set[Address], set[Address]]:
    """The addresses at which a process, or one it started, listens on ``port``, and those at which others do.

    Where it is unknown whose the sockets are, one address, and those that one server has by default, are those of the
    process. Raises `TablesUnreadable`, and `Unavailable` if the addresses are of several servers.
    """
    sockets = _listening(host, pid, port)
    addresses = {each.address for each in sockets}
    held = _sockets_held(host, pid, {each.inode for each in sockets}) if sockets else set()
    if held is not None:
        own = {each.address for each in sockets if each.inode in held}
        return own, addresses - own
    if len(addresses) > 1 and not (addresses in _ONE_SERVER and len({each.user for each in sockets}) == 1):
        listed = ", ".join(sorted(map(str, addresses)))
        raise Unavailable(
            "permission",
            f"port {port} is listened on at {listed}, and which of these sockets is of pid {pid} cannot be read",
            "run the exporter as root or with CAP_SYS_PTRACE, or give each server a port of its own",
        )
    return addresses, set()


def _listening(host: Host, pid: int, port: int) -> list[Listening]:
    """The sockets of a process's network namespace that listen on a port. Raises `TablesUnreadable`."""
    found: list[Listening] = []
    readable = False
    for table in ("net/tcp", "net/tcp6"):
        try:
            lines = read_file(host.proc(str(pid), table), _MAX_TABLE_BYTES).decode("ascii", "replace").splitlines()
        except Unavailable:
            continue
        readable = True
        for line in lines[1:]:
            words = line.split(None, 10)
            if len(words) > 4 and words[3] == _LISTEN:
                address, _, hexadecimal = words[1].partition(":")
                if int(hexadecimal, 16) == port:
                    user, _, inode = (*words[7:10], "", "", "")[:3]  # the last line may be cut
                    found.append(Listening(_address(address), user, inode))
    if not readable:
        raise TablesUnreadable
    return found


def _address(hexadecimal: str) -> Address:
    """An address as /proc/net/tcp has it: words of four bytes in the machine's order."""
    words = (bytes.fromhex(hexadecimal[start : start + 8])[::-1] for start in range(0, len(hexadecimal), 8))
    address = ip_address(b"".join(words))
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _sockets_held(host: Host, pid: int, inodes: set[str]) -> set[str] | None:
    """Those of ``inodes`` that a process holds, else those of its descendants; None if that cannot be read.

    A launcher's server is its child; a child holds what it inherited, so a process is asked before its descendants.
    """
    level = [pid]
    seen = {pid}
    try:
        while level and len(seen) <= _MAX_PROCESSES:
            held = {inode for each in level for inode in _held(host, each)} & inodes
            if held:
                return held
            level = [child for each in level for child in _children(host, each) if child not in seen]
            seen.update(level)
    except Unavailable:
        return None
    return None if "" in inodes or len(seen) > _MAX_PROCESSES else set()


def _held(host: Host, pid: int) -> Iterator[str]:
    """Inodes of the sockets that a process holds. Raises `Unavailable`."""
    folder = host.proc(str(pid), "fd")
    for name in list_dir(folder):
        try:
            target = os.readlink(f"{folder}/{name}")
        except FileNotFoundError:  # closed meanwhile
            continue
        except OSError as error:
            raise unavailable(error, folder) from None
        if target.startswith("socket:["):
            yield target[8:-1]


def _children(host: Host, pid: int) -> Iterator[int]:
    """Processes that a process has started. Raises `Unavailable`, also where the kernel does not list them."""
    folder = host.proc(str(pid), "task")
    for thread in list_dir(folder):
        yield from map(int, host.text(f"{folder}/{thread}/children").split())
