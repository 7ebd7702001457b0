"""Overview: the week by model and team, power now, the workloads that draw it, waste, and energy budgets."""

from __future__ import annotations

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from . import budget_queries as budget
from . import queries as q
from . import recorded, waste
from .board import Row, board
from .empty import (
    NO_BUDGET,
    NO_EXPORTER,
    NO_IMPACT,
    NO_METER,
    NO_MODEL,
    NO_RULES,
    NO_TOKENS,
    Empty,
)
from .links import (
    ADVICE,
    BUDGETS,
    EXPORTER,
    MODEL,
    MODELS,
    NODES,
    OVERVIEW,
    WORKLOADS,
    from_line,
    from_place,
    from_row,
    onward,
    runbook,
)
from .palette import ACTIVE, BAD, COMPONENT, GOOD, HELD_IDLE, LOST, NODE_IDLE, SEVERITY, UNUSED, WARN
from .panels import KG, KWH, KWH_PER_YEAR, MILLIONS, PER_TOKEN, Ask, Line, bars, course, number
from .table import CLUSTER, Label, Value, table
from .variables import currency, everywhere, namespace, runbooks

_UNATTRIBUTED = "energy_unattributed_joules_total"
_HOLDER = "cluster, instance, namespace, pod, container"
_IDLE = 'mode="idle"'
_CURRENCY = 'currency="$currency"'
_OF_WEEK = "Of the last seven days, whatever time range and node are selected, from what the rules have recorded."


def dashboard(runbook_address: str) -> Dashboard:
    """The first page: the week on the first screen of a laptop, the present on the next."""
    return board(
        OVERVIEW,
        "How much energy, CO2e and money did the week take, by model and team, how many tokens did it bring, how much "
        "power is drawn now, how much of it is waste, and do the energy budgets hold?",
        [*everywhere(), namespace(), currency(), runbooks(runbook_address)],
        [
            Row(4, [(4, _power()), (4, _joules()), (4, _grams()), (4, _cost()), (4, _tokens()), (4, _alerts())]),
            Row(12, [(13, _week_of_models()), (11, _week_of_teams())]),
            Row(10, [(15, _uses()), (9, _models())]),
            Row(4, [(4, _energy()), (4, _year()), (4, _waste()), (4, _measured()), (4, _intensity()), (4, _price())]),
            Row(9, [(17, _unused_gpus()), (7, _budgets())]),
            Row(9, [(24, _firing())]),
        ],
    )


def _power() -> Builder[Panel]:
    return number(
        Ask(
            1,
            "Power now",
            "How much power is drawn now?",
            "Power of all selected nodes, every component once, as their meters count it.",
            NO_EXPORTER,
            [onward(NODES)],
        ),
        q.watts("node"),
        "watt",
    )


def _energy() -> Builder[Panel]:
    return number(
        Ask(
            2,
            "Energy",
            "How much energy was used?",
            "Energy of all selected nodes in the time range of the dashboard.",
            NO_EXPORTER,
            [onward(NODES)],
        ),
        q.kwh("node"),
        "kwatth",
    )


def _year() -> Builder[Panel]:
    return number(
        Ask(
            3,
            "At this rate",
            "How much is that in a year?",
            "Energy of a year at the mean power of the measured part of the time range: an extrapolation, and an hour "
            "is not representative of a year.",
            NO_EXPORTER,
            [onward(MODELS)],
        ),
        # not the rate of the whole range: on the first day that would divide by hours without samples
        q.per_year(f"avg_over_time({q.watts('node')}[$__range:$__interval])"),
        KWH_PER_YEAR,
        decimals=0,
    )


def _waste() -> Builder[Panel]:
    return number(
        Ask(
            4,
            "Waste",
            "How much energy do GPUs take that do nothing?",
            f"Unused and free GPUs, as a share of all energy in the time range, whatever node is selected. "
            f"{waste.UNUSED_MEANS}. Free GPUs have no holder.",
            NO_RULES,
            [onward(ADVICE)],
        ),
        waste.share(waste.of_all_kinds(), waste.of_nodes()),
        "percentunit",
        steps=waste.STEPS,
        base=waste.BASE,
        decimals=1,
    )


def _measured() -> Builder[Panel]:
    # of nodes, whose components are disjoint: devices include each other, a package its cores
    rates = q.rate("energy_node_joules_total", q.NOT_OTHER)
    others = q.series("energy_power_source_info", 'quality!="measured"')
    measured = f"{rates} unless on (cluster, job, instance, component) {others}"
    return number(
        Ask(
            5,
            "Measured",
            "How much is measured?",
            "Share of the power of CPUs, memory and GPUs that is measured by a meter. The rest is estimated from "
            "utilisation, as on virtual machines, where the hypervisor hides the meters, or simulated (--demo).",
            NO_METER,
            [onward(EXPORTER)],
        ),
        f"({q.total(measured)} or vector(0)) / ({q.total(rates)} > 0)",
        "percentunit",
        steps=[(0.5, WARN), (0.95, GOOD)],
        base=BAD,
        decimals=0,
    )


def _alerts() -> Builder[Panel]:
    evaluated = q.series("node:energy_node_joules:rate5m", node=q.CLUSTER)
    return number(
        Ask(
            6,
            "Alerts",
            "Is anything wrong?",
            "Energy alerts that fire now, except those with severity info; listed at the end of this page.",
            Empty("Unknown", "no exporter answers, or Prometheus does not evaluate the rules: see docs/rules.md."),
            [onward(EXPORTER)],
        ),
        '(count(ALERTS{alertstate="firing",alertname=~"Energy.*",severity!="info"}) or vector(0)) '
        f"and on () group({evaluated})",
        "none",
        steps=[(1, BAD)],
        base=GOOD,
    )


def _firing() -> Builder[Panel]:
    by = "alertname, severity, owner, cluster, namespace, pod, model_name, instance, budget"
    return table(
        Ask(
            12,
            "Firing alerts",
            "Which alerts fire, and which owner has to act?",
            "Energy alerts that fire now, of every severity. A click on the name opens the runbook, at the address "
            "that is set above.",
            Empty("No alert fires", "none of the energy alerts fires, or Prometheus does not evaluate them."),
        ),
        [
            Label("alertname", "Alert", 215, runbook()),
            Label("severity", "Severity", 80, texts=SEVERITY),
            Label("owner", "Owner", 110),
            CLUSTER,
            Label("namespace", "Namespace", 115, from_place(WORKLOADS, "Open this namespace", namespace="Namespace")),
            Label("pod", "Pod", 0, from_place(WORKLOADS, "Open this pod", namespace="Namespace", pod="Pod")),
            Label("model_name", "Model", 0, from_row(MODEL, "Open this model", model_name="Model")),
            Label("instance", "Node", 100, from_place(NODES, "Open this node", instance="Node")),
            Label("budget", "Budget", 125, from_row(BUDGETS, "Open this budget", budget="Budget")),
        ],
        [Value("Alerts", f'count by ({by}) (ALERTS{{alertstate="firing",alertname=~"Energy.*"}})', "none", 0, 65)],
        sort="Alerts",
    )


def _uses() -> Builder[Panel]:
    unused, held = q.watts("container_gpu_unused"), q.watts("container", "", _IDLE)
    return course(
        Ask(
            7,
            "Power by use",
            "Where does the power go?",
            "Work is power above idle power. Unused is a GPU that a workload holds while it does nothing on it; the "
            "idle floor is idle power of cards at work, which is no waste. Idle power of CPUs, memory and free cards "
            "belongs to the node, and so do fans, disks and the power supply. Unexplained are the kernel, processes "
            "too short to be sampled, and gaps. The dashed line is the sum of a week before.",
            NO_EXPORTER,
            [onward(WORKLOADS), onward(NODES)],
        ),
        [
            Line(q.watts("container", "", 'mode="active"'), "Work"),
            Line(unused, "Unused GPUs"),
            Line(f"clamp_min({held} - ({unused} or 0 * {held}), 0)", "Idle floor"),
            Line(q.watts("unattributed", "", 'reason="idle"'), "Idle, of the node"),
            Line(q.watts("unattributed", "", 'reason!="idle"', q.OTHER), "Fans, disks, supply"),
            Line(q.watts("unattributed", "", 'reason!="idle"', q.NOT_OTHER), "Unexplained"),
            Line(q.week_before("node"), "A week before"),
        ],
        "watt",
        colours={
            "Work": ACTIVE,
            "Unused GPUs": UNUSED,
            "Idle floor": HELD_IDLE,
            "Idle, of the node": NODE_IDLE,
            "Fans, disks, supply": COMPONENT["other"],
            "Unexplained": LOST,
        },
        stacked=True,
        before="A week before",
        summary="right",
    )


def _models() -> Builder[Panel]:
    power = q.watts("model", "model_name", q.NAMESPACE)
    return bars(
        Ask(
            8,
            "Power of the largest models",
            "Which models draw most?",
            "Power of the ten largest models: GPU, CPU and memory, work and idle. Click a model for its details.",
            NO_MODEL,
            [onward(MODELS)],
        ),
        [Line(f"sort_desc(topk(10, {power}))", "{{model_name}}")],
        "watt",
        base=ACTIVE,
        follow=from_line(MODEL, "Open this model", "model_name"),
    )


def _unused_gpus() -> Builder[Panel]:
    used = waste.unused_by_pod(_HOLDER, q.NAMESPACE)
    top = f"topk(10, {used} > 0)"
    now = f"last_over_time({q.series(waste.UNUSED_BY_POD, q.NAMESPACE, node=q.CLUSTER)}[10m])"
    return table(
        Ask(
            10,
            "Unused GPUs",
            "Which workloads hold GPUs that they do not use?",
            f"The ten containers with most, whatever node is selected. {waste.UNUSED_MEANS}. Power is the mean of the "
            "last five minutes; at most is what a month would save if each container ended when it did nothing.",
            Empty("No unused GPU", "no workload holds a GPU without using it, or the rules are not loaded."),
            [onward(ADVICE)],
        ),
        [
            CLUSTER,
            Label("namespace", "Namespace", 115),
            Label("pod", "Pod", 0, from_place(WORKLOADS, "Open this pod", namespace="Namespace", pod="Pod")),
            Label("container", "Container", 90),
            Label("instance", "Node", 90, from_place(NODES, "Open this node", instance="Node")),
        ],
        [
            Value("Unused", f"{q.total(now, _HOLDER)} > 0 and on ({_HOLDER}) {top}", "watt", None, 80, total=True),
            Value("Energy", f"{top} / {q.KWH:g}", KWH, 2, 95, total=True),
            Value(
                waste.AT_MOST,
                f"{waste.at_most('pod', _HOLDER, q.NAMESPACE)} and on ({_HOLDER}) {top}",
                "none",
                0,
                110,
                total=True,
                follow=from_place(ADVICE, "What to do", namespace="Namespace"),
            ),
        ],
        sort="Energy",
    )


def _budgets() -> Builder[Panel]:
    return bars(
        Ask(
            11,
            "Use of the budgets",
            "Which budgets are nearly used up?",
            "Used share of each energy budget in its window: the ten with the highest share.",
            NO_BUDGET,
            [onward(BUDGETS)],
        ),
        [Line(f"sort_desc(topk(10, {budget.used_ratio()}))", "{{budget}} {{cluster}}")],
        "percentunit",
        steps=[(0.8, WARN), (1, BAD)],
        base=GOOD,
        most=2,
        decimals=0,
        follow=from_line(BUDGETS, "Open this budget", "budget"),
    )


def _joules() -> Builder[Panel]:
    return number(
        Ask(
            18,
            "Energy, 7 days",
            "How much energy did the week take?",
            f"Of all nodes, every component once. {_OF_WEEK}",
            NO_RULES,
            [onward(NODES)],
        ),
        f"{recorded.of_week('cluster:energy_node_joules:rate5m')} / {q.KWH:g}",
        "kwatth",
    )


def _grams() -> Builder[Panel]:
    return number(
        Ask(
            13,
            "CO2e, 7 days",
            "How much CO2e was emitted for this energy?",
            f"Of all nodes, at the carbon intensity of each moment, the building's overhead (PUE) included. {_OF_WEEK}",
            NO_IMPACT,
            [onward(MODELS)],
        ),
        f"{recorded.of_week('cluster:energy_node_carbon_grams:rate5m')} / 1000",
        KG,
    )


def _cost() -> Builder[Panel]:
    return number(
        Ask(
            14,
            "Cost, 7 days",
            "What did this energy cost?",
            "Of all nodes, at the price of each moment, PUE included, in the currency that is chosen above; credits at "
            f"negative prices are subtracted. {_OF_WEEK}",
            NO_IMPACT,
            [onward(MODELS)],
        ),
        recorded.of_week("cluster:energy_node_cost:rate5m", "", _CURRENCY),
        "none",
        decimals=2,
    )


def _tokens() -> Builder[Panel]:
    return number(
        Ask(
            19,
            "Tokens, 7 days",
            "How many tokens did this energy bring?",
            f"Generated tokens of all models, in millions. {_OF_WEEK}",
            NO_TOKENS,
            [onward(MODELS)],
        ),
        f"{recorded.of_week('model:output_tokens:rate5m')} / 1e6",
        MILLIONS,
        decimals=1,
    )


def _intensity() -> Builder[Panel]:
    return number(
        Ask(
            15,
            "CO2e per kWh",
            "How much CO2e does a kWh stand for now?",
            "Mean of the selected nodes, without PUE. Zone, source and year are the labels of energy_impact_info.",
            NO_IMPACT,
            [onward(EXPORTER)],
        ),
        f"avg({q.series('energy_carbon_intensity_grams_per_kilowatt_hour')})",
        "suffix:g/kWh",
        decimals=0,
    )


def _price() -> Builder[Panel]:
    chosen = q.series("energy_electricity_price_per_kilowatt_hour", 'currency="$currency"')
    return number(
        Ask(
            16,
            "Price per kWh",
            "What does a kWh cost now?",
            "Mean of the selected nodes, without PUE, in the currency that is chosen above.",
            NO_IMPACT,
            [onward(EXPORTER)],
        ),
        f"avg({chosen})",
        "none",
        decimals=3,
    )


def _week_of_models() -> Builder[Panel]:
    by = "cluster, model_name"
    return table(
        Ask(
            20,
            "Seven days by model",
            "Which model took how much in the week, and what did it bring?",
            "Tokens are generated ones, in millions; J/token is all energy of serving, idle hours included, by these. "
            f"CO2e and cost as above, in the currency that is chosen. {_OF_WEEK}",
            NO_MODEL,
            [onward(MODELS)],
        ),
        [
            Label("model_name", "Model", 0, from_row(MODEL, "Open this model", model_name="Model")),
            CLUSTER,
        ],
        [
            Value("Energy", _kwh_of_week("model:energy_model_watts:zero_filled", by), KWH, 1, 92, total=True),
            Value("CO2e", _kg_of_week("model:energy_model_carbon_grams:rate5m", by), KG, 1, 80, total=True),
            Value("Cost", _cost_of_week("model:energy_model_cost:rate5m", by), "none", 2, 70, total=True),
            Value("Tokens", _tokens_of_week(by), MILLIONS, 1, 80, total=True),
            Value("J/token", q.joules_per_token(by, q.NAMESPACE, window=q.WEEK), PER_TOKEN, None, 105),
        ],
        sort="Energy",
    )


def _week_of_teams() -> Builder[Panel]:
    by = "cluster, namespace"
    idle = _cost_of_week("namespace:energy_container_cost:rate5m", by, _IDLE)
    return table(
        Ask(
            17,
            "Seven days by namespace",
            "Which team took how much in the week, and what did it cost?",
            "Containers of each namespace; the row without a namespace is what runs outside Kubernetes. Idle cost is "
            f"that of the idle power of held GPUs, at work or not. What no workload caused is on Nodes. {_OF_WEEK}",
            Empty("No workload", "no container was seen, or the recording rules are not loaded."),
            [onward(WORKLOADS)],
        ),
        [
            Label("namespace", "Namespace", 0, from_place(WORKLOADS, "Open this namespace", namespace="Namespace")),
            CLUSTER,
        ],
        [
            Value("Energy", _kwh_of_week("namespace:energy_container_joules:rate5m", by), KWH, 1, 90, total=True),
            Value("CO2e", _kg_of_week("namespace:energy_container_carbon_grams:rate5m", by), KG, 1, 80, total=True),
            Value("Cost", _cost_of_week("namespace:energy_container_cost:rate5m", by), "none", 2, 70, total=True),
            Value("Idle cost", idle, "none", 2, 75, total=True),
            Value("Tokens", _tokens_of_week(by), MILLIONS, 1, 80, total=True),
        ],
        sort="Energy",
    )


def _kwh_of_week(name: str, by: str) -> str:
    return f"{recorded.of_week(name, by, q.NAMESPACE)} / {q.KWH:g}"


def _kg_of_week(name: str, by: str) -> str:
    return f"{recorded.of_week(name, by, q.NAMESPACE)} / 1000"


def _cost_of_week(name: str, by: str, *where: str) -> str:
    return recorded.of_week(name, by, q.NAMESPACE, _CURRENCY, *where)


def _tokens_of_week(by: str) -> str:
    return f"{recorded.of_week('model:output_tokens:rate5m', by, q.NAMESPACE)} / 1e6"
