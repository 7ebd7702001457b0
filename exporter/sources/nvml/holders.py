"""Who holds a card and who used it: process lists, utilisation samples, MIG instances."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from ...host import Host
from ...records import GpuUse, Process, ProcessKey
from ..usage.pid_lookup import Identity, Person
from .card import Card
from .driver import Driver, DriverError
from .mig import MigLayout

UNKNOWN = Process(ProcessKey(0, 0), "unknown")
"""Stands for processes that used the card but are not found on this host: nobody else may pay for them."""

_REST_SECONDS, _MOST_REST_SECONDS = 5.0, 60.0
"""How often to ask who holds a card and how it is cut: that costs milliseconds and stalls its users (MangoHud#2104)."""

_REST_RATIO = 50.0
"""Where a question takes longer than 0.1 s, as MIG's may (50 to 100 ms a call, says Kepler's documentation), it is
asked more rarely, so that it takes 2 % of the time."""

_AHEAD_SECONDS = 1.0
"""How far a driver's clock may be ahead of the wall clock."""

_T = TypeVar("_T")

_MPS_SERVER = "nvidia-cuda-mps"
"""Start of the name of the MPS server, as far as the kernel keeps it (15 bytes)."""


class _Dear:
    """A question that costs so much that it is asked now and then: ``due_at`` is when next."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.due_at = float("-inf")

    @contextlib.contextmanager
    def asked(self, now: float) -> Iterator[None]:
        """Ask it; the longer that takes, the later it is due again."""
        began = self._clock()
        yield
        took = self._clock() - began
        self.due_at = now + min(_MOST_REST_SECONDS, max(_REST_SECONDS, _REST_RATIO * took))


class Holders:
    """Remembers, for one card, who held it when last asked and up to when its samples were counted.

    ``hidden`` says that some of them are not in this /proc, ``denied`` why the driver does not tell of any, and
    ``knows_lists`` that it does.
    """

    def __init__(self, driver: Driver, identity: Identity, host: Host) -> None:
        self._driver = driver
        self._host = host
        self._identity = identity
        self.mig = MigLayout(driver)
        self.hidden = False
        self.denied: DriverError | None = None
        self.knows_lists = False
        self._cut, self._lists = _Dear(host.clock), _Dear(host.clock)
        self._listed_at = float("-inf")
        self._listed: dict[int, set[int]] = {}
        self._strange: set[int] = set()
        self._clients: set[int] = set()
        self._missing: set[int] = set()
        self._ghosts: set[int] = set()
        self._asked: set[int] = set()
        self._seen = 0.0

    def attach(self) -> None:
        """Begin anew: the session with the driver is another one, or the card was away."""
        self.mig.close()
        self._cut.due_at = self._lists.due_at = float("-inf")

    def look(self, card: Card, now: float, *, may_wait: bool = False) -> None:
        """Find out every few seconds how the card is cut and who holds it. Raises `DriverError`.

        ``may_wait`` puts it off till the next read, unless the card was never looked at.
        """
        if may_wait and self._cut.due_at > float("-inf"):
            return
        if now >= self._cut.due_at:
            with self._cut.asked(now):
                anew = self.mig.look(card.handle)
            if anew:
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
        strangers, self._asked = unlisted - self._asked, unlisted
        if now > self._listed_at and (strangers or self._somebody_left(now)):
            self._list(card, now)
        listed = self._listed.get(-1, set())
        found, unknown = self._tell_apart(listed, now)
        self._share_of_server(found, seconds)
        uses = [_use(card, person, seconds.pop(pid, 0.0), 1.0) for pid, person in found.items()]
        lost, ghosts = sum(seconds.pop(pid, 0.0) for pid in unknown), set()
        for pid, used in seconds.items():
            person = self._identity.find(pid, now) or self._identity.last(pid, now - window)
            if person is not None:
                # It let go of the card since, or the driver has no lists: then whoever uses it holds it.
                uses.append(_use(card, person, used, 0.0 if self.knows_lists else 1.0))
                continue
            ghosts.add(pid)
            if pid not in self._ghosts and not self._identity.was_known(pid):
                lost += used  # came and went between two reads; one that the driver goes on naming is a zombie
        self._ghosts = ghosts
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

    def _share_of_server(self, found: dict[int, Person], seconds: dict[int, float]) -> None:
        """Under MPS what is booked on the server is its clients' (fault 30); who of them, nobody can tell."""
        clients = [pid for pid in found if pid in self._clients]
        if not clients:
            return
        for pid, person in list(found.items()):
            if person.process.comm.startswith(_MPS_SERVER) and pid not in self._clients:
                del found[pid]
                used = seconds.pop(pid, 0.0)
                for client in clients:
                    seconds[client] = seconds.get(client, 0.0) + used / len(clients)

    # --- MIG ----------------------------------------------------------------------------------------

    def _of_instances(self, card: Card, now: float, window: float) -> list[GpuUse]:
        """By instance: its activity × its share of the card, in equal parts to its processes.

        The driver tells no process's use under MIG. Without GPM (before Hopper) a held instance counts as busy.
        """
        if now > self._listed_at and self._somebody_left(now):
            self._list(card, now)
        uses: list[GpuUse] = []
        lost = held = 0.0
        for instance in self.mig.instances:
            found, unknown = self._tell_apart(self._listed.get(instance.number, set()), now)
            self._share_of_server(found, {})
            count = len(found) + len(unknown)
            busy = instance.activity.sm
            if busy is None:
                busy = 1.0 if count else 0.0
            seconds = busy * instance.fraction * window
            if not count:
                lost += seconds  # whoever it was is gone
                continue
            uses += [_use(card, person, seconds / count, instance.fraction / count) for person in found.values()]
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
        with self._lists.asked(now):
            answers = self._answers(card, now)
        self.knows_lists = bool(answers)
        for number, (pids, clients) in answers:
            self._listed.setdefault(number, set()).update(pids)
            self._clients |= clients
        missing = {pid for pids in self._listed.values() for pid in pids if self._identity.find(pid, now) is None}
        # One that is missing twice did not just exit: the driver's pids are not those of this /proc (fault 28).
        self.hidden = any(pid in self._missing and not self._identity.was_known(pid) for pid in missing)
        self._missing = missing

    def _answers(self, card: Card, now: float) -> list[tuple[int, tuple[set[int], set[int]]]]:
        self.denied = None
        parts = {part.number: part.handles for part in self.mig.instances}
        if parts:
            held = self._unless_denied(self._driver.pids_by_instance, card.handle) or {}
            strange = held.keys() - parts.keys()
            if strange - self._strange:
                self._cut.due_at = now  # an instance that was not there when we looked
            self._strange = strange
            if held and not strange:
                return list(held.items())
        handles = [(number, one) for number, found in (parts or {-1: [card.handle]}).items() for one in found]
        known = [(number, self._unless_denied(self._driver.pids, handle)) for number, handle in handles]
        answers = [(number, answer) for number, answer in known if answer is not None]
        self.denied = None if answers else self.denied
        return answers

    def _unless_denied(self, question: Callable[[Any], _T], handle: Any) -> _T | None:
        try:
            return question(handle)
        except DriverError as error:
            if error.reason != "permission":
                raise
            self.denied = error
            return None

    def _somebody_left(self, now: float) -> bool:
        return any(
            pid not in self._missing and self._identity.find(pid, now) is None
            for pids in self._listed.values()
            for pid in pids
        )

    def _tell_apart(self, pids: Iterable[int], now: float) -> tuple[dict[int, Person], list[int]]:
        """Those that are found on this host, and those that are not though they did not end under our eyes."""
        found: dict[int, Person] = {}
        unknown = []
        for pid in sorted(pids):
            person = self._identity.find(pid, now)
            if person is not None:
                found[pid] = person
            elif not self._identity.was_known(pid):
                unknown.append(pid)
        return found, unknown


def _use(card: Card, person: Person, seconds: float, hold: float) -> GpuUse:
    return GpuUse(card.uuid, person.group, person.process, seconds, hold)


def _of_unknown(card: Card, seconds: float, hold: float) -> list[GpuUse]:
    return [GpuUse(card.uuid, None, UNKNOWN, seconds, hold)] if seconds > 0 or hold > 0 else []
