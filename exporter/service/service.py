"""The daemon: sampler and HTTP server run until a signal ends them."""

from __future__ import annotations

import logging
import os
import platform
import signal
import sys
import threading
from collections.abc import Callable, Sequence

from .. import __version__
from ..config.loading import ConfigError, reloaded
from ..config.settings import Settings
from ..config.value_types import Address
from ..exposition.metrics.collector import Instruments, exporter_registry
from ..exposition.metrics.prerender import Prepared, ScrapeBody
from ..exposition.metrics.render import Renderer
from ..exposition.status.history import History
from ..exposition.status.page import Page
from ..exposition.web.access import Access
from ..exposition.web.server import ListenError, Server, ServerOptions
from ..host import Host
from ..sampling.sampler import Sampler, SamplerOptions
from ..sampling.state_file import StateForeign, StateLocked, StateStore
from ..snapshot import Snapshot
from . import logs
from .assembly import make_host, make_node_name, make_recorder, make_sampler, sampler_options
from .endpoints import REFERENCE_PATH, Endpoints
from .scrapers import ScrapeLog
from .systemd import Notifier

log = logging.getLogger(__name__)

STOP_SECONDS = 4.0
"""Longest time to stop, whatever hangs; the documented limit is 5 s, and Kubernetes kills after 30 s."""

_SAMPLER_ENDED = 0
_PIPE_BYTES = 64 * 1024

SWITCH_SECONDS = 0.0001
"""The interpreter's thread switch interval, a tenth of the default: scrapes and ticks wait less for each other."""


def serve(settings: Settings, access: Access | None, reread: Callable[[], Settings]) -> int:
    """Serve until a signal arrives. Returns the exit status: 0 after SIGTERM or SIGINT, 1 if serving failed."""
    try:
        return Service(settings, make_host(settings), access, reread).run()
    except (ListenError, StateForeign, StateLocked) as error:
        log.error("%s", error)
        return 1


class _Latest:
    """The newest snapshot: the sampler's thread writes it, the server's reads it; one assignment needs no lock."""

    snapshot: Snapshot | None = None

    def observe(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot


class _Events:
    """Numbers of signals, and 0 when sampling ended; created and read by the main thread.

    Python runs handlers in the main thread only, but the kernel may deliver a signal to another one, and then nothing
    wakes the main thread from a wait for a lock or queue. The interpreter's write to a pipe does.
    """

    def __init__(self) -> None:
        self._reads, self._writes = os.pipe()
        os.set_blocking(self._writes, False)
        signal.set_wakeup_fd(self._writes, warn_on_full_buffer=False)

    def put(self, number: int) -> None:
        """Add a number, from any thread."""
        os.write(self._writes, bytes([number]))

    def get(self) -> set[int]:
        """Wait for numbers: all since the last call, so that no signal queues behind hundreds of another."""
        return set(os.read(self._reads, _PIPE_BYTES))


def _ignore(number: int, frame: object) -> None:
    """The wakeup pipe has the number already."""


class Service:
    """Serves until a signal stops it. Handlers only record the signal's number."""

    def __init__(self, settings: Settings, host: Host, access: Access | None, reread: Callable[[], Settings]) -> None:
        self._settings = settings
        self._host = host
        self._access = access
        self._reread = reread
        self._events = _Events()
        self._stop = threading.Event()
        self._sampler: Sampler | None = None
        self._new_options: SamplerOptions | None = None
        self._reload_ok = True
        self._retry = False

    def run(self) -> int:
        """Run until stopped. Raises `ListenError`, `StateForeign`, `StateLocked` before anything was changed."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, _ignore)
        settings, latest, history, instruments = self._settings, _Latest(), History(), Instruments()
        instruments.config_last_reload_successful.set_function(self._config_ok)
        prepared = Prepared(Renderer(exporter_registry(instruments)).body)
        node = make_node_name(settings, os.environ)
        page = Page(history, node, settings.web_telemetry_path, REFERENCE_PATH)
        scrapes = ScrapeLog()
        body = _timed(prepared, instruments)
        endpoints = Endpoints(
            lambda: latest.snapshot,
            body,
            page,
            self._host.clock,
            scrapes,
            shares_factors=not settings.impact_from,
        )
        server = Server(
            endpoints.pages(settings.web_telemetry_path),
            endpoints.health(),
            ServerOptions(
                listen=settings.web_listen_address,
                max_requests=settings.web_max_requests,
                listen_health=settings.web_health_address,
            ),
            self._access,
            lambda status: instruments.http_requests.labels(status).inc(),
        )
        sys.setswitchinterval(SWITCH_SECONDS)
        bound = server.start()
        recorder = make_recorder(
            settings, node, lambda: instruments.history_last_write_timestamp_seconds.set(self._host.wall())
        )
        if recorder is not None:
            instruments.history_last_write_timestamp_seconds.set(0)
        try:
            store = _open_store(
                settings.state_file,
                lambda: instruments.state_last_write_timestamp_seconds.set(self._host.wall()),
            )
            # The prerenderer observes a snapshot before the server does; systemd is notified last.
            notify = Notifier(os.environ).observe
            observers = [
                instruments.observe,
                prepared.observe,
                latest.observe,
                history.observe,
                *(() if recorder is None else (recorder.observe,)),
                self._reconfigure,
                notify,
            ]
            sampler = make_sampler(settings, self._host, store, observers, scrapes.received_by_all)
            self._announce(bound, server.health_addresses)
            return self._supervise(sampler, server)
        finally:
            server.stop()
            prepared.stop()
            if recorder is not None:
                recorder.close()

    def _announce(self, bound: Sequence[Address], health: Sequence[Address]) -> None:
        scheme = "https" if self._access is not None and self._access.tls is not None else "http"
        for address in bound:
            log.info(
                "ai-energy-exporter %s listens on %s://%s%s (Python %s, pid %d%s)",
                __version__,
                scheme,
                address,
                self._settings.web_telemetry_path,
                platform.python_version(),
                os.getpid(),
                ", SIMULATED NODE" if self._settings.demo else "",
            )
        for address in health:
            log.info("health is served on http://%s", address)
        if self._access is not None:
            self._access.log_warnings()

    def _supervise(self, sampler: Sampler, server: Server) -> int:
        self._sampler = sampler
        thread = threading.Thread(target=self._sample, args=(sampler,), name="sampler", daemon=True)
        thread.start()
        while (events := self._events.get()) == {signal.SIGHUP}:
            self._reload()
            self._retry = True
        watchdog = threading.Timer(STOP_SECONDS, _exit_now)
        watchdog.daemon = True
        watchdog.start()
        for number in events - {_SAMPLER_ENDED, signal.SIGHUP}:
            log.info("stopping: %s", signal.Signals(number).name)
        self._stop.set()
        thread.join()
        sampler.close()  # before anything else that may take long: it writes the counters
        server.stop()
        watchdog.cancel()
        return 1 if _SAMPLER_ENDED in events else 0

    def _sample(self, sampler: Sampler) -> None:
        try:
            sampler.run(self._stop)
        except Exception:
            log.exception("sampling failed, the exporter stops: every later scrape would be stale")
        finally:
            self._events.put(_SAMPLER_ENDED)

    def _reload(self) -> None:
        """Apply the settings that may change while running; an error leaves all of them unchanged."""
        try:
            new = self._reread()
        except ConfigError as error:
            for problem in error.problems:
                log.error("settings not reloaded: %s", problem)
            self._reload_ok = False
            return
        self._settings, needs_restart = reloaded(self._settings, new)
        logs.configure(self._settings.log_level, self._settings.log_format)
        self._new_options = sampler_options(self._settings)
        self._reload_ok = True
        for name in needs_restart:
            log.warning("%s changed: needs a restart to take effect", name)
        log.info("settings reloaded")

    def _config_ok(self) -> float:
        return float(self._reload_ok and (self._access is None or self._access.ok))

    def _reconfigure(self, _: Snapshot) -> None:
        """Apply what SIGHUP requested between two ticks: observers run in the sampler's thread at the end of each."""
        if self._sampler is None:
            return
        options, self._new_options = self._new_options, None
        if options is not None:
            self._sampler.reconfigure(options)
        if self._retry:
            self._retry = False
            self._sampler.retry()


def _timed(body: ScrapeBody, instruments: Instruments) -> ScrapeBody:
    """The same body; its duration is observed."""

    def timed(snapshot: Snapshot, *, openmetrics: bool, gzipped: bool) -> bytes:
        with instruments.scrape_duration_seconds.time():
            return body(snapshot, openmetrics=openmetrics, gzipped=gzipped)

    return timed


def _open_store(path: str, on_write: Callable[[], None]) -> StateStore | None:
    """Lock the state file; if it cannot be created, the exporter serves without it."""
    if not path:
        return None
    try:
        return StateStore(path, on_write)
    except OSError as error:
        log.warning("no checkpoints: %s: %s; counters start at 0 after a restart", path, error.strerror)
        return None


def _exit_now() -> None:
    log.error("stopping took longer than %.1f s: a thread hangs, exiting without it", STOP_SECONDS)
    os._exit(1)
