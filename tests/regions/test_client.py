"""The client records exclusive times of regions and sends them; it never disturbs the program."""

from __future__ import annotations

import asyncio
import dis
import json
import multiprocessing
import os
import socket
import sys
import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from exporter.regions import Client, Region
from exporter.regions.client import MAX_NAMES, OTHER
from tests.support.patience import patience, wait_for
from tests.support.privileges import drop_privileges, public_folder, regain_privileges
from tests.support.region_server import RegionServer, Totals


def sent(client: Client, server: RegionServer) -> Totals:
    """What the server has after all that was recorded until now was sent."""
    marker = client.region("end")
    before = server.totals().runs[marker.name]
    with marker:
        pass

    def arrived() -> bool:
        client.flush()
        return server.totals().runs[marker.name] > before

    wait_for(arrived)
    return server.totals()


def nap(seconds: float = 0.02) -> float:
    """Sleep at least so long; returns how long it was."""
    began = time.monotonic()
    time.sleep(seconds)
    return time.monotonic() - began


class TestTime:
    def test_a_region_has_the_time_in_which_it_was_the_innermost(self, client: Client, server: RegionServer) -> None:
        with client.region("outer"):
            outer = nap()
            with client.region("inner"):
                inner = nap()
            outer += nap()
        totals = sent(client, server)
        assert outer <= totals.seconds["outer"] < outer + 0.5 * inner
        assert inner <= totals.seconds["inner"] < inner + 0.5 * outer
        assert totals.runs["outer"] == totals.runs["inner"] == 1

    def test_the_pieces_of_one_thread_add_up_to_all_time(self, client: Client, server: RegionServer) -> None:
        for number in range(300):
            with client.region("outer"), client.region(f"inner {number % 3}"):
                pass
            if number % 100 == 0:
                nap(0.005)
        totals = sent(client, server)
        assert all(piece[0] == sum(piece[2::2]) > 0 for piece in totals.pieces)
        assert totals.runs["outer"] == 300

    def test_short_regions_are_summed_and_long_ones_have_a_piece_of_their_own(
        self, client: Client, server: RegionServer
    ) -> None:
        for _ in range(2000):
            with client.region("short"):
                pass
        with client.region("long"):
            nap(0.02)
        totals = sent(client, server)
        assert totals.runs["short"] == 2000
        assert len(totals.pieces) < 500
        long = client.region("long").number
        assert [piece for piece in totals.pieces if piece[1] == long and piece[0] == piece[2] >= 20_000_000]

    def test_what_is_still_open_is_sent(self, client: Client, server: RegionServer) -> None:
        with client.region("open"):
            nap(0.03)
            client.flush()
            wait_for(lambda: server.totals().seconds["open"] >= 0.03)
            assert server.totals().runs["open"] == 0

    def test_cpu_time_inside_and_outside(self, client: Client, server: RegionServer) -> None:
        for _ in range(3):
            with client.region("waits"):
                nap(0.02)
            with client.region("computes"):
                until = time.thread_time() + 0.02
                while time.thread_time() < until:
                    pass
            nap(0.02)
        ratios = {name: busy / length for name, (busy, length) in sent(client, server).cpu.items()}
        assert ratios["waits"] < 0.5 > ratios["outside"]
        assert ratios["computes"] > 2 * max(ratios["waits"], ratios["outside"])

    def test_threads_have_regions_of_their_own(self, client: Client, server: RegionServer) -> None:
        both = threading.Barrier(2)

        def work(name: str) -> None:
            both.wait()
            with client.region(name):
                nap(0.05)
                both.wait()

        with client.region("main"), ThreadPoolExecutor(2) as pool:
            assert not [each for each in pool.map(work, ("a", "b")) if each]
        totals = sent(client, server)
        assert totals.seconds["a"] >= 0.05 <= totals.seconds["b"]
        assert totals.seconds["main"] >= 0.05

    def test_a_task_is_within_the_region_that_created_it(self, client: Client, server: RegionServer) -> None:
        @client.region("child")
        async def child() -> None:
            await asyncio.sleep(0.05)

        async def main() -> None:
            with client.region("parent"):
                await asyncio.gather(child(), child())
                nap(0.01)

        asyncio.run(main())
        totals = sent(client, server)
        assert totals.seconds["child"] >= 0.1  # two at once
        assert 0.01 <= totals.seconds["parent"] < 0.05
        assert totals.runs["child"] == 2

    def test_a_task_that_outlives_the_region_that_created_it(self, client: Client, server: RegionServer) -> None:
        async def child() -> None:
            with client.region("child"):
                await asyncio.sleep(0.03)

        async def main() -> None:
            with client.region("parent"):
                task = asyncio.create_task(child())
                await asyncio.sleep(0)
            with client.region("later"):
                await task
                nap(0.01)

        asyncio.run(main())
        totals = sent(client, server)
        assert totals.seconds["child"] >= 0.03
        assert totals.seconds["later"] >= 0.01
        assert client.active == {}

    def test_generators_that_interleave(self, client: Client, server: RegionServer) -> None:
        @client.region("generator")
        def items() -> Generator[int, None, None]:
            yield 1
            yield 2

        with client.region("body"):
            each = items()
            next(each)
            with client.region("use"):
                nap(0.01)
                each.close()
                nap(0.01)
        totals = sent(client, server)
        assert all(piece[0] == sum(piece[2::2]) for piece in totals.pieces)
        assert totals.seconds["use"] >= 0.02
        assert client.active == {}

    def test_an_error_passes_through_and_ends_the_region(self, client: Client, server: RegionServer) -> None:
        with pytest.raises(ValueError, match="of the program"), client.region("fails"):
            raise ValueError("of the program")
        assert sent(client, server).runs["fails"] == 1
        assert client.active == {}

    def test_a_region_within_itself(self, client: Client, server: RegionServer) -> None:
        @client.region("recursive")
        def down(levels: int) -> int:
            return levels and down(levels - 1)

        assert down(5) == 0
        assert sent(client, server).runs["recursive"] == 6
        assert client.active == {}

    def test_decorated_functions_keep_their_name(self, client: Client) -> None:
        @client.region("documented")
        def documented() -> int:
            """What it does."""
            return 4

        assert (documented.__name__, documented.__doc__, documented()) == ("documented", "What it does.", 4)


class Strange:
    """Of another library: what is made of it fails as it likes."""

    def __float__(self) -> float:
        raise RuntimeError("a tensor with two elements cannot be converted to a number")

    __str__ = __float__  # type: ignore[assignment]


class TestCounts:
    def test_units(self, client: Client, server: RegionServer) -> None:
        with client.region("decode") as decode:
            decode.add(tokens=5, requests=1)
            decode.add(tokens=7)
            decode.add(tokens="no number")  # type: ignore[arg-type]
            decode.add(tokens=10**400)
            decode.add(tokens=float("nan"), requests=-1)
            decode.add(tokens=Strange())  # type: ignore[arg-type]
        totals = sent(client, server)
        assert totals.units["decode", "tokens"] == 12
        assert totals.units["decode", "requests"] == 1

    def test_names_are_bounded(self, client: Client, server: RegionServer) -> None:
        for number in range(10_000):
            with client.region(f"name {number}"):
                pass
        with client.region("x" * 1000):
            pass
        totals = sent(client, server)
        assert len(client.regions) <= MAX_NAMES + 1
        assert totals.runs[OTHER] >= 10_000 - MAX_NAMES
        assert sum(totals.runs.values()) >= 10_001

    def test_names_of_any_kind(self, client: Client, server: RegionServer) -> None:
        for name in ("", "\0", "ü€\ud800", 'a"b\n', 7, None, ["list"], Strange()):
            with client.region(name):
                pass
        assert sum(sent(client, server).runs.values()) == 9

    def test_device_time(self, client: Client, server: RegionServer) -> None:
        client.region("kernel").device_time(1_000, 3_000)
        assert sent(client, server).device == [("kernel", 1_000, 2_000)]


def test_a_signal_handler_that_interrupts_a_region_does_not_wait_for_ever(server: RegionServer) -> None:
    """It would wait for the thread that it interrupted: that one holds the lock until the handler has returned."""
    client = Client(str(server.path), lock_seconds=0.01)
    with client.region("known"):
        pass
    with client.lock, client.region("known") as region:
        region.add(tokens=1)
        client.region("new").add(tokens=1)
    totals = sent(client, server)
    assert (totals.runs["known"], totals.units["known", "tokens"]) == (1, 0)
    assert client.active == {}
    wait_for(lambda: server.totals().lost == 2)


def test_a_run_that_cannot_be_ended_is_lost_and_its_region_left(server: RegionServer) -> None:
    """The lock was held all the time that the end waited for it: a thread that was stopped, a machine that stood."""
    client = Client(str(server.path), lock_seconds=0.01)
    region = client.region("a").__enter__()
    with client.lock:
        region.__exit__(None, None, None)
    client.flush()
    with client.region("b"):
        time.sleep(0.02)
    totals = sent(client, server)
    assert (totals.runs["a"], totals.runs["b"]) == (0, 1)
    wait_for(lambda: server.totals().lost == 1)
    assert client.active == {}


class Interrupted(Exception):  # noqa: N818 - as of a signal, not an error
    """As the handler of a signal raises it, anywhere."""


@pytest.mark.parametrize("method", ["__enter__", "__exit__"])
def test_an_exception_of_a_signal_handler_at_any_point(method: str, server: RegionServer) -> None:
    """It passes through; the lock is free and nothing is open after the next message at the latest."""
    client = Client(str(server.path), lock_seconds=0.002)
    region, after = client.region("a"), client.region("after")
    code = getattr(Region, method).__code__
    instructions = list(dis.get_instructions(code))
    first = next(number for number, each in enumerate(instructions) if each.argval == "acquire")
    # CPython calls handlers after calls only: not before the first one, and not between the last one and the return.
    points = {each.offset for each in instructions[first:] if not each.opname.startswith(("RETURN", "LOAD_CONST"))}
    left = raised = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if frame.f_code is not code:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and frame.f_lasti in points:
            left -= 1
            if left == 0:
                raise Interrupted
        return trace

    before = sys.gettrace()
    for point in range(1, 400):
        left = point
        sys.settrace(trace)
        try:
            with region:
                pass
        except Interrupted:
            raised += 1
        finally:
            sys.settrace(before)
        if left > 0:
            break
        client.flush()
        assert client.active == {}, f"instruction {point}"
        assert client.lock.acquire(timeout=patience()), f"instruction {point}"
        client.lock.release()
        with after:
            pass
    assert raised > 50
    assert sent(client, server).runs["after"] == raised


class Noting:
    """A lock that notes whether it was waited for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.waited = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        self.waited += blocking
        return self._lock.acquire(blocking, min(timeout, 0.01) if blocking else -1)

    def release(self) -> None:
        self._lock.release()


@pytest.mark.parametrize("method", ["__enter__", "__exit__"])
def test_a_signal_handler_with_a_region_of_its_own_never_waits(method: str, server: RegionServer) -> None:
    client = Client(str(server.path))
    region, handlers = client.region("a"), client.region("handler")
    code = getattr(Region, method).__code__
    lock = Noting()
    handled = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal handled
        if frame.f_code is not code or frame.f_locals["self"] is not region:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            handled += 1
            with handlers:
                pass
        return trace

    before = sys.gettrace()
    client.lock = lock  # type: ignore[assignment]
    sys.settrace(trace)
    try:
        with region:
            pass
    finally:
        sys.settrace(before)
    assert handled > 50
    assert lock.waited == 0
    client.flush()
    assert client.active == {}
    totals = sent(client, server)
    wait_for(lambda: server.totals().runs["handler"] + server.totals().lost >= handled)
    assert totals.runs["handler"] < handled
    assert totals.runs["a"] == 1


def test_a_region_that_is_left_in_another_thread(client: Client, server: RegionServer) -> None:
    """As web frameworks do with dependencies that are generators, each half in a thread of a pool."""
    region = client.region("request")
    with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:
        for _ in range(3):
            first.submit(copy_context().run, region.__enter__).result()
            second.submit(copy_context().run, region.__exit__, None, None, None).result()
        for pool in (first, first, second):
            pool.submit(copy_context().run, region.__enter__).result()
        with client.region("other"):
            pass
        for pool in (second, second, first):
            pool.submit(copy_context().run, region.__exit__, None, None, None).result()
    assert client.active == {}
    totals = sent(client, server)
    assert (totals.runs["request"], totals.runs["other"], client.open) == (6, 1, 0)


def test_one_that_is_left_while_its_context_goes_on(client: Client, server: RegionServer) -> None:
    outer = client.region("outer")
    outer.__enter__()
    thread = threading.Thread(target=outer.__exit__, args=(None, None, None))
    thread.start()
    thread.join()
    outer_seconds = sent(client, server).seconds["outer"]
    with client.region("next"):
        nap()
    assert client.active == {}
    totals = sent(client, server)
    assert totals.seconds["outer"] == outer_seconds
    assert totals.seconds["next"] >= 0.02


def test_a_process_that_was_stopped_for_longer_than_a_message_may_say(client: Client, server: RegionServer) -> None:
    with client.region("a"):
        pass
    before = sent(client, server)
    with client.region("a"):
        client._began -= 4 * 3600 * 10**9
        client.last = client._sum_began = client._began
    totals = sent(client, server)
    assert totals.runs["a"] == before.runs["a"] + 1
    assert totals.seconds["a"] < 3600


class TestWithoutAnExporter:
    def test_nothing_is_recorded(self, tmp_path: Path) -> None:
        client = Client(str(tmp_path / "absent.sock"))
        with client.region("a") as region:
            region.add(tokens=1)
        client.flush()
        assert (region.runs, region.units, client.active) == (0, {}, {})

    def test_a_socket_of_another_kind(self, tmp_path: Path) -> None:
        path = tmp_path / "stream.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
            other.bind(str(path))
            other.listen()
            client = Client(str(path))
            with client.region("a"):
                pass
            client.flush()
            assert not client.recording

    def test_a_socket_that_this_user_may_not_reach(self) -> None:
        with public_folder() as folder:
            server = RegionServer(folder / "regions.sock")
            os.chmod(folder, 0o700 if os.getuid() == 0 else 0)
            drop_privileges()
            client = Client(str(server.path))
            for _ in range(3):
                with client.region("a"):
                    pass
                client.flush()
            regain_privileges()
            os.chmod(folder, 0o700)
            assert not client.recording
            assert server.connections == []
            server.close()

    def test_it_records_from_the_first_region_after_the_exporter_started(self, tmp_path: Path) -> None:
        client = Client(str(tmp_path / "late.sock"))
        with client.region("a"):
            server = RegionServer(tmp_path / "late.sock")
            client.flush()
        with client.region("a"):
            pass
        assert sent(client, server).runs["a"] == 1
        server.close()


class TestExporter:
    def test_a_restart_loses_nothing(self, client: Client, server: RegionServer) -> None:
        with client.region("a"):
            pass
        before = sent(client, server)
        server.close()
        with client.region("a"):
            with suppress(OSError):
                client.flush()
            nap()
        again = RegionServer(server.path)
        server.__dict__.update(again.__dict__)  # the fixture closes it
        with client.region("a"):
            pass
        after = sent(client, again)
        assert (before.runs["a"], after.runs["a"]) == (1, 2)
        assert after.seconds["a"] >= 0.02

    def test_one_that_does_not_read_delays_nothing_and_the_loss_is_counted(self, tmp_path: Path) -> None:
        path = tmp_path / "full.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
            listening.bind(str(path))
            listening.listen()
            client = Client(str(path))
            region = client.region("a")
            connection, _ = listening.accept()
            runs = 0
            while not client.lost:
                for _ in range(100):
                    with region:
                        pass
                client.flush()
                runs += 100
            seen: list[int] = []
            connection.setblocking(False)

            def everything_is_accounted_for() -> bool:
                client.flush()
                with suppress(BlockingIOError):
                    while True:
                        seen.extend(runs_of(connection.recv(1 << 20)))
                return sum(seen) == runs

            with connection:
                wait_for(everything_is_accounted_for)


def runs_of(data: bytes) -> list[int]:
    message = json.loads(data)
    return [*message.get("runs", {}).values(), message.get("lost", 0)]


class TestProcesses:
    def test_a_fork_is_a_process_of_its_own(self, client: Client, server: RegionServer) -> None:
        kept = client.region("kept")
        with client.region("parent"):
            child = os.fork()
            if child == 0:
                with kept:
                    time.sleep(0.02)
                client.close()
                os._exit(0)
            os.waitpid(child, 0)
        totals = sent(client, server)
        wait_for(lambda: server.totals().runs["kept"])
        assert len(server.connections) == 2
        assert totals.runs["parent"] == 1
        assert server.totals(1).seconds["parent"] == 0.0
        assert server.totals(1).seconds["kept"] >= 0.02

    def test_a_lock_that_is_renewed_while_a_process_forks(self, server: RegionServer) -> None:
        """As by the thread that sends, where a fork takes longer than that thread waits."""
        client = Client(str(server.path), lock_seconds=0.002)
        with client.region("before"):
            pass
        client._before_fork()
        sender = threading.Thread(target=client.flush)
        sender.start()
        sender.join(patience())
        client._after_fork()
        with client.region("after"):
            pass
        assert sent(client, server).runs["after"] == 1

    def test_a_lock_that_is_renewed_while_it_is_held(self, client: Client, server: RegionServer) -> None:
        class Renewed:
            """A lock whose holder does not run for so long that another thread takes a new one."""

            held = 0

            def acquire(self, *_: object) -> bool:
                self.held += 1
                client.lock = threading.Lock()
                return True

            def release(self) -> None:
                self.held -= 1

        region = client.region("counts")
        first, second = Renewed(), Renewed()
        client.lock = first  # type: ignore[assignment]
        region.add(tokens=3)
        client.lock = second  # type: ignore[assignment]
        with client.region("another"):
            pass
        assert (first.held, second.held) == (0, 0)
        totals = sent(client, server)
        assert totals.runs["another"] == 1

    def test_a_child_that_enters_no_region_does_not_connect(self, client: Client, server: RegionServer) -> None:
        with client.region("parent"):
            pass
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        sent(client, server)
        assert len(server.connections) == 1

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_children_of_multiprocessing(self, client: Client, server: RegionServer) -> None:
        with client.region("parent"):
            pass
        process = multiprocessing.get_context("fork").Process(target=_enter, args=(client.region("child"),))
        process.start()
        process.join()
        assert process.exitcode == 0
        wait_for(lambda: server.totals().runs["child"] == 1)

    def test_a_fork_while_other_threads_enter_regions(self, client: Client, server: RegionServer) -> None:
        stop = threading.Event()

        def busy() -> None:
            while not stop.is_set():
                with client.region("busy"):
                    pass

        threads = [threading.Thread(target=busy) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(5):
                child = os.fork()
                if child == 0:
                    with client.region("child"):
                        pass
                    client.close()
                    os._exit(0)
                assert os.waitpid(child, 0)[1] == 0
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        wait_for(lambda: server.totals().runs["child"] == 5)


def _enter(region: Region) -> None:
    with region:
        pass


if sys.version_info >= (3, 12):
    pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
