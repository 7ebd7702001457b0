"""Families of carbon and money."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from ...impact.values import Impact
from ...snapshot import EmbodiedView, ImpactView, Snapshot
from .families import CONTAINER, MODEL, Family, Kind, Level, Sample

Quantity = Literal["grams", "cost", "credit"]
Rate = Callable[[EmbodiedView], float]

_HOUR = 3600.0

_NAMES: dict[Quantity, str] = {"grams": "carbon_grams", "cost": "cost", "credit": "credit"}
_ABOUT: dict[Quantity, str] = {
    "grams": "CO2e of the electricity {}, in grams, PUE included, at the carbon intensity in force when it was used.",
    "cost": "Cost of the electricity {}, in units of the currency, PUE included, at the price in force when it was "
    "used; negative prices count in the credit instead.",
    "credit": "Credit for the electricity {} at negative prices, in units of the currency; absent where prices are "
    "never negative.",
}


def is_known(view: ImpactView | None, quantity: Quantity) -> bool:
    """Whether there are series of a quantity: never for an unknown rate."""
    if view is None or (quantity == "credit" and not view.factors.credits):
        return False
    return getattr(view.rates, quantity) is not None


def _currency(quantity: Quantity) -> tuple[str, ...]:
    """The label of a quantity of money."""
    return () if quantity == "grams" else ("currency",)


def money(view: ImpactView, quantity: Quantity) -> tuple[str, ...]:
    """The value of the label ``currency``, which grams do not have."""
    return () if quantity == "grams" else (view.factors.currency,)


@dataclass(frozen=True, slots=True)
class ImpactFamily(Family):
    """Grams, cost or credit of a `Level`: its lines are cached per account, as those of its joules."""

    level: Level
    quantity: Quantity


def _of_level(level: Level, subject: str, quantity: Quantity) -> ImpactFamily:
    def samples(snapshot: Snapshot) -> Iterator[Sample]:
        view = snapshot.impact
        if view is None or not is_known(view, quantity):
            return
        for row in level.unique(snapshot):
            owner = level.values(row.owner)
            for mode, impact in row.impacts(view.rates).items():
                yield (*owner, mode, *money(view, quantity)), getattr(impact, quantity)

    labels = (*level.labels, "mode", *_currency(quantity))
    name = f"energy_{level.name}_{_NAMES[quantity]}_total"
    return ImpactFamily(name, "counter", _ABOUT[quantity].format(subject), labels, samples, level, quantity)


def _of_node(
    name: str,
    subject: str,
    quantity: Quantity,
    parts: Callable[[ImpactView], Iterator[tuple[tuple[str, ...], Impact]]],
    labels: tuple[str, ...] = (),
    kind: Kind = "counter",
) -> Family:
    def samples(snapshot: Snapshot) -> Iterator[Sample]:
        view = snapshot.impact
        if view is not None and is_known(view, quantity):
            for values, impact in parts(view):
                yield (*values, *money(view, quantity)), getattr(impact, quantity)

    full = f"energy_{name}_{_NAMES[quantity]}" + ("_total" if kind == "counter" else "")
    return Family(full, kind, _ABOUT[quantity].format(subject), (*labels, *_currency(quantity)), samples)


def _impacts() -> Iterator[Family]:
    quantities: tuple[Quantity, ...] = ("grams", "cost", "credit")
    for quantity in quantities:
        yield _of_node("node", "of the node", quantity, lambda view: iter((((), view.node),)))
        yield _of_level(CONTAINER, "of a container, systemd unit, Slurm job or the host itself", quantity)
        yield _of_level(MODEL, "of the processes that work for an AI model", quantity)
        yield _of_node(
            "unattributed",
            "that is attributed to no workload",
            quantity,
            lambda view: (((reason,), impact) for reason, impact in sorted(view.unattributed.items())),
            ("reason",),
        )
        yield _of_node(
            "retired", "of containers that are no longer exposed", quantity, lambda view: iter((((), view.retired),))
        )
        yield _of_node(
            "unnamed",
            "of containers that is not in their counters yet",
            quantity,
            lambda view: iter((((), view.unnamed),)),
            kind="gauge",
        )


def _factor(
    name: str, help_text: str, value: Callable[[ImpactView], float | None], *, currency: bool = False
) -> Family:
    def samples(snapshot: Snapshot) -> Iterator[Sample]:
        if (view := snapshot.impact) is not None:
            yield ((view.factors.currency,) if currency else ()), value(view)

    return Family(name, "gauge", help_text, ("currency",) if currency else (), samples)


def _info(snapshot: Snapshot) -> Iterator[Sample]:
    if (view := snapshot.impact) is not None and (view.factors.provider or view.factors.currency):
        known = view.factors
        estimated = "true" if known.estimated else "false"
        source = (known.zone, known.provider, known.source, known.basis, known.factor_type, known.year)
        yield (*source, estimated, known.currency), 1


def _times(snapshot: Snapshot) -> Iterator[Sample]:
    if (view := snapshot.impact) is not None:
        yield ("intensity",), view.factors.intensity_at
        yield ("marginal_intensity",), view.factors.marginal_at
        yield ("price",), view.factors.price_at


def _embodied() -> Iterator[Family]:
    bounds: tuple[Literal["low", "high"], ...] = ("low", "high")
    for bound in bounds:

        def rate(view: EmbodiedView, bound: Literal["low", "high"] = bound) -> float:
            return view.per_hour.low if bound == "low" else view.per_hour.high

        def node(snapshot: Snapshot, rate: Rate = rate) -> Iterator[Sample]:
            if (view := snapshot.embodied) is not None:
                yield (), view.node * rate(view) / _HOUR

        def containers(snapshot: Snapshot, rate: Rate = rate) -> Iterator[Sample]:
            if (view := snapshot.embodied) is not None:
                for key, seconds in sorted(view.containers.items()):
                    yield key, seconds * rate(view) / _HOUR

        def per_hour(snapshot: Snapshot, rate: Rate = rate) -> Iterator[Sample]:
            if (view := snapshot.embodied) is not None:
                yield (view.per_hour.source,), rate(view)

        about = f"in grams of CO2e, {bound} bound of --impact.embodied; no part of the grams of electricity."
        yield Family(
            f"energy_node_embodied_carbon_{bound}_grams_total",
            "counter",
            f"Embodied carbon of the time in which the GPUs of the node were there, held or not, {about}",
            (),
            node,
        )
        yield Family(
            f"energy_container_embodied_carbon_{bound}_grams_total",
            "counter",
            f"Embodied carbon of the time in which a container held GPUs, busy or idle, {about}",
            CONTAINER.labels,
            containers,
        )
        yield Family(
            f"energy_embodied_carbon_{bound}_grams_per_gpu_hour",
            "gauge",
            f"Embodied carbon of a GPU for each hour of its life, {about}",
            ("source",),
            per_hour,
        )


IMPACT: tuple[Family, ...] = (
    *_impacts(),
    *_embodied(),
    _factor(
        "energy_carbon_intensity_grams_per_kilowatt_hour",
        "Carbon intensity of electricity in force, in grams of CO2e per kWh, without PUE.",
        lambda view: view.factors.intensity,
    ),
    _factor(
        "energy_marginal_carbon_intensity_grams_per_kilowatt_hour",
        "Grams of CO2 per kWh that a little more or less use now would cause or save: for moving work to another time, "
        "never for totals, which it is not counted in.",
        lambda view: view.factors.marginal,
    ),
    _factor(
        "energy_electricity_price_per_kilowatt_hour",
        "Price of electricity in force, in units of the currency per kWh, without PUE; it may be negative.",
        lambda view: view.factors.price,
        currency=True,
    ),
    _factor(
        "energy_pue_ratio",
        "Power usage effectiveness that grams and money are multiplied by; joules are not.",
        lambda view: view.factors.pue,
    ),
    Family(
        "energy_impact_info",
        "gauge",
        "Always 1; source of the carbon intensity: zone, provider (table, operator, simulated, or the feed), "
        "accounting basis "
        "(location, market), type of factor (lifecycle, operational, direct), year of the data; and the currency.",
        ("zone", "provider", "source", "basis", "factor_type", "year", "estimated", "currency"),
        _info,
    ),
    Family(
        "energy_impact_factor_timestamp_seconds",
        "gauge",
        "Unix time of the newest live value of a factor, in seconds, also when it is too old to be in force; absent "
        "for constants, tables and tariffs, which do not age.",
        ("factor",),
        _times,
    ),
)
