"""The pod part of a Kubernetes API server: list, watch, pages, bookmarks, and failures.

It also serves ``/pods`` like a kubelet. Run as a program, it serves a node full of pods for benchmarks:
``python -m tests.support.fake_kubernetes_api 110``.
"""

from __future__ import annotations

import contextlib
import copy
import json
import socket
import ssl
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from tests.support.patience import patience

Pod = dict[str, Any]


class Request(NamedTuple):
    """One received request."""

    path: str
    query: dict[str, str]
    token: str


class FakeApiServer:
    """Listens on 127.0.0.1. The test changes its pods by methods, and its failures by attributes.

    ``tokens`` are accepted, None accepts all. If ``status`` is set, every request gets that status. ``next_responses``
    holds raw bytes sent instead of the next responses, one for each request, after which the connection is closed.
    ``expired_as_event`` sends 410 as an event of the watch, not as its status.
    """

    def __init__(self, context: ssl.SSLContext | None = None, tokens: set[str] | None = None, port: int = 0) -> None:
        self.tokens = tokens
        self.status: int | None = None
        self.next_responses: deque[bytes] = deque()
        self.expired_as_event = False
        self.list_delay_seconds = 0.0
        self.may_list = threading.Event()
        self.may_list.set()
        self.page_size: int | None = None
        self.requests: list[Request] = []
        self._pods: dict[str, Pod] = {}
        self._events: list[tuple[int, str, Pod]] = []
        self._version = 1000
        self._oldest = 0
        self._pages: dict[str, list[Pod]] = {}
        self._watchers: set[socket.socket] = set()
        self._changed = threading.Condition()
        self._closing = False
        self._ended = 0
        self._server = _Server(("127.0.0.1", port), _handler(self))
        if context is not None:
            self._server.context = context
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.port: int = self._server.server_address[1]
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.port}"

    # --- called by the test ---------------------------------------------------------------------------

    def add(self, pod: Pod) -> None:
        """Add a pod, or replace the one with its uid."""
        uid = pod["metadata"]["uid"]
        self._record("MODIFIED" if uid in self._pods else "ADDED", pod)

    def delete(self, uid: str) -> None:
        """Delete a pod."""
        self._record("DELETED", self._pods[uid])

    def bookmark(self) -> None:
        """Send the newest version to all watches, without a change of any pod."""
        self._record("BOOKMARK", {"metadata": {"uid": ""}})

    def error(self, code: int, reason: str = "InternalError") -> None:
        """Send an ERROR event to all watches."""
        self.send(json.dumps({"type": "ERROR", "object": _status(code, reason)}).encode() + b"\n")

    def compact(self) -> None:
        """Delete all events, so that older versions are 410 Gone."""
        with self._changed:
            self._version += 1
            self._oldest = self._version
            self._events.clear()

    def restore(self, version: int) -> None:
        """As after etcd was restored from a copy: versions go on from an older one, and watches stay silent."""
        with self._changed:
            self._version = version
            self._events.clear()

    def end_watches(self) -> None:
        """End all watches as the server does when their time is over."""
        with self._changed:
            self._ended += 1
            self._changed.notify_all()

    def forget_events(self, keep: int) -> None:
        """Delete all events but the last ``keep``, to save memory."""
        with self._changed:
            del self._events[:-keep]

    def drop_watches(self, last_bytes: bytes = b"") -> None:
        """Close all watches abruptly; ``last_bytes`` are sent first, as part of an incomplete chunk."""
        with self._changed:
            for watcher in list(self._watchers):
                with contextlib.suppress(OSError):  # it may have ended already
                    if last_bytes:
                        watcher.sendall(f"{len(last_bytes) + 100:x}\r\n".encode() + last_bytes)
                    socket.socket.shutdown(watcher, socket.SHUT_RDWR)
            self._watchers.clear()

    def send(self, line: bytes) -> None:
        """Send one line, valid or not, to all watches."""
        with self._changed:
            for watcher in list(self._watchers):
                try:
                    watcher.sendall(_chunk(line))
                except OSError:  # it disconnected
                    self._watchers.discard(watcher)

    @property
    def watching(self) -> int:
        """Number of open watches."""
        with self._changed:
            return len(self._watchers)

    def requests_with(self, **query: str) -> list[Request]:
        """Requests with these parameters; "" stands for a missing one."""
        wanted = query.items()
        return [r for r in list(self.requests) if all(r.query.get(name, "") == value for name, value in wanted)]

    def close(self) -> None:
        """Stop listening and close all connections."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._server.shutdown()
        self.drop_watches()
        self._server.server_close()

    def __enter__(self) -> FakeApiServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _record(self, kind: str, pod: Pod) -> None:
        with self._changed:
            self._version += 1
            pod = copy.deepcopy(pod)
            pod["metadata"]["resourceVersion"] = str(self._version)
            uid = pod["metadata"]["uid"]
            if kind in ("ADDED", "MODIFIED"):
                self._pods[uid] = pod
            elif kind == "DELETED":
                del self._pods[uid]
            self._events.append((self._version, kind, pod))
            self._changed.notify_all()

    # --- responses ------------------------------------------------------------------------------------

    def respond(self, handler: _Handler) -> None:
        """Respond to one GET."""
        url = urlsplit(handler.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        token = handler.headers.get("Authorization", "").removeprefix("Bearer ")
        self.requests.append(Request(url.path, query, token))
        if self.next_responses:
            handler.wfile.write(self.next_responses.popleft())
            handler.close_connection = True
        elif self.tokens is not None and token not in self.tokens:
            handler.send_json(401, _status(401, "Unauthorized"))
        elif self.status is not None:
            handler.send_json(self.status, _status(self.status, "Forbidden" if self.status == 403 else "Error"))
        elif url.path == "/pods":
            time.sleep(self.list_delay_seconds)
            with self._changed:
                pods = list(self._pods.values())
            handler.send_json(200, {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods})
        elif url.path.rstrip("/") == "/version":
            handler.send_json(200, {"major": "1", "minor": "34", "gitVersion": "v1.34.2"})
        elif url.path != "/api/v1/pods":
            handler.send_json(404, _status(404, "NotFound"))
        elif query.get("watch", "").lower() in ("1", "true"):
            self._watch(handler, query)
        else:
            self.may_list.wait(patience(60))
            time.sleep(self.list_delay_seconds)
            self._list(handler, query)

    def _list(self, handler: _Handler, query: Mapping[str, str]) -> None:
        with self._changed:
            metadata: dict[str, str] = {"resourceVersion": str(self._version)}
            if "continue" in query:
                if query["continue"] not in self._pages:
                    return handler.send_json(410, _status(410, "Expired"))
                if "resourceVersion" in query:
                    return handler.send_json(400, _status(400, "BadRequest"))
                pods = self._pages.pop(query["continue"])
            else:
                pods = [pod for pod in self._pods.values() if _selected(pod, query.get("fieldSelector", ""))]
            size = min(self.page_size or len(pods), int(query.get("limit", 0)) or len(pods))
            if len(pods) > size:
                metadata["continue"] = f"page-{self._version}-{len(pods)}"
                self._pages[metadata["continue"]] = pods[size:]
        handler.send_json(
            200, {"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": [*pods[:size]] or None}
        )
        return None

    def _watch(self, handler: _Handler, query: Mapping[str, str]) -> None:
        since = int(query.get("resourceVersion") or 0)
        deadline = time.monotonic() + float(query.get("timeoutSeconds", 1800))
        with self._changed:
            expired = since < self._oldest
            if expired and not self.expired_as_event:
                return handler.send_json(410, _status(410, "Expired"))
            handler.start_stream()
            if expired:
                handler.wfile.write(_event("ERROR", _status(410, "Expired")) + _chunk(b""))
                return None
            self._watchers.add(handler.connection)
        try:
            self._stream(handler, query, since, deadline)
        except OSError:
            handler.close_connection = True
        finally:
            with self._changed:
                self._watchers.discard(handler.connection)
        return None

    def _stream(self, handler: _Handler, query: Mapping[str, str], since: int, deadline: float) -> None:
        ended = self._ended
        while True:
            with self._changed:
                pending = [event for event in self._events if event[0] > since]
                if not pending and not self._closing and ended == self._ended:
                    self._changed.wait(min(0.5, max(0.0, deadline - time.monotonic())))
                    pending = [event for event in self._events if event[0] > since]
                for version, kind, pod in pending:
                    since = version
                    if kind == "BOOKMARK":
                        if query.get("allowWatchBookmarks") == "true":
                            mark = {"kind": "Pod", "metadata": {"resourceVersion": str(version)}}
                            handler.wfile.write(_event(kind, mark))
                    elif _selected(pod, query.get("fieldSelector", "")):
                        handler.wfile.write(_event(kind, {"kind": "Pod", "apiVersion": "v1", **pod}))
            if self._closing or ended != self._ended or time.monotonic() >= deadline:
                handler.wfile.write(_chunk(b""))
                return


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 32
    context: ssl.SSLContext | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.context is None:
            super().finish_request(request, client_address)
            return
        try:
            request.settimeout(5)
            with self.context.wrap_socket(request, server_side=True) as wrapped:
                wrapped.settimeout(None)
                super().finish_request(wrapped, client_address)
        except OSError:  # the client does not trust the certificate, or disconnected
            return

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The tests disconnect clients on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def send_json(self, status: int, body: Mapping[str, Any]) -> None:
        """Send a complete response with its length."""
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def start_stream(self) -> None:
        """Send the head of a chunked response."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
        """Log nothing."""


def _handler(server: FakeApiServer) -> type[_Handler]:
    class Handler(_Handler):
        wbufsize = 0

        def do_GET(self) -> None:
            server.respond(self)

    return Handler


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def _event(kind: str, thing: Mapping[str, Any]) -> bytes:
    return _chunk(json.dumps({"type": kind, "object": thing}).encode() + b"\n")


def _status(code: int, reason: str) -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": "no"}


def _selected(pod: Pod, selector: str) -> bool:
    field, _, value = selector.partition("=")
    return field != "spec.nodeName" or pod.get("spec", {}).get("nodeName") == value


# --- pods -----------------------------------------------------------------------------------------------


def container_id(number: int) -> str:
    """64 hex digits."""
    return f"{number:064x}"


def uid(number: int) -> str:
    """Uid of a pod."""
    return f"00000000-0000-4000-8000-{number:012x}"


def make_pod(
    number: int,
    name: str = "",
    *,
    namespace: str = "team-nlp",
    node: str = "node-1",
    containers: Mapping[str, str] | None = None,
    change: Callable[[Pod], object] | None = None,
) -> Pod:
    """A running pod as an API server returns it, ``containers`` by name with their ids; ``change`` edits it at the end.

    As large as in a real cluster: 10 kB, half of it ``managedFields``.
    """
    ids = {"main": container_id(number)} if containers is None else containers
    name = name or f"pod-{number}"
    field: dict[str, Any] = {
        f"f:{part}": {} for part in ("name", "image", "resources", "env", "volumeMounts", "terminationMessagePath")
    }
    pod: Pod = {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": uid(number),
            "creationTimestamp": "2026-01-02T03:04:05Z",
            "labels": {"app": name, "team": namespace.removeprefix("team-")},
            "annotations": {"cni.projectcalico.org/podIP": f"10.0.{number % 250}.7/32"},
            "ownerReferences": [],
            "managedFields": [
                {
                    "manager": manager,
                    "operation": "Update",
                    "fieldsType": "FieldsV1",
                    "fieldsV1": {"f:spec": {f'k:{{"name":"c{i}"}}': field for i in range(28)}},
                }
                for manager in ("kube-controller-manager", "kubelet")
            ],
        },
        "spec": {
            "nodeName": node,
            "containers": [
                {
                    "name": each,
                    "image": f"registry.example/{each}:v1",
                    "env": [{"name": "MODE", "value": "fast"}],
                    "args": ["--port", "8000"],
                    "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
                    "volumeMounts": [{"name": f"v{i}", "mountPath": f"/mnt/{i}", "readOnly": True} for i in range(8)],
                }
                for each in ids
            ],
            "volumes": [{"name": f"v{i}", "projected": {"defaultMode": 420, "sources": []}} for i in range(8)],
            "tolerations": [{"key": f"k{i}", "operator": "Exists", "effect": "NoExecute"} for i in range(6)],
        },
        "status": {
            "phase": "Running",
            "conditions": [
                {"type": f"C{i}", "status": "True", "lastTransitionTime": "2026-01-02T03:04:05Z"} for i in range(5)
            ],
            "containerStatuses": [
                {
                    "name": each,
                    "image": f"sha256:{number:064x}",
                    "imageID": f"registry.example/{each}@sha256:{number:064x}",
                    "containerID": f"containerd://{identity}",
                    "state": {"running": {"startedAt": "2026-01-02T03:04:05Z"}},
                    "lastState": {},
                    "restartCount": 0,
                    "ready": True,
                }
                for each, identity in ids.items()
            ],
        },
    }
    if change is not None:
        change(pod)
    return pod


if __name__ == "__main__":
    with FakeApiServer() as server:
        for index in range(int(sys.argv[1])):
            server.add(make_pod(index + 1))
        print(server.url, flush=True)
        threading.Event().wait()
