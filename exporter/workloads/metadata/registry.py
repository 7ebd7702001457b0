"""The registry of directories: who may know names on this machine, loaded only where it is there to be asked."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from ... import __version__
from ...host import Host
from .container_metadata import Directory

OFF = "off"
DOCKER_SOCKET = "/var/run/docker.sock"
PODMAN_SOCKET = "/run/podman/podman.sock"

_AGENT = f"ai-energy-exporter/{__version__}"


@dataclass(frozen=True, slots=True)
class NameOptions:
    """Who is asked for names; see the settings table. ``kubernetes`` is auto, api, kubelet or off."""

    kubernetes: str = "auto"
    node_name: str = ""
    url: str = ""
    credentials: str = "/var/run/secrets/kubernetes.io/serviceaccount"
    docker_socket: str = ""
    podman_socket: str = ""


def directories(options: NameOptions, host: Host, environ: Mapping[str, str] = os.environ) -> list[Directory]:
    """Make the directories of this machine; nothing is asked, and no client loaded, where there is nobody to ask."""
    found: list[Directory] = []
    cluster = bool(environ.get("KUBERNETES_SERVICE_HOST"))
    if options.kubernetes in ("api", "kubelet") or (options.kubernetes == "auto" and cluster):
        found.append(_kubernetes(options, host, environ))
    sockets = {"docker": (options.docker_socket, DOCKER_SOCKET), "podman": (options.podman_socket, PODMAN_SOCKET)}
    for name, (chosen, usual) in sockets.items():
        # Unless it was asked for, a socket that is not ours to use is no fault.
        if chosen != OFF and (chosen or os.access(usual, os.R_OK | os.W_OK)):
            found.append(_engine(name, chosen or usual, host))
    return found


def node_name(options: NameOptions, environ: Mapping[str, str]) -> str:
    """This node's name in the cluster: the setting, NODE_NAME (downward API), or what the machine calls itself."""
    return options.node_name or environ.get("NODE_NAME", "") or socket.gethostname()


def _kubernetes(options: NameOptions, host: Host, environ: Mapping[str, str]) -> Directory:
    from . import http_client, kubernetes_api, provider  # noqa: PLC0415 - loads http and TLS, only in a cluster

    kubelet = options.kubernetes == "kubelet"
    server, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "443")
    if kubelet:
        server, port = environ.get("NODE_IP", "127.0.0.1"), "10250"
    to = http_client.Channel(
        options.url or f"https://{f'[{server}]' if ':' in server else server}:{port}",
        kubernetes_api.KUBELET_FIXES if kubelet else kubernetes_api.API_FIXES,
        token_file=os.path.join(options.credentials, "token"),
        ca_file=os.path.join(options.credentials, "ca.crt"),
        agent=_AGENT,
    )
    feed = kubernetes_api.Kubelet(to) if kubelet else kubernetes_api.ApiServer(to, node_name(options, environ))
    return provider.FeedDirectory(feed, host)


def _engine(name: str, path: str, host: Host) -> Directory:
    from . import container_engines, http_client, provider  # noqa: PLC0415 - as above, only where an engine is

    dialect = container_engines.DOCKER if name == "docker" else container_engines.PODMAN
    asked, events = (http_client.Channel(f"unix://{path}", dialect.fixes, agent=_AGENT) for _ in range(2))
    return provider.FeedDirectory(container_engines.Engine(asked, events, dialect), host)
