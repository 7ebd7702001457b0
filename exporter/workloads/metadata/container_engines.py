"""Containers that Docker or Podman run, from the engine's socket: only GETs, never a change.

Sources: docs.docker.com/reference/api/engine, docs.podman.io/en/latest/_static/api.html, and what Podman 4.3 answered.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ...records import Unavailable
from .cache import FactBook
from .container_metadata import Facts
from .http_client import Channel, Refused
from .pod_parser import MAX_ENTRIES, MAX_TEXT
from .provider import Heard

FOLLOW_SECONDS = 300.0
"""After so long, everything is listed anew: an engine drops events that its listener is too slow for."""

_NO_POD = Facts()
_EVENTS = json.dumps({"type": ["container"]})
_CAME = frozenset(("create", "start", "rename", "update"))
_WENT = frozenset(("destroy", "remove"))


class Dialect(NamedTuple):
    """How an engine is asked. ``pods`` is "" where it has none."""

    name: str
    prefix: str
    pods: str
    fixes: Mapping[int | str, str]


def _fixes(engine: str, group: str) -> dict[int | str, str]:
    return {
        "permission": f"run as root, {group}or --{engine}.socket=off",
        "not_found": f"systemctl start {engine}.socket, or --{engine}.socket=off",
        "implausible": f"--{engine}.socket must be the socket of {engine}'s API",
        404: f"--{engine}.socket must be the socket of {engine}'s API",
    }


DOCKER = Dialect("docker", "", "", _fixes("docker", "add this user to the group docker, "))
PODMAN = Dialect("podman", "/v4.0.0/libpod", "/v4.0.0/libpod/pods/json", _fixes("podman", ""))
"""Its own API rather than the one that it shares with Docker, which knows no pods."""


class Engine:
    """Feed of all containers of an engine: listed once, then by its events."""

    def __init__(self, channel: Channel, events: Channel, dialect: Dialect) -> None:
        self.name = dialect.name
        self._channel = channel
        self._events = events
        self._dialect = dialect
        self._pods: dict[str, Facts] = {}

    def follow(self, book: FactBook, heard: Heard, stop: threading.Event) -> None:
        """Listen first and list then, so that what starts in between is not missed."""
        while not stop.is_set():
            events = self._events.lines(f"{self._dialect.prefix}/events", {"filters": _EVENTS}, FOLLOW_SECONDS)
            with contextlib.closing(events):
                next(events, b"")
                self._list(book, heard)
                for line in events:
                    self._take(self._events.parse(line), book)
                    heard(0.0)
            stop.wait(1.0)

    def interrupt(self) -> None:
        """End the requests that are open."""
        self._channel.interrupt()
        self._events.interrupt()

    def _list(self, book: FactBook, heard: Heard) -> None:
        began = time.monotonic()
        listed = self._channel.json(f"{self._dialect.prefix}/containers/json")
        if not isinstance(listed, list):
            raise Unavailable("implausible", f"{self._channel.url}: this is no list of containers")
        self._list_pods()
        ids = {_text(entry.get("Id")) for entry in listed if isinstance(entry, dict)} - {""}
        for container_id in ids:
            self._put(container_id, book)
        for pod_id, facts in self._pods.items():
            book.put(pod_id, {pod_id: facts})
        book.keep(ids | self._pods.keys())
        heard(time.monotonic() - began)

    def _list_pods(self) -> None:
        if not self._dialect.pods:
            return
        listed = self._channel.json(self._dialect.pods)
        pods = [pod for pod in listed if isinstance(pod, dict)] if isinstance(listed, list) else []
        self._pods = {
            pod_id: Facts(pod=_text(pod.get("Name")), pod_uid=pod_id, labels=_labels(pod.get("Labels")))
            for pod in pods
            if (pod_id := _text(pod.get("Id")))
        }

    def _take(self, event: object, book: FactBook) -> None:
        actor = event.get("Actor") if isinstance(event, dict) else None
        container_id = actor.get("ID") if isinstance(actor, dict) else None
        action = event.get("Action") if isinstance(event, dict) else None
        if not isinstance(container_id, str) or not isinstance(action, str):
            raise Unavailable("implausible", f"{self._channel.url}: this is no event")
        if not container_id.isalnum():  # an event of the whole engine, such as prune
            return
        if action in _WENT:
            book.drop(container_id)
        elif action in _CAME and (action != "start" or container_id not in book):
            self._put(container_id, book)

    def _put(self, container_id: str, book: FactBook) -> None:
        try:
            told = self._channel.json(f"{self._dialect.prefix}/containers/{container_id}/json")
        except Refused as error:
            if error.status == 404:  # it was gone before we asked
                return
            raise
        if not isinstance(told, dict):
            return
        pod_id = _text(told.get("Pod"))
        if pod_id and pod_id not in self._pods:
            self._list_pods()
            if pod_id in self._pods:
                book.put(pod_id, {pod_id: self._pods[pod_id]})
        book.put(container_id, {container_id: read_container(told, self._pods.get(pod_id, _NO_POD))})


def read_container(told: Mapping[str, Any], pod: Facts = _NO_POD) -> Facts:
    """Facts from what the engine says of one container; every field may be missing or null."""
    asked = told.get("Config")
    config: Mapping[str, Any] = asked if isinstance(asked, dict) else {}
    arguments = told.get("Args")
    words = [told.get("Path"), *(arguments if isinstance(arguments, list) else ())]
    return Facts(
        pod=pod.pod,
        pod_uid=pod.pod_uid,
        container=_text(told.get("Name")).lstrip("/"),
        # Docker's own "Image" is a digest; what people named is in the configuration.
        image=_text(told.get("ImageName")) or _text(config.get("Image")),
        labels=_labels(config.get("Labels")),
        command=tuple([word[:MAX_TEXT] for word in words[:MAX_ENTRIES] if isinstance(word, str) and word]),
        environment=dict(_variables(config.get("Env"))),
    )


def _variables(entries: object) -> Iterator[tuple[str, str]]:
    for entry in (entries if isinstance(entries, list) else [])[:MAX_ENTRIES]:
        if isinstance(entry, str) and len(entry) <= MAX_TEXT:
            name, equals, value = entry.partition("=")
            if equals:
                yield name, value


def _labels(value: object) -> dict[str, str]:
    pairs = list(value.items())[:MAX_ENTRIES] if isinstance(value, dict) else []
    return {name: text for name, text in pairs if isinstance(text, str) and len(text) <= MAX_TEXT}


def _text(value: object) -> str:
    return value if isinstance(value, str) and len(value) <= MAX_TEXT else ""
