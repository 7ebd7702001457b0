"""Model servers of the simulated node: tokens and requests that follow the loads of their cards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ...records import CountKind, GroupKey, Process, TokenUse
from .scenario import GpuLoad, Tenant
from .tenants import TENANTS

_TOKENS_PER_REQUEST = 220.0
_PROMPT_TOKENS_PER_REQUEST = 640.0
_CACHED_RATIO = 0.3
"""Share of the prompt tokens that the prefix cache has."""

_PACES = {
    "Qwen/Qwen2.5-7B-Instruct": 4200.0,
    "mistralai/Mistral-7B-Instruct-v0.3": 3600.0,
    "google/gemma-3-27b-it": 1500.0,
    "meta-llama/Llama-3.3-70B-Instruct": 1900.0,
}
"""Tokens per second of busy time, about the rate of one H100 (two for the 70B) in large batches."""


class Served(NamedTuple):
    """A model's work so far: generated tokens, prompt tokens, requests, and requests running now."""

    tokens: float
    prompt_tokens: float
    requests: float
    running: float


class Server:
    """One model server; ``tokens_per_second`` is its rate while its card is always busy."""

    def __init__(self, tenant: Tenant, tokens_per_second: float) -> None:
        assert tenant.model is not None
        self.engine = tenant.owner.container
        self.labels = f'namespace="{tenant.owner.namespace}",pod="{tenant.owner.pod}"'
        self.model_name = tenant.model[0]
        self.cards = [member.gpu for member in tenant.members if member.gpu is not None]
        self._pace = tokens_per_second
        self._tokens = 0.0
        self._running = 0.0

    def step(self, at: float, seconds: float) -> None:
        """Serve for ``seconds`` with the load of the cards at ``at``, seconds since the start of the simulation."""
        busy = _busy(self.cards[0], at)
        self._tokens += busy * self._pace * seconds
        self._running = busy * 16

    def served(self) -> Served:
        """All work so far."""
        requests = self._tokens / _TOKENS_PER_REQUEST
        return Served(self._tokens, requests * _PROMPT_TOKENS_PER_REQUEST, requests // 1, self._running // 1)


class Taken:
    """What of a server's work has been reported."""

    __slots__ = ("_reported", "_server")

    def __init__(self, server: Server) -> None:
        self._server = server
        self._reported: dict[CountKind, float] = {}

    def use(self, process: Process, group: GroupKey) -> TokenUse:
        """Whole tokens and requests since the last call."""
        served = self._server.served()
        cached = served.prompt_tokens * _CACHED_RATIO // 1
        totals: dict[CountKind, float] = {
            "prompt": served.prompt_tokens // 1 - cached,
            "cached_prompt": cached,
            "output": served.tokens // 1,
            "requests": served.requests,
        }
        increase = {kind: total - self._reported.get(kind, 0.0) for kind, total in totals.items()}
        self._reported = totals
        engine, model = self._server.engine, self._server.model_name
        return TokenUse(process, group, engine, (model,), "simulated", True, increase)


def model_servers() -> Iterator[tuple[Tenant, Server]]:
    """A server for each tenant whose pace is known."""
    for tenant in TENANTS:
        if tenant.model and tenant.model[0] in _PACES:
            yield tenant, Server(tenant, _PACES[tenant.model[0]])


def _busy(load: GpuLoad, at: float) -> float:
    return min(1.0, max(0.0, load.busy(at)))
