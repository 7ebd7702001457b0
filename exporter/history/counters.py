"""The counters of a snapshot that the history keeps, under the names and labels of the metrics."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

from ..records import Model, Workload
from ..snapshot import AccountRow, Snapshot

Labels = tuple[tuple[str, str], ...]
"""Names and values, those that identify the owner first."""

Family = Literal["node", "unattributed", "retired", "container", "model", "tokens", "container_tokens"]

IDENTITY: Mapping[Family, int] = {
    "node": 0,
    "unattributed": 0,
    "retired": 0,
    "container": 4,
    "model": 4,
    "tokens": 3,
    "container_tokens": 5,
}
"""How many of an owner's labels identify its counters; the others may change while the counters continue."""

_NOT_IN_A_NAME = re.compile("[^a-zA-Z0-9_]")

JOULES = "energy_container_joules_total"
RETIRED = "energy_retired_joules_total"


class Owner(NamedTuple):
    """What counters belong to, with all that is known of it."""

    family: Family
    labels: Labels = ()

    @property
    def key(self) -> tuple[str, ...]:
        """What identifies its counters."""
        return (self.family, *(value for _, value in self.labels[: IDENTITY[self.family]]))


class Cell(NamedTuple):
    """One counter of an owner: the metric, and the labels that are not the owner's."""

    metric: str
    labels: Labels = ()


class Counted(NamedTuple):
    """Counters of one owner, in the units of their metrics."""

    owner: Owner
    cells: Mapping[Cell, float]


Standing = dict[tuple[str, ...], Counted]
"""`Owner.key` → its counters."""


def standing(snapshot: Snapshot) -> Standing:
    """Every counter that the history keeps."""
    return {counted.owner.key: counted for counted in _counted(snapshot)}


def _counted(snapshot: Snapshot) -> Iterator[Counted]:
    energy, impact = snapshot.energy, snapshot.impact
    node = {Cell("energy_node_joules_total", (("component", row.component),)): row.joules for row in energy.nodes}
    lost = {
        Cell("energy_unattributed_joules_total", (("component", component), ("reason", reason))): joules
        for component, reason, joules in energy.unattributed
    }
    if impact is not None:
        currency = impact.factors.currency
        node |= _impact("node", (), impact.node, currency)
        for reason, of_reason in impact.unattributed.items():
            lost |= _impact("unattributed", (("reason", reason),), of_reason, currency)
    yield Counted(Owner("node"), node)
    yield Counted(Owner("unattributed"), lost)
    yield Counted(
        Owner("retired"), {Cell(RETIRED, (("component", component),)): joules for component, joules in energy.retired}
    )
    for row in energy.containers:
        if isinstance(row.owner, Workload):
            owner = Owner("container", _container(row.owner, energy.container_models.get(row.serial)))
            yield Counted(owner, _account("container", row, snapshot))
    for row in energy.models:
        if isinstance(row.owner, Model):
            yield Counted(Owner("model", _model(row.owner)), _account("model", row, snapshot))
    yield from _tokens(snapshot)


def _container(owner: Workload, model: Model | None) -> Labels:
    names = ("namespace", "pod", "container", "runtime", "owner_kind", "owner_name")
    known = tuple(zip(names, (*owner.key, owner.owner_kind, owner.owner_name), strict=True))
    if model is not None:
        known = (*known, ("model_name", model.model_name), ("phase", model.phase), *_variant(model.variant))
    return (*known, *((f"label_{_NOT_IN_A_NAME.sub('_', name)}", value) for name, value in owner.labels))


def _model(model: Model) -> Labels:
    known = (("model_name", model.model_name), ("namespace", model.namespace), ("phase", model.phase))
    return (*known, *_variant(model.variant))


def _variant(variant: str) -> Labels:
    """A label that is there only if it has a value, as in the metrics."""
    return (("variant", variant),) if variant else ()


def _account(family: str, row: AccountRow, snapshot: Snapshot) -> dict[Cell, float]:
    cells = {
        Cell(f"energy_{family}_joules_total", (("component", component), ("mode", mode))): joules
        for (component, mode), joules in zip(row.cells, row.joules, strict=True)
    }
    if snapshot.impact is not None:
        for mode, impact in row.impacts(snapshot.impact.rates).items():
            cells |= _impact(family, (("mode", mode),), impact, snapshot.impact.factors.currency)
    return cells


def _impact(family: str, labels: Labels, impact: Iterable[float], currency: str) -> dict[Cell, float]:
    """Grams, cost and credit; what was never known is 0, and a growth of 0 is not kept."""
    grams, cost, credit = impact
    cells = {Cell(f"energy_{family}_carbon_grams_total", labels): grams}
    if currency:
        money = (*labels, ("currency", currency))
        cells[Cell(f"energy_{family}_cost_total", money)] = cost
        cells[Cell(f"energy_{family}_credit_total", money)] = credit
    return cells


def _tokens(snapshot: Snapshot) -> Iterator[Counted]:
    found: dict[Owner, dict[Cell, float]] = {}
    for row in (*snapshot.tokens.models, *snapshot.tokens.containers):
        model_name, namespace, variant = row.model
        owner = Owner("tokens", (("model_name", model_name), ("namespace", namespace), *_variant(variant)))
        metric = "energy_model_requests_total" if row.kind == "requests" else "energy_model_tokens_total"
        if any(row.place):
            place = zip(("namespace", "pod", "container"), row.place, strict=True)
            owner = Owner("container_tokens", (*place, ("model_name", model_name), *_variant(variant)))
            metric = "energy_container_tokens_total"
        cell = Cell(metric, () if row.kind == "requests" else (("kind", row.kind),))
        found.setdefault(owner, {})[cell] = row.total
    for owner, cells in found.items():
        yield Counted(owner, cells)
