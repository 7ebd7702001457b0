"""Traces of profilers: what is read from their files, and that their joules are the meter's."""

from __future__ import annotations

import gzip
import json
import sqlite3
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.analysis.traces import nsight, pytorch
from exporter.analysis.traces.nesting import Interval, pieces
from exporter.analysis.traces.pricing import Point, from_watts, price
from exporter.analysis.traces.trace import TraceError, Work
from exporter.commands import trace as command
from tests.analysis.conftest import START as WRITTEN_FROM
from tests.support.repository import REPOSITORY

RECORDED = REPOSITORY / "tests/analysis/traces/training-pytorch-2.13.0.json.gz"
SECOND = 1_000_000_000
START = 1_790_000_000 * SECOND
AN_HOUR_IN = WRITTEN_FROM + 3600


def event(cat: str, name: str, ts: float, dur: float, tid: int = 1, **args: Any) -> dict[str, Any]:
    """A complete event of a Chrome trace, in µs."""
    return {"ph": "X", "cat": cat, "name": name, "pid": 7, "tid": tid, "ts": ts, "dur": dur, "args": args}


def written(folder: Path, events: Sequence[dict[str, Any]], **further: Any) -> Path:
    """A trace of PyTorch's profiler."""
    path = folder / "trace.json"
    path.write_text(json.dumps({"traceEvents": list(events), "baseTimeNanoseconds": START} | further), "utf-8")
    return path


class TestNesting:
    def test_each_moment_has_the_intervals_that_are_open(self) -> None:
        found = pieces([Interval(0, 10, "a", "range"), Interval(2, 6, "b", "range"), Interval(12, 13, "c", "range")])
        assert [(piece.start, piece.end, [one.name for one in piece.open]) for piece in found] == [
            (0, 2, ["a"]),
            (2, 6, ["a", "b"]),
            (6, 10, ["a"]),
            (12, 13, ["c"]),
        ]

    @given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)), max_size=12))
    def test_pieces_never_overlap_and_cover_what_any_interval_covers(self, drawn: list[tuple[int, int]]) -> None:
        intervals = [Interval(start, start + length, str(i), "range") for i, (start, length) in enumerate(drawn)]
        found = list(pieces(intervals))
        assert all(one.end <= two.start for one, two in pairwise(found))
        covered = {moment for piece in found for moment in range(piece.start, piece.end)}
        outer = {moment for one in intervals for moment in range(one.start, one.end)}
        assert covered <= outer
        outermost = [one for one in intervals if not any(_around(one, two) for two in intervals)]
        assert {moment for one in outermost for moment in range(one.start, one.end)} <= covered | _crossed(intervals)


def _around(inner: Interval, outer: Interval) -> bool:
    return outer is not inner and outer.start <= inner.start and inner.end <= outer.end


def _crossed(intervals: Sequence[Interval]) -> set[int]:
    """Moments after the end of an interval that another one crosses: those of a thread never do."""
    ends = [one.end for one in intervals]
    return {moment for one in intervals for end in ends if one.start < end < one.end for moment in range(end, one.end)}


class TestPricing:
    @given(
        st.lists(st.tuples(st.integers(-5, 40), st.integers(0, 15)), min_size=1, max_size=10),
        st.lists(st.tuples(st.integers(1, 9), st.floats(0, 500)), min_size=2, max_size=12),
    )
    def test_joules_of_work_and_of_the_time_without_are_the_meters(
        self, drawn: list[tuple[int, int]], steps: list[tuple[int, float]]
    ) -> None:
        work = [Work("0", "1", "k", start, start + length) for start, length in drawn]
        points, at, joules = [], 0, 0.0
        for seconds, watts in steps:
            points.append(Point(at, joules))
            at, joules = at + seconds, joules + watts
        found = price(work, points)
        if found is None:
            return
        counted = _read(points, found.end) - _read(points, found.start)
        assert found.total_joules == pytest.approx(counted, rel=1e-9, abs=1e-9)
        assert all(amount >= -1e-9 for amount in found.joules)

    def test_pieces_at_the_same_time_bear_equal_parts(self) -> None:
        work = [Work("0", "1", "a", 0, 10), Work("0", "2", "b", 5, 10), Work("0", "1", "c", 15, 20)]
        found = price(work, [Point(0, 0.0), Point(10, 100.0), Point(20, 120.0)])
        assert found is not None
        assert list(found.joules) == pytest.approx([75.0, 25.0, 10.0])
        assert found.outside_joules == pytest.approx(10.0)

    def test_work_beyond_the_samples_has_no_joules_and_is_counted(self) -> None:
        found = price([Work("0", "1", "a", 0, 4 * SECOND)], [Point(SECOND, 0.0), Point(2 * SECOND, 50.0)])
        assert found is not None
        assert found.total_joules == pytest.approx(50.0)
        assert found.unpriced_seconds == pytest.approx(3.0)

    def test_without_two_samples_around_it_nothing_is_priced(self) -> None:
        work = [Work("0", "1", "a", 10, 20)]
        for points in ([], [Point(15, 1.0)], [Point(0, 0.0), Point(5, 9.0)], [Point(25, 0.0), Point(30, 9.0)]):
            assert price(work, points) is None

    def test_power_holds_until_the_next_sample(self) -> None:
        points = from_watts([(0, 100.0), (SECOND, 300.0), (2 * SECOND, 0.0)])
        assert [point.joules for point in points] == [0.0, 100.0, 400.0]


def _read(points: Sequence[Point], moment: int) -> float:
    for before, after in pairwise(points):
        if before.at <= moment <= after.at:
            return before.joules + (after.joules - before.joules) * (moment - before.at) / (after.at - before.at)
    raise AssertionError(moment)


class TestPyTorch:
    def test_kernels_have_the_ranges_and_layers_of_their_launch(self, tmp_path: Path) -> None:
        events = [
            event("user_annotation", "forward", 0, 100),
            event("python_function", "nn.Module: Linear_0", 10, 50),
            event("python_function", "train.py(3): step", 0, 100),
            event("cuda_runtime", "cudaLaunchKernel", 20, 2, correlation=5),
            event("kernel", "gemm", 300, 40, tid=77, device=0, stream=7, correlation=5),
            event("gpu_user_annotation", "forward", 290, 100, tid=77, device=0, stream=7),
            event("kernel", "lost", 350, 10, tid=77, device=0, stream=7, correlation=99),
        ]
        found = pytorch.read(written(tmp_path, events, deviceProperties=[{"id": 0, "name": "H100"}]))
        gemm, lost = found.work
        assert gemm == Work("0", "7", "gemm", START + 300_000, START + 340_000, ("forward",), ("Linear_0",))
        assert (lost.ranges, lost.layers) == (("forward",), ())
        assert [(device.key, device.name) for device in found.devices] == [("0", "H100")]
        assert any("1 kernels have no launch" in note for note in found.notes)

    def test_what_runs_backward_has_the_layer_that_ran_forward(self, tmp_path: Path) -> None:
        numbered = {"Sequence number": 4}
        events = [
            event("python_function", "nn.Module: Linear_0", 0, 50),
            event("cpu_op", "aten::addmm", 10, 30, **numbered, **{"Fwd thread id": 0}),
            event("cpu_op", "autograd::engine::evaluate_function: AddmmBackward0", 100, 30, 2, **numbered,
                  **{"Fwd thread id": 1}),
            event("cpu_op", "aten::mm", 110, 10, 2),
        ]  # fmt: skip
        found = pytorch.read(written(tmp_path, events))
        assert {one.layers for one in found.work} == {("Linear_0",)}
        assert {one.name for one in found.work} == {
            "aten::addmm", "aten::mm", "autograd::engine::evaluate_function: AddmmBackward0",
        }  # fmt: skip

    def test_a_real_training_of_the_cpu(self) -> None:
        found = pytorch.read(RECORDED)
        (device,) = found.devices
        assert (device.key, device.pid) == ("cpu", 20453)
        ranges = {one.ranges[0] for one in found.work if one.ranges}
        assert ranges == {"forward", "backward", "optimizer"}
        layers = {one.layers for one in found.work}
        assert {("Net_0",), ("Net_0", "Linear_0"), ("Net_0", "Linear_1"), ("Net_0", "Linear_2")} <= layers
        busy = sum(one.end - one.start for one in found.work)
        assert busy <= found.end - found.start

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"no json", "not JSON"),
            (b"[]", "traceEvents is missing"),
            (b'{"traceEvents": []}', "no event with a time"),
            (gzip.compress(b"{}")[:-6], "not JSON"),
            (b'{"traceEvents": [{"ph": "X", "cat": "x", "ts": 1, "dur": 1}]}', "neither kernels"),
            (b'{"traceEvents": [{"ph": "X", "cat": "cpu_op", "ts": 1, "dur": 1}]}', "of no clock"),
        ],
    )
    def test_what_is_no_trace_is_one_line(self, tmp_path: Path, content: bytes, said: str) -> None:
        path = tmp_path / "x.json"
        path.write_bytes(content)
        with pytest.raises(TraceError, match=said):
            pytorch.read(path)


THREAD = (7 << 24) | 8
TABLES: dict[str, tuple[str, list[tuple[str | int | None, ...]]]] = {
    "StringIds": ("id, value", [(1, "gemm"), (2, "forward"), (3, "cudaLaunchKernel")]),
    "TARGET_INFO_SESSION_START_TIME": ("utcEpochNs", [(START,)]),
    "CUPTI_ACTIVITY_KIND_KERNEL": (
        "start, end, deviceId, streamId, correlationId, globalPid, demangledName",
        [(300, 340, 0, 7, 5, 7 << 24, 1)],
    ),
    "CUPTI_ACTIVITY_KIND_MEMCPY": (
        "start, end, deviceId, streamId, correlationId, globalPid",
        [(400, 410, 0, 7, 6, 0)],
    ),
    "CUPTI_ACTIVITY_KIND_RUNTIME": ("start, end, globalTid, correlationId, nameId", [(20, 22, THREAD, 5, 3)]),
    "NVTX_EVENTS": (
        "start, end, eventType, text, textId, globalTid",
        [(0, 100, 59, None, 2, THREAD), (5, 50, 59, "layer 1", None, THREAD), (0, 500, 60, "crossing", None, THREAD)],
    ),
    "TARGET_INFO_GPU": ("id, name, uuid", [(0, "NVIDIA H100", "11112222-3333-4444-5555-666677778888")]),
    "TARGET_INFO_SYSTEM_ENV": ("name, value", [("Hostname", "node-1")]),
}


def exported(folder: Path, *without: str) -> Path:
    """An export of Nsight Systems, without some tables."""
    path = folder / "export.sqlite"
    with sqlite3.connect(path) as database:
        for name, (columns, rows) in TABLES.items():
            if name not in without:
                database.execute(f"CREATE TABLE {name} ({', '.join(f'{one}' for one in _quoted(columns))})")
                marks = ", ".join("?" * len(columns.split(", ")))
                database.executemany(f"INSERT INTO {name} VALUES ({marks})", rows)
    database.close()
    return path


def _quoted(columns: str) -> list[str]:
    return [f'"{name}"' for name in columns.split(", ")]


class TestNsight:
    def test_kernels_are_in_the_innermost_range_of_their_launch(self, tmp_path: Path) -> None:
        found = nsight.read(exported(tmp_path))
        gemm, copy = found.work
        assert gemm == Work("0", "7", "gemm", START + 300, START + 340, ("forward", "layer 1"))
        assert (copy.name, copy.ranges) == ("(copy)", ())
        (device,) = found.devices
        assert (device.name, device.uuid) == ("NVIDIA H100", "GPU-11112222-3333-4444-5555-666677778888")
        assert found.host == "node-1"
        assert any("1 ranges of start and end" in note for note in found.notes)

    @pytest.mark.parametrize("table", TABLES)
    def test_every_table_may_be_missing(self, tmp_path: Path, table: str) -> None:
        path = exported(tmp_path, table)
        if table in ("StringIds", "TARGET_INFO_SESSION_START_TIME"):
            with pytest.raises(TraceError, match=table):
                nsight.read(path)
        else:
            assert nsight.read(path).work

    def test_an_export_without_work_says_so(self, tmp_path: Path) -> None:
        path = exported(tmp_path, "CUPTI_ACTIVITY_KIND_KERNEL", "CUPTI_ACTIVITY_KIND_MEMCPY")
        with pytest.raises(TraceError, match="--trace=cuda"):
            nsight.read(path)

    def test_a_broken_file_is_one_line(self, tmp_path: Path) -> None:
        path = tmp_path / "x.sqlite"
        path.write_bytes(b"SQLite format 3\0" + bytes(200))
        with pytest.raises(TraceError, match="cannot be read"):
            nsight.read(path)


class TestCommand:
    @pytest.fixture
    def power(self, tmp_path: Path) -> Path:
        """100 W all the time around the recorded training, a sample each 0.1 s."""
        first = pytorch.read(RECORDED).start / SECOND - 1
        rows = [f"{first + step / 10:.3f}, cpu, 100.00 W" for step in range(60)]
        path = tmp_path / "power.csv"
        path.write_text("\n".join(["timestamp, uuid, power.draw.instant [W]", *rows, ""]), "utf-8")
        return path

    @pytest.mark.parametrize("by", ["range", "kernel", "layer", "stream", "device"])
    def test_lines_add_up_to_the_meter(self, power: Path, by: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert command.run([str(RECORDED), "--power", str(power), "--by", by, "--format", "json"], {}) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["total_joules"] == pytest.approx(100 * found["seconds"], rel=1e-6)
        assert sum(line["joules"] for line in found["lines"]) == pytest.approx(found["total_joules"])

    @pytest.mark.parametrize("form", ["text", "markdown", "csv", "html"])
    def test_every_format_has_the_ranges(self, power: Path, form: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert command.run([str(RECORDED), "--power", str(power), "--format", form], {}) == 0
        out = capsys.readouterr().out
        assert all(name in out for name in ("forward", "backward", "optimizer"))
        assert "<script" not in out

    @pytest.mark.parametrize(
        ("words", "status", "said"),
        [
            (["--meter", "cpu"], 2, "'cpu' is not DEVICE=WHICH"),
            (["--meter", "9=GPU-1"], 2, "no device 9"),
            (["--power", "/nowhere.csv"], 1, "/nowhere.csv: No such file or directory"),
            (["--prometheus.url", "http://127.0.0.1:9"], 1, "127.0.0.1:9: "),
        ],
    )
    def test_wrong_input_is_one_line(
        self, words: list[str], status: int, said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert command.run([str(RECORDED), *words], {}) == status
        out = capsys.readouterr()
        assert out.out == ""
        assert said in out.err
        assert out.err.count("\n") == 1

    @pytest.mark.parametrize("known", [True, False])
    def test_a_card_is_priced_by_its_counter_in_prometheus(
        self, prometheus: str, tmp_path: Path, known: bool, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """By its UUID, or by its number on the host of the trace."""
        path = tmp_path / "export.sqlite"
        exported(tmp_path, *(() if known else ("TARGET_INFO_GPU",)))
        with sqlite3.connect(path) as database:
            database.execute("UPDATE TARGET_INFO_SESSION_START_TIME SET utcEpochNs = ?", [(AN_HOUR_IN * SECOND)])
            database.execute("UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET start = 0, end = ?", [10 * SECOND])
            database.execute("UPDATE CUPTI_ACTIVITY_KIND_MEMCPY SET start = ?, end = ?", [15 * SECOND, 16 * SECOND])
            database.execute("UPDATE TARGET_INFO_SYSTEM_ENV SET value = 'n1'")
        database.close()
        assert command.run([str(path), "--prometheus.url", prometheus, "--by", "kernel", "--format", "json"], {}) == 0
        found = json.loads(capsys.readouterr().out)
        joules = {line["name"]: line["joules"] for line in found["lines"]}
        assert joules == {
            "gemm": pytest.approx(3600),
            "(copy)": pytest.approx(360),
            "(nothing ran)": pytest.approx(1800),
        }
        if not known:
            assert command.run([str(path), "--prometheus.url", prometheus, "--meter", f"0=GPU-{'0' * 8}"], {}) == 1
            assert "nothing can be priced: device 0: Prometheus has no samples" in capsys.readouterr().err

    def test_lines_of_samples_that_are_wrong_are_named(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "power.csv"
        for text, said in (
            ("a,b\n", ":1: columns timestamp, uuid and power.draw are wanted, not a, b"),
            ("timestamp,uuid,power.draw\n1.0,u,[N/A]\n", ":2: 1.0,u,[N/A]: no time, UUID and power"),
        ):
            path.write_text(text, "utf-8")
            assert command.run([str(RECORDED), "--power", str(path)], {}) == 1
            assert f"{path}{said}" in capsys.readouterr().err
