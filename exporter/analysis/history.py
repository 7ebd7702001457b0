"""The history that an exporter keeps itself (``--history.file``), read as the counters of a Prometheus are."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing

from ..history.schema import APPLICATION_ID, HOUR_SECONDS, VERSION
from .growth import PLACE, Coverage, Growth, Labels
from .lines import Period
from .prometheus import NoDataError, QueryError
from .window import DAY_SECONDS, Window

_MATCHER = re.compile(r'\s*([a-zA-Z_]\w*)\s*(!?=)\s*"([^"\\]*)"\s*')
_TIMEOUT_SECONDS = 10.0
_ROWS = (
    "SELECT hour, owners.labels, series.labels, amount FROM growth JOIN series ON series.id = series "
    "JOIN owners ON owners.id = owner WHERE hour >= ? AND hour < ? AND metric = ? ORDER BY hour"
)


class History:
    """One file. An hour belongs to the window in which it starts.

    ``matchers`` select series of every metric, by ``=`` and ``!=``. ``advance`` is called after each part of `of`.
    """

    def __init__(self, path: str, matchers: str = "", advance: Callable[[], None] = lambda: None) -> None:
        """Raises `QueryError` if it is no history."""
        self._path = path
        self._matchers = matchers
        self.advance = advance
        self._node = self._check()

    @property
    def name(self) -> str:
        """The file."""
        return self._path

    def aligned(self, window: Window) -> Window:
        """The window from the start of its first hour on."""
        return Window(window.start // HOUR_SECONDS * HOUR_SECONDS, window.end)

    def of(self, metric: str, by: Sequence[str], window: Window, where: str = "") -> Growth:
        """Growth in ``window`` by some labels. Raises `QueryError`."""
        grown: defaultdict[Labels, float] = defaultdict(float)
        for _, labels, amount in self._read(metric, window, where):
            grown[tuple([labels.get(label, "") for label in by])] += amount
        for _ in self.parts(window):
            self.advance()
        return dict(grown)

    def hourly(
        self, metric: str, by: Sequence[str], window: Window, where: str = ""
    ) -> dict[Labels, dict[float, float]]:
        """Growth in each hour of ``window``, by its start in Unix seconds. Raises `QueryError`."""
        grown: defaultdict[Labels, defaultdict[float, float]] = defaultdict(lambda: defaultdict(float))
        for hour, labels, amount in self._read(metric, window, where):
            grown[tuple([labels.get(label, "") for label in by])][hour * HOUR_SECONDS] += amount
        return {labels: dict(hours) for labels, hours in grown.items()}

    def parts(self, window: Window) -> list[Window]:
        """The days of a window."""
        return window.parts(DAY_SECONDS)

    def coverage(self, window: Window) -> Coverage:
        """Which part of a window the exporter ran in. Raises `QueryError` if it did not."""
        query = "SELECT min(hour), sum(seconds) FROM hours WHERE hour >= ? AND hour < ?"
        ((hour, seconds),) = self._rows(query, *_hours(window))
        if not seconds:
            raise NoDataError(f"{self._path}: nothing of this window; does an exporter with --history.file run?")
        return Coverage(max(window.start, hour * HOUR_SECONDS), min(window.seconds, seconds))

    def described(self, by: Sequence[str], window: Window) -> Mapping[Labels, Labels]:
        """Labels that containers had last in ``window``, by place. Raises `QueryError`."""
        found = {}
        for _, labels, _ in self._read("energy_container_joules_total", window):
            known = tuple([labels.get(label, "") for label in by])
            if any(known):
                found[tuple([labels.get(label, "") for label in PLACE])] = known
        return found

    def remarks(self, window: Window) -> Sequence[str]:  # noqa: ARG002 - as a `Source` has it
        """There is one exporter and one clock."""
        return ()

    def presence(self, window: Window) -> Mapping[Labels, Period]:
        """The hours in which containers that work for a model used anything, by place. Raises `QueryError`."""
        found: dict[Labels, Period] = {}
        for hour, labels, _ in self._read("energy_container_joules_total", window, 'model_name!=""'):
            place = tuple([labels.get(label, "") for label in PLACE])
            start = hour * HOUR_SECONDS
            found[place] = Period(start, min(window.end, start + HOUR_SECONDS)).joined(found.get(place))
        return found

    def _read(self, metric: str, window: Window, where: str = "") -> Iterator[tuple[int, Mapping[str, str], float]]:
        wanted = [*_parsed(self._matchers), *_parsed(where)]
        known: dict[tuple[str, str], dict[str, str] | None] = {}
        for hour, owner, of_cell, amount in self._rows(_ROWS, *_hours(window), metric):
            key = (owner, of_cell)
            if key not in known:
                labels = {"instance": self._node, **dict(json.loads(owner)), **dict(json.loads(of_cell))}
                matches = all((labels.get(label, "") == value) is equal for label, equal, value in wanted)
                known[key] = labels if matches else None
            if (found := known[key]) is not None:
                yield hour, found, amount

    def _check(self) -> str:
        if not os.path.isfile(self._path):
            raise QueryError(f"{self._path}: no such file; an exporter with --history.file={self._path} writes it")
        ((application,),) = self._rows("PRAGMA application_id")
        ((version,),) = self._rows("PRAGMA user_version")
        if application != APPLICATION_ID:
            raise QueryError(f"{self._path}: not the history of an exporter")
        if version != VERSION:
            raise QueryError(f"{self._path}: written by another version of the exporter")
        return str(dict(self._rows("SELECT name, value FROM facts")).get("node", ""))

    def _rows(self, query: str, *values: object) -> list[tuple]:  # type: ignore[type-arg]
        try:
            uri = f"file:{self._path.replace('%', '%25').replace('?', '%3f').replace('#', '%23')}?mode=ro"
            with closing(sqlite3.connect(uri, uri=True, timeout=_TIMEOUT_SECONDS)) as database:
                return database.execute(query, values).fetchall()
        except sqlite3.Error as error:
            reason = "Permission denied" if not os.access(self._path, os.R_OK) else str(error)
            raise QueryError(f"{self._path}: {reason}") from None


def _hours(window: Window) -> tuple[int, int]:
    """The first hour that starts in a window, and the first one after it."""
    return int(-(-window.start // HOUR_SECONDS)), int(-(-window.end // HOUR_SECONDS))


def _parsed(matchers: str) -> list[tuple[str, bool, str]]:
    """Label, whether it must be equal, and the value. Raises `QueryError`."""
    found, position = [], 0
    while position < len(matchers):
        one = _MATCHER.match(matchers, position)
        if one is None or (one.end() < len(matchers) and matchers[one.end()] != ","):
            raise QueryError(f'{matchers}: matchers of the history are label="value" or label!="value"')
        found.append((one[1], one[2] == "=", one[3]))
        position = one.end() + 1
    return found
