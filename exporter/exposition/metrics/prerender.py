"""Render the body of a scrape ahead of the request, if it is requested several times per sample."""

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
    """Bodies of scrapes. A form requested at least twice between two samples is rendered ahead by a thread.

    While that thread renders, scrapes get the previous body, so they never wait for a sample that was just taken. A
    form that is requested less often is rendered by the request, from the newest snapshot.
    """

    def __init__(self, body: ScrapeBody) -> None:
        self._body = body
        self._bodies: dict[_Form, tuple[Snapshot, bytes]] = {}
        self._requested: Counter[_Form] = Counter()
        self._rendering = threading.Lock()
        self._jobs: queue.SimpleQueue[tuple[Snapshot, list[_Form]] | None] = queue.SimpleQueue()
        self._coming: Snapshot | None = None
        self._thread: threading.Thread | None = None

    def observe(self, snapshot: Snapshot) -> None:
        """Queue the new snapshot for the thread. Called by the sampler."""
        requested, self._requested = self._requested, Counter()
        hot = [form for form, count in requested.items() if count >= _HOT_SCRAPES]
        if not hot:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="render", daemon=True)
            self._thread.start()
        self._coming = snapshot
        self._jobs.put((snapshot, hot))

    def __call__(self, snapshot: Snapshot, *, openmetrics: bool, gzipped: bool) -> bytes:
        """Return the body of a snapshot, or of the previous one while that is being rendered."""
        form = _Form(openmetrics, gzipped)
        self._requested[form] += 1
        known = self._bodies.get(form)
        if known is not None:
            of, body = known
            if of is snapshot or (self._coming is snapshot and of.sequence == snapshot.sequence - 1):
                return body
        return self._render(snapshot, form)

    def stop(self) -> None:
        """Stop the thread."""
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
