"""Model detail: energy of one model, its work and its cards."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import DashboardLink
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from . import queries as q
from .board import Row, board
from .links import MODEL, MODELS, NODES, WORKLOADS, from_row, onward
from .palette import ACTIVE, BAD, COMPONENT, GOOD, HELD_IDLE, PLAIN, TEXT, WARN
from .panels import Ask, Line, course, number
from .reasons import TEXTS, why
from .table import CLUSTER, Label, Value, table
from .variables import everywhere, namespace, one_model

NOT_AT_WORK = "This model has no process here: choose another above"
NO_TOKENS = "Its server reports no tokens, or has no requests"
NO_CARD = "No card is allocated to its pods"

_WHERE = (q.MODEL, q.NAMESPACE)
_PLACES = f"{q.NODES}, namespace, pod, container"


def dashboard() -> Dashboard:
    """Energy of one model, and its causes."""
    return board(
        MODEL,
        "How much energy does this model use, for which work, and on which cards?",
        [*everywhere(), namespace(), one_model()],
        [
            Row(4, [(4, _power()), (4, _energy()), (4, _year()), (4, _token()), (4, _idle()), (4, _why())]),
            Row(9, [(12, _modes()), (12, _tokens())]),
            Row(9, [(8, _components()), (8, _cards()), (8, _per_token())]),
            Row(5, [(24, _places())]),
        ],
    )


def _recorded(name: str) -> str:
    return q.total(q.series(name, *_WHERE, node=q.CLUSTER))


def _power() -> Builder[Panel]:
    ask = Ask(1, "What does it draw now?", "GPU, CPU and memory, work and idle.", NOT_AT_WORK, [_back()])
    return number(ask, q.watts("model", "", *_WHERE), "watt", trend=True)


def _back() -> DashboardLink:
    return onward(MODELS)


def _energy() -> Builder[Panel]:
    ask = Ask(2, "How much did it use?", "In the time range of the dashboard.", NOT_AT_WORK, [_back()])
    return number(ask, q.kwh("model", "", *_WHERE), "kwatth", decimals=2)


def _year() -> Builder[Panel]:
    ask = Ask(
        3,
        "And in a whole year?",
        "The mean power of the last week, idle hours included, over 365 days.",
        "The rules have not run for five minutes yet",
        [_back()],
    )
    return number(ask, q.total(q.per_year_of_models(*_WHERE)), "kwatth", decimals=0)


def _token() -> Builder[Panel]:
    ask = Ask(
        4,
        "What does a token cost?",
        "Joules per generated token of the last five minutes: all energy of the model, idle included. Of a model that "
        "the exporter does not know: of the server's whole pod (model:energy_serving_pod:info).",
        NO_TOKENS,
        [_back()],
    )
    return number(ask, q.joules_per_token("", *_WHERE), "joule", decimals=2)


def _idle() -> Builder[Panel]:
    ask = Ask(
        5,
        "How much of it is idle?",
        "Share of its energy in the time range that is idle power of cards that it holds.",
        NOT_AT_WORK,
        [onward(NODES)],
    )
    share = q.idle_share("model", "model_name", *_WHERE)
    return number(ask, share, "percentunit", steps=[(0.5, WARN), (0.9, BAD)], base=GOOD, decimals=0)


def _why() -> Builder[Panel]:
    ask = Ask(
        6, "What stands out?", "The first finding that holds: see docs/dashboards.md.", NOT_AT_WORK, [onward(NODES)]
    )
    return number(ask, f"min({why('cluster, model_name, namespace, phase', *_WHERE)})", "none", texts=TEXTS)


def _modes() -> Builder[Panel]:
    ask = Ask(
        7,
        "When is it active, and when idle?",
        "Active is power above idle; idle is the idle power of the cards that it holds.",
        NOT_AT_WORK,
        [onward(WORKLOADS)],
    )
    lines = [
        Line(q.watts("model", "", 'mode="active"', *_WHERE), "Work"),
        Line(q.watts("model", "", 'mode="idle"', *_WHERE), "Idle, held"),
    ]
    return course(ask, lines, "watt", colours={"Work": ACTIVE, "Idle, held": HELD_IDLE}, stacked=True)


def _tokens() -> Builder[Panel]:
    ask = Ask(
        8,
        "How much does it serve?",
        "Generated and prompt tokens per second, over five minutes, from the metrics of its server.",
        NO_TOKENS,
        [_back()],
    )
    lines = [
        Line(_recorded("model:output_tokens:rate5m"), "Generated"),
        Line(_recorded("model:prompt_tokens:rate5m"), "Prompt"),
    ]
    return course(ask, lines, "none", colours={"Generated": ACTIVE, "Prompt": PLAIN})


def _components() -> Builder[Panel]:
    ask = Ask(9, "Which hardware draws it?", "Its power by component.", NOT_AT_WORK, [onward(NODES)])
    return course(
        ask,
        [Line(q.watts("model", "component", *_WHERE), "{{component}}")],
        "watt",
        colours=COMPONENT,
        stacked=True,
    )


def _cards() -> Builder[Panel]:
    ask = Ask(
        10,
        "How well does it use its cards?",
        "The busiest card of its pods: multiprocessors with work, tensor cores, memory. High memory and low tensor "
        "activity is memory-bound; low activity of all three is a batch that is too small, or a wait for data.",
        NO_CARD,
        [onward(NODES)],
    )
    lines = [
        Line(f"max({q.on_cards_of_models(q.series(f'energy_gpu_{part}_active_ratio'), where=_WHERE)})", name)
        for part, name in (("sm", "Multiprocessors"), ("tensor", "Tensor cores"), ("dram", "Memory"))
    ]
    colours = {"Multiprocessors": ACTIVE, "Tensor cores": COMPONENT["gpu"], "Memory": COMPONENT["dram"]}
    return course(ask, lines, "percentunit", colours=colours, most=1)


def _per_token() -> Builder[Panel]:
    ask = Ask(
        11,
        "Does a token cost more energy than before?",
        "Joules per generated token over five minutes, and over a day with its idle hours. Of a model that the "
        "exporter does not know: of the server's whole pod (model:energy_serving_pod:info).",
        NO_TOKENS,
        [_back()],
    )
    lines = [
        Line(q.joules_per_token("", *_WHERE), "Five minutes"),
        Line(q.joules_per_token("", *_WHERE, window="1d"), "A day"),
    ]
    return course(ask, lines, "joule", colours={"Five minutes": ACTIVE, "A day": PLAIN})


def _places() -> Builder[Panel]:
    named = f"group by ({_PLACES}) ({q.series('energy_container_info', *_WHERE)})"

    def here(expr: str) -> str:
        return f"sum by ({_PLACES}) ({expr} and on ({_PLACES}) {named})"

    rate = f"rate({q.series('energy_container_joules_total', q.NAMESPACE)}[$__rate_interval])"
    idle = q.rate("energy_container_joules_total", q.NAMESPACE, 'mode="idle"')
    used = q.increase("energy_container_joules_total", q.NAMESPACE)
    ask = Ask(
        12,
        "Where does it run?",
        "Containers in which all processes work for this model. Containers with several models are not listed.",
        "No container works for only this model",
        [onward(WORKLOADS)],
    )
    return table(
        ask,
        [
            CLUSTER,
            Label("instance", "Node", 200, from_row(NODES, "Open this node", instance="Node")),
            Label("namespace", "Namespace", 150),
            Label("pod", "Pod", 0, from_row(WORKLOADS, "Open this pod", namespace="Namespace", pod="Pod")),
            Label("container", "Container", 150),
        ],
        [
            Value("Power", here(rate), "watt", 0, 110),
            Value("Idle", here(idle), "watt", 0, 110, steps=[(50, WARN)], base=TEXT),
            Value("Energy", f"{here(used)} / {q.KWH:g}", "kwatth", 2, 120),
        ],
        sort="Power",
    )
