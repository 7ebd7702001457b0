"""Marks regions of a running program, so that an exporter on the same machine can say how much energy each takes.

This file needs Python 3.9 and its standard library only, and nothing else of the package: it may be copied into an
image. It never waits for the exporter and never raises an error of its own; without an exporter it does next to
nothing. It records how long each region was the innermost one, and sends that twice a second over a socket.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from time import monotonic_ns, sleep, thread_time_ns
from types import SimpleNamespace
from typing import Any, TypeVar, cast

PROTOCOL_VERSION = 1
SOCKET_VARIABLE = "AI_ENERGY_REGIONS_SOCKET"
DEFAULT_SOCKET = "/run/ai-energy-exporter/regions.sock"

MAX_NAMES = 200
"""Regions of one process; further names count for the region `OTHER`."""

MAX_NAME_LENGTH = 100
OTHER = "other"

_FLUSH_SECONDS = 0.5
_RETRY_SECONDS = 2.0
_KEEP_NS = 60_000_000_000
"""How long regions are recorded while an exporter that was there does not answer: it may restart."""

_PIECE_NS = 4_000_000
"""Time is recorded in pieces: one for each stretch of at least this length in which nothing was entered or left;
shorter ones are summed until they are as long together."""

_CLOCKED_NS = 100_000
"""Mean length of a run from which on its CPU time is measured; shorter ones are taken to compute all the time."""

_NUMBERS_PER_MESSAGE = 2500
_SPANS_PER_MESSAGE = 500
_NAMES_PER_MESSAGE = 50
_WAITING_MESSAGES = 100
_MAX_THREADS = 1000
_DEVICE_SPANS = 4000
"""Most spans of device time until the next message."""

_LOCK_SECONDS = 0.5
"""How long the lock is waited for. Longer than a busy machine keeps a thread waiting that holds it, because a run that
cannot be ended would stay open."""

_MOST_UNITS = 1e12
"""Largest count of a unit at once; more is a mistake."""

_OUTSIDE = 0
"""Number, in messages, of the time in which no region is open."""

Function = TypeVar("Function", bound=Callable[..., Any])

Frame = list[Any]
"""A region that was entered: the `Region`, the frame it was entered in, its epoch, its open children; then, where its
CPU time is measured, the thread's clock and the time when it was entered, and both of what was within it; and its place
in `Region.frames`.

Open while its epoch is that of the client. A list, because that is made four times faster than an object.
"""

_REGION, _PARENT, _EPOCH, _CHILDREN, _CPU, _AT, _INNER_CPU, _INNER, _INDEX = range(9)

_innermost: ContextVar[Frame | None] = ContextVar("ai_energy_region", default=None)


class Region:
    """A named part of the program: a context manager, which may be entered many times at once, and a decorator.

    ``frames`` are its open ones, ``contexts`` the threads and tasks in which it is the innermost. ``sum_ns`` is its
    time in the current sum of short stretches, less ``contexts`` times now, so that nothing is to be done while it is
    open. ``clocked`` if its CPU time is measured: not where it is so short that reading the thread's clock would
    matter. ``cpu_ns`` is its CPU time of ``cpu_of_ns``.
    """

    __slots__ = (
        "_client",
        "clocked",
        "contexts",
        "cpu_ns",
        "cpu_of_ns",
        "frames",
        "name",
        "number",
        "runs",
        "sum_ns",
        "units",
    )

    def __init__(self, client: Client, name: str, number: int) -> None:
        self._client = client
        self.name = name
        self.number = number
        self.runs = self.contexts = 0
        self.sum_ns = self.cpu_ns = self.cpu_of_ns = 0
        self.clocked = True
        self.units: dict[str, float] = {}
        self.frames: list[Frame] = []

    def __enter__(self) -> Region:  # noqa: PLR0912 - a call would cost a tenth of it
        client = self._client
        if not client.recording:
            if not client.forked:
                return self
            client.start()
        lock = client.lock
        try:
            if not (lock.acquire(False) or client.wait_for(lock)):
                client.lost += 1
                return self
            try:
                now = monotonic_ns()
                if now >= client.sum_ends:
                    client.advance(now)
                client.last = now
                epoch = client.epoch
                parent = _innermost.get()
                if parent is not None and parent[_EPOCH] != epoch:
                    parent = _open_ancestor(parent, epoch)
                if parent is not None and not parent[_CHILDREN]:
                    outer = parent[_REGION]
                    outer.contexts -= 1
                    outer.sum_ns += now
                else:
                    if not client.open:
                        client.outside_ns += now
                    client.open += 1
                if parent is not None:
                    parent[_CHILDREN] += 1
                self.contexts += 1
                self.sum_ns -= now
                cpu = 0
                if self.clocked:
                    cpu = thread_time_ns()
                    if parent is None:
                        client.enter_from_outside(now, cpu)
                frames = self.frames
                frame = [self, parent, epoch, 0, cpu, now, 0, 0, len(frames)]
                frames.append(frame)
                _innermost.set(frame)
            finally:
                lock.release()
            return self  # within, so that nothing is between it and the program
        except BaseException:  # of a signal handler
            client.unended = True
            raise

    def __exit__(self, *_: object) -> None:  # noqa: PLR0912 - the same
        client = self._client
        if not client.recording:
            return
        lock = client.lock
        try:
            if not (lock.acquire(False) or client.wait_for(lock)):
                client.unended = client.unended or bool(self.frames)
                return
            try:
                now = monotonic_ns()
                if now >= client.sum_ends:
                    client.advance(now)
                client.last = now
                epoch = client.epoch
                top = frame = _innermost.get()
                if frame is None or frame[_REGION] is not self or frame[_EPOCH] != epoch:
                    frame = self._find(top, epoch)
                    if frame is None:
                        return
                self.runs += 1
                frame[_EPOCH] = -1
                if frame[_CPU] > 0:
                    self._clock(frame, now)
                parent = frame[_PARENT]
                if parent is not None:
                    if parent[_EPOCH] != epoch:
                        parent = frame[_PARENT] = _open_ancestor(parent, epoch)
                    if parent is not None:
                        parent[_CHILDREN] += frame[_CHILDREN] - 1
                if not frame[_CHILDREN]:
                    self.contexts -= 1
                    self.sum_ns += now
                    if parent is not None and not parent[_CHILDREN]:
                        region = parent[_REGION]
                        region.contexts += 1
                        region.sum_ns -= now
                    else:
                        client.open -= 1
                        if not client.open:
                            client.outside_ns -= now
                last = self.frames.pop()
                if last is not frame:
                    last[_INDEX] = frame[_INDEX]
                    self.frames[last[_INDEX]] = last
                _innermost.set(parent if frame is top else _open_ancestor(top, epoch))
            finally:
                lock.release()
        except BaseException:
            client.unended = True
            raise

    def _find(self, top: Frame | None, epoch: int) -> Frame | None:
        """The frame of a run that ends while another one is the innermost; None if it was forgotten.

        A generator may be left while a later region is open, and a web framework may leave in another thread.
        """
        frame = top
        while frame is not None and (frame[_REGION] is not self or frame[_EPOCH] != epoch):
            if frame[_REGION] is self and frame[_EPOCH] >= 0:
                return None
            frame = frame[_PARENT]
        if frame is None and self.frames:
            frame = self.frames[-1]
            frame[_CPU] = 0  # of another thread's clock
        return frame

    def _clock(self, frame: Frame, now: int) -> None:
        """Add the CPU time of a run, and take it from what is around it."""
        length = now - frame[_AT]
        clock = thread_time_ns()
        cpu = min(clock - frame[_CPU], length)
        self.cpu_ns += max(0, min(cpu - frame[_INNER_CPU], length - frame[_INNER]))
        self.cpu_of_ns += max(0, length - frame[_INNER])
        parent = frame[_PARENT]
        if parent is not None:
            parent[_INNER_CPU] += cpu
            parent[_INNER] += length
        else:
            self._client.left[threading.get_ident()] = (now, clock)

    def add(self, **units: float) -> None:
        """Count what the region produced, such as ``tokens=128`` or ``samples=32``."""
        client = self._client
        for unit, count in units.items() if client.recording else ():
            with contextlib.suppress(Exception):  # what is no number is not counted
                amount, lock = float(count), client.lock
                if 0.0 <= amount <= _MOST_UNITS and lock.acquire(True, client.lock_seconds):
                    self.units[unit] = self.units.get(unit, 0.0) + amount
                    lock.release()

    def device_time(self, start_ns: int, end_ns: int) -> None:
        """Say that a device worked for the region from ``start_ns`` to ``end_ns`` of `time.monotonic_ns`."""
        client = self._client
        if client.recording and len(client.device_spans) < _DEVICE_SPANS and 0 <= start_ns <= end_ns:
            client.device_spans.append((self.number, int(start_ns), int(end_ns - start_ns)))

    def __call__(self, function: Function) -> Function:
        """Decorate a function, coroutine function or generator function: each call is a run of the region."""
        client = self._client
        flags = getattr(getattr(function, "__code__", None), "co_flags", 0)
        wrapper: Any
        if flags & 0x80:  # CO_COROUTINE

            async def wrapper(*args: Any, **kwargs: Any) -> Any:
                with self:
                    return await function(*args, **kwargs)

        elif flags & 0x20:  # CO_GENERATOR

            def wrapper(*args: Any, **kwargs: Any) -> Any:
                with self:
                    return (yield from function(*args, **kwargs))

        else:

            def wrapper(*args: Any, **kwargs: Any) -> Any:
                if not (client.recording or client.forked):
                    return function(*args, **kwargs)
                with self:
                    return function(*args, **kwargs)

        return cast("Function", functools.wraps(function)(wrapper))


_HOLDERS = (Region.__enter__.__code__, Region.__exit__.__code__)


def _open_ancestor(frame: Frame | None, epoch: int) -> Frame | None:
    while frame is not None and frame[_EPOCH] != epoch:
        frame = frame[_PARENT]
    return frame


_UNRECORDED = SimpleNamespace(recording=False, forked=False)
"""In place of the client of a region that could not be made: the lock was held."""


class Client:
    """Records the regions of this process and sends them to the exporter at ``path``, from a thread of its own.

    ``open`` are the contexts (threads, tasks) that are in a region. ``epoch`` changes whenever all that is open is
    forgotten. ``before_flush`` is called before each message.
    """

    def __init__(
        self, path: str | None = None, regions: dict[str, Region] | None = None, lock_seconds: float = _LOCK_SECONDS
    ) -> None:
        self.lock_seconds = lock_seconds
        self.path = path or os.environ.get(SOCKET_VARIABLE) or DEFAULT_SOCKET
        self.regions = {} if regions is None else regions
        self.recording = self.forked = False
        self.lost = 0  # runs that were not recorded, or recorded and never sent
        self.unended = False  # a run has ended that could not be ended here: the lock was held
        self.before_flush: list[Callable[[], None]] = []
        self.device_spans: list[tuple[int, int, int]] = []
        self.epoch = 0
        self.lock = threading.Lock()
        self.open = 0
        self._pieces: list[list[int]] = []
        self.left: dict[int, tuple[int, int]] = {}  # by thread, the time and its clock when it left all regions
        self.outside_ns = 0  # as `Region.sum_ns`
        self._outside_cpu = self._outside_cpu_of = 0
        self._began = self.last = self._sum_began = self.sum_ends = 0  # of the pieces; of what follows the last edge
        self._waiting: list[tuple[bytes, int]] = []
        self._socket: socket.socket | None = None
        self._names_sent = 0
        self._seen_at = 0  # when the exporter was there
        self._flushing, self._starting = threading.Lock(), threading.Lock()
        self._started = self._registered = False
        self._held: dict[int, threading.Lock] = {}  # by thread, the lock during a fork
        os.register_at_fork(  # at once: another thread may fork while this one starts the client
            before=self._before_fork, after_in_parent=self._after_fork, after_in_child=self._after_fork_in_child
        )

    # --- regions ------------------------------------------------------------------------------------

    def region(self, name: object) -> Region:
        """The region of that name; the first one starts the client."""
        try:
            key = str(name)[:MAX_NAME_LENGTH]
        except Exception:  # noqa: BLE001 - of the program's own object
            key = OTHER
        lock = self.lock
        if not lock.acquire(True, self.lock_seconds):
            self.lost += 1
            return Region(cast("Client", _UNRECORDED), key, _OUTSIDE)
        if key not in self.regions and len(self.regions) >= MAX_NAMES:
            key = OTHER
        region = self.regions.get(key)
        if region is None:
            region = self.regions[key] = Region(self, key, len(self.regions) + 1)
        lock.release()
        if not self._started:
            self.start()
        return region

    @property
    def active(self) -> dict[Region, int]:
        """The regions that are innermost somewhere, and in how many contexts."""
        return {region: region.contexts for region in self.regions.values() if region.contexts}

    def advance(self, now: int) -> None:
        """End the sum of short stretches, which is due; ``last`` is when something was entered or left. Lock held."""
        if now - self.last >= _PIECE_NS:
            self._close_sum(self.last)
        self._close_sum(now)

    def wait_for(self, lock: threading.Lock) -> bool:
        """Wait for the lock for a region that is entered or left, unless this thread holds it and was interrupted."""
        frame = sys._getframe(1).f_back
        while frame is not None:
            if frame.f_code in _HOLDERS:
                return False
            frame = frame.f_back
        return lock.acquire(True, self.lock_seconds)

    def enter_from_outside(self, now: int, cpu: int) -> None:
        """Add the CPU time of this thread, whose clock is ``cpu``, since it left all regions. The lock is held."""
        left = self.left.pop(threading.get_ident(), None)
        if left is not None:
            self._outside_cpu_of += now - left[0]
            self._outside_cpu += min(cpu - left[1], now - left[0])

    def _close_sum(self, now: int) -> None:
        if now <= self._sum_began:
            return
        piece = [now - self._sum_began]
        outside = self.outside_ns if self.open else self.outside_ns + now
        if outside:
            piece += (_OUTSIDE, outside)
        self.outside_ns = 0 if self.open else -now
        for region in self.regions.values():
            if region.sum_ns:
                taken = region.sum_ns + region.contexts * now
                region.sum_ns = -region.contexts * now
                if taken:
                    piece += (region.number, taken)
        self._pieces.append(piece)
        self._sum_began, self.sum_ends = now, now + _PIECE_NS

    # --- life ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Connect, and start the thread; again in the child after a fork."""
        if self._started or not self._starting.acquire(blocking=False):
            return
        self._started, self.forked = True, False
        try:
            self._connect()
            threading.Thread(target=self._run, name="energy-regions", daemon=True).start()
            self._register()
        except Exception:  # noqa: BLE001 - no thread can be started: this process is not measured
            self._forget()
        self._starting.release()

    def close(self) -> None:
        """Send what is recorded, at the end of the program; a message that is being sent is waited for."""
        with contextlib.suppress(Exception):  # the program must not notice
            self.flush(self.lock_seconds)

    def _run(self) -> None:
        while True:
            sleep(_FLUSH_SECONDS if self.recording else _RETRY_SECONDS)
            self.close()

    def _register(self) -> None:
        if not self._registered:
            self._registered = True
            atexit.register(self.close)
        processes = sys.modules.get("multiprocessing.util")
        if processes is not None:  # its children end without the handlers of atexit
            processes.Finalize(None, self.close, exitpriority=0)

    def _before_fork(self) -> None:
        lock = self.lock
        if lock.acquire(True, self.lock_seconds):
            self._held[threading.get_ident()] = lock

    def _after_fork(self) -> None:
        lock = self._held.pop(threading.get_ident(), None)
        if lock is not None:
            lock.release()  # this one: it may have been renewed meanwhile

    def _after_fork_in_child(self) -> None:
        self.lock, self._flushing, self._starting = threading.Lock(), threading.Lock(), threading.Lock()
        self._held, self._started, self.forked = {}, False, True
        connection, self._socket = self._socket, None
        if connection is not None:
            connection.close()  # the parent's stays open
        self._forget()

    def _forget(self) -> None:
        """Record no more; what is open is not counted."""
        with self._locked():
            self.recording = self.unended = False
            self.lost = self._outside_cpu = self._outside_cpu_of = 0
            self._leave_all(0)
            self._pieces, self.device_spans, self._waiting = [], [], []
            for region in self.regions.values():
                region.runs, region.units = 0, {}
                region.cpu_ns = region.cpu_of_ns = 0

    def _leave_all(self, now: int) -> None:
        """What is open is not counted when it ends. The lock is held, and the sum was closed ``now``."""
        self.epoch += 1
        self.open, self.outside_ns = 0, -now
        for region in self.regions.values():
            region.contexts = region.sum_ns = 0
            region.frames.clear()
        self.left.clear()

    # --- sending ------------------------------------------------------------------------------------

    def flush(self, seconds: float = 0.0) -> None:
        """Send what was recorded since the last call, unless another thread does for longer than ``seconds``.

        Never waits for the exporter.
        """
        if not self._flushing.acquire(True, seconds):
            return
        try:
            for collect in self.before_flush:
                collect()
            if self._socket is None:
                self._connect()
            if self.recording:
                self._take()
            if self._socket is not None:
                self._send(self._socket)
        finally:
            self._flushing.release()

    def _connect(self) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.setblocking(False)
            connection.connect(self.path)
        except OSError:
            connection.close()
            if self.recording and monotonic_ns() - self._seen_at > _KEEP_NS:
                self._forget()
            return
        self._socket = connection
        self._names_sent = 0
        self._seen_at = now = monotonic_ns()
        if not self.recording:
            with self._locked():
                self._began = self.last = self._sum_began = now
                self.outside_ns = -now
                self.recording = True

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock. If a signal handler's exception kept a thread from releasing it, it is renewed."""
        lock = self.lock
        if not lock.acquire(True, 2.0 * self.lock_seconds):
            lock = self.lock = threading.Lock()
            self.unended = True
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _take(self) -> None:
        with self._locked():
            now = monotonic_ns()
            self.advance(now)
            if self.unended:
                self.unended = False
                self.lost += sum([len(region.frames) for region in self.regions.values()])
                self._leave_all(now)
            began, pieces, spans = self._began, self._pieces, self.device_spans
            self._began, self._pieces, self.device_spans = now, [], []
            if now - began > _KEEP_NS:  # this process was stopped
                began, pieces, spans = now, [], []
            runs, units, cpu = {}, {}, {}
            if self._outside_cpu_of:
                cpu[_OUTSIDE] = (self._outside_cpu, self._outside_cpu_of)
                self._outside_cpu = self._outside_cpu_of = 0
            if len(self.left) > _MAX_THREADS:
                self.left.clear()
            for region in self.regions.values():
                if region.cpu_of_ns:
                    cpu[region.number] = (region.cpu_ns, region.cpu_of_ns)
                    region.clocked = region.cpu_of_ns >= _CLOCKED_NS * region.runs
                    region.cpu_ns = region.cpu_of_ns = 0
                if region.runs:
                    runs[region.number], region.runs = region.runs, 0
                if region.units:
                    units[region.number], region.units = region.units, {}
        content: dict[str, Any] = {"runs": runs, "units": units, "cpu": cpu}
        count = sum(runs.values())
        while pieces or spans or content:
            size = taken = 0
            while taken < len(pieces) and size < _NUMBERS_PER_MESSAGE:
                size += len(pieces[taken])
                taken += 1
            part = pieces[:taken]
            content.update(start=began, pieces=part, device=spans[:_SPANS_PER_MESSAGE])
            self._waiting.append((_encode(content), count))
            began += sum([piece[0] for piece in part])
            del pieces[:taken], spans[:_SPANS_PER_MESSAGE]
            content, count = {}, 0
        excess = len(self._waiting) - _WAITING_MESSAGES
        if excess > 0:
            self.lost += sum([runs for _, runs in self._waiting[:excess]])
            del self._waiting[:excess]

    def _send(self, connection: socket.socket) -> None:
        try:
            regions = list(self.regions.values())
            while self._names_sent < len(regions):
                new = regions[self._names_sent : self._names_sent + _NAMES_PER_MESSAGE]
                names = {region.number: region.name for region in new}
                connection.send(_encode({"version": PROTOCOL_VERSION, "names": names}), socket.MSG_NOSIGNAL)
                self._names_sent += len(new)
            while self._waiting:
                connection.send(self._waiting[0][0], socket.MSG_NOSIGNAL)
                del self._waiting[0]
            if lost := self.lost:
                connection.send(_encode({"lost": lost}), socket.MSG_NOSIGNAL)
                self.lost -= lost
            self._seen_at = monotonic_ns()
        except BlockingIOError:
            self._seen_at = monotonic_ns()  # the exporter is there, and busy
        except OSError:
            self._socket = None
            connection.close()


def _encode(content: dict[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


_regions: dict[str, Region] = {}
_clients: list[Client] = []  # the one of this process, once there is a region


def region(name: str) -> Region:
    """The region of that name, to be entered with ``with`` or to decorate a function. Never raises."""
    try:
        return _regions[name]
    except (KeyError, TypeError):
        return default_client().region(name)


def default_client() -> Client:
    """The client of this process."""
    if not _clients:
        _clients.append(Client(regions=_regions))
    return _clients[0]


def step(iterable: Iterable[Any] | None = None, name: str = "step") -> Any:
    """The region of one step; with an ``iterable``, a loop over it in which each pass of the body is a step.

    The time that the iterable needs for its next item is outside the step.
    """
    return region(name) if iterable is None else _steps(iterable, region(name))


def _steps(iterable: Iterable[Any], each: Region) -> Iterator[Any]:
    for item in iterable:
        with each:
            yield item
