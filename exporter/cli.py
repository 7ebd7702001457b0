"""The composition root: settings → objects → run → exit status."""

from __future__ import annotations

import logging
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from . import __version__, doctor, logs
from .accounting.checkpoint import StateForeign, StateLocked, StateStore
from .arguments import Arguments, parse
from .budgets import command as budgets
from .config import ConfigError, Settings, load, reloaded
from .exposition.access import Access
from .exposition.history import History
from .exposition.page import Page
from .exposition.prepared import Prepared
from .exposition.render import Renderer
from .exposition.server import ListenError, Server, ServerOptions
from .exposition.web_file import WebConfigError
from .host import FdBudget, Host
from .kinds import Address
from .notify import Notifier
from .records import Namer, Source
from .sampler import Sampler, SamplerOptions
from .snapshot import Snapshot
from .sources.demo.source import DemoSource
from .sources.registry import build
from .workloads.directories.registry import NameOptions, directories
from .workloads.models.resolver import ModelOptions, Models
from .workloads.namer import WorkloadNamer

log = logging.getLogger(__name__)

STOP_SECONDS = 4.0
"""Stopping takes no longer, whatever hangs; the promise is 5 s, and Kubernetes kills after 30."""

_SAMPLER_ENDED = 0
_PIPE_BYTES = 64 * 1024

SWITCH_SECONDS = 0.0001
"""A tenth of the default: neither a scrape nor a tick waits long for the other's turn to end."""


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run one command. Returns the exit status: 0 fine, 2 bad usage or configuration, 1 anything else."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["budgets"]:
        return budgets.run(words[1:])
    try:
        arguments = parse(words)
        settings = load(arguments.flags, environ)
        serves = not (arguments.doctor or arguments.once)
        access = Access(settings.web_config_file) if settings.web_config_file and serves else None
    except SystemExit as leave:
        return int(leave.code or 0)
    except (ConfigError, WebConfigError) as error:
        sys.stderr.writelines(f"{problem}\n" for problem in error.problems)
        return 2
    if arguments.check:
        sys.stdout.write("OK\n")
        return 0
    logs.configure(settings.log_level, settings.log_format)
    try:
        return _run(arguments, settings, access, lambda: load(arguments.flags, environ))
    except (ListenError, StateForeign, StateLocked) as error:
        log.error("%s", error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at its end
    except KeyboardInterrupt:
        pass
    return 1


def _run(arguments: Arguments, settings: Settings, access: Access | None, reread: Callable[[], Settings]) -> int:
    host = make_host(settings)
    if arguments.doctor:
        every = build(
            host,
            dict.fromkeys(settings.enabled_sources, True),
            settings.estimate_watts_per_cpu,
            pod_resources=settings.path_pod_resources,
        )
        doctor.report(settings, every, host, sys.stdout, namer=make_namer(settings, host))
        return 0
    if arguments.once:
        return _once(settings, host)
    return _Service(settings, host, access, reread).run()


def make_host(settings: Settings) -> Host:
    """The machine, as far as the settings say where it is."""
    return Host(
        procfs=settings.path_procfs,
        sysfs=settings.path_sysfs,
        cgroupfs=settings.path_cgroupfs,
        fds=FdBudget.of_process(),
    )


def make_namer(settings: Settings, host: Host) -> WorkloadNamer:
    """Who names containers and recognises models on this machine."""
    names = NameOptions(
        settings.kubernetes_names,
        settings.kubernetes_node_name,
        settings.kubernetes_url,
        settings.kubernetes_credentials,
        settings.docker_socket,
        settings.podman_socket,
    )
    models = ModelOptions(
        rules=settings.models,
        keys=settings.models_keys,
        phase_keys=settings.models_phase_keys,
        ask_servers=settings.models_ask_servers,
    )
    return WorkloadNamer(directories(names, host), Models(host, models), settings.kubernetes_labels)


def make_sampler(
    settings: Settings,
    host: Host,
    store: StateStore | None = None,
    observers: Sequence[Callable[[Snapshot], None]] = (),
) -> Sampler:
    """The sampler of this machine, or of the simulated one."""
    sources: Sequence[Source]
    namer: Namer
    if settings.demo:
        demo = DemoSource(settings.sample_interval, settings.demo_seed)
        sources, namer = [demo], demo
    else:
        namer = make_namer(settings, host)
        sources = build(
            host,
            settings.enabled_sources,
            settings.estimate_watts_per_cpu,
            deadline_seconds=settings.source_timeout,
            pod_resources=settings.path_pod_resources,
        )
    options = sampler_options(settings)
    return Sampler(sources, namer, host, options, store=store, observers=observers, demo=settings.demo)


def sampler_options(settings: Settings) -> SamplerOptions:
    """The settings that the sampler takes, also anew while it runs."""
    return SamplerOptions(
        interval_seconds=settings.sample_interval,
        source_timeout_seconds=min(settings.source_timeout, settings.sample_interval),
        process_top=settings.process_top,
        container_max=settings.container_max,
        cpu_idle=settings.attribution_cpu_idle,
        linger_seconds=settings.workload_linger,
        idle_watts=settings.idle_watts,
        checkpoint_seconds=settings.state_interval,
    )


def _once(settings: Settings, host: Host) -> int:
    """Print one scrape: of two ticks, because use is the difference of two readings. Leaves the state file alone."""
    sampler = make_sampler(settings, host)
    try:
        sampler.tick()
        time.sleep(settings.sample_interval)
        snapshot = sampler.tick()
    finally:
        sampler.close()
    sys.stdout.buffer.write(Renderer().body(snapshot))
    sys.stdout.flush()
    return 0


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


def _pass(number: int, frame: object) -> None:
    """The number is in the pipe already."""


class _Service:
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

    def run(self) -> int:
        """Run to the end. Raises `ListenError`, `StateForeign`, `StateLocked` before anything was changed."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, _pass)
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
        """Called by the sampler's own thread at the end of each tick, because options may change only between two."""
        if self._sampler is None:
            return
        self._sampler.config_reload_ok = self._reload_ok and (self._access is None or self._access.ok)
        options, self._new_options = self._new_options, None
        if options is not None:
            self._sampler.reconfigure(options)


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
