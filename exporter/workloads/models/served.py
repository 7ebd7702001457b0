"""Reads the model name from a server on this machine: ``GET /v1/models`` of the OpenAI API."""

from __future__ import annotations

import json
import socket
import time
from ipaddress import ip_address

from ...host import Host
from ...records import Unavailable
from .names import NO_NAMES, harmless, place_name

TIMEOUT_SECONDS = 2.0
"""Time limit of the whole exchange, however slowly the response arrives."""

_MAX_BYTES = 65_536


def served_name(host: Host, pid: int, port: int) -> str:
    """The only model that a process serves; "" if it serves none or several, or does not respond.

    The request goes to 127.0.0.1 if the process shares the exporter's network namespace, else to the first address of
    its namespace that is not a loopback (the pod's). No other address is contacted. Takes at most `TIMEOUT_SECONDS`.
    """
    try:
        own, other = (_addresses(host, process) for process in ("self", str(pid)))
        address = "127.0.0.1" if own == other else next(iter(other), "")
        return _only_model(_get(address, port, time.monotonic() + TIMEOUT_SECONDS)) if address else ""
    except (OSError, Unavailable, ValueError, RecursionError):
        return ""


def _addresses(host: Host, process: str) -> tuple[str, ...]:
    """IPv4 addresses of a process's network namespace, from the kernel's table of local routes."""
    found = []
    last = ""
    for line in host.text(host.proc(process, "net/fib_trie")).splitlines():
        word = line.strip()
        if word.startswith("|-- "):
            last = word[4:]
        elif word.startswith("/32 host LOCAL") and not ip_address(last).is_loopback and last not in found:
            found.append(last)
    return tuple(found)


def _get(address: str, port: int, deadline: float) -> bytes:
    """Body of a response with status 200. HTTP/1.0, so that it is not chunked and ends with the connection."""
    request = f"GET /v1/models HTTP/1.0\r\nHost: {address}:{port}\r\nAccept: application/json\r\n\r\n"
    with socket.create_connection((address, port), timeout=TIMEOUT_SECONDS) as connection:
        connection.sendall(request.encode())
        response = b""
        while len(response) <= _MAX_BYTES:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            chunk = connection.recv(8192)
            if not chunk:
                break
            response += chunk
    head, _, body = response.partition(b"\r\n\r\n")
    if head.split(b" ", 2)[1:2] != [b"200"]:
        raise ValueError("status is not 200")
    return body


def _only_model(body: bytes) -> str:
    """The only model of a list; adapters (``parent``) and further names of the same weights (``root``) do not count.

    A server without a chosen name lists the path of its weights.
    """
    content = json.loads(body)
    listed = content.get("data") if isinstance(content, dict) else None
    first: dict[str, str] = {}
    for entry in listed if isinstance(listed, list) else ():
        if isinstance(entry, dict) and isinstance(name := entry.get("id"), str) and not entry.get("parent"):
            root = entry.get("root")
            first.setdefault(root if isinstance(root, str) and root else name, name)
    if len(first) != 1:
        return ""
    name = next(iter(first.values()))
    if name.lower() in NO_NAMES:  # a placeholder for want of a name
        return ""
    return place_name(name) if name.startswith(("/", ".", "~")) else harmless(name)
