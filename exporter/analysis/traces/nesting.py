"""Intervals of one thread that lie in one another: which encloses a moment, and who ran it itself."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple


class Interval(NamedTuple):
    """From ``start`` up to ``end``; ``kind`` is range, layer or operator."""

    start: int
    end: int
    name: str
    kind: str


class Piece(NamedTuple):
    """A part of a thread's time in which the same intervals are open, outermost first."""

    start: int
    end: int
    open: tuple[Interval, ...]


def pieces(intervals: Iterable[Interval]) -> Iterator[Piece]:
    """The time of a thread as consecutive pieces, without the time in which none is open.

    An interval that ends after the one that encloses it, which a profiler's rounding can make, ends with it.
    """
    stack: list[Interval] = []
    at = 0
    for each in sorted(intervals, key=lambda one: (one.start, -one.end)):
        inner = each
        while stack and stack[-1].end <= each.start:
            yield from _piece(at, stack[-1].end, stack)
            at = max(at, stack.pop().end)
        if stack:
            yield from _piece(at, each.start, stack)
            inner = each._replace(end=min(each.end, stack[-1].end))
        at = each.start
        stack.append(inner)
    while stack:
        yield from _piece(at, stack[-1].end, stack)
        at = max(at, stack.pop().end)


def _piece(start: int, end: int, stack: Sequence[Interval]) -> Iterator[Piece]:
    if end > start:
        yield Piece(start, end, tuple(stack))


class Enclosing:
    """Finds what encloses a moment of a thread."""

    def __init__(self, intervals: Iterable[Interval]) -> None:
        self._pieces = list(pieces(intervals))
        self._starts = [piece.start for piece in self._pieces]

    def at(self, moment: int) -> tuple[Interval, ...]:
        """The intervals that are open at ``moment``, outermost first."""
        number = bisect_right(self._starts, moment) - 1
        if number < 0 or moment >= self._pieces[number].end:
            return ()
        return self._pieces[number].open


def names(open_intervals: Iterable[Interval], kind: str) -> tuple[str, ...]:
    """Names of those of a kind."""
    return tuple([each.name for each in open_intervals if each.kind == kind])
