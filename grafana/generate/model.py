"""Model detail: energy of one model, its work and its cards."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import DashboardLink
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from . import queries as q
from . import recorded, regions, waste
from .board import Row, board
from .empty import NO_IMPACT, NO_RULES, NO_TOKENS, Empty
from .events import rollouts
from .links import ADVICE, MODEL, MODELS, NODES, WORKLOADS, from_place, onward
from .palette import ACTIVE, COMPONENT, HELD_IDLE, PHASE, PLAIN, WARN
from .panels import JOULES, KG, KWH, KWH_PER_YEAR, MILLIONS, PER_TOKEN, Ask, Line, course, days, number
from .reasons import TEXTS, why
from .table import CLUSTER, Label, Value, table
from .variables import currency, everywhere, namespace, one_model

_NOT_AT_WORK = Empty("Not running", "this model has no process here: select another above.")
_NO_REQUESTS = Empty("No requests", "no server reports requests, or there are none.")
_NO_CARD = Empty("No card", "Kubernetes reports no card that is allocated to its pods.")

_WHERE = (q.MODEL, q.NAMESPACE)
_PLACES = f"{q.NODES}, namespace, pod, container"


def dashboard() -> Dashboard:
    """Energy of one model, and its causes."""
    return board(
        MODEL,
        "How much energy does this model use, for which work, on which cards, and what does it bring and cost?",
        [*everywhere(), namespace(), one_model(), currency()],
        [
            Row(4, [(4, _power()), (4, _energy()), (4, _year()), (4, _token()), (4, _idle()), (4, _why())]),
            Row(9, [(12, _modes()), (12, _tokens())]),
            Row(9, [(12, _per_token()), (12, _per_request())]),
            Row(4, [(4, _served()), (4, _requests()), (4, _request()), (4, _grams()), (4, _cost()), (4, _million())]),
            Row(9, [(12, _components()), (12, _cards())]),
            Row(8, [(8, _per_day()), (16, _places())]),
            regions.row(*_WHERE),
        ],
        events=[rollouts()],
    )


def _recorded(name: str) -> str:
    return q.total(q.series(name, *_WHERE, node=q.CLUSTER))


def _power() -> Builder[Panel]:
    ask = Ask(
        1, "Power now", "How much does it draw now?", "GPU, CPU and memory, work and idle.", _NOT_AT_WORK, [_back()]
    )
    return number(ask, q.watts("model", "", *_WHERE), "watt")


def _back() -> DashboardLink:
    return onward(MODELS)


def _energy() -> Builder[Panel]:
    ask = Ask(2, "Energy", "How much did it use?", "In the time range of the dashboard.", _NOT_AT_WORK, [_back()])
    return number(ask, q.kwh("model", "", *_WHERE), "kwatth")


def _year() -> Builder[Panel]:
    ask = Ask(
        3,
        "In a year",
        "How much is that in a year?",
        "The mean power of the last week, idle hours included, over 365 days.",
        NO_RULES,
        [_back()],
    )
    return number(ask, q.total(q.per_year_of_models(*_WHERE)), KWH_PER_YEAR, decimals=0)


def _token() -> Builder[Panel]:
    ask = Ask(
        4,
        "Per token",
        "How much energy does a token use?",
        "Joules per generated token of the last five minutes: all energy of the model, idle included. Of a model that "
        "the exporter does not know: of the server's whole pod (model:energy_serving_pod:info).",
        NO_TOKENS,
        [_back()],
    )
    return number(ask, q.joules_per_token("", *_WHERE), PER_TOKEN)


def _idle() -> Builder[Panel]:
    ask = Ask(
        5,
        "Unused",
        "How much of it is waste?",
        f"Share of its energy in the time range, whatever node is selected. {waste.UNUSED_MEANS}.",
        NO_RULES,
        [onward(ADVICE)],
    )
    share = waste.share(waste.by_activity("idle", "", *_WHERE), waste.of_models("", *_WHERE))
    return number(ask, share, "percentunit", steps=waste.STEPS, base=waste.BASE, decimals=1)


def _why() -> Builder[Panel]:
    ask = Ask(
        6,
        "Finding",
        "Why does it use so much?",
        "What its cards did in the time range: see docs/dashboards.md.",
        _NOT_AT_WORK,
        [onward(NODES)],
    )
    return number(ask, f"min({why('cluster, model_name, namespace, phase', *_WHERE)})", "none", texts=TEXTS)


def _modes() -> Builder[Panel]:
    ask = Ask(
        7,
        "Work and idle power",
        "When is it active, and when idle?",
        "Work is power above idle; idle is the idle power of the cards that it holds. The dashed line is the sum of a "
        "week before.",
        _NOT_AT_WORK,
        [onward(WORKLOADS)],
    )
    lines = [
        Line(q.watts("model", "", 'mode="active"', *_WHERE), "Work"),
        Line(q.watts("model", "", 'mode="idle"', *_WHERE), "Idle, held"),
        Line(q.week_before("model", "", *_WHERE), "A week before"),
    ]
    colours = {"Work": ACTIVE, "Idle, held": HELD_IDLE}
    return course(ask, lines, "watt", colours=colours, stacked=True, before="A week before", summary="bottom")


def _tokens() -> Builder[Panel]:
    ask = Ask(
        8,
        "Tokens served",
        "How much does it serve?",
        "Generated and prompt tokens per second, over five minutes, as its servers count them.",
        NO_TOKENS,
        [_back()],
    )
    lines = [
        Line(_recorded("model:output_tokens:rate5m"), "Generated"),
        Line(_recorded("model:prompt_tokens:rate5m"), "Prompt"),
    ]
    return course(ask, lines, "suffix:tokens/s", colours={"Generated": ACTIVE, "Prompt": PLAIN})


def _served() -> Builder[Panel]:
    ask = Ask(
        14,
        "Tokens",
        "How many tokens did it generate?",
        "In the time range of the dashboard, in millions.",
        NO_TOKENS,
        [_back()],
    )
    return number(ask, f"{recorded.tokens('', *_WHERE)} / 1e6", MILLIONS, decimals=2)


def _requests() -> Builder[Panel]:
    ask = Ask(
        15,
        "Requests",
        "How many requests did it serve?",
        "Finished requests in the time range of the dashboard.",
        _NO_REQUESTS,
        [_back()],
    )
    return number(ask, recorded.requests("", *_WHERE), "none", decimals=0)


def _request() -> Builder[Panel]:
    ask = Ask(
        16,
        "Per request",
        "How much energy does a request use?",
        "Joules per finished request of the last five minutes: all energy of the model, idle included.",
        _NO_REQUESTS,
        [_back()],
    )
    return number(ask, q.joules_per_request("", *_WHERE), JOULES, decimals=1)


def _grams() -> Builder[Panel]:
    ask = Ask(
        17,
        "CO2e",
        "How much CO2e was emitted for it?",
        "In the time range, at the carbon intensity of each moment, the building's overhead (PUE) included.",
        NO_IMPACT,
        [_back()],
    )
    return number(ask, q.grams("model", "", *_WHERE), KG, decimals=2)


def _cost() -> Builder[Panel]:
    ask = Ask(
        18,
        "Cost",
        "What did it cost?",
        "In the time range, at the price of each moment, PUE included, in the currency that is chosen above; credits "
        "at negative prices are subtracted.",
        NO_IMPACT,
        [_back()],
    )
    return number(ask, q.cost("model", "", *_WHERE), "none", decimals=2)


def _million() -> Builder[Panel]:
    cost = q.cost("model", "", 'phase!="training"', *_WHERE)
    ask = Ask(
        19,
        "Cost, M tokens",
        "What did a million generated tokens cost?",
        "Cost of serving in the time range, idle included, by generated tokens, in the currency that is chosen above.",
        Empty("No tokens, no price", "its tokens are not counted, or no price is known: see docs/impact.md."),
        [_back()],
    )
    return number(ask, f"({cost}) / ({recorded.tokens('', *_WHERE)} > 0) * 1e6", "none", decimals=3)


def _per_request() -> Builder[Panel]:
    ask = Ask(
        20,
        "Energy per request",
        "Does a request use more energy than before?",
        "Joules per finished request over five minutes, and over a day with its idle hours.",
        _NO_REQUESTS,
        [_back()],
    )
    lines = [
        Line(q.joules_per_request("", *_WHERE), "Five minutes"),
        Line(q.joules_per_request("", *_WHERE, window="1d"), "A day"),
    ]
    return course(ask, lines, JOULES, colours={"Five minutes": ACTIVE, "A day": PLAIN})


def _components() -> Builder[Panel]:
    ask = Ask(
        9, "Power by component", "Which hardware draws it?", "Its power by component.", _NOT_AT_WORK, [onward(NODES)]
    )
    return course(
        ask,
        [Line(q.watts("model", "component", *_WHERE), "{{component}}")],
        "watt",
        colours=COMPONENT,
        stacked=True,
        summary="bottom",
    )


def _cards() -> Builder[Panel]:
    ask = Ask(
        10,
        "Use of its cards",
        "How well does it use its cards?",
        "The busiest card of its pods: multiprocessors with work, tensor cores, memory. High memory and low tensor "
        "activity is memory-bound; low activity of all three is a batch that is too small, or a wait for data.",
        _NO_CARD,
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
        "Energy per token",
        "Does a token use more energy than before?",
        "Joules per generated token over five minutes, and over a day with its idle hours; of each variant if there "
        "are several, which only compare puts on one load. Of a model that the exporter does not know: of the server's "
        "whole pod (model:energy_serving_pod:info).",
        NO_TOKENS,
        [_back()],
    )
    joules = q.watts("model", "variant", 'phase!="training"', 'variant!=""', *_WHERE)
    tokens = q.total(q.rate("energy_model_tokens_total", 'kind="output"', 'variant!=""', *_WHERE), "variant")
    lines = [
        Line(q.joules_per_token("", *_WHERE), "Five minutes"),
        Line(q.joules_per_token("", *_WHERE, window="1d"), "A day"),
        Line(f"{joules} / ({tokens} > 0) and on () (count({tokens}) > 1)", "{{variant}}"),
    ]
    return course(ask, lines, PER_TOKEN, colours={"Five minutes": ACTIVE, "A day": PLAIN})


def _per_day() -> Builder[Panel]:
    ask = Ask(
        13,
        "kWh per day",
        "How much energy did it use on each day?",
        "Energy of the last seven days by phase, from the recorded power of every five minutes. Days begin at midnight "
        "of the dashboard's time zone; the last one is not over.",
        NO_RULES,
        [_back()],
    )
    lines = [Line(recorded.kwh_per_day("model:energy_model_watts:zero_filled", "phase", *_WHERE), "{{phase}}")]
    return days(ask, lines, colours=PHASE)


def _places() -> Builder[Panel]:
    named = f"group by ({_PLACES}) ({q.series('energy_container_info', *_WHERE)})"

    def here(expr: str) -> str:
        return f"sum by ({_PLACES}) ({expr} and on ({_PLACES}) {named})"

    rate = f"rate({q.series('energy_container_joules_total', q.NAMESPACE)}[$__rate_interval])"
    idle = q.rate("energy_container_joules_total", q.NAMESPACE, 'mode="idle"')
    used = q.increase("energy_container_joules_total", q.NAMESPACE)
    ask = Ask(
        12,
        "Containers",
        "Where does it run?",
        "Containers in which all processes work for this model. Containers with several models are not listed.",
        Empty("No container", "no container works for this model alone."),
        [onward(WORKLOADS)],
    )
    return table(
        ask,
        [
            CLUSTER,
            Label("instance", "Node", 110, from_place(NODES, "Open this node", instance="Node")),
            Label("namespace", "Namespace", 115),
            Label("pod", "Pod", 0, from_place(WORKLOADS, "Open this pod", namespace="Namespace", pod="Pod")),
            Label("container", "Container", 100),
        ],
        [
            Value("Power", here(rate), "watt", None, 85, total=True),
            Value("Idle", here(idle), "watt", None, 85, [(50, WARN)], total=True),
            Value("Energy", f"{here(used)} / {q.KWH:g}", KWH, 2, 100, total=True),
        ],
        sort="Power",
    )
