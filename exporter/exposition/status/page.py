"""The status page: one self-contained HTML page that refreshes itself, and is complete without JavaScript."""

from __future__ import annotations

from ... import __version__
from ...snapshot import Snapshot
from .accounts import accounts, no_model
from .assets import SCRIPT, STYLE, content_security_policy
from .hardware import devices, gpus, sources
from .history import History
from .markup import name, text
from .overview import clock, overview, unmetered
from .words import words

_BOLT = (
    '<svg viewBox="0 0 24 24" aria-hidden="true"><rect width="24" height="24" rx="6" fill="#12936a"/>'
    '<path d="M13.2 3.5 6.5 13.4h4.6l-.9 7.1 7.3-10.4h-4.9z" fill="#fff"/></svg>'
)


class Page:
    """Renders the page of the node called ``node`` once per snapshot. For one thread only.

    ``reference_path`` is where what each metric means can be read.
    """

    def __init__(
        self, history: History, node: str, telemetry_path: str = "/metrics", reference_path: str = "/-/reference"
    ) -> None:
        self.headers = (
            (b"Content-Security-Policy", content_security_policy()),
            (b"Referrer-Policy", b"no-referrer"),
            (b"X-Frame-Options", b"DENY"),
        )
        self._history = history
        self._node = node
        self._path = telemetry_path
        self._reference_path = reference_path
        self._shown: tuple[Snapshot | None, bytes] | None = None

    def __call__(self, snapshot: Snapshot | None) -> bytes:
        """Return the page for a snapshot; None is before the first sample."""
        if self._shown is None or self._shown[0] is not snapshot:
            self._shown = (snapshot, self._render(snapshot).encode())
        return self._shown[1]

    def _render(self, snapshot: Snapshot | None) -> str:
        every = max(2.0, snapshot.interval_seconds) if snapshot else 2.0
        content = _waiting() if snapshot is None else self._content(snapshot)
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            f"<title>{text(self._node)} – AI Energy Exporter</title>"
            f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{STYLE}</style></head>'
            f'<body class="first" data-every="{every:g}"><header>{_BOLT}<h1>{name(self._node)}</h1>'
            f'<span class="version">AI Energy Exporter {text(__version__)}</span>'
            f'<nav aria-label="Exporter"><button type="button" hidden>Pause</button>'
            f'<a href="{text(self._path)}">Metrics</a><a href="{text(self._reference_path)}">What they mean</a>'
            '<a href="/-/healthy">Health</a></nav></header>'
            f"<main>{content}</main><script>{SCRIPT}</script></body></html>"
        )

    def _content(self, snapshot: Snapshot) -> str:
        points = self._history.points()
        demo = (
            '<p class="banner" role="note"><b>Demo.</b> Everything on this page is simulated: no meter of this machine '
            "is read.</p>"
        )
        content = "".join(
            [
                demo if snapshot.demo else "",
                overview(snapshot, points) if snapshot.energy.nodes else unmetered(snapshot),
                accounts(snapshot, points),
                gpus(snapshot, self._history.holders()),
                devices(snapshot),
                sources(snapshot, no_model(snapshot)),
            ]
        )
        return content + words(content) + _footer(snapshot)


def _waiting() -> str:
    return (
        '<section class="card empty panel"><h2>Waiting for the first sample</h2>'
        "<p>Energy is the difference between two readings; the first sample takes a moment.</p></section>"
    )


def _footer(snapshot: Snapshot) -> str:
    exporter = snapshot.exporter
    cost = 1000 * exporter.sample_seconds / exporter.samples if exporter.samples else 0.0
    return (
        f'<footer><span class="live">Sampled at {clock(snapshot.taken_at)}.'
        "<noscript> Without JavaScript this page does not update itself: reload it.</noscript></span>"
        '<span class="stale">The exporter does not respond; this page shows its last state.</span> A sample every '
        f"{snapshot.interval_seconds:g} s: {exporter.samples:,} so far, {cost:.1f} ms each, "
        f"{exporter.overruns:,} skipped.</footer>"
    )
