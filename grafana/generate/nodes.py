"""Nodes & GPUs: power, utilisation and health of each node and card."""

from __future__ import annotations

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from . import queries as q
from .board import Row, board
from .empty import NO_ALLOCATION, NO_EXPORTER, NO_GPU, NOT_REPORTED, Empty
from .links import EXPORTER, MODELS, NODES, WORKLOADS, from_line, from_place, onward
from .palette import ACTIVE, BAD, COMPONENT, GOOD, HELD_IDLE, PLAIN, WARN
from .panels import KG, KWH, Ask, Line, course, number
from .table import CLUSTER, Label, Value, table
from .variables import currency, everywhere, gpu

_GPU = 'gpu=~"$gpu"'
_CARD = ('gpu=~"$gpu"', q.WHOLE)
_BY = f"{q.NODES}, gpu"
_CALLED = "{{instance}} / {{gpu}} {{cluster}}"
_MOST = 16
_ONE_CARD = from_line(NODES, "Only this card", "cluster", "instance", "gpu")
_ONE_NODE = from_line(NODES, "Only this node", "cluster", "instance")
_COLUMNS = {"cpu": "CPU", "dram": "DRAM", "gpu": "GPU", "other": "Other"}
_OK = {0.0: ("ok", GOOD), 1.0: ("repair at reset", WARN), 2.0: ("replace it", BAD)}
_UP = {0.0: ("down", BAD), 1.0: ("up", GOOD)}


def dashboard() -> Dashboard:
    """Machines first, then their cards."""
    return board(
        NODES,
        "How much power does each node and card draw, how well is it used, and is it healthy?",
        [*everywhere(), gpu(), currency()],
        [
            Row(4, [(5, _power()), (5, _limit()), (5, _busy()), (5, _free()), (4, _unhealthy())]),
            Row(5, [(24, _nodes())]),
            Row(12, [(24, _cards())]),
            Row(9, [(14, _card_power()), (10, _card_use())]),
            Row(10, [(24, _holders())]),
            Row(10, [(16, _node_power()), (8, _components())]),
            Row(8, [(12, _temperature()), (12, _throttling())]),
            Row(8, [(12, _errors()), (6, _agreement()), (6, _clocks())], "Errors, meters and clocks of the cards", 90),
        ],
    )


def _by_card(metric: str, *where: str) -> str:
    return f"max by ({_BY}) ({q.series(metric, *(where or _CARD))})"


def _of_device(expr: str) -> str:
    """An expression about devices of component gpu, by the index of the card: the device label is the UUID."""
    renamed = f'label_replace({expr}, "uuid", "$1", "device", "(.+)")'
    known = f"group by (cluster, instance, gpu, uuid) ({q.series('energy_gpu_info', *_CARD)})"
    return f"sum by ({_BY}) ({renamed} * on (cluster, instance, uuid) group_left (gpu) {known})"


def _card_watts(*where: str) -> str:
    return q.total(q.rate("energy_gpu_joules_total", _GPU, *where), _BY)


def _busiest(expr: str) -> str:
    """Only the cards that used most in the whole time range, because a graph is readable with a few lines only."""
    used = f"sum by ({_BY}) (increase({q.series('energy_gpu_joules_total', _GPU)}[$__range] @ end()))"
    return f"({expr}) and on ({_BY}) topk({_MOST}, {used})"


def _power() -> Builder[Panel]:
    ask = Ask(
        1, "GPU power now", "How much do all GPUs draw now?", "Power of the cards alone.", NO_GPU, [onward(MODELS)]
    )
    return number(ask, q.watts("node", "", q.GPU), "watt")


def _limit() -> Builder[Panel]:
    ask = Ask(
        2,
        "Of the power limits",
        "How close is that to the power limits?",
        "Power of the GPUs that have a power limit, divided by the sum of the limits that their driver enforces. Near "
        "100 %, check rack and cooling.",
        NOT_REPORTED,
        [onward(MODELS)],
    )
    limits = q.series("energy_gpu_power_limit_watts", q.WHOLE)
    cards = q.rate("energy_gpu_joules_total")
    near = f"sum({cards} and on (cluster, instance, uuid) {limits}) / (sum({limits}) > 0)"
    return number(ask, near, "percentunit", steps=[(0.8, WARN), (0.95, BAD)], base=GOOD, decimals=0)


def _busy() -> Builder[Panel]:
    ask = Ask(
        3,
        "GPUs busy",
        "How busy are they?",
        "Mean share of time in which a kernel ran. It does not show how much of the chip was used.",
        NOT_REPORTED,
        [onward(WORKLOADS)],
    )
    busy = f"avg({q.series('energy_gpu_utilization_ratio', q.WHOLE)})"
    return number(ask, busy, "percentunit", decimals=0)


def _free() -> Builder[Panel]:
    reported = q.series("energy_source_up", 'source=~"podresources|demo"')
    cards = f"count({q.series('energy_gpu_info', q.WHOLE)} and on (cluster, job, instance) {reported} == 1)"
    allocated = f"({q.total(q.series('energy_gpu_allocated_ratio'))} or vector(0))"
    ask = Ask(
        4,
        "Free GPUs",
        "How many cards are free?",
        "Cards of Kubernetes nodes that are not allocated; fractions of shared and MIG cards count as fractions.",
        NO_ALLOCATION,
        [onward(WORKLOADS)],
    )
    return number(ask, f"{cards} - {allocated}", "none", decimals=2)


def _unhealthy() -> Builder[Panel]:
    up = f"({q.series('energy_device_up', q.GPU)} == 0)"
    repair = f"({q.series('energy_gpu_memory_repair')} == 1)"
    ask = Ask(
        5,
        "Unhealthy GPUs",
        "How many cards are unhealthy?",
        "Cards that are down, need a reset to repair their memory, or have to be replaced.",
        NO_GPU,
        [onward(EXPORTER)],
    )
    cards = (
        f'count(group by (cluster, instance, device) ({up} or label_replace({repair}, "device", "$1", "uuid", "(.+)")))'
    )
    every = f"count({q.series('energy_gpu_info')})"
    return number(ask, f"{cards} or 0 * {every}", "none", steps=[(1, BAD)], base=GOOD)


def _nodes() -> Builder[Panel]:
    def of(component: str) -> str:
        return q.watts("node", q.NODES, f'component="{component}"')

    lost = q.total(q.increase("energy_unattributed_joules_total"), q.NODES)
    every = q.total(q.increase("energy_node_joules_total"), q.NODES)
    ask = Ask(
        6,
        "Nodes",
        "Which node draws how much?",
        "Power now by component, energy, CO2e and cost in the time range (PUE included, in the currency that is chosen "
        "above), energy compared with the same range a week before, and the share that is attributed to no workload: "
        "mostly idle power of CPUs and memory.",
        NO_EXPORTER,
    )
    return table(
        ask,
        [CLUSTER, Label("instance", "Node", 0, from_place(NODES, "Only this node", instance="Node"))],
        [
            Value("Power", q.watts("node", q.NODES), "watt", None, 100, total=True),
            *(Value(_COLUMNS[name], of(name), "watt", None, 95, total=True) for name in COMPONENT),
            Value("Energy", q.kwh("node", q.NODES), KWH, 2, 115, total=True),
            Value("CO2e", q.grams("node", q.NODES), KG, 2, 95, total=True),
            Value("Cost", q.cost("node", q.NODES), "none", 2, 90, total=True),
            Value("vs 1w ago", q.change("node", q.NODES), "percentunit", 0, 90),
            Value("Unattributed", f"{lost} / ({every} > 0)", "percentunit", 0, 150, base=PLAIN, bar=1),
        ],
        sort="Power",
    )


def _cards() -> Builder[Panel]:
    limits = f"({_by_card('energy_gpu_power_limit_watts')} > 0)"
    near = f"{_card_watts()} / {limits}"
    peak = f"max by ({_BY}) (max_over_time({q.series('energy_gpu_power_watts', _GPU)}[$__range]))"
    energy = f"{q.total(q.increase('energy_gpu_joules_total', _GPU), _BY)} / {q.KWH:g}"
    memory = f"{_by_card('energy_gpu_memory_used_bytes')} / ({_by_card('energy_gpu_memory_total_bytes')} > 0)"
    failed, pending = (
        f"max by ({_BY}) ({q.series('energy_gpu_memory_repair', _GPU, state)})"
        for state in ('state="failed"', 'state="pending"')
    )
    held = f"sum by ({_BY}) ({q.series('energy_gpu_allocated_ratio', _GPU)})"
    ask = Ask(
        7,
        "GPUs",
        "How well is each card used?",
        "Peak is the largest power of a second in the time range. Busy is the share of time in use; "
        "SM, Tensor and DRAM are the share of the chip in use. Of limit is power divided by the limit that the driver "
        "enforces. Allocated is the share that Kubernetes allocated. Throttled is "
        "the share of time in which power or temperature limited the clocks.",
        NO_GPU,
    )
    return table(
        ask,
        [
            CLUSTER,
            Label("instance", "Node", 0, from_place(NODES, "Only this node", instance="Node")),
            Label("gpu", "GPU", 50, from_place(NODES, "Only this card", instance="Node", gpu="GPU")),
        ],
        [
            Value("Power", _card_watts(), "watt", None, 80, total=True),
            Value("Peak", peak, "watt", None, 65),
            Value("Energy", energy, KWH, 2, 95, total=True),
            Value("Of limit", near, "percentunit", 0, 85, [(0.95, WARN)], COMPONENT["gpu"], 1),
            Value("Busy", _by_card("energy_gpu_utilization_ratio"), "percentunit", 0, 85, base=ACTIVE, bar=1),
            Value("SM", _by_card("energy_gpu_sm_active_ratio"), "percentunit", 0, 55),
            Value("Tensor", _by_card("energy_gpu_tensor_active_ratio"), "percentunit", 0, 65),
            Value("DRAM", _by_card("energy_gpu_dram_active_ratio"), "percentunit", 0, 65),
            Value("Memory", memory, "percentunit", 0, 85, base=COMPONENT["dram"], bar=1),
            Value("Temp", _by_card("energy_gpu_temperature_celsius"), "celsius", 0, 65, [(80, WARN), (90, BAD)]),
            Value("Allocated", held, "percentunit", 0, 80),
            Value("Throttled", q.throttled(_BY, "$__range"), "percentunit", 0, 80, [(0.1, WARN), (0.5, BAD)]),
            Value("Repair", f"2 * {failed} > 0 or {pending}", "none", 0, 105, texts=_OK),
            Value("State", _of_device(q.series("energy_device_up", q.GPU)), "none", 0, 55, texts=_UP),
        ],
        sort="Power",
    )


def _card_power() -> Builder[Panel]:
    ask = Ask(
        8,
        "Power by GPU",
        "Which card draws it, and when?",
        "Power of the 16 cards that used most.",
        NO_GPU,
        [onward(WORKLOADS)],
    )
    return course(ask, [Line(_busiest(_card_watts()), _CALLED)], "watt", summary="right", follow=_ONE_CARD)


def _card_use() -> Builder[Panel]:
    ask = Ask(
        9,
        "Multiprocessors with work",
        "How much of each card is used?",
        "Share of multiprocessors that had work, of the 16 cards that used most. A card can be busy all the time with "
        "a tenth of its multiprocessors.",
        NOT_REPORTED,
        [onward(WORKLOADS)],
    )
    return course(
        ask, [Line(_busiest(_by_card("energy_gpu_sm_active_ratio")), _CALLED)], "percentunit", most=1, follow=_ONE_CARD
    )


def _throttling() -> Builder[Panel]:
    slowed = f"sum by ({_BY}, reason) ({q.rate('energy_gpu_throttle_seconds_total', _GPU)}) > 0"
    ask = Ask(
        10,
        "Throttling",
        "What throttles the cards?",
        "Share of time in which each reason throttled the clocks. A power cap is intended, overheating is not. Reasons "
        "overlap, so they are not summed.",
        Empty("No throttling", "no clock is throttled, or no card reports it."),
        [onward(MODELS)],
    )
    return course(ask, [Line(slowed, f"{_CALLED} {{{{reason}}}}")], "percentunit", most=1, follow=_ONE_CARD)


def _holders() -> Builder[Panel]:
    by = f"{_BY}, namespace, pod, container"
    joules, where = "energy_container_gpu_joules_total", (_GPU,)
    idle = ('mode="idle"', *where)
    used = q.total(q.increase(joules, *where), by)
    top = f"and on ({by}) topk(50, {used})"
    share = f"{q.total(q.increase(joules, *idle), by)} / ({used} > 0)"
    ask = Ask(
        17,
        "Workloads by GPU",
        "Which workload uses which card?",
        "Power now and energy in the time range of each container by card, the fifty with most energy. Idle is the "
        "share that is idle power of the card: at 100 % the container holds it and does nothing.",
        Empty("No GPU held", "no workload holds a GPU."),
    )
    return table(
        ask,
        [
            CLUSTER,
            Label("instance", "Node", 160, from_place(NODES, "Only this node", instance="Node")),
            Label("gpu", "GPU", 60, from_place(NODES, "Only this card", instance="Node", gpu="GPU")),
            Label("namespace", "Namespace", 160),
            Label("pod", "Pod", 0, from_place(WORKLOADS, "Open this pod", namespace="Namespace", pod="Pod")),
            Label("container", "Container", 160),
        ],
        [
            Value("Power", f"{q.total(q.rate(joules, *where), by)} {top}", "watt", None, 95, total=True),
            Value("Energy", f"{used} / {q.KWH:g} {top}", KWH, 3, 115, total=True),
            Value("Idle", f"{share} {top}", "percentunit", 0, 150, [(0.5, WARN), (0.9, BAD)], HELD_IDLE, 1),
        ],
        sort="Energy",
    )


def _node_power() -> Builder[Panel]:
    ask = Ask(
        11,
        "Power by node",
        "Which node draws it, and when?",
        "Power of the 16 nodes that used most.",
        NO_EXPORTER,
        [onward(WORKLOADS)],
    )
    power = q.top(_MOST, q.watts("node", q.NODES), q.NODES, "node")
    return course(
        ask, [Line(power, "{{instance}} {{cluster}}")], "watt", stacked=True, summary="right", follow=_ONE_NODE
    )


def _components() -> Builder[Panel]:
    ask = Ask(
        12,
        "Power by component",
        "Which component draws it?",
        "Power of all chosen nodes.",
        NO_EXPORTER,
        [onward(WORKLOADS)],
    )
    return course(
        ask,
        [Line(q.watts("node", "component"), "{{component}}")],
        "watt",
        colours=COMPONENT,
        stacked=True,
        summary="bottom",
    )


def _temperature() -> Builder[Panel]:
    ask = Ask(
        13,
        "Temperature",
        "How hot are the cards?",
        "Temperature of the 16 hottest chips.",
        NOT_REPORTED,
        [onward(WORKLOADS)],
    )
    hottest = f"max by ({_BY}) (max_over_time({q.series('energy_gpu_temperature_celsius', *_CARD)}[$__range] @ end()))"
    heat = f"{_by_card('energy_gpu_temperature_celsius')} and on ({_BY}) topk({_MOST}, {hottest})"
    return course(
        ask,
        [Line(heat, _CALLED)],
        "celsius",
        steps=[(90, BAD)],
        follow=_ONE_CARD,
    )


def _errors() -> Builder[Panel]:
    def errors(kind: str) -> str:
        kind = f'error="{kind}"'
        return f"sum by ({_BY}) ({q.increase('energy_gpu_ecc_errors_total', _GPU, kind)})"

    ask = Ask(
        14,
        "Errors",
        "Which card has errors?",
        "Memory errors and Xid events in the time range, and the number of the last Xid, as in NVIDIA's catalogue. A "
        "card that fell off the bus reports none: see its state above.",
        NOT_REPORTED,
        [onward(EXPORTER)],
    )
    return table(
        ask,
        [CLUSTER, Label("instance", "Node", 0), Label("gpu", "GPU", 50)],
        [
            Value("Uncorrected", errors("uncorrected"), "none", 0, 100, [(1, BAD)]),
            Value("Corrected", errors("corrected"), "none", 0, 90, [(100, WARN)]),
            Value("Xids", f"sum by ({_BY}) ({q.increase('energy_gpu_xid_errors_total', _GPU)})", "none", 0, 55),
            Value("Last Xid", _by_card("energy_gpu_last_xid"), "none", 0, 75, [(1, WARN)]),
        ],
        sort="Uncorrected",
    )


def _agreement() -> Builder[Panel]:
    agreement = _of_device(q.series("energy_device_agreement_ratio", q.GPU))
    ask = Ask(
        15,
        "Counter against gauge",
        "Do counter and power gauge agree?",
        "A card's energy counter divided by the integral of its power gauge: near 1; below 0.5 or above 2 one of the "
        "two is broken and the card's readings are rejected. Of the 16 cards that used most.",
        Empty("Not comparable", "the cards have only one of the two."),
        [onward(EXPORTER)],
    )
    return course(
        ask, [Line(_busiest(agreement), _CALLED)], "none", decimals=2, steps=[(0.5, BAD), (2, BAD)], follow=_ONE_CARD
    )


def _clocks() -> Builder[Panel]:
    clock = _by_card("energy_gpu_clock_hertz", _GPU, 'domain="sm"')
    ask = Ask(
        16,
        "Clocks",
        "How fast do they run?",
        "Clock of the multiprocessors of the 16 cards that used most.",
        NOT_REPORTED,
        [onward(WORKLOADS)],
    )
    return course(ask, [Line(_busiest(clock), _CALLED)], "hertz", follow=_ONE_CARD)
