"""A local server in place of a service that publishes carbon intensity or prices."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

from tests.support.patience import patience


class Asked(NamedTuple):
    """A request: path, query and headers, whose names are in lower case."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]


class FeedServer:
    """Answers each path with what it is given; the answers may be replaced while it runs.

    An answer is text or something that becomes JSON; with ``status`` all answers have that one, and ``headers``.
    """

    def __init__(self, answers: Mapping[str, object] | None = None) -> None:
        self.answers = dict(answers or {})
        self.status = 200
        self.headers: dict[str, str] = {}
        self.asked: list[Asked] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                headers = {name.lower(): value for name, value in self.headers.items()}
                server.asked.append(Asked(parts.path, dict(parse_qsl(parts.query)), headers))
                found = server.answers.get(parts.path)
                body = (found if isinstance(found, str) else json.dumps(found)).encode()
                self.send_response(404 if found is None else server.status)
                for name, value in server.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Requests are in ``asked``."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> FeedServer:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(patience())
