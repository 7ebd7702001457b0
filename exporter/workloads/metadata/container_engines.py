"""Metadata of the containers of Docker and Podman, read from the engine's socket with GET requests only.

Sources: docs.docker.com/reference/api/engine, docs.podman.io/en/latest/_static/api.html, responses of Podman 4.3.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ...network.http_client import HttpClient, HttpStatusError
from ...records import Unavailable
from .cache import MetadataCache
from .container_metadata import ContainerMetadata
from .json_values import MAX_ENTRIES, MAX_TEXT, mapping, mappings, sequence, text, texts
from .provider import OnProgress

RELIST_SECONDS = 300.0
"""Interval between two lists of all containers: an engine drops events when the reader is too slow."""

_NO_POD = ContainerMetadata()
_EVENTS = json.dumps({"type": ["container"]})
_ADDED = frozenset(("create", "start", "rename", "update"))
_REMOVED = frozenset(("destroy", "remove"))


class EngineApi(NamedTuple):
    """API of an engine: path prefix, path of the pod list ("" without pods), and the fix for each failure."""

    name: str
    prefix: str
    pods: str
    fixes: Mapping[int | str, str]


def _fixes(engine: str, group: str) -> dict[int | str, str]:
    return {
        "permission": f"run as root, {group}or --{engine}.socket=off",
        "not_found": f"systemctl start {engine}.socket, or --{engine}.socket=off",
        "implausible": f"--{engine}.socket must name the API socket of {engine}",
        404: f"--{engine}.socket must name the API socket of {engine}",
    }


DOCKER = EngineApi("docker", "", "", _fixes("docker", "add this user to the group docker, "))
PODMAN = EngineApi("podman", "/v4.0.0/libpod", "/v4.0.0/libpod/pods/json", _fixes("podman", ""))
"""Podman's own API: the one compatible with Docker has no pods."""


class Engine:
    """Feed of all containers of an engine: a list, then its events."""

    def __init__(self, queries: HttpClient, events: HttpClient, api: EngineApi) -> None:
        self.name = api.name
        self._queries = queries
        self._events = events
        self._api = api
        self._pods: dict[str, ContainerMetadata] = {}

    def watch(self, cache: MetadataCache, on_progress: OnProgress, stop: threading.Event) -> None:
        """Subscribe to events before listing, so that no container is missed in between."""
        while not stop.is_set():
            events = self._events.lines(f"{self._api.prefix}/events", {"filters": _EVENTS}, RELIST_SECONDS)
            with contextlib.closing(events):
                next(events, b"")
                self._list(cache, on_progress)
                for line in events:
                    self._apply(self._events.parse(line), cache)
                    on_progress(0.0)
            stop.wait(1.0)

    def interrupt(self) -> None:
        """End the open requests."""
        self._queries.interrupt()
        self._events.interrupt()

    def _list(self, cache: MetadataCache, on_progress: OnProgress) -> None:
        began = time.monotonic()
        listed = self._queries.json(f"{self._api.prefix}/containers/json")
        if not isinstance(listed, list):
            raise Unavailable("implausible", f"{self._queries.url}: response is not a list of containers")
        self._list_pods()
        ids = {text(entry.get("Id")) for entry in listed if isinstance(entry, dict)} - {""}
        for container_id in ids:
            self._put(container_id, cache)
        for pod_id, metadata in self._pods.items():
            cache.put(pod_id, {pod_id: metadata})
        cache.retain(ids | self._pods.keys())
        on_progress(time.monotonic() - began)

    def _list_pods(self) -> None:
        if not self._api.pods:
            return
        listed = self._queries.json(self._api.pods)
        pods = list(mappings(listed))
        self._pods = {
            pod_id: ContainerMetadata(pod=text(pod.get("Name")), pod_uid=pod_id, labels=texts(pod.get("Labels")))
            for pod in pods
            if (pod_id := text(pod.get("Id")))
        }

    def _apply(self, event: object, cache: MetadataCache) -> None:
        actor = event.get("Actor") if isinstance(event, dict) else None
        container_id = actor.get("ID") if isinstance(actor, dict) else None
        action = event.get("Action") if isinstance(event, dict) else None
        if not isinstance(container_id, str) or not isinstance(action, str):
            raise Unavailable("implausible", f"{self._queries.url}: response is not an event")
        if not container_id.isalnum():  # event of the engine itself, such as prune
            return
        if action in _REMOVED:
            cache.remove(container_id)
        elif action in _ADDED and (action != "start" or container_id not in cache):
            self._put(container_id, cache)

    def _put(self, container_id: str, cache: MetadataCache) -> None:
        try:
            inspected = self._queries.json(f"{self._api.prefix}/containers/{container_id}/json")
        except HttpStatusError as error:
            if error.status == 404:  # removed since the list or event
                return
            raise
        if not isinstance(inspected, dict):
            return
        pod_id = text(inspected.get("Pod"))
        if pod_id and pod_id not in self._pods:
            self._list_pods()
            if pod_id in self._pods:
                cache.put(pod_id, {pod_id: self._pods[pod_id]})
        cache.put(container_id, {container_id: read_container(inspected, self._pods.get(pod_id, _NO_POD))})


def read_container(inspected: Mapping[str, Any], pod: ContainerMetadata = _NO_POD) -> ContainerMetadata:
    """Metadata from the engine's description of one container, of which every field may be missing or null."""
    config = mapping(inspected.get("Config"))
    words = [inspected.get("Path"), *sequence(inspected.get("Args"))]
    return ContainerMetadata(
        pod=pod.pod,
        pod_uid=pod.pod_uid,
        container=text(inspected.get("Name")).lstrip("/"),
        # Docker's "Image" is a digest; the name given by the user is in the configuration.
        image=text(inspected.get("ImageName")) or text(config.get("Image")),
        labels=texts(config.get("Labels")),
        command=tuple([word[:MAX_TEXT] for word in words[:MAX_ENTRIES] if isinstance(word, str) and word]),
        environment=dict(_variables(config.get("Env"))),
    )


def _variables(entries: object) -> Iterator[tuple[str, str]]:
    for entry in sequence(entries)[:MAX_ENTRIES]:
        if isinstance(entry, str) and len(entry) <= MAX_TEXT:
            name, equals, value = entry.partition("=")
            if equals:
                yield name, value
