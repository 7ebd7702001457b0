"""Which processes hold a card and for how long each used it: process lists, utilisation samples, MIG instances.

Pids of another namespace, old samples and MPS are faults 28 to 30 of docs/faults.md.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from ...host import Host
from ...records import GpuUse, Problem
from ..usage.pid_lookup import PidResolver, ProcessIdentity
from .card import Card
from .driver import Driver
from .library import DriverError
from .mig import MigLayout
from .process_use import ProcessUse

_REST_SECONDS, _MAX_REST_SECONDS = 5.0, 60.0
"""How often to query the process lists and the MIG layout: a query takes milliseconds and stalls the card's users
(MangoHud#2104)."""

_REST_RATIO = 50.0
"""A query that takes longer than 0.1 s is made more rarely, so that it takes 2 % of the time. Under MIG one call may
take 50 to 100 ms (Kepler's documentation)."""

_AHEAD_SECONDS = 1.0
"""How far the driver's clock may be ahead of the wall clock."""

_T = TypeVar("_T")

_MPS_SERVER = "nvidia-cuda-mps"
"""Prefix of the MPS server's name, of which the kernel keeps 15 bytes."""


class _RateLimitedQuery:
    """Limits how often an expensive query is made: it is due at ``due_at`` (boot time, seconds)."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.due_at = float("-inf")

    @contextlib.contextmanager
    def timed(self, now: float) -> Iterator[None]:
        """Measure how long the query takes; the longer, the later it is due again."""
        began = self._clock()
        yield
        took = self._clock() - began
        self.due_at = now + min(_MAX_REST_SECONDS, max(_REST_SECONDS, _REST_RATIO * took))


class Holders:
    """Remembers, for one card, its holders as of the last query and the time of its last utilisation sample.

    ``use_problem`` is set if several processes hold it and the driver does not report which of them uses it.
    ``hidden`` is set if some of them are not in this /proc, ``permission_error`` if the driver refuses to list any, and
    ``has_lists`` if it lists them.
    """

    def __init__(self, driver: Driver, resolver: PidResolver, host: Host) -> None:
        self._driver = driver
        self._host = host
        self._resolver = resolver
        self.mig = MigLayout(driver)
        self.hidden = False
        self.permission_error: DriverError | None = None
        self.use_problem: Problem | None = None
        self.has_lists = False
        self._use = ProcessUse(driver)
        self._layout, self._lists = _RateLimitedQuery(host.clock), _RateLimitedQuery(host.clock)
        self._listed_at = float("-inf")
        self._listed: dict[int, set[int]] = {}
        self._unexpected: set[int] = set()
        self._clients: set[int] = set()
        self._missing: set[int] = set()
        self._unresolved: set[int] = set()
        self._unlisted: set[int] = set()
        self._seen = 0.0

    def attach(self) -> None:
        """Start again after a new session with the driver, or after the card was away."""
        self.mig.close()
        self._use.attach()
        self._layout.due_at = self._lists.due_at = float("-inf")

    def refresh(self, card: Card, now: float, *, may_defer: bool = False) -> None:
        """Query the MIG layout and the process lists every few seconds. Raises `DriverError`.

        ``may_defer`` defers that to the next read, unless this card was never queried.
        """
        if may_defer and self._layout.due_at > float("-inf"):
            return
        if now >= self._layout.due_at:
            with self._layout.timed(now):
                changed = self.mig.refresh(card.handle)
            if changed:
                self._lists.due_at = now
        if now >= self._lists.due_at:
            self._list(card, now)

    def uses(self, card: Card, now: float, window: float, *, busy: bool = False) -> list[GpuUse]:
        """GPU-busy seconds in the last ``window`` (s) of every process that holds the card. Raises `DriverError`.

        ``busy``: the card itself reports use.
        """
        self.use_problem = None
        if self.mig.instances:
            return self._of_instances(card, now, window)
        uses = self._of_card(card, now, window, busy)
        self.use_problem = self._use.problem(sum(use.hold > 0 for use in uses))
        return uses if self._use.reported else [use._replace(reported=False) for use in uses]

    # --- a whole card -------------------------------------------------------------------------------

    def _of_card(self, card: Card, now: float, window: float, busy: bool) -> list[GpuUse]:
        seconds = self._busy_seconds(card.handle, window, busy)
        unlisted = seconds.keys() - self._listed.get(-1, set())
        new_pids, self._unlisted = unlisted - self._unlisted, unlisted
        if now > self._listed_at and (new_pids or self._any_holder_exited(now)):
            self._list(card, now)
        listed = self._listed.get(-1, set())
        found, unknown = self._resolve(listed, now)
        self._distribute_mps_server(found, seconds)
        uses = [_use(card, identity, seconds.pop(pid, 0.0), 1.0) for pid, identity in found.items()]
        lost, unresolved = sum(seconds.pop(pid, 0.0) for pid in unknown), set()
        for pid, used in seconds.items():
            identity = self._resolver.find(pid, now) or self._resolver.last_seen(pid, now - window)
            if identity is not None:
                # It has left the card since; if the driver has no lists, every process that uses the card holds it.
                uses.append(_use(card, identity, used, 0.0 if self.has_lists else 1.0))
                continue
            unresolved.add(pid)
            if pid not in self._unresolved and not self._resolver.recently_exited(pid):
                lost += used  # started and exited between two reads; a pid that the driver keeps reporting is a zombie
        self._unresolved = unresolved
        return [*uses, *_of_unknown(card, lost, float(len(unknown)))]

    def _busy_seconds(self, handle: Any, window: float, busy: bool) -> dict[int, float]:
        """Pid → busy seconds since the last call: each sample is a mean over the time since the previous one.

        The query passes the time of the last sample seen: with 0 the driver averages over its whole buffer and reports
        exited processes (nvtop#91). So the first call only finds the present time of the driver's clock. That may be
        the wall clock: samples stamped in the future, because the clock was set back, are ignored.
        """
        horizon = self._host.wall() + _AHEAD_SECONDS
        since = min(self._seen, horizon)
        found = self._use.read(handle, since, window, busy=busy)
        samples = [sample for sample in found if sample.at <= horizon]
        seconds: defaultdict[int, float] = defaultdict(float)
        last: dict[int, float] = {}
        for pid, at, ratio in samples:
            seconds[pid] += ratio * (min(window, at - last.get(pid, since)) if since else window)
            last[pid] = at
        self._seen = samples[-1].at if samples else since
        return {pid: min(window, used) for pid, used in seconds.items()} if window else {}

    def _distribute_mps_server(self, found: dict[int, ProcessIdentity], seconds: dict[int, float]) -> None:
        """Under MPS, use is reported for the server; split it evenly, because NVML cannot attribute it to clients."""
        clients = [pid for pid in found if pid in self._clients]
        if not clients:
            return
        for pid, identity in list(found.items()):
            if identity.process.comm.startswith(_MPS_SERVER) and pid not in self._clients:
                del found[pid]
                used = seconds.pop(pid, 0.0)
                for client in clients:
                    seconds[client] = seconds.get(client, 0.0) + used / len(clients)

    # --- MIG ----------------------------------------------------------------------------------------

    def _of_instances(self, card: Card, now: float, window: float) -> list[GpuUse]:
        """By instance: its activity × its share of the card, split evenly among its processes.

        Under MIG the driver does not report use by process. Without GPM (before Hopper) an instance counts as busy
        while a process holds it.
        """
        if now > self._listed_at and self._any_holder_exited(now):
            self._list(card, now)
        uses: list[GpuUse] = []
        lost = held = 0.0
        for instance in self.mig.instances:
            found, unknown = self._resolve(self._listed.get(instance.number, set()), now)
            self._distribute_mps_server(found, {})
            count = len(found) + len(unknown)
            busy = instance.activity.sm
            if busy is None:
                busy = 1.0 if count else 0.0
            seconds = busy * instance.fraction * window
            if not count:
                lost += seconds  # used by a process that has exited
                continue
            part, hold = str(instance.number), instance.fraction / count
            uses += [_use(card, identity, seconds / count, hold, part) for identity in found.values()]
            lost += seconds * len(unknown) / count
            held += instance.fraction * len(unknown) / count
        return [*uses, *_of_unknown(card, lost, held)]

    # --- lists --------------------------------------------------------------------------------------

    def _list(self, card: Card, now: float) -> None:
        """Query the holders of the card, or of each of its instances (-1 is the whole card).

        Each query takes milliseconds, so one query of the card replaces those of its instances if it reports all of
        them separately.
        """
        self._listed_at = now
        self._listed, self._clients = {}, set()
        with self._lists.timed(now):
            answers = self._query_lists(card, now)
        self.has_lists = bool(answers)
        for number, (pids, clients) in answers:
            self._listed.setdefault(number, set()).update(pids)
            self._clients |= clients
        missing = {pid for pids in self._listed.values() for pid in pids if self._resolver.find(pid, now) is None}
        # A pid that is missing twice did not just exit: the driver's pids are not those of this /proc.
        self.hidden = any(pid in self._missing and not self._resolver.recently_exited(pid) for pid in missing)
        self._missing = missing

    def _query_lists(self, card: Card, now: float) -> list[tuple[int, tuple[set[int], set[int]]]]:
        self.permission_error = None
        parts = {part.number: part.handles for part in self.mig.instances}
        if parts:
            held = self._unless_denied(self._driver.pids_by_instance, card.handle) or {}
            unexpected = held.keys() - parts.keys()
            if unexpected - self._unexpected:
                self._layout.due_at = now  # an instance that did not exist at the last query of the layout
            self._unexpected = unexpected
            if held and not unexpected:
                return list(held.items())
        handles = [(number, one) for number, found in (parts or {-1: [card.handle]}).items() for one in found]
        known = [(number, self._unless_denied(self._driver.pids, handle)) for number, handle in handles]
        answers = [(number, answer) for number, answer in known if answer is not None]
        self.permission_error = None if answers else self.permission_error
        return answers

    def _unless_denied(self, question: Callable[[Any], _T], handle: Any) -> _T | None:
        try:
            return question(handle)
        except DriverError as error:
            if error.reason != "permission":
                raise
            self.permission_error = error
            return None

    def _any_holder_exited(self, now: float) -> bool:
        return any(
            pid not in self._missing and self._resolver.find(pid, now) is None
            for pids in self._listed.values()
            for pid in pids
        )

    def _resolve(self, pids: Iterable[int], now: float) -> tuple[dict[int, ProcessIdentity], list[int]]:
        """The processes found on this host, and the pids that are not found although no exit of them was seen."""
        found: dict[int, ProcessIdentity] = {}
        unknown = []
        for pid in sorted(pids):
            identity = self._resolver.find(pid, now)
            if identity is not None:
                found[pid] = identity
            elif not self._resolver.recently_exited(pid):
                unknown.append(pid)
        return found, unknown


def _use(card: Card, identity: ProcessIdentity, seconds: float, hold: float, gpu_instance: str = "") -> GpuUse:
    return GpuUse(card.uuid, identity.group, identity.process, seconds, hold, gpu_instance=gpu_instance)


def _of_unknown(card: Card, seconds: float, hold: float) -> list[GpuUse]:
    return [GpuUse(card.uuid, None, None, seconds, hold)] if seconds > 0 or hold > 0 else []
