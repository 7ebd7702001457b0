"""The registry of metadata providers: which servers this machine has, with HTTP and TLS loaded only if it has one."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from ... import __version__
from ...host import Host
from .container_metadata import MetadataProvider

OFF = "off"
DOCKER_SOCKET = "/var/run/docker.sock"
PODMAN_SOCKET = "/run/podman/podman.sock"

_USER_AGENT = f"ai-energy-exporter/{__version__}"


@dataclass(frozen=True, slots=True)
class MetadataOptions:
    """Which providers to use; see the settings table. ``kubernetes`` is auto, api, kubelet or off."""

    kubernetes: str = "auto"
    node_name: str = ""
    url: str = ""
    credentials: str = "/var/run/secrets/kubernetes.io/serviceaccount"
    docker_socket: str = ""
    podman_socket: str = ""


def metadata_providers(
    options: MetadataOptions, host: Host, environ: Mapping[str, str] = os.environ
) -> list[MetadataProvider]:
    """Create the providers of this machine. None of them connects before its first use."""
    found: list[MetadataProvider] = []
    in_cluster = bool(environ.get("KUBERNETES_SERVICE_HOST"))
    if options.kubernetes in ("api", "kubelet") or (options.kubernetes == "auto" and in_cluster):
        found.append(_kubernetes(options, host, environ))
    sockets = {"docker": (options.docker_socket, DOCKER_SOCKET), "podman": (options.podman_socket, PODMAN_SOCKET)}
    for name, (configured, default) in sockets.items():
        # A default socket without permission is skipped; a configured one is reported as down.
        if configured != OFF and (configured or os.access(default, os.R_OK | os.W_OK)):
            found.append(_engine(name, configured or default, host))
    return found


def node_name(options: MetadataOptions, environ: Mapping[str, str]) -> str:
    """Name of this node in the cluster: the setting, else NODE_NAME (downward API), else the hostname."""
    return options.node_name or environ.get("NODE_NAME", "") or socket.gethostname()


def _kubernetes(options: MetadataOptions, host: Host, environ: Mapping[str, str]) -> MetadataProvider:
    from ...network import http_client  # noqa: PLC0415 - loads HTTP and TLS, only in a cluster
    from . import kubernetes_api, provider  # noqa: PLC0415

    kubelet = options.kubernetes == "kubelet"
    server, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "443")
    if kubelet:
        server, port = environ.get("NODE_IP", "127.0.0.1"), "10250"
    client = http_client.HttpClient(
        options.url or f"https://{f'[{server}]' if ':' in server else server}:{port}",
        kubernetes_api.KUBELET_FIXES if kubelet else kubernetes_api.API_FIXES,
        token_file=os.path.join(options.credentials, "token"),
        ca_file=os.path.join(options.credentials, "ca.crt"),
        user_agent=_USER_AGENT,
    )
    feed = kubernetes_api.Kubelet(client) if kubelet else kubernetes_api.ApiServer(client, node_name(options, environ))
    return provider.BackgroundProvider(feed, host)


def _engine(name: str, path: str, host: Host) -> MetadataProvider:
    from ...network import http_client  # noqa: PLC0415 - loads HTTP, only where an engine runs
    from . import container_engines, provider  # noqa: PLC0415

    api = container_engines.DOCKER if name == "docker" else container_engines.PODMAN
    queries, events = (http_client.HttpClient(f"unix://{path}", api.fixes, user_agent=_USER_AGENT) for _ in range(2))
    return provider.BackgroundProvider(container_engines.Engine(queries, events, api), host)
