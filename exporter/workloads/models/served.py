"""Reads the model name from a server on this machine: ``GET /v1/models`` of the OpenAI API."""

from __future__ import annotations

import json

from ...host import Host
from ...network.addresses import reachable_address
from ...network.http_get import Request, http_get_by_key
from ...records import Unavailable
from .names import NO_NAMES, harmless, place_name

TIMEOUT_SECONDS = 2.0
"""Time limit of the whole exchange, however slowly the response arrives."""

_REQUEST = Request("/v1/models", "application/json", TIMEOUT_SECONDS, 65_536)


def served_name(host: Host, pid: int, port: int, key_file: str = "") -> str:
    """The only model that a process serves; "" if it serves none or several, or does not respond.

    No other address is contacted than one of the process's own network namespace. A server that refuses is asked once
    more with the key in ``key_file``. Takes at most `TIMEOUT_SECONDS` for each.
    """
    try:
        answer = http_get_by_key(reachable_address(host, pid, port), port, _REQUEST, key_file)
        return _only_model(answer.body) if answer.status == 200 else ""
    except (Unavailable, ValueError, RecursionError):
        return ""


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
