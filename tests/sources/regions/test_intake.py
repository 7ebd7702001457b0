"""The socket of regions: who is at the other end, what counts, and what is ignored."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exporter.host import Host
from exporter.records import RegionReport, Unavailable
from exporter.records.regions import ProcessRegions
from exporter.regions import Client
from exporter.sources.protocol import Receiver
from exporter.sources.regions.intake import MAX_PEERS
from exporter.sources.regions.peer import MAX_NAMES, OTHER
from exporter.sources.regions.source import RegionSource
from tests.support.patience import wait_for


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "regions.sock"


@pytest.fixture
def source(path: Path) -> Iterator[RegionSource]:
    running = RegionSource(Host(), str(path))
    running.read(0.0)
    yield running
    running.close()


class Reader:
    """Collects what a source reports."""

    def __init__(self, source: RegionSource) -> None:
        self._source = source
        self.processes: list[ProcessRegions] = []
        self.report = RegionReport()

    def read(self) -> None:
        report = self._source.read(0.0).regions
        if report is not None:
            self.processes += report.processes
            self.report = report

    def runs(self, name: str) -> int:
        self.read()
        return sum(use.count for each in self.processes for use in each.uses if use.region == name)

    def rejected(self, reason: str) -> int:
        self.read()
        return self.report.rejected.get(reason, 0)


@pytest.fixture
def reader(source: RegionSource) -> Reader:
    return Reader(source)


def connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(str(path))
    return connection


def runs(count: int = 1, **others: Any) -> bytes:
    return json.dumps({"names": {"1": "alive"}, "runs": {"1": count}} | others).encode()


class Ahead(Host):
    """Shows every process but this one in a time namespace that is 5000 s ahead: the kernel makes them as root only."""

    def text(self, path: str) -> str:
        if path.endswith("timens_offsets") and "self" not in path:
            return "monotonic        5000         0\nboottime            0         0\n"
        return super().text(path)


class TestClient:
    def test_what_a_client_measured_arrives_under_its_process(self, path: Path, reader: Reader) -> None:
        client = Client(str(path))
        with client.region("a") as a:
            a.add(tokens=3)
        a.device_time(10**9, 2 * 10**9)

        def arrived() -> bool:
            client.flush()
            return reader.runs("a") == 1

        wait_for(arrived)
        assert {each.process.key.pid for each in reader.processes} == {os.getpid()}
        uses = [use for each in reader.processes for use in each.uses if use.region == "a"]
        assert sum(use.units.get("tokens", 0.0) for use in uses) == 3.0
        assert sum(use.gpu_seconds or 0.0 for use in uses) == 1.0
        spans = [span for each in reader.processes for span in each.spans]
        assert sum(piece.seconds for span in spans for piece in span.pieces) > 0.0
        assert reader.report.rejected == {}

    def test_a_restarted_exporter_takes_the_socket_of_the_one_before(self, path: Path, source: RegionSource) -> None:
        source.close()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as killed:
            killed.bind(str(path))
        again = RegionSource(Host(), str(path))
        again.read(0.0)
        connect(path).close()
        again.close()
        assert not path.exists()

    def test_the_socket_of_a_running_exporter_is_left_alone(self, path: Path, source: RegionSource) -> None:
        second = RegionSource(Host(), str(path))
        with pytest.raises(Unavailable) as refused:
            second.read(0.0)
        assert "--regions.socket" in refused.value.fix
        second.close()
        connect(path).close()

    def test_a_socket_that_was_removed_is_made_again(self, path: Path, reader: Reader) -> None:
        """By whoever cleans /run; who is connected stays so."""
        with connect(path) as early:
            early.send(runs())
            wait_for(lambda: reader.runs("alive") == 1)
            shutil.rmtree(path.parent)
            reader.read()
            early.send(runs())
            with connect(path) as late:
                late.send(runs())
                wait_for(lambda: reader.runs("alive") == 3)

    def test_what_was_sent_until_the_end_is_taken(self, path: Path, source: RegionSource) -> None:
        """What a program sends later fails there, so that it sends it to the next exporter."""
        with connect(path) as connection:
            for _ in range(50):
                connection.send(runs())
            wait_for(lambda: source.read(0.0).regions is not None)
            for _ in range(50):
                connection.send(runs())
            source.close()
            with pytest.raises(BrokenPipeError):
                connection.send(runs(), socket.MSG_NOSIGNAL)
        rest = source.rest().regions
        assert rest is not None
        assert isinstance(source, Receiver)
        assert sum(use.count for each in rest.processes for use in each.uses) >= 50

    def test_a_process_with_clocks_of_its_own(self, tmp_path: Path) -> None:
        (tmp_path / "proc").symlink_to("/proc")
        path = tmp_path / "regions.sock"
        host = Ahead(procfs=str(tmp_path / "proc"))
        source = RegionSource(host, str(path))
        source.read(0.0)
        reader = Reader(source)
        with connect(path) as connection:
            start = time.monotonic_ns() - 10**9
            connection.send(runs(start=start + 5000 * 10**9, pieces=[[10**8, 1, 10**8]]))
            wait_for(lambda: reader.runs("alive") == 1)
        (span,) = [span for each in reader.processes for span in each.spans]
        assert span.start == pytest.approx(host.clock() - time.monotonic() + start / 1e9, abs=0.1)
        source.close()

    def test_the_socket_of_the_exporter_after_it_is_left_alone(self, path: Path, source: RegionSource) -> None:
        os.unlink(path)
        after = RegionSource(Host(), str(path))
        after.read(0.0)
        source.close()
        connect(path).close()
        after.close()

    def test_any_user_may_connect(self, path: Path, source: RegionSource) -> None:
        assert stat.S_IMODE(path.stat().st_mode) == 0o666

    def test_a_directory_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(Unavailable) as refused:
            RegionSource(Host(), str(tmp_path / "file/run/regions.sock")).read(0.0)
        assert refused.value.reason == "not_found"
        assert "RuntimeDirectory" in refused.value.fix

    def test_other_users_may_enter_the_directory_that_it_makes(self, path: Path) -> None:
        before = os.umask(0o077)
        try:
            source = RegionSource(Host(), str(path))
            source.read(0.0)
        finally:
            os.umask(before)
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
        source.close()

    def test_a_directory_that_cannot_be_written(self, tmp_path: Path) -> None:
        """As uid 0 every directory can be: the path is longer than a socket's may be."""
        with pytest.raises(Unavailable) as refused:
            RegionSource(Host(), str(tmp_path / ("long" * 50))).read(0.0)
        assert "--regions.socket" in refused.value.fix


class TestWhoIsRefused:
    def test_a_process_that_is_not_in_proc(self, tmp_path: Path) -> None:
        """As one of another pid namespace: whose joules its regions are is not known."""
        path = tmp_path / "regions.sock"
        source = RegionSource(Host(procfs=str(tmp_path)), str(path))
        source.read(0.0)
        reader = Reader(source)
        with connect(path) as refused:
            assert refused.recv(1) == b"", "it is told by the end of the connection"
        wait_for(lambda: reader.rejected("no_process") == 1)
        assert reader.processes == []
        source.close()

    def test_more_processes_than_are_taken(self, path: Path, reader: Reader) -> None:
        first = connect(path)
        others = [connect(path) for _ in range(MAX_PEERS + 5)]
        wait_for(lambda: reader.rejected("too_many_clients") == 6)
        first.send(runs())
        wait_for(lambda: reader.runs("alive") == 1)
        for connection in (first, *others):
            connection.close()


_HOSTILE: dict[str, tuple[bytes, str]] = {
    "noise": (b"\x00\xff\x80", "not_json"),
    "text": (b"hello", "not_json"),
    "deep": (b"[" * 100_000, "not_json"),
    "a list": (b"[1]", "malformed"),
    "no start": (b'{"pieces":[[1,0,1]]}', "malformed"),
    "negative": (b'{"start":5,"pieces":[[1,1,-1]]}', "malformed"),
    "odd": (b'{"start":5,"pieces":[[1,1]]}', "malformed"),
    "a float": (b'{"start":5,"pieces":[[1.5,1,1]]}', "malformed"),
    "not a number": (b'{"units":{"1":{"tokens":NaN}}}', "malformed"),
    "infinite": (b'{"units":{"1":{"tokens":1e999}}}', "malformed"),
    "true": (b'{"runs":{"1":true}}', "malformed"),
    "a name that is none": (b'{"names":{"1":7}}', "malformed"),
    "too many digits": (b'{"lost":' + b"9" * 400 + b"}", "malformed"),
    "more digits than Python reads": (b'{"lost":' + b"9" * 5000 + b"}", "not_json"),
    "the future": (b'{"start":4000000000000000000,"pieces":[[5,1,5]]}', "clock"),
    "the past": (b'{"start":1,"pieces":[[5,1,5]]}', "clock"),
    "a day": (b'{"start":1,"pieces":[[86400000000000,1,5]]}', "malformed"),
    "too long": (b" " * 150_000, "too_large"),
}


class TestHostileInput:
    @pytest.mark.parametrize("name", _HOSTILE)
    def test_it_is_ignored_and_counted_with_a_reason(self, name: str, path: Path, reader: Reader) -> None:
        data, reason = _HOSTILE[name]
        with connect(path) as connection:
            connection.send(data)
            connection.send(runs())
            wait_for(lambda: reader.runs("alive") == 1)
        reader.read()
        assert dict(reader.report.rejected) == {reason: 1}

    def test_a_pid_in_a_message_means_nothing(self, path: Path, reader: Reader) -> None:
        with connect(path) as connection:
            connection.send(runs(pid=1, process=1))
            wait_for(lambda: reader.runs("alive") == 1)
        assert reader.processes[0].process.key.pid == os.getpid()

    def test_a_flood_of_messages(self, path: Path, reader: Reader) -> None:
        with connect(path) as connection:
            for _ in range(2000):
                connection.send(runs())
            wait_for(lambda: reader.runs("alive") + reader.rejected("rate") >= 2000)
        assert reader.rejected("rate") > 1000

    def test_ten_thousand_names(self, path: Path, reader: Reader) -> None:
        with connect(path) as connection:
            for first in range(1, 10_001, 500):
                numbers = [str(number) for number in range(first, first + 500)]
                names = {number: f"name {number}" for number in numbers}
                connection.send(json.dumps({"names": names, "runs": dict.fromkeys(numbers, 1)}).encode())
            wait_for(lambda: reader.runs(OTHER) == 10_000 - MAX_NAMES)
        regions = {use.region for each in reader.processes for use in each.uses}
        assert len(regions) == MAX_NAMES + 1

    def test_names_become_text(self, path: Path, reader: Reader) -> None:
        with connect(path) as connection:
            connection.send(json.dumps({"names": {"1": 'a\n"\x00\ud800' + "x" * 500}, "runs": {"1": 1}}).encode())
            wait_for(lambda: reader.rejected("none") or [each for each in reader.processes if each.uses])
        (use,) = [use for each in reader.processes for use in each.uses]
        assert use.region.startswith('a?"??x')
        assert len(use.region) == 100

    def test_a_newer_client_is_understood_as_far_as_it_says_the_same(self, path: Path, reader: Reader) -> None:
        with connect(path) as connection:
            connection.send(
                json.dumps({"version": 7, "names": {"1": "new"}, "colours": [1]}, separators=(",", ":")).encode()
            )
            connection.send(json.dumps({"runs": {"1": 1}, "watts": {"1": 5}}).encode())
            connection.send(json.dumps({"runs": [["1", 1]]}).encode())
            wait_for(lambda: reader.runs("new") == 1 and reader.rejected("newer_version") == 1)

    def test_time_counts_once(self, path: Path, reader: Reader) -> None:
        now = time.monotonic_ns()
        with connect(path) as connection:
            for _ in range(2):
                connection.send(runs(start=now - 10**9, pieces=[[10**8, 1, 10**8]]))
            wait_for(lambda: reader.rejected("clock") == 1)
        assert reader.runs("alive") == 1
