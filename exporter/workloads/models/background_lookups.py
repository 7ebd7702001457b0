"""Asks what takes time — a server, a file that may lie on a network — from a thread of its own."""

from __future__ import annotations

import contextlib
import heapq
import logging
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from ...host import Host
from ...records import GroupKey, ProcessKey
from .evidence import Question
from .files import configured_name, ollama_name, triton_name
from .proc import process_stat
from .process_root import Inside
from .served import served_name

_log = logging.getLogger(__name__)

_MAX_ANSWERS = 4096
_MAX_WAITING = 256
_LONGEST_PAUSE_SECONDS = 60.0

PAUSE_SECONDS = 5.0
"""Before a server is asked again; doubled each time, up to a minute."""

PATIENCE_SECONDS = 1800.0
"""How long a server is asked again: loading weights takes minutes."""


@dataclass(order=True)
class _Errand:
    due: float
    order: int
    key: ProcessKey = field(compare=False)
    question: Question = field(compare=False)
    pause: float = field(compare=False)
    give_up: float = field(compare=False)


class Inquiries:
    """Questions about processes, asked in the background, and their answers.

    The thread starts with the first question and is a daemon: if a file hangs, no further question is answered, and
    nothing else notices. Questions beyond `_MAX_WAITING` are not asked.
    """

    def __init__(
        self,
        host: Host,
        ask: Callable[[Host, int, Question], str] | None = None,
        pause_seconds: float = PAUSE_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._host = host
        self._ask = ask or answer
        self._pause_seconds = pause_seconds
        self._patience_seconds = patience_seconds
        self._lock = threading.Condition()
        self._answers: OrderedDict[tuple[ProcessKey, Question], str] = OrderedDict()
        self._errands: list[_Errand] = []
        self._asked: set[tuple[ProcessKey, Question]] = set()
        self._curious: defaultdict[ProcessKey, set[GroupKey]] = defaultdict(set)
        self._news: set[GroupKey] = set()
        self._order = count()
        self._thread: threading.Thread | None = None
        self._closed = False

    def name(self, key: ProcessKey, question: Question, group: GroupKey | None) -> str:
        """The answer if there is one, else "", and ``group`` will be in `news` when it comes. Never waits."""
        about = (key, question)
        with self._lock:
            known = self._answers.get(about)
            if known is not None:
                self._answers.move_to_end(about)
                return known
            if self._closed or (about not in self._asked and len(self._asked) >= _MAX_WAITING):
                return ""
            if group is not None:
                self._curious[key].add(group)
            if about not in self._asked:
                self._asked.add(about)
                now = self._host.clock()
                give_up = now + (self._patience_seconds if question.kind == "server" else 0.0)
                errand = _Errand(now, next(self._order), key, question, self._pause_seconds, give_up)
                heapq.heappush(self._errands, errand)
                self._start()
                self._lock.notify()
        return ""

    def news(self) -> set[GroupKey]:
        """Groups that asked something which has been answered since the last call."""
        with self._lock:
            news, self._news = self._news, set()
            return news

    def close(self) -> None:
        """End the thread; one that hangs is left behind."""
        with self._lock:
            self._closed = True
            self._lock.notify()
        if self._thread is not None:
            self._thread.join(0.5)

    def _start(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="model-names", daemon=True)
            with contextlib.suppress(RuntimeError):  # no more threads are allowed: tried again with the next question
                thread.start()
                self._thread = thread

    def _run(self) -> None:
        while (errand := self._next()) is not None:
            alive = process_stat(self._host, errand.key.pid)
            gone = alive is None or alive.key != errand.key
            name = "" if gone else self._guarded(errand)
            with self._lock:
                now = self._host.clock()
                if not name and not gone and now < errand.give_up:
                    errand.due = now + errand.pause
                    errand.pause = min(2 * errand.pause, _LONGEST_PAUSE_SECONDS)
                    heapq.heappush(self._errands, errand)
                else:
                    self._settle(errand, name)

    def _next(self) -> _Errand | None:
        with self._lock:
            while not self._closed:
                wait = self._errands[0].due - self._host.clock() if self._errands else None
                if wait is not None and wait <= 0:
                    return heapq.heappop(self._errands)
                self._lock.wait(wait)
        return None

    def _guarded(self, errand: _Errand) -> str:
        try:
            return self._ask(self._host, errand.key.pid, errand.question)
        except Exception as error:  # noqa: BLE001 - a stranger's file must not end the thread
            _log.debug("asking for the model of pid %d failed: %s", errand.key.pid, type(error).__name__)
            return ""

    def _settle(self, errand: _Errand, name: str) -> None:
        about = (errand.key, errand.question)
        self._asked.discard(about)
        self._answers[about] = name
        while len(self._answers) > _MAX_ANSWERS:
            self._answers.popitem(last=False)
        groups = self._curious.pop(errand.key, set())
        if name:
            self._news |= groups
        if any(key == errand.key for key, _ in self._asked):
            self._curious[errand.key] |= groups


def answer(host: Host, pid: int, question: Question) -> str:
    """Ask; "" if nobody knows."""
    if question.kind == "server":
        return served_name(host, pid, int(question.value))
    files = Inside(host.procfs, pid)
    if question.kind == "ollama":
        return ollama_name(files, question.value)
    if question.kind == "triton":
        return triton_name(files, question.value)
    return configured_name(files, question.value, question.keys)
