"""What one model server has counted: survives resets and late series, and counts each token once. Pure."""

from __future__ import annotations

from math import floor, log10
from typing import NamedTuple

from ...records import CountKind
from ...workloads.protocol import ServerRole
from .dialects import Dialect
from .expressions import Series, Sum, names, parse, value
from .page import Counts

MAX_PER_SECOND = 1e7
"""Tokens per second above which a counter is called implausible: a rack of GPUs generates a tenth of it."""

_KINDS: tuple[CountKind, ...] = ("prompt", "cached_prompt", "output", "requests")
_MAX_SERVED = 8


class Increase(NamedTuple):
    """What was counted since the last page, by kind; ``implausible`` are metrics that grew faster than any server."""

    counts: dict[CountKind, float]
    implausible: tuple[str, ...] = ()


class _Counter:
    """One series: its last value, and what it counted since the first page that counts."""

    __slots__ = ("last", "lower", "total")

    def __init__(self, last: float, total: float) -> None:
        self.last = last
        self.total = total
        self.lower: float | None = None

    def update(self, now: float, ceiling: float) -> bool:
        """Take its next value; False if it grew by more than ``ceiling``, which then does not count.

        A lower value is held until the next one: that shows whether it was a glitch, or a reset, after which only what
        follows the lower value counts.
        """
        if now < self.last and self.lower is None:
            self.lower = now
            return True
        start = self.last if now >= self.last or self.lower is None else min(self.lower, now)
        grown, self.last, self.lower = now - start, now, None
        if grown > ceiling:
            return False
        self.total += grown
        return True


class ServerCounts:
    """The counts of one server process. The first page counts only for a ``newborn``, which the exporter saw start."""

    def __init__(self, dialect: Dialect, role: ServerRole = "", *, newborn: bool = False) -> None:
        self.served: tuple[str, ...] = ()
        self.step = 1.0
        self._dialect = dialect
        self._role = role
        self._newborn = newborn
        self._sums = {kind: parse(getattr(dialect, kind)) for kind in _KINDS}
        at_decode = dict(zip(("prompt", "cached_prompt"), dialect.at_decode, strict=True))
        self._at_decode = {kind: parse(text) for kind, text in at_decode.items()}
        self.names = frozenset(names(one for sums in (*self._sums.values(), *self._at_decode.values()) for one in sums))
        self._counters: dict[Series, _Counter] = {}
        self._highest: dict[Sum, float] = {}
        self._ranks = frozenset(dialect.ranks)
        self._first = True

    def update(self, page: Counts, seconds: float) -> Increase:
        """Take a page that was read ``seconds`` after the last one, or after the start of a newborn server.

        Every kind that the page has is in the result, from the first page on, so that its series starts at 0.
        """
        ceiling = MAX_PER_SECOND * max(1.0, seconds)
        implausible = []
        for series, now in page.items():
            counter = self._counters.get(series)
            if counter is None:
                # A labelled series starts when it first counts, so all of it is new; not so on an old server's page.
                old = self._first and not self._newborn
                self._counters[series] = _Counter(now, 0.0 if old or now > ceiling else now)
                if not old and now > ceiling:
                    implausible.append(series[0])
            elif not counter.update(now, ceiling):
                implausible.append(series[0])
        self._first = False
        self._describe(page)
        return Increase(self._increases(), tuple(dict.fromkeys(implausible)))

    def _increases(self) -> dict[CountKind, float]:
        counts = {series: counter.total for series, counter in self._counters.items()}
        present = {name for name, _ in counts}
        role = self._role_on(counts)
        found: dict[CountKind, float] = {}
        for kind in _KINDS:
            sums = self._sums[kind]
            if role == "decode" and kind in self._at_decode:
                sums = self._at_decode[kind]
            chosen = next((one for one in sums if all(term.name in present for term in one)), None)
            for one in sums:
                # All sums are followed, so that a change from one to the next counts nothing twice.
                total = value(one, counts, self._ranks, self._dialect.model, members=self._dialect.members)
                before = self._highest.get(one, 0.0)
                self._highest[one] = max(before, total)
                if one is chosen and not (role == "prefill" and kind in ("output", "requests")):
                    found[kind] = self._highest[one] - before
        return found

    def _role_on(self, counts: Counts) -> ServerRole:
        """Its role as its series say, else as its command line does."""
        if self._dialect.role:
            roles = {value for _, labels in counts for name, value in labels if name == self._dialect.role}
            if roles == {"prefill"}:
                return "prefill"
            if roles == {"decode"}:
                return "decode"
        return self._role

    def _describe(self, page: Counts) -> None:
        labels = {value for _, pairs in page for name, value in pairs if name == self._dialect.model}
        self.served = tuple(sorted(labels))[:_MAX_SERVED]
        highest = max(page.values(), default=0.0)
        digits = self._dialect.digits
        self.step = 10.0 ** max(0, floor(log10(highest)) + 1 - digits) if digits and highest >= 1 else 1.0
