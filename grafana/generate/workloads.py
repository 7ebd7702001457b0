"""Workloads: from the namespace to the pod, its containers and their processes."""

from __future__ import annotations

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from . import queries as q
from . import recorded, waste
from .board import Row, board
from .empty import NO_ALLOCATION, NO_POD, NO_RULES, NO_WORKLOAD, Empty
from .links import ADVICE, BUDGETS, MODEL, MODELS, NODES, WORKLOADS, from_line, from_place, from_row, onward
from .palette import ACTIVE, PLAIN
from .panels import KG, KWH, Ask, Line, bars, course, days, number
from .table import CLUSTER, Label, Value, table
from .variables import currency, everywhere, namespace, pod

_NAMED = 'namespace!=""'
_POD = 'pod=~"$pod"'
_WHERE = (q.NAMESPACE, _POD)
_CONTAINER = f"{q.NODES}, namespace, pod, container, runtime"


def dashboard() -> Dashboard:
    """Each level filters the next: a click on a namespace or pod selects it."""
    return board(
        WORKLOADS,
        "How much energy each namespace, pod, container and process used.",
        [*everywhere(), namespace(), pod(), currency()],
        [
            Row(4, [(6, _power()), (6, _energy()), (6, _idle()), (6, _allocated())]),
            Row(11, [(8, _namespaces()), (16, _over_time())]),
            Row(11, [(24, _pods())]),
            Row(9, [(24, _containers())]),
            Row(9, [(24, _processes())]),
            Row(8, [(24, _per_day())]),
            Row(8, [(24, _identities())], "Images, owners and models of these containers", 90),
        ],
    )


def _power() -> Builder[Panel]:
    ask = Ask(
        1,
        "Power now",
        "How much power do they draw now?",
        "Power attributed to the selected workloads.",
        NO_WORKLOAD,
        [onward(NODES)],
    )
    return number(ask, q.watts("container", "", *_WHERE), "watt")


def _energy() -> Builder[Panel]:
    ask = Ask(2, "Energy", "How much energy did they use?", "In the time range.", NO_WORKLOAD, [onward(BUDGETS)])
    return number(ask, q.kwh("container", "", *_WHERE), "kwatth")


def _idle() -> Builder[Panel]:
    ask = Ask(
        3,
        "Unused",
        "How much of it is waste?",
        f"Share of the energy of the selected workloads in the time range. {waste.UNUSED_MEANS}.",
        NO_RULES,
        [onward(ADVICE)],
    )
    share = waste.share(waste.unused_by_pod("", *_WHERE), waste.of_pods("", *_WHERE))
    return number(ask, share, "percentunit", steps=waste.STEPS, base=waste.BASE, decimals=1)


def _allocated() -> Builder[Panel]:
    ask = Ask(
        4,
        "Allocated GPUs",
        "How many GPUs are allocated?",
        "Cards and fractions of cards that Kubernetes allocated to these pods, used or not.",
        NO_ALLOCATION,
        [onward(NODES)],
    )
    return number(ask, q.total(q.series("energy_gpu_allocated_ratio", *_WHERE)), "none", decimals=2)


def _namespaces() -> Builder[Panel]:
    named = f"sort_desc({q.kwh('container', 'cluster, namespace', *_WHERE, _NAMED)})"
    rest = q.kwh("container", "", *_WHERE, 'namespace=""')
    lines = [Line(named, "{{namespace}} {{cluster}}"), Line(rest, "Outside Kubernetes")]
    ask = Ask(
        5,
        "Energy by namespace",
        "Which namespace used most?",
        "Energy in the time range. Outside Kubernetes are Docker, Podman, Slurm, systemd and the host.",
        NO_WORKLOAD,
        [onward(BUDGETS)],
    )
    follow = from_line(WORKLOADS, "Only this namespace", "cluster", "namespace")
    return bars(ask, lines, KWH, base=ACTIVE, decimals=2, follow=follow)


def _over_time() -> Builder[Panel]:
    ask = Ask(
        6,
        "Power by pod",
        "Which pods drew power, and when?",
        "Power of the twelve pods that used most in the time range, and of everything outside pods.",
        NO_WORKLOAD,
        [onward(NODES)],
    )
    by = "cluster, namespace, pod"  # web-0 is in many namespaces
    where = (q.NAMESPACE, _POD, 'pod!=""')
    lines = [
        Line(q.top(12, q.watts("container", by, *where), by, "container", *where), "{{namespace}}/{{pod}} {{cluster}}"),
        Line(q.watts("container", "", q.NAMESPACE, _POD, 'pod=""'), "Outside pods"),
    ]
    follow = from_line(WORKLOADS, "Only this pod", "cluster", "namespace", "pod")
    return course(ask, lines, "watt", colours={"Outside pods": PLAIN}, stacked=True, summary="right", follow=follow)


def _pods() -> Builder[Panel]:
    by = "cluster, namespace, pod"
    where = (q.NAMESPACE, _POD, 'pod!=""')
    top = f"and on ({by}) topk(50, {q.total(q.increase('energy_container_joules_total', *where), by)})"
    allocated = f"sum by ({by}) ({q.series('energy_gpu_allocated_ratio', *where)})"
    unused = waste.unused_by_pod(by, *where)
    energy = waste.of_pods(by, *where)
    ask = Ask(
        7,
        "Pods",
        "How much does each pod use, and does it use its GPUs?",
        "The fifty pods that used most in the time range. GPUs is the number that Kubernetes allocated; Unused is the "
        "share of their energy that these took while the pod did nothing on them. What to do has the kWh that a month "
        "would save at most. CO2e and cost are for the time range, PUE included, in the currency that is chosen "
        "above. vs 1w ago compares the energy with the same time range a week earlier: +10 % is more.",
        NO_POD,
    )
    return table(
        ask,
        [
            CLUSTER,
            Label("namespace", "Namespace", 112, from_place(WORKLOADS, "Only this namespace", namespace="Namespace")),
            Label("pod", "Pod", 0, from_place(WORKLOADS, "Only this pod", namespace="Namespace", pod="Pod")),
        ],
        [
            Value("Power", f"{q.watts('container', by, *where)} {top}", "watt", None, 80, total=True),
            Value("Energy", f"{q.kwh('container', by, *where)} {top}", KWH, 3, 105, total=True),
            Value("CO2e", f"{q.grams('container', by, *where)} {top}", KG, 3, 85, total=True),
            Value("Cost", f"({q.cost('container', by, *where)}) {top}", "none", 2, 75, total=True),
            Value("GPU", f"{q.watts('container', by, q.GPU, *where)} {top}", "watt", None, 80, total=True),
            Value("CPU", f"{q.watts('container', by, q.CPU, *where)} {top}", "watt", None, 80, total=True),
            Value("GPUs", f"{allocated} {top}", "none", 2, 70),
            Value("vs 1w ago", f"{q.change('container', by, *where)} {top}", "percentunit", 0, 80),
            Value("Unused", f"{waste.share(unused, energy)} {top}", "percentunit", 1, 75, waste.STEPS),
            Value(
                "What to do",
                f"{waste.best_lever('pod', by, *where)} {top}",
                "none",
                0,
                160,
                texts=waste.LEVER_TEXTS,
                follow=from_place(ADVICE, "Its evidence", namespace="Namespace"),
            ),
            Value(waste.AT_MOST, f"{waste.at_most('pod', by, *where)} {top}", "none", 0, 106, total=True),
        ],
        sort="Energy",
    )


def _containers() -> Builder[Panel]:
    top = f"and on ({_CONTAINER}) topk(50, {q.total(q.increase('energy_container_joules_total', *_WHERE), _CONTAINER)})"
    price = q.series("energy_container_joules_per_cpu_second", *_WHERE)
    ask = Ask(
        8,
        "Containers, units and jobs",
        "Which container, unit or job?",
        "The fifty that used most in the time range: containers of pods and Docker, systemd units, Slurm jobs. "
        "J/CPU s is the energy of a busy CPU second, where it is learned (--attribution.cpu=learned).",
        NO_WORKLOAD,
        [onward(NODES)],
    )
    return table(
        ask,
        [
            CLUSTER,
            Label("instance", "Node", 180, from_place(NODES, "Open this node", instance="Node")),
            Label("namespace", "Namespace", 160),
            Label("pod", "Pod", 0, from_place(WORKLOADS, "Only this pod", namespace="Namespace", pod="Pod")),
            Label("container", "Container", 200),
            Label("runtime", "Runtime", 110),
        ],
        [
            Value("Power", f"{q.watts('container', _CONTAINER, *_WHERE)} {top}", "watt", None, 95, total=True),
            Value("Energy", f"{q.kwh('container', _CONTAINER, *_WHERE)} {top}", KWH, 3, 115, total=True),
            Value("J/CPU s", f"avg by ({_CONTAINER}) ({price}) {top}", "none", 2, 80),
        ],
        sort="Energy",
    )


def _processes() -> Builder[Panel]:
    by = f"{q.NODES}, pod, container, comm, pid"
    top = f"and on ({by}) topk(50, {q.total(q.increase('energy_process_joules_total', *_WHERE), by)})"
    ask = Ask(
        9,
        "Processes",
        "Which process?",
        "Processes that used most, and all that hold a GPU. These are the joules of the containers by process: do not "
        "add them.",
        Empty("No process", "the exporter shows no processes here: see --process.top."),
        [onward(NODES)],
    )
    return table(
        ask,
        [
            CLUSTER,
            Label("instance", "Node", 180, from_place(NODES, "Open this node", instance="Node")),
            Label("pod", "Pod", 0),
            Label("container", "Container", 200),
            Label("comm", "Process", 180),
            Label("pid", "PID", 90),
        ],
        [
            Value("Power", f"{q.watts('process', by, *_WHERE)} {top}", "watt", None, 95, total=True),
            Value("Energy", f"{q.kwh('process', by, *_WHERE)} {top}", KWH, 3, 115, total=True),
        ],
        sort="Energy",
    )


def _per_day() -> Builder[Panel]:
    ask = Ask(
        11,
        "kWh per day",
        "How much energy did each namespace use on each day?",
        "Energy of the last seven days from the recorded power of every 150 seconds, whatever pod is selected. Days "
        "begin at midnight of the dashboard's time zone; the last one is not over. Outside Kubernetes are Docker, "
        "Podman, Slurm, systemd and the host.",
        NO_RULES,
        [onward(BUDGETS)],
    )
    power = "namespace:energy_container_joules:rate5m"
    lines = [
        Line(recorded.kwh_per_day(power, "cluster, namespace", q.NAMESPACE, _NAMED), "{{namespace}} {{cluster}}"),
        Line(recorded.kwh_per_day(power, "", q.NAMESPACE, 'namespace=""'), "Outside Kubernetes"),
    ]
    follow = from_line(WORKLOADS, "Only this namespace", "cluster", "namespace")
    return days(ask, lines, colours={"Outside Kubernetes": PLAIN}, follow=follow)


def _identities() -> Builder[Panel]:
    by = "cluster, namespace, pod, container, image, owner_kind, owner_name, model_name"
    ask = Ask(
        10,
        "Identities",
        "What are these containers, and which owner started them?",
        "Identity of each container, and the model that all its processes work for.",
        NO_WORKLOAD,
        [onward(MODELS)],
    )
    return table(
        ask,
        [
            CLUSTER,
            Label("namespace", "Namespace", 110),
            Label("pod", "Pod"),
            Label("container", "Container", 120),
            Label("image", "Image"),
            Label("owner_kind", "Kind", 100),
            Label("owner_name", "Owner", 170),
            Label("model_name", "Model", 0, from_row(MODEL, "Open this model", model_name="Model")),
        ],
        [Value("Nodes", f"count by ({by}) ({q.series('energy_container_info', *_WHERE)})", "none", 0, 70)],
        sort="Nodes",
    )
