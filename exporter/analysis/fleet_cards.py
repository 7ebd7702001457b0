"""The GPUs of a fleet: their state, which containers used them, and what they draw while nothing holds them."""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from .facts import Card, Grid, Steps, mean
from .fleet_queries import CARD, CONTAINER, Queries
from .growth import Labels
from .steps import StepReader, Table

_LEAST_BARE_SECONDS = 3 * 3600.0


class Cards(NamedTuple):
    """Whole cards: their state, and which containers used them."""

    state: Mapping[str, Mapping[Labels, Steps]]
    models: Mapping[Labels, str]
    links: Mapping[Labels, Mapping[tuple[Labels, str], float]]
    """Container → card and mode → joules."""
    owners: Mapping[Labels, tuple[str, str]]
    """Container → its model and its owner."""
    zones: Mapping[tuple[str, str], str]
    bare: Table

    @classmethod
    def read(cls, fine: StepReader, coarse: StepReader, sparse: StepReader, queries: Queries, wide: Queries) -> Cards:
        """Everything about cards. Raises `QueryError`."""
        state = {
            "power_limit": fine.read(queries.card("energy_gpu_power_limit_watts"), CARD, math.nan),
            "clock": fine.read(queries.clock(), CARD, math.nan),
            "power_watts": coarse.read(wide.power(), CARD, math.nan),
            "memory_used": sparse.read(wide.memory(), CARD, math.nan),
            "throttled": coarse.read(wide.throttled(), CARD, math.nan),
        }
        for name in ("utilization", "sm_active", "tensor_active", "dram_active"):
            state[name] = sparse.read(wide.card(f"energy_gpu_{name}_ratio"), CARD, math.nan)
        links: defaultdict[Labels, dict[tuple[Labels, str], float]] = defaultdict(dict)
        for key, steps in coarse.read(wide.links(), (*CARD, *CONTAINER[1:], "mode")).items():
            cluster, instance, uuid, namespace, pod, container, mode = key
            links[cluster, namespace, pod, container][(cluster, instance, uuid), mode] = math.fsum(steps)
        owners = {
            key[:4]: (key[4], key[5])
            for key in coarse.read(wide.container_models(), (*CONTAINER, "model_name", "owner_name"))
        }
        zones = {(key[0], key[1]): key[2] for key in coarse.read(wide.zones(), ("cluster", "instance", "zone"))}
        models = {key[:3]: key[3] for key in coarse.read(wide.card_models(), (*CARD, "gpu_model"))}
        return cls(state, models, links, owners, zones, sparse.read(queries.bare(), CARD))

    def of(self, containers: Iterable[Labels]) -> tuple[list[Card], list[Labels]]:
        """The cards that containers used or held, and their labels."""
        active: defaultdict[Labels, float] = defaultdict(float)
        for container in containers:
            for (card, mode), joules in self.links.get(container, {}).items():
                active[card] += joules if mode == "active" else 0.0
        return [self._card(card, joules) for card, joules in sorted(active.items())], sorted(active)

    def _card(self, card: Labels, active: float) -> Card:
        def average(name: str) -> float | None:
            return mean(self.state[name].get(card, ()))

        return Card(
            card[2],
            self.models.get(card, ""),
            active,
            average("sm_active"),
            average("tensor_active"),
            average("dram_active"),
            average("utilization"),
            max((value for value in self.state["memory_used"].get(card, ()) if math.isfinite(value)), default=None),
            average("power_watts"),
            average("power_limit"),
            average("throttled"),
        )

    def mean_of(self, name: str, cards: Sequence[Labels]) -> Steps:
        """Mean over cards in each step; steps in which one of them is unknown are unknown."""
        rows = [self.state[name][card] for card in cards if card in self.state[name]]
        if not rows or len(rows) < len(cards):
            return ()
        return array("d", [math.fsum(values) / len(rows) for values in zip(*rows, strict=True)])

    def zone_of(self, cards: Sequence[Labels]) -> str:
        """The one zone of cards, "" if there are several."""
        found = {self.zones.get((cluster, instance), "") for cluster, instance, _ in cards}
        return found.pop() if len(found) == 1 else ""

    def bare_watts(self, asked: Grid) -> dict[str, float]:
        """Watts of cards that nothing used or held, by product."""
        seen: defaultdict[str, list[float]] = defaultdict(list)
        for card, steps in self.bare.items():
            seen[self.models.get(card, "")] += [joules / asked.step for joules in steps if joules > 0]
        least = _LEAST_BARE_SECONDS / asked.step
        return {name: math.fsum(watts) / len(watts) for name, watts in seen.items() if name and len(watts) >= least}
