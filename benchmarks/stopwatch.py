"""The exporter as the command line makes it, with a stopwatch on the sampler: prints when each tick began and ended.

Arguments are the exporter's own. Prints the port first, then per tick two boot times; ends when stdin does.
"""

from __future__ import annotations

import logging
import os
import sys
import threading

from exporter.arguments import parse
from exporter.cli import make_host, make_sampler
from exporter.config import load
from exporter.exposition.history import History
from exporter.exposition.page import Page
from exporter.exposition.render import Renderer
from exporter.exposition.server import Server, ServerOptions
from exporter.records import Snapshot


def main() -> None:
    """Serve until stdin ends."""
    logging.disable(logging.CRITICAL)
    settings = load(parse(sys.argv[1:]).flags, os.environ)
    host, history = make_host(settings), History()
    latest: list[Snapshot] = []

    def observe(snapshot: Snapshot) -> None:
        latest[:] = [snapshot]
        sys.stdout.write(f"{snapshot.monotonic_at:.6f} {host.clock():.6f}\n")
        sys.stdout.flush()

    server = Server(
        lambda: latest[0] if latest else None,
        Renderer().body,
        Page(history, settings.web_telemetry_path),
        host.clock,
        ServerOptions(listen=tuple(map(str, settings.web_listen_address))),
    )
    print(server.start()[0][1], flush=True)
    sampler = make_sampler(settings, host, None, (history.observe, observe))
    stop = threading.Event()
    thread = threading.Thread(target=sampler.run, args=(stop,))
    thread.start()
    sys.stdin.read()
    stop.set()
    thread.join()
    server.stop()


if __name__ == "__main__":
    main()
