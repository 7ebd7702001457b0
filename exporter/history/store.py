"""The history's file: opened by one exporter at a time, written in transactions, never deleted."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from .counters import JOULES, Cell, Counted, Family, Labels, Owner, Standing
from .differences import Moment, smallest
from .schema import APPLICATION_ID, TABLES, VERSION

_MAGIC = b"SQLite format 3\0"
_MOST_ROWS = 50
"""Containers, and models, that an hour keeps, besides the row that the smallest of them become."""

_LEAST_RATIO = 0.01
"""Share of the joules of an hour below which one is part of that row, unless it has more of a component."""

_OTHERS: dict[Family, Labels] = {
    "container": (("namespace", ""), ("pod", ""), ("container", "other"), ("runtime", "host")),
    "model": (("model_name", "(others)"), ("namespace", ""), ("phase", "")),
}
"""The row of the smallest; that of containers has the name of those beyond ``--container.max``."""

_LOCK_SECONDS = 5.0


class HistoryUnusable(Exception):  # noqa: N818 - the state of the world, not a mistake
    """The file cannot be the history of this exporter; the text is one line, with the fix."""


class Change(NamedTuple):
    """What one transaction adds: the growth of counters in ``hours``, as the share of each, and ``seconds`` of time."""

    hours: Sequence[tuple[int, float]]
    seconds: float
    grown: Sequence[Counted]
    before: Standing
    now: Standing
    moment: Moment


class Store:
    """The file, locked for as long as this object lives. Used by one thread.

    Raises `HistoryUnusable` if another exporter has it, or it is of a newer version, of another program or of a
    simulated node; `sqlite3.Error` or OSError if it cannot be opened. A damaged file is set aside: ``aside`` is its new
    path.
    """

    def __init__(self, path: str, node: str, retention_hours: int, *, demo: bool) -> None:
        self.aside = ""
        self._path = path
        self._retention_hours = retention_hours
        self._ids: dict[tuple[Owner, Cell], int] = {}
        self._lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise HistoryUnusable(f"{path}: in use by another exporter; name another --history.file") from None
            self._database = self._open()
        except BaseException:
            os.close(self._lock)
            raise
        try:
            self._claim(node, "simulated" if demo else "real")
        except BaseException:
            self.close()
            raise

    def _open(self) -> sqlite3.Connection:
        try:
            with open(self._path, "rb") as file:
                head = file.read(len(_MAGIC))
        except FileNotFoundError:
            head = b""
        if head not in (b"", _MAGIC):
            raise HistoryUnusable(f"{self._path}: not a history; move it away, or name another --history.file")
        database = self._connect()
        try:
            if _is_sound(database):
                return database
        except sqlite3.OperationalError:
            database.close()
            raise
        except sqlite3.DatabaseError:
            pass
        database.close()
        self.aside = self._set_aside()
        return self._connect()

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=_LOCK_SECONDS, isolation_level=None)

    def _claim(self, node: str, kind: str) -> None:
        """Check that the file is ours, or make it so."""
        (application,) = self._database.execute("PRAGMA application_id").fetchone()
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        (tables,) = self._database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if tables and application != APPLICATION_ID:
            raise HistoryUnusable(f"{self._path}: the database of another program; name another --history.file")
        if version > VERSION:
            raise HistoryUnusable(f"{self._path}: written by a newer version; name another --history.file")
        with self._transaction():
            if not tables:
                for statement in TABLES.split(";")[:-1]:
                    self._database.execute(statement)
                self._database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                self._database.execute(f"PRAGMA user_version = {VERSION}")
            found = self._facts().get("kind", kind)
            if found != kind:
                raise HistoryUnusable(f"{self._path}: the history of a {found} node; name another --history.file")
            self._state(kind=kind, node=node)

    def close(self) -> None:
        """Release the file."""
        self._database.close()
        os.close(self._lock)

    # --- reading ------------------------------------------------------------------------------------

    def load(self) -> tuple[Moment | None, Standing]:
        """The counters as they were last, and when that was; None if the file is new."""
        facts = self._facts()
        if "at" not in facts:
            return None, {}
        moment = Moment(facts["at"], facts["monotonic_at"], facts["counted_since"], facts["start_time"])
        found: dict[Owner, dict[Cell, float]] = {}
        query = (
            "SELECT family, owners.labels, metric, series.labels, counter, series.id FROM series "
            "JOIN owners ON owners.id = owner WHERE counter IS NOT NULL"
        )
        for family, of_owner, metric, labels, counter, number in self._database.execute(query):
            owner, cell = Owner(family, _labels(of_owner)), Cell(metric, _labels(labels))
            found.setdefault(owner, {})[cell] = counter
            self._ids[owner, cell] = number
        return moment, {owner.key: Counted(owner, cells) for owner, cells in found.items()}

    def _facts(self) -> dict[str, Any]:
        return dict(self._database.execute("SELECT name, value FROM facts"))

    # --- writing ------------------------------------------------------------------------------------

    def write(self, change: Change) -> None:
        """Add a change, all of it or nothing, and fold the hours that have ended. Raises `sqlite3.Error`."""
        try:
            with self._transaction():
                self._add_hours(change)
                self._add_growth(change)
                self._add_counters(change)
                self._state(**change.moment._asdict())
                self._fold(change.hours[-1][0])
        except BaseException:
            self._ids.clear()  # it may have some that were rolled back
            raise

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    def _add_hours(self, change: Change) -> None:
        new = "INSERT INTO hours (hour, seconds) VALUES (?, ?)"
        again = " ON CONFLICT DO UPDATE SET seconds = seconds + excluded.seconds, folded = 0"
        rows = [(hour, share * change.seconds) for hour, share in change.hours]
        self._database.executemany(new + again, rows)

    def _add_growth(self, change: Change) -> None:
        rows = [
            (hour, self._series(owner, cell), share * amount)
            for owner, cells in change.grown
            for cell, amount in cells.items()
            for hour, share in change.hours
        ]
        self._database.executemany(_ADD, rows)

    def _add_counters(self, change: Change) -> None:
        changed: list[tuple[float | None, int]] = []
        for key, (owner, cells) in change.before.items():
            follower = change.now.get(key)
            if follower is None or follower.owner != owner:
                changed += [(None, self._series(owner, cell)) for cell in cells]
        for key, (owner, cells) in change.now.items():
            known = change.before.get(key)
            kept = known.cells if known is not None and known.owner == owner else {}
            changed += [(value, self._series(owner, cell)) for cell, value in cells.items() if value != kept.get(cell)]
        self._database.executemany("UPDATE series SET counter = ? WHERE id = ?", changed)

    def _series(self, owner: Owner, cell: Cell) -> int:
        number = self._ids.get((owner, cell))
        if number is None:
            of_owner = _only(
                self._database.execute(
                    "INSERT INTO owners (family, labels) VALUES (?, ?) "
                    "ON CONFLICT DO UPDATE SET family = family RETURNING id",
                    (owner.family, json.dumps(owner.labels)),
                )
            )
            number = self._ids[owner, cell] = _only(
                self._database.execute(
                    "INSERT INTO series (owner, metric, labels) VALUES (?, ?, ?) "
                    "ON CONFLICT DO UPDATE SET metric = metric RETURNING id",
                    (of_owner, cell.metric, json.dumps(cell.labels)),
                )
            )
        return number

    def _state(self, **facts: object) -> None:
        self._database.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts.items())

    # --- bounds -------------------------------------------------------------------------------------

    def _fold(self, current: int) -> None:
        """Fold the hours before ``current``; with the first one of a day, drop what is too old."""
        ended = [hour for (hour,) in self._database.execute(_ENDED, (current,))]
        for hour in ended:
            self._fold_hour(hour)
            self._database.execute("UPDATE hours SET folded = 1 WHERE hour = ?", (hour,))
        if ended and ended[-1] // 24 < current // 24:
            self._expire()

    def _fold_hour(self, hour: int) -> None:
        """Write an hour again, without the smallest owners: as a whole, so that its pages are full."""
        rows = self._database.execute(_HOUR, (hour,)).fetchall()
        joules: dict[Family, dict[int, dict[str, float]]] = {family: {} for family in _OTHERS}
        for _, owner, family, metric, labels, amount in rows:
            if family in joules and metric == JOULES.replace("container", family):
                cells = joules[family].setdefault(owner, {})
                component = dict(_labels(labels))["component"]
                cells[component] = cells.get(component, 0.0) + amount
        folded = {owner for family, of in joules.items() for owner in smallest(of, _MOST_ROWS, _LEAST_RATIO)}
        kept: dict[int, float] = {}
        for series, owner, family, metric, labels, amount in rows:
            others = Owner(family, _OTHERS[family]) if owner in folded else None
            number = series if others is None else self._series(others, Cell(metric, _labels(labels)))
            kept[number] = kept.get(number, 0.0) + amount
        self._database.execute("DELETE FROM growth WHERE hour = ?", (hour,))
        self._database.executemany(_ADD, [(hour, series, kept[series]) for series in sorted(kept)])

    def _expire(self) -> None:
        """Keep the newest hours, not those of the last months: a wall clock that is wrong for a day drops one day."""
        old = _OLD.format(self._retention_hours)
        for statement in (f"DELETE FROM growth WHERE hour IN ({old})", f"DELETE FROM hours WHERE hour IN ({old})"):
            self._database.execute(statement)
        self._database.execute(
            "DELETE FROM series WHERE counter IS NULL AND id NOT IN (SELECT DISTINCT series FROM growth)"
        )
        self._database.execute("DELETE FROM owners WHERE id NOT IN (SELECT DISTINCT owner FROM series)")
        self._ids.clear()

    def _set_aside(self) -> str:
        for number in range(1, 100):
            aside = f"{self._path}.corrupt-{number}"
            if not os.path.exists(aside):
                break
        os.rename(self._path, aside)
        for suffix in ("-journal", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.rename(self._path + suffix, aside + suffix)
        return aside


_ENDED = "SELECT hour FROM hours WHERE NOT folded AND hour < ? ORDER BY hour"
_HOUR = (
    "SELECT series, owner, family, metric, series.labels, amount FROM growth JOIN series ON series.id = series "
    "JOIN owners ON owners.id = owner WHERE hour = ?"
)
_ADD = "INSERT INTO growth VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET amount = amount + excluded.amount"
_OLD = "SELECT hour FROM hours ORDER BY hour DESC LIMIT -1 OFFSET {:d}"


def _is_sound(database: sqlite3.Connection) -> bool:
    return database.execute("PRAGMA quick_check(1)").fetchall() == [("ok",)]


def _labels(text: str) -> Labels:
    return tuple((name, value) for name, value in json.loads(text))


def _only(rows: Iterable[tuple[int]]) -> int:
    ((number,),) = rows
    return number
