"""The exporter as the command line makes it, with a stopwatch on the sampler: prints when each tick began and ended.

Arguments are the exporter's own. Prints the port first, then per tick two boot times; ends when stdin does.
"""

from __future__ import annotations

import logging
import os
import sys
import threading

from exporter.config.command_line import parse
from exporter.config.loading import load
from exporter.exposition.metrics.collector import exporter_registry
from exporter.exposition.metrics.prerender import Prepared
from exporter.exposition.metrics.render import Renderer
from exporter.exposition.status.history import History
from exporter.exposition.status.page import Page
from exporter.exposition.web.server import Server, ServerOptions
from exporter.service.assembly import make_host, make_sampler
from exporter.service.endpoints import Endpoints
from exporter.service.service import SWITCH_SECONDS
from exporter.snapshot import Snapshot


def main() -> None:
    """Serve until stdin ends."""
    logging.disable(logging.CRITICAL)
    settings = load(parse(sys.argv[1:]).flags, os.environ)
    host, history, prepared = make_host(settings), History(), Prepared(Renderer(exporter_registry()).body)
    latest: list[Snapshot] = []

    def observe(snapshot: Snapshot) -> None:
        latest[:] = [snapshot]
        sys.stdout.write(f"{snapshot.monotonic_at:.6f} {host.clock():.6f}\n")
        sys.stdout.flush()

    page = Page(history, "node", settings.web_telemetry_path)
    endpoints = Endpoints(lambda: latest[0] if latest else None, prepared, page, host.clock)
    server = Server(
        endpoints.pages(settings.web_telemetry_path),
        endpoints.health(),
        ServerOptions(listen=settings.web_listen_address),
    )
    sys.setswitchinterval(SWITCH_SECONDS)
    print(server.start()[0][1], flush=True)
    sampler = make_sampler(settings, host, None, (prepared.observe, observe, history.observe))
    stop = threading.Event()
    thread = threading.Thread(target=sampler.run, args=(stop,))
    thread.start()
    sys.stdin.read()
    stop.set()
    thread.join()
    server.stop()


if __name__ == "__main__":
    main()
