"""PromQL that several dashboards share: watts, kilowatt-hours, and what makes them comparable.

Watts are `rate()` over joules, kilowatt-hours the difference of the counters' values: these are the truth, between
scrapes too. Shares are quotients of `increase()`.
``where`` are further matchers of a selector, ``by`` are labels to keep.
"""

from __future__ import annotations

NODE = 'cluster=~"$cluster",job=~"$job",instance=~"$instance"'
CLUSTER = 'cluster=~"$cluster"'
"""The only target label that recorded series of namespaces and models keep."""
NAMESPACE = 'namespace=~"$namespace"'
MODEL = 'model_name="$model_name"'

NODES = "cluster, instance"
"""Labels that name a node. Two clusters may have nodes, namespaces and pods of the same name, so whatever keeps one of
these keeps its cluster too; where there is no such label, ``by (cluster)`` makes none."""

GPU, CPU = 'component="gpu"', 'component="cpu"'
OTHER, NOT_OTHER = 'component="other"', 'component!="other"'
WHOLE = 'gpu_instance=""'
"""Cards, not MIG instances."""

KWH = 3.6e6
"""Joules."""
WEEK = "604799s"
"""A second short of seven days, because a window includes both of its ends."""
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


def difference(metric: str, *where: str) -> str:
    """What counters grew by in the dashboard's time range, from what they had before it or at their first sample.

    Nothing is extrapolated: `increase()` of Prometheus adds half a scrape interval to a series that ended, 2 % for a
    container of a minute. It counts where the counter was reset, also between the value before the range and its first.
    """
    counter = series(metric, *where)
    window = f"{counter}[$__range]"
    least = f"min_over_time({window})"
    return (
        f"max_over_time({window}) - (({counter} offset $__range or {least}) <= {least}) "
        f"unless resets({window}) > 0 or increase({window})"
    )


def total(expr: str, by: str = "") -> str:
    """Sum of an expression, by some labels."""
    return f"sum by ({by}) ({expr})" if by else f"sum({expr})"


def watts(level: str, by: str = "", *where: str) -> str:
    """Power of node, container, model, … by some labels."""
    return total(rate(f"energy_{level}_joules_total", *where), by)


def kwh(level: str, by: str = "", *where: str) -> str:
    """Energy in the time range, in kWh."""
    return f"{total(difference(f'energy_{level}_joules_total', *where), by)} / {KWH:g}"


def grams(level: str, by: str = "", *where: str) -> str:
    """CO2e in the time range, in kg."""
    return f"{total(difference(f'energy_{level}_carbon_grams_total', *where), by)} / 1000"


def cost(level: str, by: str = "", *where: str) -> str:
    """Cost in the time range, in the chosen currency; credits at negative prices are subtracted."""
    paid, credit = (
        total(difference(f"energy_{level}_{kind}_total", 'currency="$currency"', *where), by)
        for kind in ("cost", "credit")
    )
    return f"{paid} - ({credit} or 0 * {paid})"


def age(metric: str, *where: str) -> str:
    """Seconds since a time that a gauge has; never negative where clocks differ."""
    return f"clamp_min(time() - {series(metric, *where)}, 0)"


def week_before(level: str, by: str = "", *where: str) -> str:
    """Power of a week earlier."""
    selected = series(f"energy_{level}_joules_total", *where)
    return total(f"rate({selected}[$__rate_interval] offset 1w)", by)


def change(level: str, by: str, *where: str) -> str:
    """Energy in the time range compared with the same range a week earlier: 0.1 is 10 % more."""
    metric = series(f"energy_{level}_joules_total", *where)
    now, then = (total(f"increase({metric}[$__range]{at})", by) for at in ("", " offset 1w"))
    return f"{now} / ({then} > 0) - 1"


def per_year(power: str) -> str:
    """A power over a year, in kWh."""
    return f"({power}) * {KWH_PER_YEAR}"


def top(count: int, expr: str, by: str, level: str, *where: str) -> str:
    """Only those that used most in the whole time range, so that a graph shows no more than ``count`` lines."""
    used = total(f"increase({series(f'energy_{level}_joules_total', *where)}[$__range] @ end())", by)
    return f"{expr} and on ({by}) topk({count}, {used})"


def on_cards_of_models(expr: str, *, whole_card: bool = False, where: tuple[str, ...] = ('model_name!=""',)) -> str:
    """The largest value of a GPU's quantity over the cards or MIG instances that are allocated to a model's pods."""
    card = "cluster, instance, uuid" if whole_card else "cluster, instance, uuid, gpu_instance"
    allocated = f"({series('energy_gpu_allocated_ratio')} > bool 0)"
    # for five minutes a restarted container has two series, and a join needs one: take either
    place = "cluster, instance, namespace, pod, container"
    named = f"topk by ({place}) (1, group by ({place}, model_name) ({series('energy_container_info', *where)}))"
    return (
        f"max by (cluster, model_name, namespace) (max by ({card}) ({expr}) * on ({card}) group_right () {allocated} "
        f"* on ({place}) group_left (model_name) {named})"
    )


def joules_per_token(by: str = "", *where: str, window: str = "") -> str:
    """Joules of serving by generated token, by some labels: of five minutes, or of all of a ``window`` such as ``1d``.

    Joules and tokens are added up before they are divided: ratios of two namespaces or clusters cannot be. Models whose
    joules are not complete (`model:energy_serving_unresolved_joules:rate5m`) are left out of both.
    """
    return _joules_per("output_token", by, *where, window=window)


def joules_per_request(by: str = "", *where: str, window: str = "") -> str:
    """The same by request."""
    return _joules_per("request", by, *where, window=window)


def _joules_per(what: str, by: str, *where: str, window: str) -> str:
    model = "cluster, namespace, model_name"
    joules, count, ratio, unresolved = (
        series(f"model:{name}:rate5m", *more, *where, node=CLUSTER)
        for name, more in (
            ("energy_serving_joules", ()),
            (f"{what}s", ()),
            (f"energy_per_{what}_joules", ()),
            ("energy_serving_unresolved_joules", ('reason=~"gpu_without_model|server_not_read"',)),
        )
    )
    if not window:
        return f"{total(f'{joules} and on ({model}) {ratio}', by)} / {total(f'{count} and on ({model}) {ratio}', by)}"
    without = f"max by ({model}) (count_over_time({unresolved}[{window}])) > 0.1 * count_over_time({count}[{window}])"
    counted = f"sum_over_time({count}[{window}]) > 0 unless on ({model}) ({without})"
    return f"{total(f'sum_over_time({joules}[{window}]) and on ({model}) ({counted})', by)} / {total(counted, by)}"


def per_year_of_models(*where: str) -> str:
    """kWh per year from the recorded last week; it looks back longer than the five minutes between evaluations."""
    return f"last_over_time({series('model:energy_model_kwh_per_year:avg7d', *where, node=CLUSTER)}[10m])"


def throttled(by: str, window: str = "$__rate_interval") -> str:
    """Share of the time during which a card's clocks were throttled, by the longest-lasting reason."""
    return f"max by ({by}) (rate({series('energy_gpu_throttle_seconds_total')}[{window}]))"
