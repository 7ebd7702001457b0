"""PromQL that several dashboards share: watts, kilowatt-hours, and what makes them comparable.

Watts are `rate()` over joules, kilowatt-hours `increase()`: the counters are the truth, between scrapes too.
``where`` are further matchers of a selector, ``by`` are labels to keep.
"""

from __future__ import annotations

NODE = 'cluster=~"$cluster",job=~"$job",instance=~"$instance"'
CLUSTER = 'cluster=~"$cluster"'
"""All that recorded series of namespaces and models have left of where they come from."""
NAMESPACE = 'namespace=~"$namespace"'
MODEL = 'model_name="$model_name"'

GPU, CPU = 'component="gpu"', 'component="cpu"'
OTHER, NOT_OTHER = 'component="other"', 'component!="other"'
WHOLE = 'gpu_instance=""'
"""Cards, not the parts that MIG cuts them into."""

KWH = 3.6e6
"""Joules."""
KWH_PER_YEAR = 8.76
"""Kilowatt-hours that one watt makes in a year of 365 days."""


def series(metric: str, *where: str, node: str = NODE) -> str:
    """A selector of the chosen nodes."""
    return f"{metric}{{{','.join([node, *where])}}}"


def rate(metric: str, *where: str) -> str:
    """Per second, over the shortest window that the panel's resolution allows."""
    return f"rate({series(metric, *where)}[$__rate_interval])"


def increase(metric: str, *where: str) -> str:
    """In the dashboard's time range."""
    return f"increase({series(metric, *where)}[$__range])"


def total(expr: str, by: str = "") -> str:
    """Sum of an expression, by some labels."""
    return f"sum by ({by}) ({expr})" if by else f"sum({expr})"


def watts(level: str, by: str = "", *where: str) -> str:
    """Power of node, container, model, … by some labels."""
    return total(rate(f"energy_{level}_joules_total", *where), by)


def kwh(level: str, by: str = "", *where: str) -> str:
    """Energy in the time range, in kWh."""
    return f"{total(increase(f'energy_{level}_joules_total', *where), by)} / {KWH:g}"


def per_year(power: str) -> str:
    """What a power would be in a year, in kWh."""
    return f"({power}) * {KWH_PER_YEAR}"


def idle_share(level: str, by: str, *where: str) -> str:
    """Part of the energy in the time range that was idle power of what is held, from 0 to 1."""
    metric = f"energy_{level}_joules_total"
    held, everything = total(increase(metric, 'mode="idle"', *where), by), total(increase(metric, *where), by)
    return f"{held} / ({everything} > 0)"


def top(count: int, expr: str, by: str, level: str, *where: str) -> str:
    """Only those that used most in the whole time range, so that a graph shows no more than ``count`` lines."""
    used = total(f"increase({series(f'energy_{level}_joules_total', *where)}[$__range] @ end())", by)
    return f"{expr} and on ({by}) topk({count}, {used})"


def on_cards_of_models(expr: str, *, whole_card: bool = False, where: tuple[str, ...] = ('model_name!=""',)) -> str:
    """The largest value of a GPU's quantity over the cards, or parts of cards, that a model's pods were given."""
    card = "cluster, instance, uuid" if whole_card else "cluster, instance, uuid, gpu_instance"
    given = f"({series('energy_gpu_allocated_ratio')} > bool 0)"
    named = series("energy_container_info", *where)
    return (
        f"max by (model_name, namespace) (({expr}) * on ({card}) group_right () {given} "
        f"* on (cluster, instance, namespace, pod, container) group_left (model_name) {named})"
    )


def throttled(by: str, window: str = "$__rate_interval") -> str:
    """Part of the time during which a card's clocks were held down, for the longest-lasting reason."""
    return f"max by ({by}) (rate({series('energy_gpu_throttle_seconds_total')}[{window}]))"
