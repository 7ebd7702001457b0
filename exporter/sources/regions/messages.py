"""One message of a client, checked: nothing that a program sends is trusted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal

PROTOCOL_VERSION = 1

MAX_BYTES = 1 << 17
MAX_NAME_LENGTH = 100
MAX_UNITS = 16
"""Units that one region may count."""

_MAX_NUMBER = 1 << 20
_MAX_SECONDS = 600.0
_MAX_CONTEXTS = 100_000
_MAX_COUNT = 1e15

Rejection = Literal[
    "too_large", "not_json", "malformed", "newer_version", "clock", "rate", "too_many_clients", "no_process"
]
"""Why a message, or a connection, is ignored."""


class Rejected(Exception):  # noqa: N818 - of the message, not of the program
    """A message is ignored for ``reason``."""

    def __init__(self, reason: Rejection) -> None:
        super().__init__(reason)
        self.reason: Rejection = reason


@dataclass(slots=True)
class Message:
    """What a message says. Times are nanoseconds of CLOCK_MONOTONIC, regions are numbers; 0 is outside all regions.

    A piece is its length, then pairs of region and time. ``cpu`` is the part of the time of a region in which its
    thread computed, where the client measured that.
    """

    names: dict[int, str] = field(default_factory=dict)
    start: int = 0
    pieces: list[list[int]] = field(default_factory=list)
    device: list[list[int]] = field(default_factory=list)
    runs: dict[int, int] = field(default_factory=dict)
    units: dict[int, dict[str, float]] = field(default_factory=dict)
    cpu: dict[int, float] = field(default_factory=dict)
    lost: int = 0

    @property
    def nanoseconds(self) -> int:
        """The time that its pieces cover."""
        return sum([piece[0] for piece in self.pieces])


def parse(data: bytes, version: int = PROTOCOL_VERSION) -> Message:
    """Read a message of a client that speaks ``version``. Raises `Rejected`.

    Keys that are not known are ignored, so that a newer client is understood as far as it says the same.
    """
    if len(data) > MAX_BYTES:
        raise Rejected("too_large")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        raise Rejected("not_json") from None
    try:
        return _message(content)
    except (TypeError, ValueError, AttributeError, LookupError, OverflowError):
        raise Rejected("malformed" if version <= PROTOCOL_VERSION else "newer_version") from None


def version_of(data: bytes) -> int:
    """The version that a message says its client speaks, `PROTOCOL_VERSION` if it says none."""
    try:
        version = json.loads(data)["version"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return PROTOCOL_VERSION
    return version if type(version) is int else PROTOCOL_VERSION


def _message(content: Mapping[str, Any]) -> Message:
    message = Message(lost=_count(content.get("lost", 0)))
    for number, name in content.get("names", {}).items():
        message.names[_number(int(number))] = clean(name)
    message.runs = {_number(int(number)): _count(runs) for number, runs in content.get("runs", {}).items()}
    for number, units in content.get("units", {}).items():
        counted = {clean(unit): _amount(amount) for unit, amount in list(units.items())[:MAX_UNITS]}
        message.units[_number(int(number))] = counted
    for number, (busy, length) in content.get("cpu", {}).items():
        message.cpu[_number(int(number))] = min(1.0, _count(busy) / max(1, _count(length)))
    if content.get("pieces") or content.get("device"):
        message.start = _time(content["start"])
        message.pieces = [_piece(piece) for piece in content.get("pieces", ())]
        message.device = [_device(span) for span in content.get("device", ())]
        if message.nanoseconds > _MAX_SECONDS * 1e9:
            raise ValueError
    return message


def clean(name: object) -> str:
    """A name as it may be published: text, no control characters, of limited length."""
    if not isinstance(name, str):
        raise TypeError
    text = name[:MAX_NAME_LENGTH].encode("utf-8", "replace").decode("utf-8")
    return "".join([letter if letter.isprintable() else "?" for letter in text]) or "?"


def _piece(piece: list[int]) -> list[int]:
    length = piece[0]
    if len(piece) % 2 != 1 or not length or {*map(type, piece)} != {int} or min(piece) < 0:
        raise ValueError
    if sum(piece[2::2]) > _MAX_CONTEXTS * length or max(piece[1::2], default=0) > _MAX_NUMBER:
        raise ValueError
    return piece


def _device(span: list[int]) -> list[int]:
    number, start, length = span
    if not 0.0 <= _time(length) <= _MAX_SECONDS * 1e9:
        raise ValueError
    return [_number(number), _time(start), length]


def _number(value: object) -> int:
    if type(value) is not int or not 0 <= value <= _MAX_NUMBER:
        raise ValueError
    return value


def _time(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError
    return value


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value <= _MAX_COUNT:
        raise ValueError
    return value


def _amount(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise ValueError
    if not 0 <= value <= _MAX_COUNT:
        raise ValueError
    return float(value)
