"""Finds the address at which a port of a process can be reached from the exporter's network namespace."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address

from ..host import Host, names_in, read_file
from ..records import Unavailable

_LISTEN = "0A"
_MAX_TABLE_BYTES = 65_536
"""The kernel lists listening sockets before all others (tcp4_seq_ops): a busy host's table is not read whole."""

Address = IPv4Address | IPv6Address


def reachable_address(host: Host, pid: int, port: int) -> str:
    """The IP address for a connection to ``port`` of process ``pid``.

    Within the exporter's network namespace it is the address that the port is bound to, 127.0.0.1 if that is any. In
    another one it is the first address there that is not a loopback (the pod's or container's). Raises `Unavailable` if
    nothing listens on the port, or only on a loopback of another namespace.
    """
    own = _is_own_network(host, pid)
    listening = _listening(host, pid, port)
    if listening is None:  # the tables are not readable
        listening = {"": IPv4Address(0)}
    bound = _of_process(host, pid, listening)
    if not bound:
        raise Unavailable("not_found", f"nothing listens on port {port}", "it may still be loading its model")
    any_address = any(address.is_unspecified for address in bound)
    if own:
        # A loopback first: the others may be filtered.
        named = sorted(bound, key=lambda address: (not address.is_loopback, address.version, int(address)))
        return "127.0.0.1" if any_address else str(named[0])
    there = _addresses(host, str(pid)) if any_address else [str(one) for one in bound if not one.is_loopback]
    if not there:
        raise Unavailable(
            "not_found",
            f"port {port} listens on a loopback address of its own network namespace only",
            "let it listen on its pod's or container's address (--host 0.0.0.0), or run the exporter in its network",
        )
    return there[0]


def _is_own_network(host: Host, pid: int) -> bool:
    try:
        return os.readlink(host.proc("self", "ns/net")) == os.readlink(host.proc(str(pid), "ns/net"))
    except OSError:  # the kernel requires the rights of a debugger for another's (ptrace(2))
        return _addresses(host, "self") == _addresses(host, str(pid))


def _of_process(host: Host, pid: int, listening: Mapping[str, Address]) -> set[Address]:
    """The addresses of the sockets that a process holds; all of them if that is none, or cannot be read."""
    if len(listening) > 1:  # others may have the same port at another address
        folder = host.proc(str(pid), "fd")
        held = set()
        for name in names_in(folder):
            with contextlib.suppress(OSError):  # closed meanwhile
                held.add(os.readlink(f"{folder}/{name}"))
        if own := {address for inode, address in listening.items() if f"socket:[{inode}]" in held}:
            return own
    return set(listening.values())


def _listening(host: Host, pid: int, port: int) -> dict[str, Address] | None:
    """Sockets of a process's network namespace that listen on a port, by inode; None if the tables cannot be read."""
    found: dict[str, Address] = {}
    readable = False
    for table in ("net/tcp", "net/tcp6"):
        try:
            lines = read_file(host.proc(str(pid), table), _MAX_TABLE_BYTES).decode("ascii", "replace").splitlines()
        except Unavailable:
            continue
        readable = True
        for line in lines[1:]:
            words = line.split(None, 4)
            if len(words) > 4 and words[3] == _LISTEN:
                address, _, hexadecimal = words[1].partition(":")
                if int(hexadecimal, 16) == port:
                    inode = "".join(words[4].split()[5:6])  # the last line may be cut
                    found[inode] = _address(address)
    return found if readable else None


def _address(hexadecimal: str) -> Address:
    """An address as /proc/net/tcp has it: words of four bytes in the machine's order."""
    words = (bytes.fromhex(hexadecimal[start : start + 8])[::-1] for start in range(0, len(hexadecimal), 8))
    address = ip_address(b"".join(words))
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _addresses(host: Host, process: str) -> list[str]:
    """Addresses of a process's network namespace that are no loopbacks: those of IPv4 first."""
    return list(dict.fromkeys((*_of_ipv4(host, process), *_of_ipv6(host, process))))


def _of_ipv4(host: Host, process: str) -> Iterator[str]:
    """From the kernel's table of local routes."""
    last = ""
    for line in host.text(host.proc(process, "net/fib_trie")).splitlines():
        word = line.strip()
        if word.startswith("|-- "):
            last = word[4:]
        elif word.startswith("/32 host LOCAL") and not ip_address(last).is_loopback:
            yield last


def _of_ipv6(host: Host, process: str) -> Iterator[str]:
    """Global addresses; absent without IPv6."""
    try:
        lines = host.text(host.proc(process, "net/if_inet6")).splitlines()
    except Unavailable:
        return
    for line in lines:
        address, _, _, scope, *_ = line.split()
        if scope == "00":
            yield str(IPv6Address(bytes.fromhex(address)))
