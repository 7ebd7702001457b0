"""Token and request counters of the simulated node's model servers, as published by vLLM, SGLang and TGI.

``python -m exporter.sources.demo.servers [HOST:PORT]`` serves them at ``/metrics``, so that joules per token can be
shown without a model: tokens follow the same loads over time as the joules of ``--demo``. Each series has the
``namespace`` and ``pod`` that Prometheus' service discovery would add.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock

from .model_servers import Served, Server, model_servers

DEFAULT_ADDRESS = "127.0.0.1:9500"
_STEP_SECONDS = 1.0
_MOST_STEPS = 3600


def _vllm(server: Server, served: Served) -> Iterator[str]:
    labels = f'model_name="{server.model_name}",engine="0",{server.labels}'
    yield f"vllm:generation_tokens_total{{{labels}}} {served.tokens:.0f}"
    yield f"vllm:prompt_tokens_total{{{labels}}} {served.prompt_tokens:.0f}"
    yield f'vllm:request_success_total{{finished_reason="stop",{labels}}} {served.requests:.0f}'
    yield f"vllm:num_requests_running{{{labels}}} {served.running:.0f}"
    yield f"vllm:num_requests_waiting{{{labels}}} 0"


def _sglang(server: Server, served: Served) -> Iterator[str]:
    # The scheduler of every tensor-parallel rank publishes the same numbers: their sum counts tokens twice.
    for rank in range(len(server.cards)):
        labels = f'model_name="{server.model_name}",engine_type="unified",tp_rank="{rank}",{server.labels}'
        yield f"sglang:generation_tokens_total{{{labels}}} {served.tokens:.0f}"
        yield f"sglang:prompt_tokens_total{{{labels}}} {served.prompt_tokens:.0f}"
        yield f"sglang:num_requests_total{{{labels}}} {served.requests:.0f}"
        yield f"sglang:num_running_reqs{{{labels}}} {served.running:.0f}"


def _tgi(server: Server, served: Served) -> Iterator[str]:
    # TGI has no model label: the pod is the only link between tokens and model.
    yield f"tgi_request_generated_tokens_sum{{{server.labels}}} {served.tokens:.0f}"
    yield f"tgi_request_input_length_sum{{{server.labels}}} {served.prompt_tokens:.0f}"
    yield f"tgi_request_count{{{server.labels}}} {served.requests:.0f}"
    yield f'tgi_request_success{{method="generate",{server.labels}}} {served.requests:.0f}'
    yield f"tgi_batch_current_size{{{server.labels}}} {served.running:.0f}"


_FORMATS: dict[str, Callable[[Server, Served], Iterator[str]]] = {"vllm": _vllm, "sglang": _sglang, "tgi": _tgi}


def lines(server: Server) -> Iterator[str]:
    """Metrics of a server in text format."""
    return _FORMATS[server.engine](server, server.served())


class Servers:
    """All model servers of the node. ``clock`` is in seconds; the simulation starts at its present value."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._steps = 0
        self._lock = Lock()
        self.servers = [server for _, server in model_servers()]

    def metrics(self) -> str:
        """The metrics of all servers up to now, in text format."""
        with self._lock:
            due = int((self._clock() - self._began) / _STEP_SECONDS)
            for step in range(max(self._steps, due - _MOST_STEPS), due):
                for server in self.servers:
                    server.step(step * _STEP_SECONDS, _STEP_SECONDS)
            self._steps = due
            return "".join(f"{line}\n" for server in self.servers for line in lines(server))


def serve(address: str) -> ThreadingHTTPServer:
    """A server bound to ``HOST:PORT``; raises OSError if the address is in use."""
    servers = Servers()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = servers.metrics().encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name http.server gives it
            """Do not log scrapes."""

    host, _, port = address.rpartition(":")
    return ThreadingHTTPServer((host, int(port)), Handler)


if __name__ == "__main__":
    serve(sys.argv[1] if len(sys.argv) > 1 else DEFAULT_ADDRESS).serve_forever()
