"""Waste by its one definition (docs/rules.md), from the series that `prometheus/rules/waste.yml` records.

Every panel and column on waste is made of these, so that the dashboards agree. They are of clusters, namespaces, pods
and models, whatever node is selected.
"""

from __future__ import annotations

from . import queries as q
from .palette import BAD, GOOD, TEXT, WARN
from .panels import Steps
from .recorded import over_range

UNUSED, UNUSED_BY_POD, FREE, ACTIVITY = RECORDED = (
    "namespace:energy_gpu_unused_joules:rate5m",
    "pod:energy_gpu_unused_joules:rate5m",
    "cluster:energy_gpu_free_joules:rate5m",
    "model:energy_model_activity_joules:rate5m",
)

AVOIDABLE = ("throttled", "underused", "host_bound")
"""Activities with a lever; each has a name of its own, and none is added to the waste."""

STEPS: Steps = ((0.05, WARN), (0.2, BAD))
"""Shares of waste at which a number becomes orange and red."""
BASE = GOOD

UNUSED_MEANS = (
    "Unused is energy of GPUs that a workload held, or that were allocated to it, while it did nothing on them; the "
    "idle power of cards at work is not included"
)

AT_MOST = "≤ kWh/month"
"""Title of a column of upper bounds."""

LEVERS = {
    "stop_idle": ("Stop or scale to zero", WARN),
    "free_gpus": ("Switch off, or lend out", WARN),
    "power_cap": ("Lower cap or clock", TEXT),
    "right_size": ("Smaller or shared card", TEXT),
    "data_loader": ("Faster data loading", TEXT),
    "host_cpu": ("Less work on the host", TEXT),
}
"""What to do, by lever; the texts of the runbook and of docs/rules.md say it at length."""
NUMBERS = dict(enumerate(LEVERS, start=1))
LEVER_TEXTS = {float(number): LEVERS[lever] for number, lever in NUMBERS.items()}


def unused(by: str = "", *where: str) -> str:
    """Joules of held GPUs that were not used, of namespaces."""
    return over_range(UNUSED, by, *where)


def unused_by_pod(by: str, *where: str) -> str:
    """The same of pods and containers."""
    return over_range(UNUSED_BY_POD, by, *where)


def free() -> str:
    """Joules of GPUs without a holder."""
    return over_range(FREE)


def of_all_kinds() -> str:
    """Joules of unused and of free GPUs; each is absent where there are none."""
    return f"(({unused()}) or 0 * ({free()})) + (({free()}) or 0 * ({unused()}))"


def by_activity(activity: str, by: str = "", *where: str) -> str:
    """Joules of models while their cards did that; ``idle`` are the unused ones of models."""
    return over_range(ACTIVITY, by, f'activity="{activity}"', *where)


LIMIT = 'last_over_time(cluster:energy_waste_limit_kwh:week{cluster=~"$cluster|"}[10m])'
"""A constant, which is there as soon as the rules are."""


def or_zero(part: str, whole: str) -> str:
    """0 where there is none of the part, because what is 0 is not recorded; absent where the rules are not loaded."""
    return f"(({part}) or 0 * ({whole}) and on () {LIMIT})"


def share(part: str, whole: str) -> str:
    """From 0 to 1, which a range of few samples of both would exceed: they are not of the same minutes."""
    return f"clamp_max({or_zero(part, whole)} / ({whole} > 0), 1)"


def of_nodes() -> str:
    """All energy of the nodes, to compare with."""
    return over_range("cluster:energy_node_joules:rate5m")


def of_pods(by: str = "", *where: str) -> str:
    """The same of pods; all that is outside pods is one of each node."""
    return over_range("pod:energy_container_joules:rate5m", by, *where)


def of_models(by: str = "", *where: str) -> str:
    """All energy of models."""
    return over_range("model:energy_model_watts:zero_filled", by, *where)


def idle_floor(*where: str) -> str:
    """Joules of idle power of GPUs at work: those of containers less the unused ones."""
    idle = over_range("namespace:energy_container_joules:rate5m", "", 'mode="idle"', q.GPU, *where)
    return f"clamp_min({idle} - ({unused('', *where)} or 0 * {idle}), 0)"


def at_most(level: str, by: str, *where: str) -> str:
    """kWh that levers could save in a month at most, of model, pod or cluster."""
    name = {
        "model": "model:energy_advice_kwh_per_month:avg7d",
        "pod": "pod:energy_advice_kwh_per_month:avg1d",
        "cluster": "cluster:energy_advice_kwh_per_month:avg7d",
    }[level]
    # they are recorded every quarter of an hour, which is longer than a series is looked for
    return f"{q.total(f'last_over_time({q.series(name, *where, node=q.CLUSTER)}[20m])', by)}"


def best_lever(level: str, by: str, *where: str) -> str:
    """The lever that could save most, as a number of `LEVER_TEXTS`."""
    numbers = " or ".join(
        f'label_replace(vector({number}), "lever", "{lever}", "", "")' for number, lever in NUMBERS.items()
    )
    best = f"topk by ({by}) (1, {at_most(level, f'{by}, lever', *where)}) > bool 0"
    return f"sum by ({by}) (({best}) * on (lever) group_left () ({numbers}))"


def grams_a_month(level: str, by: str, *where: str) -> str:
    """What the kWh would have emitted, in kg."""
    grams = f"avg_over_time({q.series('cluster:energy_grams_per_kwh:ratio_rate5m', node=q.CLUSTER)}[7d])"
    return f"{at_most(level, by, *where)} * on (cluster) group_left () {grams} / 1000"


def cost_a_month(level: str, by: str, *where: str) -> str:
    """What the kWh would have cost."""
    chosen = q.series("cluster:energy_cost_per_kwh:ratio_rate5m", 'currency="$currency"', node=q.CLUSTER)
    return f"{at_most(level, by, *where)} * on (cluster) group_left () avg_over_time({chosen}[7d])"
