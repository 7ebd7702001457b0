"""Reads the counters of one dialect from a page of metrics: a filter of lines, then prometheus_client's parser."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import isfinite

from prometheus_client.parser import text_string_to_metric_families

from ...records import Unavailable
from .expressions import Series

MAX_SERIES = 1000
"""Most series that may be left of a page; real servers have fewer than a hundred."""

MAX_COUNT = 2.0**53
"""Above any real counter of tokens; larger values have lost digits."""

Counts = dict[Series, float]


def spellings(name: str) -> set[str]:
    """How a metric may begin on a page: with colons, as escaped by Prometheus 3 for scrapers without UTF-8 names."""
    prefix, _, rest = name.partition("_")
    ray, _, after = rest.partition("_")
    found = {name, f"{prefix}:{rest}", *([f"{prefix}_{ray}:{after}"] if prefix == "ray" else [])}
    return found | {one.replace("_", "__") for one in found} | {f"U__{one.replace('_', '__')}" for one in found}


def line_filter(names: Iterable[str]) -> Callable[[bytes], bytes]:
    """A function that keeps the lines of a block that may be samples of ``names``."""
    starts = tuple(sorted({one.encode() for name in names for one in spellings(name)}))

    def keep(block: bytes) -> bytes:
        lines = [line for line in block.split(b"\n") if line.startswith(starts)]
        return b"\n".join((*lines, b"")) if lines else b""

    return keep


def fold(name: str) -> str:
    """The one spelling of a metric's name: ``_`` for ``:`` and for any escape, no ``_total``."""
    if name.startswith("U__"):
        name = name[3:].replace("_3A_", "_").replace("_3a_", "_")
    while "__" in name:
        name = name.replace("__", "_")
    return name.replace(":", "_").removesuffix("_total")


def counts(text: bytes, names: Iterable[str], url: str) -> Counts:
    """The counters ``names`` on a filtered page. Raises `Unavailable` if it is not one, or a value cannot be a count.

    Of a metric that is there in two spellings (Ray, while it renames them), each series counts once.
    """
    wanted = frozenset(names)
    if text.count(b"\n") > 4 * MAX_SERIES:
        raise Unavailable("implausible", f"{url}: more than {MAX_SERIES} series of tokens")
    found: Counts = {}
    try:
        for family in text_string_to_metric_families(text.decode("utf-8")):
            for sample in family.samples:
                name = fold(sample.name)
                if name in wanted:
                    if not (isfinite(sample.value) and 0 <= sample.value <= MAX_COUNT):
                        raise Unavailable("implausible", f"{url}: {name} is {sample.value:g}")
                    found.setdefault((name, tuple(sorted(sample.labels.items()))), sample.value)
    except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
        raise Unavailable("implausible", f"{url}: not a page of metrics: {str(error)[:100]}") from None
    if len(found) > MAX_SERIES:
        raise Unavailable("implausible", f"{url}: more than {MAX_SERIES} series of tokens")
    return found
