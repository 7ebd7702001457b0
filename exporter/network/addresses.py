"""Finds the address at which a port of a process can be reached from the exporter's network namespace."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

from ..host import Host
from ..records import Unavailable
from .listening import Address, TablesUnreadable, addresses_of

_IPV6_LOOPBACK = f"{1:032x}"
_ANY_IPV4, _ANY_IPV6 = IPv4Address(0), IPv6Address(0)


class HeldByAnother(Unavailable):
    """At a port other processes respond, or may; ``address`` is where one of them is reached, "" if nowhere."""

    def __init__(self, message: str, address: str, fix: str) -> None:
        super().__init__("not_found", message, fix)
        self.address = address


def reachable_address(host: Host, pid: int, port: int) -> str:
    """The IP address at which a connection to ``port`` reaches process ``pid`` or one that it started.

    Within the exporter's network namespace it is the address that the port is bound to, a loopback if that is any. In
    another one it is the first address there that is not a loopback (the pod's or container's). Raises `Unavailable` if
    the process does not listen on the port (`HeldByAnother` if another does), or only on a loopback of another
    namespace, and if it is unknown which of several servers it is.
    """
    own = _is_own_network(host, pid)
    try:
        bound, others = addresses_of(host, pid, port)
    except TablesUnreadable:
        bound, others = {_ANY_IPV4}, set()
    if not bound:
        if others:
            address = next(_candidates(host, pid, others, set(), own=own), "")
            raise HeldByAnother(f"port {port} is that of another process", address, "it may not listen yet")
        raise Unavailable("not_found", f"nothing listens on port {port}", "it may still be loading its model")
    candidates = list(_candidates(host, pid, bound, others, own=own))
    for address in candidates:
        if not bound & others and ip_address(address) not in others:  # the socket of the most specific address responds
            return address
    if candidates:
        message = f"port {port} is listened on by another process, too, which may respond instead"
        raise HeldByAnother(message, candidates[0], "give each server a port of its own")
    raise Unavailable(
        "not_found",
        f"port {port} listens on a loopback address of its own network namespace only",
        "let it listen on its pod's or container's address (--host 0.0.0.0), or run the exporter in its network",
    )


def _candidates(host: Host, pid: int, bound: set[Address], others: set[Address], *, own: bool) -> Iterator[str]:
    """Where a process that is bound to some addresses may be reached; loopbacks first, others may be filtered."""
    if not any(address.is_unspecified for address in bound):
        named = sorted(bound, key=lambda address: (not address.is_loopback, address.version, int(address)))
        yield from [str(address) for address in named if own or not address.is_loopback]
        return
    # A socket of IPv6 accepts connections over IPv4 too, unless it was set not to, as where another has those.
    ipv4 = _ANY_IPV4 in bound or _ANY_IPV4 not in others
    ipv6 = _ANY_IPV6 in bound
    if own:
        loopbacks = ["127.0.0.1"] * ipv4 + ["::1"] * ipv6
        is_ipv6_sure = _ANY_IPV4 not in bound and _has_ipv6_loopback(host, str(pid))
        yield from reversed(loopbacks) if is_ipv6_sure else loopbacks
    yield from [one for one in _addresses(host, str(pid)) if (ipv6 if ":" in one else ipv4)]


def _is_own_network(host: Host, pid: int) -> bool:
    try:
        return os.readlink(host.proc("self", "ns/net")) == os.readlink(host.proc(str(pid), "ns/net"))
    except OSError:  # the kernel requires the rights of a debugger for another's (ptrace(2))
        return _addresses(host, "self") == _addresses(host, str(pid))


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


def _has_ipv6_loopback(host: Host, process: str) -> bool:
    with contextlib.suppress(Unavailable):  # IPv6 is off
        return _IPV6_LOOPBACK in host.text(host.proc(process, "net/if_inet6"))
    return False


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
