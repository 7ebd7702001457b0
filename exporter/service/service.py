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
from ..config.settings import ConfigError, Settings, reloaded
from ..config.value_types import Address
from ..exposition.metrics.prerender import Prepared
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
from .assembly import make_host, make_sampler, sampler_options
from .systemd import Notifier

log = logging.getLogger(__name__)

STOP_SECONDS = 4.0
"""Stopping takes no longer, whatever hangs; the promise is 5 s, and Kubernetes kills after 30."""

_SAMPLER_ENDED = 0
_PIPE_BYTES = 64 * 1024

SWITCH_SECONDS = 0.0001
"""A tenth of the default: neither a scrape nor a tick waits long for the other's turn to end."""


def serve(settings: Settings, access: Access | None, reread: Callable[[], Settings]) -> int:
    """Serve until a signal arrives. Returns the exit status: 0 after SIGTERM or SIGINT, 1 if serving failed."""
    try:
        return Service(settings, make_host(settings), access, reread).run()
    except (ListenError, StateForeign, StateLocked) as error:
        log.error("%s", error)
        return 1


class _Latest:
    """The newest snapshot: written by the sampler's thread, read by the server's; one assignment needs no lock."""

    snapshot: Snapshot | None = None

    def observe(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot


class _Events:
    """Numbers of signals, and 0 when sampling ended; made and awaited by the main thread.

    Python runs handlers in the main thread only, but the kernel may hand a signal to another one, and then nothing
    wakes the main thread from a wait for a lock or queue. What the interpreter writes into a pipe does.
    """

    def __init__(self) -> None:
        self._reads, self._writes = os.pipe()
        os.set_blocking(self._writes, False)
        signal.set_wakeup_fd(self._writes, warn_on_full_buffer=False)

    def put(self, number: int) -> None:
        """Add one; from any thread."""
        os.write(self._writes, bytes([number]))

    def get(self) -> set[int]:
        """Wait for the next ones: all that came since the last call, so that none queues behind hundreds of another."""
        return set(os.read(self._reads, _PIPE_BYTES))


def _ignore(number: int, frame: object) -> None:
    """The wakeup pipe has the number already."""


class Service:
    """Serves until told to stop. Signals only leave their number: nothing runs inside a handler."""

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
        """Run to the end. Raises `ListenError`, `StateForeign`, `StateLocked` before anything was changed."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, _ignore)
        settings, latest, history, prepared = self._settings, _Latest(), History(), Prepared(Renderer().body)
        server = Server(
            lambda: latest.snapshot,
            prepared,
            Page(history, settings.web_telemetry_path),
            self._host.clock,
            ServerOptions(
                listen=tuple(map(str, settings.web_listen_address)),
                telemetry_path=settings.web_telemetry_path,
                max_requests=settings.web_max_requests,
                listen_health=tuple(map(str, settings.web_health_address)),
            ),
            self._access,
        )
        sys.setswitchinterval(SWITCH_SECONDS)
        bound = server.start()
        try:
            store = _open_store(settings.state_file)
            # Who renders ahead must know of a snapshot before those who scrape do; systemd is told last.
            told = Notifier(os.environ).observe
            observers = (prepared.observe, latest.observe, history.observe, self._reconfigure, told)
            sampler = make_sampler(settings, self._host, store, observers)
            self._announce(bound, server.health_addresses)
            return self._supervise(sampler, server)
        finally:
            server.stop()

    def _announce(self, bound: Sequence[tuple[str, int]], health: Sequence[tuple[str, int]]) -> None:
        scheme = "https" if self._access is not None and self._access.tls is not None else "http"
        for address in bound:
            log.info(
                "ai-energy-exporter %s listens on %s://%s%s (Python %s, pid %d%s)",
                __version__,
                scheme,
                Address(*address),
                self._settings.web_telemetry_path,
                platform.python_version(),
                os.getpid(),
                ", SIMULATED NODE" if self._settings.demo else "",
            )
        for address in health:
            log.info("health is served on http://%s", Address(*address))
        if self._access is not None:
            self._access.announce()

    def _supervise(self, sampler: Sampler, server: Server) -> int:
        self._sampler = sampler
        thread = threading.Thread(target=self._sample, args=(sampler,), name="sampler", daemon=True)
        thread.start()
        while (events := self._events.get()) == {signal.SIGHUP}:
            self._reload()
            self._retry = True
        watchdog = threading.Timer(STOP_SECONDS, _give_up)
        watchdog.daemon = True
        watchdog.start()
        for number in events - {_SAMPLER_ENDED, signal.SIGHUP}:
            log.info("stopping: %s", signal.Signals(number).name)
        self._stop.set()
        server.stop()
        thread.join()
        sampler.close()
        watchdog.cancel()
        return 1 if _SAMPLER_ENDED in events else 0

    def _sample(self, sampler: Sampler) -> None:
        try:
            sampler.run(self._stop)
        except Exception:
            log.exception("sampling failed; a scrape would be stale from now on, so the exporter stops")
        finally:
            self._events.put(_SAMPLER_ENDED)

    def _reload(self) -> None:
        """Take over what may change while running; anything wrong leaves all as it was (fault 58)."""
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

    def _reconfigure(self, _: Snapshot) -> None:
        """Do what SIGHUP asked for; runs in the sampler's own thread between two ticks, where options may change."""
        if self._sampler is None:
            return
        self._sampler.config_reload_ok = self._reload_ok and (self._access is None or self._access.ok)
        options, self._new_options = self._new_options, None
        if options is not None:
            self._sampler.reconfigure(options)
        if self._retry:
            self._retry = False
            self._sampler.retry()


def _open_store(path: str) -> StateStore | None:
    """Lock the state file; without a place to write, serving goes on without it (fault 55)."""
    if not path:
        return None
    try:
        return StateStore(path)
    except OSError as error:
        log.warning("no checkpoints: %s: %s; counters start at 0 after a restart", path, error.strerror)
        return None


def _give_up() -> None:
    log.error("stopping took longer than %.1f s: something hangs, ending all the same", STOP_SECONDS)
    os._exit(1)
