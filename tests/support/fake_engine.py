"""The container part of the Docker and Podman APIs on a Unix socket, with responses modelled on Podman 4.3."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any

PODMAN = "/v4.0.0/libpod"


class FakeEngine:
    """The test changes its containers. If ``status`` is set, every request gets that status."""

    def __init__(self, path: Path, *, podman: bool = False) -> None:
        self.path = str(path)
        self.status: int | None = None
        self.requests: list[tuple[str, str]] = []
        self._podman = podman
        self._containers: dict[str, dict[str, Any]] = {}
        self._pods: dict[str, dict[str, Any]] = {}
        self._subscribers: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._server = _Server(self.path, _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    # --- called by the test ---------------------------------------------------------------------------

    def run(self, container_id: str, name: str, *, pod: str = "", silent: bool = False, **more: Any) -> None:
        """Create and start a container; ``silent`` sends no events."""
        config = {"Env": ["PATH=/bin"], "Labels": None, "Image": "demo/llm:v1", **more}
        inspected: dict[str, Any] = {"Id": container_id, "Path": "python", "Args": ["-m", "vllm"], "Config": config}
        if self._podman:
            inspected |= {"Name": name, "Image": "c4b0" * 16, "ImageName": f"localhost/{config['Image']}", "Pod": pod}
        else:
            inspected |= {"Name": f"/{name}", "Image": "sha256:" + "c4b0" * 16}
        self._containers[container_id] = inspected
        if not silent:
            self._emit("create", container_id)
            self._emit("start", container_id)

    def rename(self, container_id: str, name: str) -> None:
        """Rename a container."""
        self._containers[container_id]["Name"] = name if self._podman else f"/{name}"
        self._emit("rename", container_id)

    def remove(self, container_id: str) -> None:
        """Remove a container."""
        del self._containers[container_id]
        self._emit("remove" if self._podman else "destroy", container_id)

    def make_pod(self, pod_id: str, name: str) -> None:
        """Create a Podman pod."""
        self._pods[pod_id] = {"Id": pod_id, "Name": name, "Labels": {"team": "nlp"}, "Containers": []}

    def send(self, line: bytes) -> None:
        """Send one line to all event streams."""
        with self._lock:
            for subscriber in self._subscribers:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it just disconnected
                    subscriber.sendall(f"{len(line):x}\r\n".encode() + line + b"\r\n")

    def disconnect(self) -> None:
        """Close all event streams."""
        with self._lock:
            for subscriber in self._subscribers:
                subscriber.shutdown(socket.SHUT_RDWR)

    @property
    def subscribers(self) -> int:
        """Number of open event streams."""
        with self._lock:
            return len(self._subscribers)

    def close(self) -> None:
        """Stop; the socket file stays, as it does when an engine crashes."""
        self._over.set()
        self._server.shutdown()
        with contextlib.suppress(OSError):
            self.disconnect()
        self._server.server_close()

    def __enter__(self) -> FakeEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _emit(self, action: str, container_id: str) -> None:
        event = {"status": action, "id": container_id, "Type": "container", "Action": action}
        self.send(json.dumps(event | {"Actor": {"ID": container_id, "Attributes": {}}}).encode() + b"\n")

    # --- responses ------------------------------------------------------------------------------------

    def respond(self, handler: _Handler) -> None:
        """Respond to one request."""
        path = handler.path.partition("?")[0]
        self.requests.append((handler.command, path))
        prefix = PODMAN if self._podman else ""
        one = re.fullmatch(rf"{prefix}/containers/(\w+)/json", path)
        if self.status is not None:
            handler.send_json(self.status, {"message": "no"})
        elif path == f"{prefix}/events":
            self._stream(handler)
        elif path == f"{prefix}/containers/json":
            handler.send_json(
                200, [{"Id": key, "Names": [container["Name"]]} for key, container in self._containers.items()]
            )
        elif path == f"{PODMAN}/pods/json" and self._podman:
            handler.send_json(200, list(self._pods.values()) or None)
        elif one and one[1] in self._containers:
            handler.send_json(200, self._containers[one[1]])
        else:
            handler.send_json(404, {"message": "no such container"})

    def _stream(self, handler: _Handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        with self._lock:
            self._subscribers.add(handler.connection)
        try:
            while not self._over.is_set() and handler.connection.recv(1):
                pass
        except OSError:
            pass
        finally:
            handler.close_connection = True
            with self._lock:
                self._subscribers.discard(handler.connection)


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True
    request_queue_size = 32

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The tests disconnect clients on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def send_json(self, status: int, body: Any) -> None:
        """Send a complete response."""
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
        """Log nothing."""


def _handler(engine: FakeEngine) -> type[_Handler]:
    class Handler(_Handler):
        def do_GET(self) -> None:
            engine.respond(self)

    return Handler
