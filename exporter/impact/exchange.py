"""Factors that one exporter gives to others, as JSON; pure."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from .feeds.slots import plausible
from .values import MOST_GRAMS_PER_KWH, Factors

PATH = "/-/factors"
"""Where an exporter publishes its factors."""

_MOST_PRICE = 1e6
_MOST_PUE = 10.0
_MOST_TEXT = 200
_LATEST = 1e11
_BOUNDS: Mapping[str, tuple[float, float]] = {
    "intensity": (0.0, MOST_GRAMS_PER_KWH),
    "marginal": (0.0, MOST_GRAMS_PER_KWH),
    "price": (-_MOST_PRICE, _MOST_PRICE),
    "pue": (1.0, _MOST_PUE),
    "intensity_at": (0.0, _LATEST),
    "marginal_at": (0.0, _LATEST),
    "price_at": (0.0, _LATEST),
}


class Taken(NamedTuple):
    """Factors of another exporter, as of its answer at a Unix time."""

    factors: Factors
    at: float


def dump(factors: Factors) -> bytes:
    """Factors as a JSON object with the names of their fields; null is unknown."""
    return json.dumps(dataclasses.asdict(factors)).encode()


def load(content: object) -> Factors:
    """The inverse of `dump`; fields of newer versions are left out. Raises ValueError for what is not plausible."""
    if not isinstance(content, dict):
        raise ValueError("is not an object")
    known: dict[str, Any] = {}
    for field in dataclasses.fields(Factors):
        if field.name not in content:
            continue
        value, default = content[field.name], field.default
        if field.name in _BOUNDS:
            if value is not None and plausible(value, *_BOUNDS[field.name]) is None:
                raise ValueError(f"has no plausible {field.name}")
        elif not isinstance(value, type(default)) or (isinstance(value, str) and not _is_word(value)):
            raise ValueError(f"has no plausible {field.name}")
        known[field.name] = default if value is None else value
    return Factors(**known)


def _is_word(value: str) -> bool:
    return len(value) <= _MOST_TEXT and value.isprintable()
