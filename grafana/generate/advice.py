"""Advice: what GPUs did, what of it is waste, and how much each lever could save at most."""

from __future__ import annotations

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from . import queries as q
from . import recorded, waste
from .board import Row, board
from .empty import NO_RULES, Empty
from .links import ADVICE, MODEL, MODELS, NODES, OVERVIEW, WORKLOADS, from_place, from_row, onward
from .palette import ACTIVE, ACTIVITY
from .panels import KG, KWH, KWH_PER_MONTH, Ask, Line, bars, course, number
from .table import CLUSTER, Label, Value, table
from .variables import currency, everywhere, model_name, namespace

_WHERE = (q.NAMESPACE, 'model_name=~"$model_name"')
_MODEL = "cluster, model_name, namespace, phase, lever"
_POD = "cluster, instance, namespace, pod, container"
_BOUND = (
    "An upper bound: all energy of the time in which it applies, as the mean of the last seven days over a month of "
    "730 hours. No lever saves all of it; ai-energy-exporter advise estimates"
)
_NONE = Empty("Nothing to advise", "no lever applies, or the rules have run for less than a quarter of an hour.")


def dashboard() -> Dashboard:
    """Waste and levers on the first screen, their evidence below."""
    return board(
        ADVICE,
        "What do GPUs do, how much of it is waste, what can be done about it, and how much would that save at most?",
        [*everywhere(), namespace(), model_name(), currency()],
        [
            Row(4, [(5, _unused()), (5, _free()), (5, _floor()), (5, _at_most()), (4, _limit())]),
            Row(11, [(24, _levers())]),
            Row(10, [(16, _containers()), (8, _activities_of_week())]),
            Row(9, [(24, _activities())]),
        ],
        since="now-24h",
    )


def _unused() -> Builder[Panel]:
    ask = Ask(
        1,
        "Unused GPUs",
        "How much energy did GPUs take that are held and not used?",
        f"In the time range, of the selected namespaces. {waste.UNUSED_MEANS}.",
        NO_RULES,
        [onward(WORKLOADS)],
    )
    return number(ask, f"{waste.or_zero(waste.unused('', q.NAMESPACE), waste.of_nodes())} / {q.KWH:g}", KWH, decimals=1)


def _free() -> Builder[Panel]:
    ask = Ask(
        2,
        "Free GPUs",
        "How much energy did GPUs take that have no holder?",
        "In the time range, of all nodes: switch them off, or lend them out.",
        NO_RULES,
        [onward(NODES)],
    )
    return number(ask, f"{waste.or_zero(waste.free(), waste.of_nodes())} / {q.KWH:g}", KWH, decimals=1)


def _floor() -> Builder[Panel]:
    ask = Ask(
        3,
        "Idle floor",
        "How much is the idle power of cards at work?",
        "In the time range, of the selected namespaces. It is no waste: it cannot be saved while the card is used.",
        NO_RULES,
        [onward(OVERVIEW)],
    )
    return number(ask, f"{waste.idle_floor(q.NAMESPACE)} / {q.KWH:g}", KWH, decimals=1)


def _at_most() -> Builder[Panel]:
    ask = Ask(
        4,
        "Levers, at most",
        "How much could all levers save together?",
        f"Levers of models and free GPUs. {_BOUND}.",
        _NONE,
        [onward(OVERVIEW)],
    )
    models, free = waste.at_most("model", "", *_WHERE), waste.at_most("cluster", "")
    return number(ask, f"(({models}) or 0 * ({free})) + (({free}) or 0 * ({models}))", KWH_PER_MONTH, decimals=0)


def _limit() -> Builder[Panel]:
    ask = Ask(
        5,
        "Of the limit",
        "Is any waste above the limit?",
        "The largest waste of a namespace, or of free GPUs, in the last seven days, as a share of the limit from which "
        "on EnergyWasteAboveLimit fires (cluster:energy_waste_limit_kwh:week).",
        NO_RULES,
        [onward(OVERVIEW)],
    )
    largest = f"max(last_over_time({q.series('namespace:energy_waste_kwh:sum7d', node=q.CLUSTER)}[20m]))"
    return number(ask, f"{largest} / max({waste.LIMIT})", "percentunit", steps=[(1, waste.STEPS[0][1])], decimals=0)


def _levers() -> Builder[Panel]:
    ask = Ask(
        6,
        "Levers by model",
        "Which lever could save how much, for which model?",
        f"{_BOUND}. Those of one model are of different energy, so they may be added up. CO2e and cost are at the mean "
        "intensity and price of these days. A click on the lever opens the model with its cards, load and tokens.",
        _NONE,
    )
    return table(
        ask,
        [
            Label("model_name", "Model", 0, from_row(MODEL, "Open this model", model_name="Model")),
            CLUSTER,
            Label("namespace", "Namespace", 150, from_place(WORKLOADS, "Open this namespace", namespace="Namespace")),
            Label("phase", "Phase", 90),
            Label("lever", "What to do", 220, from_row(MODEL, "Its evidence", model_name="Model"), waste.LEVERS),
        ],
        [
            Value(waste.AT_MOST, waste.at_most("model", _MODEL, *_WHERE), "none", 1, 120, total=True),
            Value("CO2e", waste.grams_a_month("model", _MODEL, *_WHERE), KG, 1, 120, total=True),
            Value("Cost", waste.cost_a_month("model", _MODEL, *_WHERE), "none", 2, 110, total=True),
        ],
        sort=waste.AT_MOST,
    )


def _containers() -> Builder[Panel]:
    ask = Ask(
        7,
        "Held and not used, by workload",
        "Which workload holds GPUs that it does not use?",
        "Containers that held a GPU in the last half hour without using it, with a model or without: the mean of the "
        "last day over a month. With a model it is among the levers of that model too.",
        Empty("No unused GPU", "no workload holds a GPU without using it, or the rules are not loaded."),
    )
    return table(
        ask,
        [
            CLUSTER,
            Label("namespace", "Namespace", 118, from_place(WORKLOADS, "Open this namespace", namespace="Namespace")),
            Label("pod", "Pod", 0, from_place(WORKLOADS, "Open this pod", namespace="Namespace", pod="Pod")),
            Label("container", "Container", 85),
            Label("instance", "Node", 95, from_place(NODES, "Open this node", instance="Node")),
        ],
        [
            Value(waste.AT_MOST, waste.at_most("pod", _POD, q.NAMESPACE), "none", 1, 118, total=True),
            Value("CO2e", waste.grams_a_month("pod", _POD, q.NAMESPACE), KG, 1, 80, total=True),
            Value("Cost", waste.cost_a_month("pod", _POD, q.NAMESPACE), "none", 2, 75, total=True),
        ],
        sort=waste.AT_MOST,
    )


def _activities_of_week() -> Builder[Panel]:
    ask = Ask(
        8,
        "By activity",
        "What did the GPUs of models do?",
        "Energy in the time range by what the card did while the model held it: docs/dashboards.md.",
        NO_RULES,
        [onward(MODELS)],
    )
    used = f"sort_desc({recorded.over_range(waste.ACTIVITY, 'activity', *_WHERE)} / {q.KWH:g})"
    return bars(ask, [Line(used, "{{activity}}")], KWH, base=ACTIVE, decimals=2)


def _activities() -> Builder[Panel]:
    ask = Ask(
        9,
        "GPU power by activity",
        "What do the GPUs of models do, and when?",
        "Power of the selected models by what their cards did: idle is unused; throttled, underused and host_bound "
        "have a lever; memory_bound, compute_bound and mixed are use; unknown has not enough facts.",
        NO_RULES,
        [onward(MODELS)],
    )
    watts = q.total(q.rate("energy_model_activity_joules_total", *_WHERE), "activity")
    lines = [Line(f"{watts} > 0", "{{activity}}")]
    return course(ask, lines, "watt", colours=ACTIVITY, stacked=True, summary="right")
