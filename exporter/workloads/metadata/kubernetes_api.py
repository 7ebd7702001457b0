"""Pods of this node, from the API server by list and watch, or from the kubelet by asking again and again."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Mapping
from typing import Any

from ...records import Unavailable
from .cache import FactBook
from .http_client import Channel, Refused
from .pod_parser import read_pod
from .provider import Heard

PAGE = 100
MAX_PODS = 10_000

WATCH_SECONDS = 300
"""A watch is asked to last so long, give or take a fifth, so that those of a cluster do not end together."""

KUBELET_SECONDS = 10.0

_SHORT_SECONDS = 1.0
"""A watch that ends sooner without a word is no end but a fault: else all nodes would ask again without pause."""

_GO_ON = (0, 401, 403, 429, 503)
"""After these (0 is no answer), the watch goes on where it was; after any other the pods are listed anew."""

_RULE = 'apiGroups: [""], resources: [pods], verbs: [list, watch]'

API_FIXES: Mapping[int | str, str] = {
    401: "its token is not accepted: look whether the service account still exists, and restart the pod",
    403: f"bind a ClusterRole with this rule to the exporter's service account: {_RULE}",
    404: "this is not an API server: look at --kubernetes.url",
    "token": "set automountServiceAccountToken: true, or --kubernetes.names=off",
    "ca": "mount the service account's ca.crt, or name its directory in --kubernetes.credentials",
    "tls": "the CA in ca.crt did not sign this server's certificate: look at --kubernetes.url and "
    "--kubernetes.credentials",
    "not_found": "look whether network policies let the exporter reach the API server",
    "timeout": "look whether network policies let the exporter reach the API server",
}

KUBELET_FIXES: Mapping[int | str, str] = {
    401: "the kubelet must run with --authentication-token-webhook",
    403: 'bind a ClusterRole with apiGroups: [""], resources: [nodes/pods], verbs: [get] (Kubernetes 1.33 or newer); '
    "do not grant nodes/proxy, which allows commands in every container: use --kubernetes.names=api instead",
    "token": API_FIXES["token"],
    "ca": API_FIXES["ca"],
    "tls": "the kubelet's certificate is not signed by the cluster's CA: set serverTLSBootstrap: true in its "
    "configuration, or use --kubernetes.names=api",
    "not_found": "name the kubelet's address in --kubernetes.url, such as https://$(NODE_IP):10250",
}


class ApiServer:
    """Feed of the pods with ``spec.nodeName`` = ``node``. Needs list and watch of pods, nothing else."""

    name = "kubernetes"

    def __init__(self, channel: Channel, node: str) -> None:
        self._channel = channel
        self._node = node
        self._selector = {"fieldSelector": f"spec.nodeName={node}"}
        self._version = ""
        self._cached = True

    def follow(self, book: FactBook, heard: Heard, stop: threading.Event) -> None:
        """List once, then watch from there; list again only where the server has forgotten that version."""
        while not stop.is_set():
            resumed = self._version
            try:
                if not resumed:
                    self._list(book, heard)
                self._watch(book, heard)
            except Unavailable as error:
                status = error.status if isinstance(error, Refused) else 0
                if error.reason == "implausible" or status not in _GO_ON:
                    self._version = ""
                if status == 410:  # the cache may be older than what we saw: ask for the newest version
                    self._cached = False
                if not (status == 410 and resumed):
                    raise
            stop.wait(random.uniform(0.1, 1.0))

    def interrupt(self) -> None:
        """End the list or watch that is open."""
        self._channel.interrupt()

    def _list(self, book: FactBook, heard: Heard) -> None:
        began = time.monotonic()
        # Version 0 is answered from the API server's cache, which has an index by node; without it, all pods of the
        # cluster are read from etcd.
        query = {**self._selector, "limit": str(PAGE)} | ({"resourceVersion": "0"} if self._cached else {})
        uids: set[str] = set()
        while True:
            page = self._channel.json("/api/v1/pods", query)
            metadata = _metadata(page)
            items = page.get("items") if isinstance(page, dict) else None
            if not isinstance(metadata.get("resourceVersion"), str) or not isinstance(items, list | None):
                raise self._implausible("this is no list of pods")
            for pod in items or ():
                uid, entries = read_pod(pod)
                if uid:
                    book.put(uid, entries)
                    uids.add(uid)
            if not metadata.get("continue"):
                break
            if len(uids) > MAX_PODS or not items:
                raise self._implausible("this list of pods has no end")
            query = {**self._selector, "limit": str(PAGE), "continue": str(metadata["continue"])}
        if not uids:
            raise Unavailable(
                "not_found",
                f"{self._channel.url}: no pod on node {self._node!r}, not even this one",
                "pass the node's name: --kubernetes.node-name, or NODE_NAME from fieldRef spec.nodeName",
            )
        book.keep(uids)
        self._version, self._cached = metadata["resourceVersion"], True
        heard(time.monotonic() - began)

    def _watch(self, book: FactBook, heard: Heard) -> None:
        seconds = int(WATCH_SECONDS * random.uniform(0.8, 1.2))
        query = {
            **self._selector,
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(seconds),
        }
        told = False
        began = time.monotonic()
        with contextlib.closing(self._channel.lines("/api/v1/pods", query, seconds + 15)) as lines:
            try:
                for line in lines:
                    if line:
                        self._take(self._channel.parse(line), book)
                        told = True
                    heard(0.0)
            except Unavailable as error:
                # One that told something and then broke did as connections do: the next goes on where it ended.
                if not told or error.reason not in ("error", "timeout") or isinstance(error, Refused):
                    raise
        if not told and time.monotonic() - began < _SHORT_SECONDS:
            raise Unavailable("error", f"{self._channel.url}: the watch ended at once", API_FIXES[404])
        heard(0.0)

    def _take(self, event: Any, book: FactBook) -> None:
        kind, thing = (event.get("type"), event.get("object")) if isinstance(event, dict) else (None, None)
        if kind == "ERROR":
            code = thing.get("code") if isinstance(thing, dict) else None
            status = code if isinstance(code, int) else 500
            raise Refused(status, f"{self._channel.url}: the watch ends with {status}", API_FIXES.get(status, ""))
        version = _metadata(thing).get("resourceVersion")
        if kind not in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK") or not isinstance(version, str):
            raise self._implausible("this is no event of a watch")
        if kind != "BOOKMARK":
            uid, entries = read_pod(thing)
            if uid:
                book.put(uid, entries)
            if kind == "DELETED":
                book.drop(uid)
        self._version = version

    def _implausible(self, what: str) -> Unavailable:
        return Unavailable("implausible", f"{self._channel.url}: {what}", API_FIXES[404])


class Kubelet:
    """Feed of all pods the kubelet runs, static ones under their own uid. Needs get of nodes/pods."""

    name = "kubernetes"

    def __init__(self, channel: Channel, every_seconds: float = KUBELET_SECONDS) -> None:
        self._channel = channel
        self._every_seconds = every_seconds

    def follow(self, book: FactBook, heard: Heard, stop: threading.Event) -> None:
        """Ask every few seconds: the kubelet has no watch."""
        while not stop.is_set():
            began = time.monotonic()
            answer = self._channel.json("/pods")
            items = answer.get("items") if isinstance(answer, dict) else None
            if not isinstance(items, list):
                raise Unavailable("implausible", f"{self._channel.url}: this is no list of pods")
            pods = dict(read_pod(pod) for pod in items)
            pods.pop("", None)
            for uid, entries in pods.items():
                book.put(uid, entries)
            book.keep(pods)
            heard(time.monotonic() - began)
            stop.wait(self._every_seconds)

    def interrupt(self) -> None:
        """End the request that is open."""
        self._channel.interrupt()


def _metadata(thing: object) -> dict[str, Any]:
    metadata = thing.get("metadata") if isinstance(thing, dict) else None
    return metadata if isinstance(metadata, dict) else {}
