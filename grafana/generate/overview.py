"""Overview: power now, the workloads that draw it, waste, and energy budgets."""

from __future__ import annotations

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from . import budget_queries as budget
from . import queries as q
from .board import Row, board
from .links import BUDGETS, EXPORTER, MODEL, MODELS, NODES, OVERVIEW, WORKLOADS, from_row, onward
from .palette import ACTIVE, BAD, COMPONENT, GOOD, HELD_IDLE, LOST, NODE_IDLE, SEVERITY, WARN
from .panels import Ask, Line, bars, course, number
from .table import CLUSTER, Label, Value, table
from .variables import everywhere, namespace

NO_NODE = "No exporter is up for these nodes"

_UNATTRIBUTED = "energy_unattributed_joules_total"
_WASTE_LABELS = "cluster, namespace, pod, container"


def dashboard() -> Dashboard:
    """The first page: at most two screens of a laptop."""
    return board(
        OVERVIEW,
        "How much power is drawn now, by which workloads, how much of it is waste, and do the energy budgets hold?",
        [*everywhere(), namespace()],
        [
            Row(4, [(4, _power()), (4, _energy()), (4, _year()), (4, _waste()), (4, _measured()), (4, _alerts())]),
            Row(10, [(14, _uses()), (10, _models())]),
            Row(9, [(7, _components()), (10, _idle_gpus()), (7, _budgets())]),
            Row(8, [(24, _firing())], "Which alerts fire?", 90),
        ],
    )


def _power() -> Builder[Panel]:
    return number(
        Ask(
            1,
            "How much power now?",
            "Power of all selected nodes, every component once, as their meters count it.",
            NO_NODE,
            [onward(NODES)],
        ),
        q.watts("node"),
        "watt",
        trend=True,
    )


def _energy() -> Builder[Panel]:
    return number(
        Ask(
            2,
            "How much energy?",
            "Energy of all selected nodes in the time range of the dashboard.",
            NO_NODE,
            [onward(NODES)],
        ),
        q.kwh("node"),
        "kwatth",
        decimals=1,
    )


def _year() -> Builder[Panel]:
    return number(
        Ask(
            3,
            "And in a whole year?",
            "The mean power of the measured part of the time range, over 365 days. A short range is not representative "
            "of a year.",
            NO_NODE,
            [onward(MODELS)],
        ),
        # not the rate of the whole range: on the first day that would divide by hours without samples
        q.per_year(f"avg_over_time({q.watts('node')}[$__range:$__interval])"),
        "kwatth",
        decimals=0,
    )


def _waste() -> Builder[Panel]:
    held = q.increase("energy_container_joules_total", 'mode="idle"', q.GPU)
    free = q.increase(_UNATTRIBUTED, 'reason="idle"', q.GPU)
    return number(
        Ask(
            4,
            "How much is waste?",
            "Idle power of GPUs, held by workloads or free, as a share of all energy in the time range. It includes "
            "the idle power of GPUs that are in use, and excludes that of CPUs, which cannot be released.",
            "No GPU here",
            [onward(WORKLOADS)],
        ),
        f"{q.total(f'{held} or {free}')} / ({q.total(q.increase('energy_node_joules_total'))} > 0)",
        "percentunit",
        steps=[(0.15, WARN), (0.3, BAD)],
        base=GOOD,
        decimals=0,
    )


def _measured() -> Builder[Panel]:
    # of nodes, whose components are disjoint: devices include each other, a package its cores
    rates = q.rate("energy_node_joules_total", q.NOT_OTHER)
    estimated = q.series("energy_power_source_info", 'quality="estimated"')
    measured = f"{rates} unless on (cluster, job, instance, component) {estimated}"
    return number(
        Ask(
            5,
            "How much is measured?",
            "Share of the power of CPUs, memory and GPUs that is measured by a meter. The rest is estimated from "
            "utilisation, as on virtual machines, where the hypervisor hides the meters.",
            "Nothing is metered here: run ai-energy-exporter doctor",
            [onward(EXPORTER)],
        ),
        f"({q.total(measured)} or vector(0)) / ({q.total(rates)} > 0)",
        "percentunit",
        steps=[(0.5, WARN), (0.95, GOOD)],
        base=BAD,
        decimals=0,
    )


def _alerts() -> Builder[Panel]:
    return number(
        Ask(
            6,
            "Is anything wrong?",
            "Energy alerts that fire now, except those with severity info. They are annotations in every graph, and "
            "listed at the end of this page.",
            "No response from Prometheus",
            [onward(EXPORTER)],
        ),
        'count(ALERTS{alertstate="firing",alertname=~"Energy.*",severity!="info"}) or vector(0)',
        "none",
        steps=[(1, BAD)],
        base=GOOD,
    )


def _firing() -> Builder[Panel]:
    by = "alertname, severity, owner, cluster, namespace, pod, model_name, instance, budget"
    return table(
        Ask(
            12,
            "Which alerts fire, and which owner has to act?",
            "Energy alerts that fire now, of every severity. Each has a page in docs/runbooks.",
            "No alert fires",
        ),
        [
            Label("alertname", "Alert", 260),
            Label("severity", "Severity", 90, texts=SEVERITY),
            Label("owner", "Owner", 120),
            CLUSTER,
            Label("namespace", "Namespace", 120, from_row(WORKLOADS, "Open this namespace", namespace="Namespace")),
            Label("pod", "Pod", 0, from_row(WORKLOADS, "Open this pod", namespace="Namespace", pod="Pod")),
            Label("model_name", "Model", 0, onward(MODEL, "Open this model", model_name="Model")),
            Label("instance", "Node", 120, from_row(NODES, "Open this node", instance="Node")),
            Label("budget", "Budget", 140, onward(BUDGETS, "Open this budget", budget="Budget")),
        ],
        [Value("Alerts", f'count by ({by}) (ALERTS{{alertstate="firing",alertname=~"Energy.*"}})', "none", 0, 70)],
        sort="Alerts",
    )


def _uses() -> Builder[Panel]:
    return course(
        Ask(
            7,
            "Where does the power go?",
            "Work is power above idle power. Idle power of a GPU is attributed to the workload that holds the card. "
            "Idle power of CPUs, memory and free cards belongs to the node, and so do fans, disks and the power "
            "supply. Unexplained are the kernel, processes too short to be sampled, and gaps.",
            NO_NODE,
            [onward(WORKLOADS), onward(NODES)],
        ),
        [
            Line(q.watts("container", "", 'mode="active"'), "Work"),
            Line(q.watts("container", "", 'mode="idle"'), "Idle, held"),
            Line(q.watts("unattributed", "", 'reason="idle"'), "Idle, the node's"),
            Line(q.watts("unattributed", "", 'reason!="idle"', q.OTHER), "Fans, disks, supply"),
            Line(q.watts("unattributed", "", 'reason!="idle"', q.NOT_OTHER), "Unexplained"),
        ],
        "watt",
        colours={
            "Work": ACTIVE,
            "Idle, held": HELD_IDLE,
            "Idle, the node's": NODE_IDLE,
            "Fans, disks, supply": COMPONENT["other"],
            "Unexplained": LOST,
        },
        stacked=True,
    )


def _models() -> Builder[Panel]:
    power = q.watts("model", "model_name", q.NAMESPACE)
    return bars(
        Ask(
            8,
            "Which models draw most?",
            "Power of the ten largest models: GPU, CPU and memory, work and idle. Click a model for its details.",
            "No model is running here, or none was recognised",
            [onward(MODELS)],
        ),
        [Line(f"sort_desc(topk(10, {power}))", "{{model_name}}")],
        "watt",
        base=ACTIVE,
        follow=onward(MODEL, "Open ${__field.labels.model_name}", model_name="${__field.labels.model_name}"),
    )


def _components() -> Builder[Panel]:
    return course(
        Ask(
            9,
            "Which hardware draws it?",
            "Power by component. Other is counted by the platform's meter only: fans, disks, network, power supply.",
            NO_NODE,
            [onward(NODES)],
        ),
        [Line(q.watts("node", "component"), "{{component}}")],
        "watt",
        colours=COMPONENT,
        stacked=True,
    )


def _idle_gpus() -> Builder[Panel]:
    idle = (q.GPU, 'mode="idle"', q.NAMESPACE)
    held = q.watts("container", _WASTE_LABELS, *idle)
    every = q.watts("container", _WASTE_LABELS, q.GPU, q.NAMESPACE)
    return table(
        Ask(
            10,
            "Which workloads hold idle GPUs?",
            "Idle power of the GPUs that a container uses or is allocated, and its share of the power of these cards: "
            "at 100 % the cards do nothing.",
            "No GPU is held",
            [onward(WORKLOADS)],
        ),
        [
            CLUSTER,
            Label("namespace", "Namespace", 110),
            Label("pod", "Pod", 0, from_row(WORKLOADS, "Open this pod", namespace="Namespace", pod="Pod")),
            Label("container", "Container", 90),
        ],
        [
            Value("Idle", f"topk(10, {held})", "watt", 0, 70),
            Value(
                "Share",
                f"{held} / ({every} > 0) and on ({_WASTE_LABELS}) topk(10, {held})",
                "percentunit",
                0,
                110,
                [(0.5, WARN), (0.9, BAD)],
                HELD_IDLE,
                1,
            ),
        ],
        sort="Share",
    )


def _budgets() -> Builder[Panel]:
    return bars(
        Ask(
            11,
            "Which budgets are nearly used up?",
            "Used share of each energy budget in its window: the ten with the highest share.",
            "No budgets: write prometheus/budgets.yaml, see docs/rules.md",
            [onward(BUDGETS)],
        ),
        [Line(f"sort_desc(topk(10, {budget.used_ratio()}))", "{{budget}} {{cluster}}")],
        "percentunit",
        steps=[(0.8, WARN), (1, BAD)],
        most=1.2,
        decimals=0,
        follow=onward(BUDGETS),
    )
