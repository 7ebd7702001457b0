"""Model servers among the processes: on which port each publishes its counters, and which half of requests it does."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping

from ...host import Host
from ...records import GroupKey, Process, ProcessKey
from ..metadata.container_metadata import ContainerMetadata
from ..proc import environment, process_stat
from ..protocol import ModelServer, ServerRole
from .arguments import Arguments
from .evidence import Evidence, ServerCall
from .launchers import Metrics

_MAX_SERVERS = 256

_ROLE_LABEL = "llm-d.ai/role"
"""Label of a pod that does one half of each request (llm-d)."""

_ROLES: Mapping[str, ServerRole] = {
    "prefill": "prefill",
    "kv_producer": "prefill",
    "decode": "decode",
    "kv_consumer": "decode",
}


def server_call(metrics: Metrics | None, arguments: Arguments) -> ServerCall | None:
    """Where and how a program with these arguments publishes ``metrics``; None for one that publishes none."""
    if metrics is None:
        return None
    given = (arguments.find(option) for option in metrics.options.split())
    port = next((_port(value) for value in given if value), 0)
    variables = () if port else tuple(metrics.variables.split())
    return ServerCall(metrics.dialect, port or metrics.port, variables, _role(arguments))


def _role(arguments: Arguments) -> ServerRole:
    """Of SGLang and Dynamo by ``--disaggregation-mode``, of vLLM by the role of its connector.

    The role ``kv_both`` of a vLLM connector means neither.
    """
    if arguments.has("--is-prefill-worker"):
        return "prefill"
    if arguments.has("--is-decode-worker"):
        return "decode"
    mode = arguments.find("--disaggregation-mode") or arguments.find("--kv-transfer-config.kv_role")
    if not mode and (transfer := arguments.find("--kv-transfer-config")):
        try:
            settings = json.loads(transfer)
        except (ValueError, RecursionError):
            settings = None
        mode = str(settings.get("kv_role", "")) if isinstance(settings, dict) else ""
    return _ROLES.get(mode or "", "")


def _port(value: str) -> int:
    return int(value) if value.isdecimal() and len(value) < 6 and 0 < int(value) < 65_536 else 0


class ModelServers:
    """The model servers that were recognised. `learn` is called by the tick's thread, `running` by any."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._servers: OrderedDict[ProcessKey, ModelServer] = OrderedDict()
        self._published: tuple[ModelServer, ...] = ()

    def learn(
        self, process: Process, group: GroupKey | None, evidence: Evidence, metadata: ContainerMetadata | None
    ) -> None:
        """Take note of a process that is a server; ``evidence`` is that of its own command line."""
        call = evidence.server
        known = self._servers.get(process.key)
        if known is not None and group not in (None, known.group):  # it was moved to the group of its container
            self._servers[process.key] = known._replace(group=group)
            self._published = tuple(self._servers.values())
        if call is None or known is not None:
            return
        if len(self._servers) >= _MAX_SERVERS:
            self._forget_ended()
        stat = process_stat(self._host, process.key.pid)
        port = self._port_by_environment(call, process.key, metadata) or call.port
        if stat is None or stat.key != process.key or len(self._servers) >= _MAX_SERVERS:
            return
        labelled = "" if metadata is None else metadata.labels.get(_ROLE_LABEL, "")
        role = call.role or _ROLES.get(labelled, "")
        self._servers[process.key] = ModelServer(
            process, group, call.dialect, port, role, stat.parent, evidence.model_name
        )
        self._published = tuple(self._servers.values())

    def running(self) -> tuple[ModelServer, ...]:
        """Every server that was learned; some may have ended."""
        return self._published

    def _port_by_environment(self, call: ServerCall, key: ProcessKey, metadata: ContainerMetadata | None) -> int:
        if not call.variables:
            return 0
        values: Mapping[str, str] = environment(self._host, key.pid, call.variables)
        if not values and metadata is not None:
            values = metadata.environment
        return next((_port(values[name]) for name in call.variables if name in values), 0)

    def _forget_ended(self) -> None:
        for key in list(self._servers):
            stat = process_stat(self._host, key.pid)
            if stat is None or stat.key != key:
                del self._servers[key]
