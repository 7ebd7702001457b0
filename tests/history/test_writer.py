"""The history agrees with the counters, whatever happens between two snapshots."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.history.counters import standing
from exporter.history.differences import hours, smallest
from exporter.history.recorder import Recorder
from exporter.history.writer import Writer
from exporter.snapshot import Snapshot
from tests.history.conftest import CONTAINER, NODE, START, Kept, Node
from tests.support.patience import patience

DAY = 86_400.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.db"


def record(path: Path, *nodes: Node, retention: float = 400 * DAY) -> Kept:
    """Record snapshots, and read what is kept."""
    writer = Writer(str(path), "n1", retention)
    for node in nodes:
        writer.record(node.snapshot)
    writer.close()
    return Kept(path)


class TestAgreement:
    def test_growth_is_in_its_hour(self, path: Path) -> None:
        first = Node(joules={"a": 10.0})
        second = first.after(1800, joules={"a": 110.0}, tokens=7.0)
        third = second.after(3600, joules={"a": 310.0, "m": 5.0})
        kept = record(path, first, second, third)
        assert kept.by_hour(CONTAINER, container="a") == pytest.approx({0: 10 + 100 + 100, 1: 100})
        assert kept.by_hour(NODE) == pytest.approx({0: 212.5, 1: 102.5})
        assert kept.total("energy_model_joules_total", model_name="m", phase="inference") == 5.0
        assert kept.total("energy_node_carbon_grams_total") == pytest.approx(315 * 360 / 3.6e6)
        assert kept.total("energy_node_cost_total", currency="EUR") == pytest.approx(315 * 0.36 / 3.6e6)
        assert kept.total("energy_model_tokens_total", model_name="m", kind="output") == 7.0
        assert sum(kept.seconds.values()) == pytest.approx(5400)

    def test_a_restart_that_continues_the_counters(self, path: Path) -> None:
        before = Node(joules={"a": 50.0})
        record(path, before)
        after = before.restarted(7200, joules={"a": 60.0}, more=40.0)
        kept = record(path, after, after.after(60, joules={"a": 75.0}))
        assert kept.total(NODE) == pytest.approx(115.0)
        assert kept.total(CONTAINER) == pytest.approx(75.0)
        assert sum(kept.seconds.values()) == pytest.approx(60.0)  # it did not run in the two hours

    def test_a_restart_that_starts_the_counters_at_0(self, path: Path) -> None:
        before = Node(joules={"a": 50.0})
        record(path, before)
        after = before.restarted(600, counts=False, joules={"a": 60.0})
        assert record(path, after, after.after(60, joules={"a": 61.0})).total(NODE) == pytest.approx(111.0)

    def test_what_counted_before_there_was_a_history_is_not_in_it(self, path: Path) -> None:
        old = Node(counted_since=START - 90 * DAY, joules={"a": 1e9})
        assert record(path, old, old.after(60, joules={"a": 1e9 + 5})).total(NODE) == pytest.approx(5.0)

    def test_a_state_file_that_lags_counts_nothing_twice(self, path: Path) -> None:
        before = Node(joules={"a": 50.0})
        record(path, before)
        lagging = before.restarted(10, joules={"a": 30.0})
        assert record(path, lagging, lagging.after(60, joules={"a": 37.0})).total(CONTAINER) == pytest.approx(57.0)

    def test_an_account_that_is_retired_and_comes_back(self, path: Path) -> None:
        first = Node(joules={"a": 50.0, "b": 1.0})
        gone = first.after(600, joules={"b": 2.0}, retired=55.0)
        back = gone.after(600, joules={"a": 20.0, "b": 3.0})
        kept = record(path, first, gone, back)
        assert kept.total(CONTAINER, container="a") == pytest.approx(70.0)
        assert kept.total(NODE) == pytest.approx(78.0)
        again = back.after(600, joules={"a": 4.0, "b": 3.0}, retired=80.0)  # retired and back between two snapshots
        assert record(path, again).total(CONTAINER, container="a") == pytest.approx(74.0)

    def test_joules_that_move_to_another_name_are_counted_once(self, path: Path) -> None:
        first = Node(joules={"3f2a": 50.0, "b": 1.0})
        named = first.after(600, joules={"chat": 62.0, "b": 1.0})
        kept = record(path, first, named)
        assert kept.total(CONTAINER, container="3f2a") == pytest.approx(0.0)
        assert kept.total(CONTAINER, container="chat") == pytest.approx(62.0)
        assert kept.total(CONTAINER) == pytest.approx(kept.total(NODE)) == pytest.approx(63.0)

    def test_an_owner_that_is_found_later_has_what_comes_then(self, path: Path) -> None:
        first = Node(joules={"a": 50.0})
        found = first.after(60, joules={"a": 60.0}, owner="nightly")
        record(path, first, found)
        kept = record(path, found.restarted(60, joules={"a": 65.0}))
        assert kept.total(CONTAINER, owner_name="") == 50.0
        assert kept.total(CONTAINER, owner_name="nightly") == pytest.approx(15.0)

    @pytest.mark.parametrize("clock", [-7200.0, 7200.0, -400 * DAY, 3650 * DAY])
    def test_a_clock_that_is_set(self, path: Path, clock: float) -> None:
        nodes = [Node(joules={"a": 1.0})]
        for number in range(2, 30):
            jump = clock if number == 9 else -clock if number == 19 else 0.0
            nodes.append(nodes[-1].after(300, clock=jump, joules={"a": float(number)}))
        kept = record(path, *nodes)
        assert kept.total(NODE) == pytest.approx(29.0)
        assert sum(kept.seconds.values()) == pytest.approx(28 * 300)
        assert record(path, nodes[-1].after(3600, joules={"a": 30.0}), retention=30 * DAY).total(NODE) >= 29.0

    def test_a_clock_that_is_not_set_yet(self, path: Path) -> None:
        booting = Node(at=40.0, started=30.0, counted_since=30.0, joules={"a": 5.0})
        kept = record(path, booting, booting.after(20, clock=START, joules={"a": 6.0}))
        assert kept.total(NODE) == pytest.approx(6.0)

    @settings(max_examples=25)
    @given(st.data())
    def test_any_course_of_events(self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
        """Counters grow; the exporter restarts, with and without its counters; its clock is set; accounts end."""
        path = tmp_path_factory.mktemp("course") / "history.db"
        writer = Writer(str(path), "n1", 400 * DAY)
        node, counted = Node(), 0.0
        writer.record(node.snapshot)
        for _ in range(data.draw(st.integers(1, 12))):
            event = data.draw(st.sampled_from(["grow", "grow", "end", "clock", "restart", "anew"]))
            joules = dict(node.joules)
            name = data.draw(st.sampled_from(["a", "b", "m"]))
            amount = float(data.draw(st.integers(0, 1000)))
            seconds = float(data.draw(st.integers(1, 20_000)))
            if event == "restart":
                node = node.restarted(seconds)
            elif event == "anew":
                node, joules = node.restarted(seconds, counts=False), {}
            elif event == "clock":
                node = node.after(seconds, clock=float(data.draw(st.integers(-100_000, 100_000))))
            elif event == "end" and name in joules:
                node, amount = node.after(seconds, retired=node.retired + joules.pop(name)), 0.0
            else:
                node = node.after(seconds)
            grown = {name: joules.get(name, 0.0) + amount} if amount else {}
            node = node.after(0, joules=joules | grown)
            if event in ("restart", "anew"):
                writer.close()
                writer = Writer(str(path), "n1", 400 * DAY)
            counted += amount
            writer.record(node.snapshot)
        writer.close()
        kept = Kept(path)
        assert kept.sound
        assert kept.total(NODE) == pytest.approx(counted, abs=1e-6)
        assert kept.total(CONTAINER) == pytest.approx(counted, abs=1e-6)


class TestBounds:
    def test_the_smallest_rows_of_an_hour_become_one(self, path: Path) -> None:
        joules = {f"c{number}": 1000.0 + number for number in range(70)} | {"tiny": 1.0}
        many = Node(joules=joules)
        kept = record(path, many, many.after(3700))
        assert kept.total(CONTAINER) == pytest.approx(sum(joules.values()))
        names = {labels["container"] for _, metric, labels, *_ in kept.rows if metric == CONTAINER}
        assert names == {"other", *(f"c{number}" for number in range(20, 70))}
        assert kept.total(CONTAINER, container="other") == pytest.approx(sum(1000 + number for number in range(20)) + 1)

    def test_what_is_folded_goes_on(self, path: Path) -> None:
        first = Node(joules={"big": 1e6, "s": 1.0, "t": 1.0})
        second = first.after(3700, joules={"big": 2e6, "s": 1e6, "t": 3.0})
        kept = record(path, first, second, second.after(3700))
        assert kept.total(CONTAINER, container="s") == pytest.approx(1e6 * 3600 / 3700, rel=0.05)
        assert kept.total(CONTAINER) == pytest.approx(3e6 + 3.0)

    def test_the_oldest_hours_are_dropped(self, path: Path) -> None:
        nodes = [Node(joules={"a": 1.0})]
        for number in range(2, 100):
            nodes.append(nodes[-1].after(3600, joules={"a": float(number)}))
        kept = record(path, *nodes, retention=DAY)
        assert 24 <= len(kept.seconds) <= 48
        assert set(kept.by_hour(NODE)) <= {hour - int(START // 3600) for hour in kept.seconds}
        assert max(kept.by_hour(NODE)) == 97

    def test_containers_that_ended_long_ago_leave_nothing(self, path: Path) -> None:
        nodes = [Node(joules={"c0": 1.0})]
        for number in range(1, 200):
            nodes.append(nodes[-1].after(3600, joules={f"c{number}": 1.0}, retired=float(number)))
        record(path, *nodes, retention=DAY)
        with closing(sqlite3.connect(path)) as database:
            assert database.execute("SELECT count(*) FROM owners").fetchone()[0] < 60


@given(st.floats(0, 4e9), st.floats(0, 4e6))
def test_shares_of_hours_are_one(start: float, seconds: float) -> None:
    parts = hours(start, start + seconds)
    assert sum(share for _, share in parts) == pytest.approx(1.0)
    assert [hour for hour, _ in parts] == sorted({hour for hour, _ in parts})
    assert parts[-1][0] in (int((start + seconds) // 3600), int((start + seconds) // 3600) - 1)


CELLS = st.dictionaries(st.sampled_from(["cpu", "gpu"]), st.floats(-10, 1e9), min_size=1)


@given(st.dictionaries(st.integers(0, 99), CELLS), st.integers(1, 20), st.floats(0, 0.1))
def test_folding_takes_the_smallest(joules: dict[int, dict[str, float]], most: int, least: float) -> None:
    folded = smallest(joules, most, least)
    kept = joules.keys() - folded
    sums = {one: sum(cells.values()) for one, cells in joules.items()}
    assert len(folded) != 1
    assert all(sums[one] >= 0 for one in folded)
    assert len([one for one in kept if sums[one] >= 0]) <= most + 1
    for component in ("cpu", "gpu"):
        total = sum(cells.get(component, 0.0) for cells in joules.values())
        large = [one for one in folded if joules[one].get(component, 0.0) > max(0.0, least * total)]
        assert all(len([one for one in sums if sums[one] >= sums[each]]) > most for each in large)


class TestTheFile:
    """Fault 70."""

    def logged(self, caplog: pytest.LogCaptureFixture) -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name == "history"]

    def test_a_second_exporter_says_so_and_goes_on_without(self, path: Path, caplog: pytest.LogCaptureFixture) -> None:
        written: list[None] = []
        first, second = Writer(str(path), "n1", DAY), Writer(str(path), "n1", DAY, lambda: written.append(None))
        first.record(Node(joules={"a": 1.0}).snapshot)
        for _ in range(3):
            second.record(Node(joules={"a": 1.0}).snapshot)
        assert self.logged(caplog) == [
            f"no history is written: {path}: in use by another exporter; name another --history.file"
        ]
        assert written == []
        first.close()
        second.record(Node(joules={"a": 2.0}).snapshot)
        second.close()
        assert written == [None]
        assert Kept(path).total(NODE) == pytest.approx(2.0)

    @pytest.mark.parametrize(
        ("statement", "words"),
        [
            ("PRAGMA user_version = 2", "written by a newer version"),
            ("PRAGMA application_id = 7", "the database of another program"),
            ("UPDATE facts SET value = 'simulated' WHERE name = 'kind'", "the history of a simulated node"),
        ],
    )
    def test_what_is_not_ours_is_left_alone(
        self, path: Path, caplog: pytest.LogCaptureFixture, statement: str, words: str
    ) -> None:
        record(path, Node(joules={"a": 1.0}))
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            database.execute(statement)
        before = path.read_bytes()
        writer = Writer(str(path), "n1", DAY)
        writer.record(Node(joules={"a": 2.0}).snapshot)
        writer.close()
        assert path.read_bytes() == before
        (line,) = self.logged(caplog)
        assert words in line
        assert "name another --history.file" in line

    def test_a_file_of_another_kind_is_left_alone(self, path: Path, caplog: pytest.LogCaptureFixture) -> None:
        path.write_text("root:x:0:0\n" * 100)
        Writer(str(path), "n1", DAY).record(Node(joules={"a": 1.0}).snapshot)
        assert path.read_text() == "root:x:0:0\n" * 100
        (line,) = self.logged(caplog)
        assert "not a history; move it away" in line

    def test_a_damaged_file_is_set_aside(self, path: Path, caplog: pytest.LogCaptureFixture) -> None:
        node = Node(joules={f"c{number}": 100.0 for number in range(49)})
        record(path, node)
        damaged = bytearray(path.read_bytes())
        damaged[4096 + 8 : -1] = b"\xff" * (len(damaged) - 4096 - 9)
        path.write_bytes(damaged)
        kept = record(path, node.after(60))
        assert kept.total(NODE) == pytest.approx(4900.0)  # all that this run has counted
        assert (path.parent / "history.db.corrupt-1").read_bytes() == damaged
        assert self.logged(caplog) == [f"{path} is damaged: set aside as {path}.corrupt-1, a new history begins"]

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_a_place_that_cannot_be_written(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        tmp_path.chmod(0o500)
        Writer(f"{tmp_path}/history.db", "n1", DAY).record(Node().snapshot)
        assert "Permission denied" in self.logged(caplog)[0]

    def test_a_place_that_is_not_there(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        writer = Writer(f"{tmp_path}/none/history.db", "n1", DAY)
        writer.record(Node(joules={"a": 1.0}).snapshot)
        assert self.logged(caplog) == [f"no history is written: {tmp_path}/none/history.db: No such file or directory"]
        (tmp_path / "none").mkdir()
        writer.record(Node(joules={"a": 2.0}).snapshot)
        writer.close()
        assert Kept(tmp_path / "none/history.db").total(NODE) == pytest.approx(2.0)

    def test_a_full_disk_loses_nothing(self, path: Path) -> None:
        """The kernel refuses every byte beyond a limit, then no longer."""
        run(path, FULL)
        kept = Kept(path)
        assert kept.sound
        assert kept.total(NODE) == pytest.approx(sum(range(200)) * 4)

    def test_killed_at_any_moment(self, path: Path) -> None:
        """kill -9 of a process that does nothing but write: what is kept is whole, and agrees with its counters."""
        total = 0.0
        for delay in range(12):
            with subprocess.Popen(
                [sys.executable, "-c", WRITING, str(path), str(total)], stdout=subprocess.PIPE, text=True
            ) as process:
                assert process.stdout is not None
                for _ in range(3):
                    assert process.stdout.readline()
                try:
                    process.wait(0.001 * delay)
                except subprocess.TimeoutExpired:
                    process.kill()
                said = process.stdout.read().split()
            kept = recovered(path)
            assert kept.sound
            (counter,) = {counter for _, metric, _, _, counter in kept.rows if metric == NODE}
            assert kept.total(NODE) == pytest.approx(counter)
            assert counter >= max(map(float, said), default=total)
            assert kept.total(CONTAINER) == pytest.approx(counter)
            total = counter


def recovered(path: Path) -> Kept:
    """What a file has once SQLite rolled back what was half written, as the next exporter does."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("SELECT count(*) FROM facts").fetchone()
    return Kept(path)


def run(path: Path, program: str) -> None:
    subprocess.run([sys.executable, "-c", program, str(path)], check=True, timeout=patience())


WRITING = """
import sys
from exporter.history.writer import Writer
from tests.history.conftest import Node
path, total = sys.argv[1], float(sys.argv[2])
writer = Writer(path, "n1", 4e7)
node = Node(joules={f"c{number}": total / 40 for number in range(40)})
node = node.restarted(1.0 + 2 * total)
while True:
    total += 40.0
    node = node.after(60, joules={f"c{number}": total / 40 for number in range(40)})
    writer.record(node.snapshot)
    print(total, flush=True)
"""

FULL = """
import logging, resource, sys
from exporter.history.writer import Writer
from tests.history.conftest import Node
writer = Writer(sys.argv[1], "n1", 4e7)
lines = []
logging.getLogger("history").addHandler(type("H", (logging.Handler,), {"emit": lambda self, r: lines.append(r)})())
logging.getLogger("history").setLevel("INFO")
node = Node()
for factor in range(1, 5):
    if factor == 2:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))
    if factor == 4:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    node = node.after(1000, joules={f"c{number}": float(number * factor) for number in range(200)})
    writer.record(node.snapshot)
writer.close()
said = [line.getMessage() for line in lines]
assert len(said) == 2, said
assert "no history is written" in said[0] and "is written to" in said[1], said
"""


def test_the_counters_are_those_of_a_scrape(busy: Snapshot) -> None:
    from exporter.exposition.metrics.catalogue import CATALOGUE

    scraped = {
        (family.name, tuple(sorted(labels.items()))): value
        for family in CATALOGUE
        for labels, value in family.series(busy)
    }
    extra = {"owner_kind", "owner_name"}
    found = 0
    for owner, cells in standing(busy).values():
        for cell, value in cells.items():
            labels = dict(owner.labels) | dict(cell.labels)
            if owner.family == "container":
                labels = {key: each for key, each in labels.items() if key not in {*extra, "model_name", "phase"}}
            key = (cell.metric, tuple(sorted((name, each) for name, each in labels.items())))
            assert scraped[key] == pytest.approx(value), key
            found += 1
    kept = {"joules_total", "carbon_grams_total", "cost_total", "credit_total", "tokens_total", "requests_total"}
    families = ("node", "unattributed", "container", "model")
    expected = [
        key
        for key in scraped
        if any(key[0] == f"energy_{family}_{kind}" for family in families for kind in kept)
        and key[0] != "energy_container_tokens_total"
    ]
    assert found >= len(expected)


@pytest.fixture
def busy() -> Snapshot:
    from tests.exposition.conftest import make_busy_node

    return make_busy_node()


class TestRecorder:
    def recorded(self, *snapshots: Snapshot) -> list[Any]:
        taken: list[Any] = []
        recorder = Recorder(taken.append, lambda: taken.append("closed"))
        for snapshot in snapshots:
            recorder.observe(snapshot)
        recorder.close(patience())
        return taken

    def test_first_some_each_hour_the_last_of_an_hour_and_the_last(self) -> None:
        taken: list[float] = []
        recorder = Recorder(lambda snapshot: taken.append(snapshot.taken_at - START), lambda: taken.append(-1.0))
        node = Node()
        for _ in range(3650):
            recorder.observe(node.snapshot)
            node = node.after(1)
            while recorder._queue.qsize():  # the thread is as fast as it is on an idle machine
                pass
        recorder.close(patience())
        assert taken == [0, 60, *range(360, 3600, 300), 3599, 3649, -1]

    def test_without_a_snapshot_nothing_is_recorded(self) -> None:
        assert self.recorded() == ["closed"]
