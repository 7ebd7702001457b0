"""Asks a model server on this machine under which name it serves: ``GET /v1/models`` of the OpenAI API."""

from __future__ import annotations

import json
import socket
import time
from ipaddress import ip_address

from ...host import Host
from ...records import Unavailable
from .names import harmless

TIMEOUT_SECONDS = 2.0
"""For the whole exchange, however slowly the answer drips."""

_MAX_BYTES = 65_536


def served_name(host: Host, pid: int, port: int) -> str:
    """The name of the only model that a process serves; "" if it serves none or several, or does not answer.

    It is asked where its network namespace has an address: 127.0.0.1 if that namespace is ours, else the first address
    in it that is not a loopback (a pod's own). Nobody else's address is ever contacted. Takes `TIMEOUT_SECONDS` at
    most.
    """
    try:
        ours, theirs = (_addresses(host, who) for who in ("self", str(pid)))
        address = "127.0.0.1" if ours == theirs else next(iter(theirs), "")
        return _only_model(_get(address, port, time.monotonic() + TIMEOUT_SECONDS)) if address else ""
    except (OSError, Unavailable, ValueError, RecursionError):
        return ""


def _addresses(host: Host, who: str) -> tuple[str, ...]:
    """IPv4 addresses of a process's network namespace, from the kernel's table of local routes."""
    found = []
    last = ""
    for line in host.text(host.proc(who, "net/fib_trie")).splitlines():
        word = line.strip()
        if word.startswith("|-- "):
            last = word[4:]
        elif word.startswith("/32 host LOCAL") and not ip_address(last).is_loopback and last not in found:
            found.append(last)
    return tuple(found)


def _get(address: str, port: int, deadline: float) -> bytes:
    """Body of a 200 answer. HTTP/1.0, so that it comes in one piece and ends with the connection."""
    request = f"GET /v1/models HTTP/1.0\r\nHost: {address}:{port}\r\nAccept: application/json\r\n\r\n"
    with socket.create_connection((address, port), timeout=TIMEOUT_SECONDS) as connection:
        connection.sendall(request.encode())
        answer = b""
        while len(answer) <= _MAX_BYTES:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            part = connection.recv(8192)
            if not part:
                break
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    if head.split(b" ", 2)[1:2] != [b"200"]:
        raise ValueError("not a good answer")
    return body


def _only_model(body: bytes) -> str:
    """Adapters (``parent``) and further names of the same weights (``root``) are not other models."""
    content = json.loads(body)
    listed = content.get("data") if isinstance(content, dict) else None
    first: dict[str, str] = {}
    for entry in listed if isinstance(listed, list) else ():
        if isinstance(entry, dict) and isinstance(name := entry.get("id"), str) and not entry.get("parent"):
            root = entry.get("root")
            first.setdefault(root if isinstance(root, str) and root else name, name)
    return harmless(next(iter(first.values()))) if len(first) == 1 else ""
