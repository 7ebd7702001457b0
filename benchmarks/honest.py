"""One honest client: scrapes with a login on a steady schedule until stdin ends, and prints how each scrape went.

``python -m benchmarks.honest PORT kept|new [CA]``: on one connection that is kept, as Prometheus does, or on a new one
each time. A line has the monotonic time it was due, seconds from then to its last byte, ``ok`` or what went wrong, and
of the page the Unix time of the sample, the samples taken and the samples missed.
"""

from __future__ import annotations

import gzip
import http.client
import re
import ssl
import sys
import threading
import time

from tests.support.served import PASSWORD, basic

PERIOD = 0.25
_HEADERS = {"Authorization": basic("prometheus", PASSWORD), "Accept-Encoding": "gzip"}
_FIELDS = ("energy_sample_timestamp_seconds", "energy_samples_total", "energy_sample_overruns_total")
_PATTERNS = [re.compile(rf"^{name} (\S+)$".encode(), re.MULTILINE) for name in _FIELDS]


def main(port: int, *, kept: bool, ca: str) -> None:
    """Scrape until stdin ends."""
    stopping = threading.Event()
    threading.Thread(target=_wait_for_the_end, args=(stopping,), daemon=True).start()
    tls = ssl.create_default_context(cafile=ca) if ca else None
    client: http.client.HTTPConnection | None = None
    due = time.monotonic()
    while not stopping.wait(max(0.0, due - time.monotonic())):
        fields = ["-"] * len(_FIELDS)
        try:
            fresh = client is None
            client = client or _client(port, tls)
            try:
                page = _scrape(client)
            except (http.client.RemoteDisconnected, ConnectionError, ssl.SSLEOFError):
                if fresh:
                    raise
                client.close()  # as every HTTP client does that finds its kept connection closed
                client = _client(port, tls)
                page = _scrape(client)
            took, outcome = time.monotonic() - due, "ok"
            fields = [match[1].decode() for pattern in _PATTERNS if (match := pattern.search(page))]
        except (OSError, http.client.HTTPException, RuntimeError) as error:
            took, outcome = time.monotonic() - due, f"{type(error).__name__}:{error}".replace(" ", "_")
        if client is not None and (outcome != "ok" or not kept):
            client.close()
            client = None
        print(f"{due:.3f} {took:.6f} {outcome} {' '.join(fields)}", flush=True)
        due = max(due + PERIOD, time.monotonic())


def _wait_for_the_end(stopping: threading.Event) -> None:
    sys.stdin.read()
    stopping.set()


def _client(port: int, tls: ssl.SSLContext | None) -> http.client.HTTPConnection:
    if tls is None:
        return http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    return http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=tls)


def _scrape(client: http.client.HTTPConnection) -> bytes:
    client.request("GET", "/metrics", headers=_HEADERS)
    answer = client.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"status {answer.status}")
    return gzip.decompress(body)


if __name__ == "__main__":
    main(int(sys.argv[1]), kept=sys.argv[2] == "kept", ca="".join(sys.argv[3:]))
