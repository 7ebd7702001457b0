"""SQLite exports of Nsight Systems (``nsys export --type sqlite``).

Tables exist only if they have rows, and columns differ between versions, so both are looked up first. Times are ns
since the session began, whose Unix time is in ``TARGET_INFO_SESSION_START_TIME``. Format: the documentation of Nsight
Systems, and the recipes that come with it.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .nesting import Enclosing, Interval, names
from .trace import Device, Trace, TraceError, Work

_WORK = (
    ("CUPTI_ACTIVITY_KIND_KERNEL", ("demangledName", "shortName", "mangledName")),
    ("CUPTI_ACTIVITY_KIND_MEMCPY", ()),
    ("CUPTI_ACTIVITY_KIND_MEMSET", ()),
)
_COPIES = {"CUPTI_ACTIVITY_KIND_MEMCPY": "(copy)", "CUPTI_ACTIVITY_KIND_MEMSET": "(set memory)"}
_PUSH_POP, _START_END = 59, 60
"""``NVTX_EVENTS.eventType`` of ranges that nest on a thread, and of those that may cross and change it."""


def is_sqlite(path: Path) -> bool:
    """Whether a file begins as one of SQLite. Raises OSError."""
    with path.open("rb") as file:
        return file.read(16) == b"SQLite format 3\0"


def read(path: Path) -> Trace:
    """The trace of an export. Raises `TraceError`."""
    try:
        database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        database.row_factory = sqlite3.Row
        try:
            return _Export(path, database).trace()
        finally:
            database.close()
    except sqlite3.Error as error:
        raise TraceError(f"{path}: cannot be read as an export of Nsight Systems: {error}") from None


class _Export:
    def __init__(self, path: Path, database: sqlite3.Connection) -> None:
        self._path, self._database = path, database
        tables = database.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
        self._columns = {
            name: {row["name"] for row in database.execute(f"SELECT name FROM pragma_table_info('{name}')")}
            for (name,) in tables
            if name.isidentifier()
        }
        self._strings: dict[int, str] = {}
        if {"id", "value"} <= self._columns.get("StringIds", set()):
            self._strings = {row["id"]: row["value"] for row in database.execute("SELECT id, value FROM StringIds")}
        self._notes: list[str] = []

    def trace(self) -> Trace:
        if "StringIds" not in self._columns:
            raise TraceError(f"{self._path}: no export of Nsight Systems: there is no table StringIds")
        began = self._began()
        ranges, launches = self._ranges(), self._launches()
        work = [one for table, columns in _WORK for one in self._work(table, columns, began, ranges, launches)]
        if not work:
            raise TraceError(f"{self._path}: no kernels of a GPU: was it recorded with --trace=cuda?")
        if any(graph for _, graph in launches.values()):
            self._notes.append("Kernels of a CUDA graph share one launch, and so the range of that.")
        keys = {one.device for one in work}
        return Trace(
            tuple(self._devices(keys)),
            work,
            min(one.start for one in work),
            max(one.end for one in work),
            self._host(),
            tuple(self._notes),
        )

    def _rows(self, table: str, *wanted: str) -> Iterator[Mapping[str, Any]]:
        """Rows of a table with those of the ``wanted`` columns that it has; the others are None."""
        there = self._columns.get(table)
        if not there:
            return
        columns = ", ".join(name if name in there else f"NULL AS {name}" for name in wanted)
        for row in self._database.execute(f"SELECT {columns} FROM {table}"):
            yield dict(zip(wanted, row, strict=True))

    def _began(self) -> int:
        for row in self._rows("TARGET_INFO_SESSION_START_TIME", "utcEpochNs"):
            if row["utcEpochNs"]:
                return int(row["utcEpochNs"])
        raise TraceError(
            f"{self._path}: it does not say when it was recorded: TARGET_INFO_SESSION_START_TIME is missing"
        )

    def _ranges(self) -> dict[int, Enclosing]:
        """Ranges by the thread that opened them; those that may change it are left out."""
        found: defaultdict[int, list[Interval]] = defaultdict(list)
        crossing = 0
        for row in self._rows("NVTX_EVENTS", "start", "end", "eventType", "text", "textId", "globalTid"):
            if row["end"] is None or row["start"] is None:
                continue
            if row["eventType"] == _PUSH_POP:
                name = row["text"] or self._strings.get(row["textId"], "")
                found[row["globalTid"]].append(Interval(row["start"], row["end"], name, "range"))
            crossing += row["eventType"] == _START_END
        if crossing:
            self._notes.append(f"{crossing} ranges of start and end are left out: they may cross, and change thread.")
        return {thread: Enclosing(intervals) for thread, intervals in found.items()}

    def _launches(self) -> dict[tuple[int, int], tuple[tuple[int, int], bool]]:
        """(process, correlation) → (thread, time) of a call of the runtime, and whether it launched a graph."""
        found = {}
        for row in self._rows("CUPTI_ACTIVITY_KIND_RUNTIME", "start", "globalTid", "correlationId", "nameId"):
            thread = row["globalTid"]
            if thread is not None and row["correlationId"] is not None:
                graph = "GraphLaunch" in self._strings.get(row["nameId"], "")
                found[_process(thread), row["correlationId"]] = ((thread, row["start"]), graph)
        return found

    def _work(
        self,
        table: str,
        named: tuple[str, ...],
        began: int,
        ranges: Mapping[int, Enclosing],
        launches: Mapping[tuple[int, int], tuple[tuple[int, int], bool]],
    ) -> Iterator[Work]:
        columns = ("start", "end", "deviceId", "streamId", "correlationId", "globalPid", *named)
        for row in self._rows(table, *columns):
            if row["start"] is None or row["end"] is None:
                continue
            name = next((self._strings[row[column]] for column in named if row[column] in self._strings), "")
            launch = launches.get((_process(row["globalPid"] or 0), row["correlationId"]))
            around: tuple[Interval, ...] = ()
            if launch is not None:
                (thread, moment), _ = launch
                around = ranges[thread].at(moment) if thread in ranges else ()
            yield Work(
                str(row["deviceId"]),
                str(row["streamId"]),
                name or _COPIES.get(table, "(kernel)"),
                began + row["start"],
                began + row["end"],
                names(around, "range"),
            )

    def _devices(self, keys: set[str]) -> Iterator[Device]:
        described: dict[str, tuple[str, str]] = {}
        for table, key in (("TARGET_INFO_GPU", "id"), ("TARGET_INFO_CUDA_DEVICE", "cudaId")):
            for row in self._rows(table, key, "name", "uuid"):
                name, uuid = described.get(str(row[key]), ("", ""))
                described[str(row[key])] = (row["name"] or name, _uuid(row["uuid"]) or uuid)
        for key in sorted(keys):
            name, uuid = described.get(key, ("", ""))
            yield Device(key, name, uuid, key)

    def _host(self) -> str:
        for row in self._rows("TARGET_INFO_SYSTEM_ENV", "name", "value"):
            if row["name"] in ("Hostname", "HostName") and row["value"]:
                return str(row["value"])
        return ""


def _process(global_id: int) -> int:
    """The process in a ``globalTid`` or ``globalPid``."""
    return (global_id >> 24) & 0xFFFFFF


def _uuid(text: Any) -> str:
    """As NVML writes it."""
    word = str(text or "")
    return word if not word or word.startswith(("GPU-", "MIG-")) else f"GPU-{word}"
