"""Metadata of the pods of this node: list and watch of the API server, or polling of the kubelet."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping
from random import Random
from typing import Any

from ...network.http_client import HttpClient, HttpStatusError
from ...records import Unavailable
from .cache import MetadataCache
from .pod_parser import read_pod
from .provider import OnProgress

PAGE = 100
MAX_PODS = 10_000

WATCH_SECONDS = 300
"""Requested duration of a watch, varied by ±20 % so that the nodes of a cluster do not reconnect together."""

KUBELET_POLL_SECONDS = 10.0

_MIN_WATCH_SECONDS = 1.0
"""A watch without events that ends sooner is a failure, so that all nodes retry with backoff."""

_RESUMABLE = (0, 401, 403, 429, 503)
"""After these statuses (0: no response) the watch resumes from its last version; after any other, pods are listed."""

_RULE = 'apiGroups: [""], resources: [pods], verbs: [list, watch]'

API_FIXES: Mapping[int | str, str] = {
    401: "the token was rejected: check that the service account exists, and restart the pod",
    403: f"bind a ClusterRole with this rule to the exporter's service account: {_RULE}",
    404: "the server is not a Kubernetes API server: check --kubernetes.url",
    "token": "set automountServiceAccountToken: true, or --kubernetes.names=off",
    "ca": "mount the service account's ca.crt, or set --kubernetes.credentials to its directory",
    "tls": "the server's certificate is not signed by the CA in ca.crt: check --kubernetes.url and "
    "--kubernetes.credentials",
    "not_found": "check that network policies allow the exporter to reach the API server",
    "timeout": "check that network policies allow the exporter to reach the API server",
}

KUBELET_FIXES: Mapping[int | str, str] = {
    401: "the kubelet must run with --authentication-token-webhook",
    403: 'bind a ClusterRole with apiGroups: [""], resources: [nodes/pods], verbs: [get] (Kubernetes 1.33 or newer); '
    "do not grant nodes/proxy, which allows commands in every container: use --kubernetes.names=api instead",
    "token": API_FIXES["token"],
    "ca": API_FIXES["ca"],
    "tls": "the kubelet's certificate is not signed by the cluster's CA: set serverTLSBootstrap: true in its "
    "configuration, or use --kubernetes.names=api",
    "not_found": "set --kubernetes.url to the kubelet's address, such as https://$(NODE_IP):10250",
}


class ApiServer:
    """Feed of the pods with ``spec.nodeName`` = ``node``. Needs the verbs list and watch on pods, nothing else."""

    name = "kubernetes"

    def __init__(self, client: HttpClient, node: str) -> None:
        self._client = client
        self._node = node
        self._selector = {"fieldSelector": f"spec.nodeName={node}"}
        self._version = ""
        self._cached = True
        self._random = Random()

    def watch(self, cache: MetadataCache, on_progress: OnProgress, stop: threading.Event) -> None:
        """List once, then watch from that version; list again only when the server no longer has it, or not yet."""
        while not stop.is_set():
            resumed = self._version
            try:
                if not resumed:
                    self._list(cache, on_progress)
                self._watch(cache, on_progress)
            except Unavailable as error:
                status = error.status if isinstance(error, HttpStatusError) else 0
                if error.reason == "implausible" or status not in _RESUMABLE:
                    self._version = ""
                if status == 410:  # the server's cache may be older than this version: list from etcd
                    self._cached = False
                if not (status == 410 and resumed):
                    raise
            stop.wait(self._random.uniform(0.1, 1.0))

    def interrupt(self) -> None:
        """End the open list or watch."""
        self._client.interrupt()

    def _list(self, cache: MetadataCache, on_progress: OnProgress) -> None:
        began = time.monotonic()
        # Version 0 lists from the API server's cache, which is indexed by node; otherwise the server reads all pods of
        # the cluster from etcd.
        query = {**self._selector, "limit": str(PAGE)} | ({"resourceVersion": "0"} if self._cached else {})
        uids: set[str] = set()
        while True:
            page = self._client.json("/api/v1/pods", query)
            metadata = _metadata(page)
            items = page.get("items") if isinstance(page, dict) else None
            if not isinstance(metadata.get("resourceVersion"), str) or not isinstance(items, list | None):
                raise self._implausible("response is not a list of pods")
            for pod in items or ():
                uid, entries = read_pod(pod)
                if uid:
                    cache.put(uid, entries)
                    uids.add(uid)
            if not metadata.get("continue"):
                break
            if len(uids) > MAX_PODS or not items:
                raise self._implausible("list of pods does not end")
            query = {**self._selector, "limit": str(PAGE), "continue": str(metadata["continue"])}
        if not uids:
            raise Unavailable(
                "not_found",
                f"{self._client.url}: no pod on node {self._node!r}, not even the exporter",
                "set --kubernetes.node-name to the node's name, or NODE_NAME from fieldRef spec.nodeName",
            )
        cache.retain(uids)
        self._version, self._cached = metadata["resourceVersion"], True
        on_progress(time.monotonic() - began)

    def _watch(self, cache: MetadataCache, on_progress: OnProgress) -> None:
        seconds = int(WATCH_SECONDS * self._random.uniform(0.8, 1.2))
        query = {
            **self._selector,
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(seconds),
        }
        received = False
        began = time.monotonic()
        with contextlib.closing(self._client.lines("/api/v1/pods", query, seconds + 15)) as lines:
            try:
                for line in lines:
                    if line:
                        self._apply(self._client.parse(line), cache)
                        received = True
                    on_progress(0.0)
            except Unavailable as error:
                # A connection that breaks after an event is normal: the next watch resumes after that event.
                if not received or error.reason not in ("error", "timeout") or isinstance(error, HttpStatusError):
                    raise
        if not received:
            if time.monotonic() - began < _MIN_WATCH_SECONDS:
                raise Unavailable("error", f"{self._client.url}: the watch ended immediately", API_FIXES[404])
            # Not even a bookmark, which comes each minute: this version is newer than any that the server has, as after
            # etcd was restored from a backup, and it sends nothing until it has as new ones.
            self._version = ""
        on_progress(0.0)

    def _apply(self, event: Any, cache: MetadataCache) -> None:
        kind, thing = (event.get("type"), event.get("object")) if isinstance(event, dict) else (None, None)
        if kind == "ERROR":
            code = thing.get("code") if isinstance(thing, dict) else None
            status = code if isinstance(code, int) else 500
            raise HttpStatusError(
                status, f"{self._client.url}: the watch ended with status {status}", API_FIXES.get(status, "")
            )
        version = _metadata(thing).get("resourceVersion")
        if kind not in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK") or not isinstance(version, str):
            raise self._implausible("response is not a watch event")
        if kind != "BOOKMARK":
            uid, entries = read_pod(thing)
            if uid:
                cache.put(uid, entries)
            if kind == "DELETED":
                cache.remove(uid)
        self._version = version

    def _implausible(self, what: str) -> Unavailable:
        return Unavailable("implausible", f"{self._client.url}: {what}", API_FIXES[404])


class Kubelet:
    """Feed of all pods of the kubelet, static pods under their own uid. Needs the verb get on nodes/pods."""

    name = "kubernetes"

    def __init__(self, client: HttpClient, poll_seconds: float = KUBELET_POLL_SECONDS) -> None:
        self._client = client
        self._poll_seconds = poll_seconds

    def watch(self, cache: MetadataCache, on_progress: OnProgress, stop: threading.Event) -> None:
        """Poll every few seconds: the kubelet has no watch."""
        while not stop.is_set():
            began = time.monotonic()
            response = self._client.json("/pods")
            items = response.get("items") if isinstance(response, dict) else None
            if not isinstance(items, list):
                raise Unavailable("implausible", f"{self._client.url}: response is not a list of pods")
            pods = dict(read_pod(pod) for pod in items)
            pods.pop("", None)
            for uid, entries in pods.items():
                cache.put(uid, entries)
            cache.retain(pods)
            on_progress(time.monotonic() - began)
            stop.wait(self._poll_seconds)

    def interrupt(self) -> None:
        """End the open request."""
        self._client.interrupt()


def _metadata(thing: object) -> dict[str, Any]:
    metadata = thing.get("metadata") if isinstance(thing, dict) else None
    return metadata if isinstance(metadata, dict) else {}
