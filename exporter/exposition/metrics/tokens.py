"""Families of tokens and requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ...snapshot import Snapshot
from .families import Family, Sample

_PLACE = ("namespace", "pod", "container")
_MODEL = ("model_name", "namespace", "variant")


def _of_models(snapshot: Snapshot) -> Iterator[Sample]:
    for row in snapshot.tokens.models:
        if row.kind != "requests":
            yield (*row.model, row.kind), row.total


def _requests(snapshot: Snapshot) -> Iterator[Sample]:
    for row in snapshot.tokens.models:
        if row.kind == "requests":
            yield row.model, row.total


def _of_containers(snapshot: Snapshot) -> Iterator[Sample]:
    for row in snapshot.tokens.containers:
        name, _, variant = row.model
        yield (*row.place, name, row.kind, variant), row.total


def _steps(snapshot: Snapshot) -> Iterator[Sample]:
    yield from snapshot.tokens.steps.items()


def _up(snapshot: Snapshot) -> Iterator[Sample]:
    """1 if all servers of a kind, container and model are read."""
    read: dict[tuple[str, ...], bool] = {}
    for row in snapshot.tokens.sources:
        labels = (*row.place, row.model_name, row.server, row.variant)
        read[labels] = read.get(labels, True) and row.read
    yield from ((labels, float(up)) for labels, up in read.items())


def _info(snapshot: Snapshot) -> Iterator[Sample]:
    for row in snapshot.tokens.sources:
        if row.read:
            for served in row.served_models or ("",):
                yield (*row.place, row.model_name, row.server, served, row.method, row.variant), 1


def _gauge(
    name: str, help_text: str, labels: tuple[str, ...], samples: Callable[[Snapshot], Iterator[Sample]]
) -> Family:
    return Family(name, "gauge", help_text, labels, samples)


TOKENS: tuple[Family, ...] = (
    Family(
        "energy_model_tokens_total",
        "counter",
        "Tokens that the servers of a model on this node counted, by kind: prompt (computed), cached_prompt (taken "
        "from a cache), output.",
        (*_MODEL, "kind"),
        _of_models,
    ),
    Family(
        "energy_model_requests_total",
        "counter",
        "Requests that the servers of a model on this node finished.",
        _MODEL,
        _requests,
    ),
    Family(
        "energy_container_tokens_total",
        "counter",
        "Tokens that the model servers in a container counted, by kind as in energy_model_tokens_total.",
        (*_PLACE, "model_name", "kind", "variant"),
        _of_containers,
    ),
    _gauge(
        "energy_model_token_step",
        "Smallest difference that a model's token counters show, in tokens: 1, or more where a server publishes "
        "rounded values (llama.cpp above a million tokens); a rate needs a window in which much more is counted.",
        _MODEL,
        _steps,
    ),
    _gauge(
        "energy_token_source_up",
        "1 if the last page of a recognised model server was read, 0 if not or if it has no counters; the log, the "
        "status page and doctor give the reason and the fix.",
        (*_PLACE, "model_name", "server", "variant"),
        _up,
    ),
    _gauge(
        "energy_token_source_info",
        "Always 1; a model server whose tokens are read, the name under which it serves its model (empty if it does "
        "not say), and how it counts: counter, rounded_counter, histogram_sum, simulated.",
        (*_PLACE, "model_name", "server", "served_model", "method", "variant"),
        _info,
    ),
)
"""Families in the order of the exposition."""
