"""Have the next body ready before it is asked for, where scrapers ask several times a sample."""

from __future__ import annotations

import queue
import threading
from collections import Counter
from typing import NamedTuple, Protocol

from ...snapshot import Snapshot

_HOT_SCRAPES = 2


class ScrapeBody(Protocol):
    """Renders a scrape's body, as `exporter.exposition.metrics.render.Renderer.body` does."""

    def __call__(self, snapshot: Snapshot, *, openmetrics: bool, gzipped: bool) -> bytes:
        """Return the body."""


class _Form(NamedTuple):
    openmetrics: bool
    gzipped: bool


class Prepared:
    """Bodies of scrapes. A form asked for at least twice between two samples is rendered by a thread of its own.

    While that thread works, scrapers get the body before: they are never kept waiting for a sample that was
    taken a moment ago. Who asks seldom gets the newest, rendered there and then.
    """

    def __init__(self, body: ScrapeBody) -> None:
        self._body = body
        self._bodies: dict[_Form, tuple[Snapshot, bytes]] = {}
        self._asked: Counter[_Form] = Counter()
        self._rendering = threading.Lock()
        self._jobs: queue.SimpleQueue[tuple[Snapshot, list[_Form]] | None] = queue.SimpleQueue()
        self._coming: Snapshot | None = None
        self._thread: threading.Thread | None = None

    def observe(self, snapshot: Snapshot) -> None:
        """A new snapshot is out. Called by the sampler; only passes it on."""
        asked, self._asked = self._asked, Counter()
        hot = [form for form, count in asked.items() if count >= _HOT_SCRAPES]
        if not hot:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="render", daemon=True)
            self._thread.start()
        self._coming = snapshot
        self._jobs.put((snapshot, hot))

    def __call__(self, snapshot: Snapshot, *, openmetrics: bool, gzipped: bool) -> bytes:
        """The body of a snapshot, or, while that is being rendered, of the one before it."""
        form = _Form(openmetrics, gzipped)
        self._asked[form] += 1
        known = self._bodies.get(form)
        if known is not None:
            of, body = known
            if of is snapshot or (self._coming is snapshot and of.sequence == snapshot.sequence - 1):
                return body
        return self._render(snapshot, form)

    def stop(self) -> None:
        """Let the thread end."""
        self._jobs.put(None)

    def _render(self, snapshot: Snapshot, form: _Form) -> bytes:
        with self._rendering:
            body = self._body(snapshot, openmetrics=form.openmetrics, gzipped=form.gzipped)
        self._bodies[form] = (snapshot, body)
        return body

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            snapshot, forms = job
            for form in forms:
                self._render(snapshot, form)
            self._bodies = {form: known for form, known in self._bodies.items() if known[0] is snapshot}
