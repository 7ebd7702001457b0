"""Who holds a card and who used it: process lists, utilisation samples, MIG instances."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from ...host import Host
from ...records import GpuUse, Process, ProcessKey
from ..usage.pid_lookup import PidResolver, ProcessIdentity
from .card import Card
from .driver import Driver
from .library import DriverError
from .mig import MigLayout

UNKNOWN = Process(ProcessKey(0, 0), "unknown")
"""Stands for processes that used the card but are not found on this host: nobody else may pay for them."""

_REST_SECONDS, _MAX_REST_SECONDS = 5.0, 60.0
"""How often to ask who holds a card and how it is cut: that costs milliseconds and stalls its users (MangoHud#2104)."""

_REST_RATIO = 50.0
"""Where a question takes longer than 0.1 s, as MIG's may (50 to 100 ms a call, says Kepler's documentation), it is
asked more rarely, so that it takes 2 % of the time."""

_AHEAD_SECONDS = 1.0
"""How far a driver's clock may be ahead of the wall clock."""

_T = TypeVar("_T")

_MPS_SERVER = "nvidia-cuda-mps"
"""Start of the name of the MPS server, as far as the kernel keeps it (15 bytes)."""


class _RateLimitedQuery:
    """A question that costs so much that it is asked now and then: ``due_at`` is when next."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.due_at = float("-inf")

    @contextlib.contextmanager
    def timed(self, now: float) -> Iterator[None]:
        """Ask it; the longer that takes, the later it is due again."""
        began = self._clock()
        yield
        took = self._clock() - began
        self.due_at = now + min(_MAX_REST_SECONDS, max(_REST_SECONDS, _REST_RATIO * took))


class Holders:
    """Remembers, for one card, who held it when last asked and up to when its samples were counted.

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
        self.has_lists = False
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
        """Begin anew: the session with the driver is another one, or the card was away."""
        self.mig.close()
        self._layout.due_at = self._lists.due_at = float("-inf")

    def look(self, card: Card, now: float, *, may_defer: bool = False) -> None:
        """Find out every few seconds how the card is cut and who holds it. Raises `DriverError`.

        ``may_defer`` puts it off till the next read, unless the card was never looked at.
        """
        if may_defer and self._layout.due_at > float("-inf"):
            return
        if now >= self._layout.due_at:
            with self._layout.timed(now):
                changed = self.mig.look(card.handle)
            if changed:
                self._lists.due_at = now
        if now >= self._lists.due_at:
            self._list(card, now)

    def uses(self, card: Card, now: float, window: float) -> list[GpuUse]:
        """GPU-busy seconds in the last ``window`` of everyone who holds the card. Raises `DriverError`."""
        if self.mig.instances:
            return self._of_instances(card, now, window)
        return self._of_card(card, now, window)

    # --- a whole card -------------------------------------------------------------------------------

    def _of_card(self, card: Card, now: float, window: float) -> list[GpuUse]:
        seconds = self._busy_seconds(card.handle, window)
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
                # It let go of the card since, or the driver has no lists: then whoever uses it holds it.
                uses.append(_use(card, identity, used, 0.0 if self.has_lists else 1.0))
                continue
            unresolved.add(pid)
            if pid not in self._unresolved and not self._resolver.recently_exited(pid):
                lost += used  # came and went between two reads; one that the driver goes on naming is a zombie
        self._unresolved = unresolved
        return [*uses, *_of_unknown(card, lost, float(len(unknown)))]

    def _busy_seconds(self, handle: Any, window: float) -> dict[int, float]:
        """Pid → seconds since the last call: each sample is a mean over the time since the one before it.

        The driver is told what was seen already: told 0, it averages over its whole buffer and names the
        dead (nvtop#91). So the first call only finds out where the driver's clock stands (fault 29). That may
        be the wall clock: what it stamped before that was set back is ignored (fault 50).
        """
        horizon = self._host.wall() + _AHEAD_SECONDS
        since = min(self._seen, horizon)
        samples = [sample for sample in self._driver.utilization(handle, since) if sample.at <= horizon]
        seconds: defaultdict[int, float] = defaultdict(float)
        last: dict[int, float] = {}
        for pid, at, ratio in samples:
            seconds[pid] += ratio * (min(window, at - last.get(pid, since)) if since else window)
            last[pid] = at
        self._seen = samples[-1].at if samples else since
        return {pid: min(window, used) for pid, used in seconds.items()} if window else {}

    def _distribute_mps_server(self, found: dict[int, ProcessIdentity], seconds: dict[int, float]) -> None:
        """Under MPS what is booked on the server is its clients' (fault 30); who of them, nobody can tell."""
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
        """By instance: its activity × its share of the card, in equal parts to its processes.

        The driver tells no process's use under MIG. Without GPM (before Hopper) a held instance counts as busy.
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
                lost += seconds  # whoever it was is gone
                continue
            uses += [_use(card, identity, seconds / count, instance.fraction / count) for identity in found.values()]
            lost += seconds * len(unknown) / count
            held += instance.fraction * len(unknown) / count
        return [*uses, *_of_unknown(card, lost, held)]

    # --- lists --------------------------------------------------------------------------------------

    def _list(self, card: Card, now: float) -> None:
        """Ask who holds the card, or each instance of it (-1 is the whole card).

        Each list takes milliseconds, so who holds the instances is asked of the card, if it tells all of them apart.
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
        # One that is missing twice did not just exit: the driver's pids are not those of this /proc (fault 28).
        self.hidden = any(pid in self._missing and not self._resolver.recently_exited(pid) for pid in missing)
        self._missing = missing

    def _query_lists(self, card: Card, now: float) -> list[tuple[int, tuple[set[int], set[int]]]]:
        self.permission_error = None
        parts = {part.number: part.handles for part in self.mig.instances}
        if parts:
            held = self._unless_denied(self._driver.pids_by_instance, card.handle) or {}
            unexpected = held.keys() - parts.keys()
            if unexpected - self._unexpected:
                self._layout.due_at = now  # an instance that was not there when we looked
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
        """Those that are found on this host, and those that are not though they did not end under our eyes."""
        found: dict[int, ProcessIdentity] = {}
        unknown = []
        for pid in sorted(pids):
            identity = self._resolver.find(pid, now)
            if identity is not None:
                found[pid] = identity
            elif not self._resolver.recently_exited(pid):
                unknown.append(pid)
        return found, unknown


def _use(card: Card, identity: ProcessIdentity, seconds: float, hold: float) -> GpuUse:
    return GpuUse(card.uuid, identity.group, identity.process, seconds, hold)


def _of_unknown(card: Card, seconds: float, hold: float) -> list[GpuUse]:
    return [GpuUse(card.uuid, None, UNKNOWN, seconds, hold)] if seconds > 0 or hold > 0 else []
