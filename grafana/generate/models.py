"""Models: a ranking of all models by energy, with the reasons."""

from __future__ import annotations

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from . import queries as q
from . import recorded, waste
from .board import Row, board
from .empty import NO_MODEL, NO_RULES, NO_TOKENS, Empty
from .links import ADVICE, MODEL, MODELS, WORKLOADS, from_line, from_place, from_row, onward
from .palette import PHASE, TEXT, WARN
from .panels import JOULES, KG, KWH, MILLIONS, PER_TOKEN, Ask, Line, course, days, number
from .reasons import TEXTS, why
from .table import CLUSTER, Label, Value, table
from .variables import currency, everywhere, model_name, namespace

_BY = "cluster, model_name, namespace, phase"
_WHERE = (q.NAMESPACE, 'model_name=~"$model_name"')


_SERVED = "cluster, model_name, namespace"
_REASONS = {
    "no_tokens": ("no tokens counted", WARN),
    "gpu_without_model": ("GPU of no model", WARN),
    "server_not_read": ("server not read", WARN),
    "coarse_counter": ("coarse counter", TEXT),
}


def _of_rows(served: str) -> str:
    """What is served, which has no node and no phase, joined to the rows of `_BY` that are not training."""
    rows = q.watts("model", _BY, 'phase!="training"', *_WHERE)
    return f"0 * {rows} + on ({_SERVED}) group_left () ({served})"


def dashboard() -> Dashboard:
    """A table that ranks all models, and its two most important columns over time."""
    return board(
        MODELS,
        "How much power, energy and joules per token does each model use, how much is waste, why, and what to do?",
        [*everywhere(), namespace(), model_name(), currency()],
        [
            Row(4, [(5, _power()), (5, _energy()), (5, _share()), (5, _idle()), (4, _count())]),
            Row(13, [(24, _league())]),
            Row(9, [(16, _over_time()), (8, _phases())]),
            Row(9, [(24, _bill())]),
            Row(9, [(12, _per_day()), (12, _per_token())]),
            Row(9, [(6, _tokens()), (6, _per_request()), (12, _unresolved())]),
            Row(8, [(24, _runs())]),
        ],
    )


def _power() -> Builder[Panel]:
    ask = Ask(
        1,
        "Power now",
        "How much power do models draw now?",
        "Power of all processes that work for a model: GPU, CPU and memory, work and idle together.",
        NO_MODEL,
        [onward(WORKLOADS)],
    )
    return number(ask, q.watts("model", "", *_WHERE), "watt")


def _energy() -> Builder[Panel]:
    ask = Ask(
        2,
        "Energy",
        "How much energy did they use?",
        "In the time range of the dashboard.",
        NO_MODEL,
        [onward(WORKLOADS)],
    )
    return number(ask, q.kwh("model", "", *_WHERE), "kwatth")


def _share() -> Builder[Panel]:
    ask = Ask(
        3,
        "Share of all energy",
        "Which share of all energy is that?",
        "Energy of models as a share of the energy of the selected nodes in the time range. The rest is other "
        "workloads and the nodes themselves.",
        NO_MODEL,
        [onward(WORKLOADS)],
    )
    nodes = q.total(q.increase("energy_node_joules_total"))
    models = q.total(q.increase("energy_model_joules_total", *_WHERE))
    return number(ask, f"{models} / ({nodes} > 0)", "percentunit", decimals=0)


def _idle() -> Builder[Panel]:
    ask = Ask(
        4,
        "Unused",
        "How much of it is waste?",
        f"Share of the models' energy in the time range, whatever node is selected. {waste.UNUSED_MEANS}.",
        NO_RULES,
        [onward(ADVICE)],
    )
    unused = waste.by_activity("idle", "", *_WHERE)
    share = waste.share(unused, waste.of_models("", *_WHERE))
    return number(ask, share, "percentunit", steps=waste.STEPS, base=waste.BASE, decimals=1)


def _count() -> Builder[Panel]:
    ask = Ask(
        5, "Models", "How many models are there?", "Models that have a process now.", NO_MODEL, [onward(WORKLOADS)]
    )
    present = q.series("energy_model_power_watts", *_WHERE)
    return number(ask, f"count(group by (model_name) ({present}))", "none")


def _league() -> Builder[Panel]:
    power = q.watts("model", _BY, *_WHERE)
    energy = q.kwh("model", _BY, *_WHERE)
    unused, total = waste.by_activity("idle", _BY, *_WHERE), waste.of_models(_BY, *_WHERE)
    ask = Ask(
        6,
        "Models by energy",
        "Which model uses most, and why?",
        "Energy and unused share are for the time range; power is now. vs 1w ago compares the energy with "
        "the same time range a week earlier: +10 % is more. kWh/year is the mean power of the last "
        "week, idle hours included, over a year. J/token is energy, idle included, per generated token of the last "
        "five minutes; empty if no server reports tokens. Why is what its cards did: see docs/dashboards.md. What to "
        "do is the lever that could save most, and how much at most; a click opens its evidence.",
        NO_MODEL,
    )
    return table(
        ask,
        [
            Label("model_name", "Model", 0, from_row(MODEL, "Open this model", model_name="Model")),
            CLUSTER,
            Label("namespace", "Namespace", 108, from_place(WORKLOADS, "Open this namespace", namespace="Namespace")),
            Label("phase", "Phase", 80),
        ],
        [
            Value("Power", power, "watt", None, 80, total=True),
            Value("Energy", energy, KWH, 2, 87, total=True),
            Value("vs 1w ago", q.change("model", _BY, *_WHERE), "percentunit", 0, 80),
            Value("kWh/year", _per_year(), "none", 0, 74, total=True),
            Value("J/token", _of_rows(q.joules_per_token(_SERVED, *_WHERE)), PER_TOKEN, None, 110),
            Value("Unused", waste.share(unused, total), "percentunit", 1, 75, waste.STEPS),
            Value("Why", why(_BY, *_WHERE), "none", 0, 158, texts=TEXTS),
            Value(
                "What to do",
                waste.best_lever("model", _BY, *_WHERE),
                "none",
                0,
                160,
                texts=waste.LEVER_TEXTS,
                follow=from_place(ADVICE, "Its evidence", namespace="Namespace", model_name="Model"),
            ),
            Value(waste.AT_MOST, waste.at_most("model", _BY, *_WHERE), "none", 0, 106, total=True),
        ],
        sort="Energy",
    )


def _per_year() -> str:
    return q.total(q.per_year_of_models(*_WHERE), _BY)


def _over_time() -> Builder[Panel]:
    ask = Ask(
        7,
        "Power by model",
        "How did the power of the models change?",
        "Power of the eight models that used most in the time range.",
        NO_MODEL,
        [onward(WORKLOADS)],
    )
    power = q.top(8, q.watts("model", "model_name", *_WHERE), "model_name", "model", *_WHERE)
    follow = from_line(MODEL, "Open this model", "model_name")
    return course(ask, [Line(power, "{{model_name}}")], "watt", stacked=True, summary="right", follow=follow)


def _per_token() -> Builder[Panel]:
    ask = Ask(
        8,
        "Energy per token",
        "How much energy does a token use, and is it getting worse?",
        "Joules of the model, idle included, per generated token over five minutes. With few requests a token costs "
        "more, because the idle power of the card is spread over few tokens. Of a model that the exporter does not "
        "know: joules of the server's whole pod (model:energy_serving_pod:info).",
        NO_TOKENS,
        [onward(WORKLOADS)],
    )
    lines = [Line(q.joules_per_token("model_name", *_WHERE), "{{model_name}}")]
    follow = from_line(MODEL, "Open this model", "model_name")
    return course(ask, lines, PER_TOKEN, summary="bottom", follow=follow)


def _tokens() -> Builder[Panel]:
    ask = Ask(
        13,
        "Tokens generated",
        "How much does each model serve?",
        "Generated tokens a second, over five minutes, as the exporter counts them at the model's servers, or as "
        "Prometheus scrapes them there.",
        NO_TOKENS,
        [onward(WORKLOADS)],
    )
    tokens = q.total(q.series("model:output_tokens:rate5m", *_WHERE, node=q.CLUSTER), "model_name")
    follow = from_line(MODEL, "Open this model", "model_name")
    return course(ask, [Line(tokens, "{{model_name}}")], "suffix:tokens/s", stacked=True, follow=follow)


def _per_request() -> Builder[Panel]:
    ask = Ask(
        14,
        "Energy per request",
        "How much energy does a request use?",
        "Joules of the model, idle included, per finished request over five minutes.",
        Empty("No requests", "no server reports requests, or there are none."),
        [onward(WORKLOADS)],
    )
    lines = [Line(q.joules_per_request("model_name", *_WHERE), "{{model_name}}")]
    return course(ask, lines, JOULES, follow=from_line(MODEL, "Open this model", "model_name"))


def _unresolved() -> Builder[Panel]:
    by = "cluster, model_name, namespace, reason"
    watts = q.series("model:energy_serving_unresolved_joules:rate5m", *_WHERE, node=q.CLUSTER)
    ask = Ask(
        15,
        "Without joules per token",
        "Which models serve and have no joules per token?",
        "Models at work whose tokens are not counted; models whose pods use GPUs that belong to no model (the power is "
        "that of these GPUs); models with servers that cannot be read; and counters of llama.cpp that stand still for "
        "too long. What to do: docs/rules.md.",
        Empty("None", "every model that serves has joules per token."),
    )
    return table(
        ask,
        [
            Label("model_name", "Model", 0, from_row(MODEL, "Open this model", model_name="Model")),
            CLUSTER,
            Label("namespace", "Namespace", 110, from_place(WORKLOADS, "Open this namespace", namespace="Namespace")),
            Label("reason", "Reason", 150, texts=_REASONS),
        ],
        [Value("Power", q.total(watts, by), "watt", None, 70, total=True)],
        sort="Power",
    )


def _phases() -> Builder[Panel]:
    ask = Ask(
        9,
        "Power by phase",
        "Training or inference?",
        "Power by phase of the models' processes. Unknown is a notebook, or a program from which no phase is detected.",
        NO_MODEL,
        [onward(WORKLOADS)],
    )
    power = q.watts("model", "phase", *_WHERE)
    return course(ask, [Line(power, "{{phase}}")], "watt", colours=PHASE, stacked=True, summary="bottom")


def _per_day() -> Builder[Panel]:
    ask = Ask(
        11,
        "kWh per day",
        "How much energy did each model use on each day?",
        "Energy of the ten models that used most in the last seven days, from the recorded power of every five "
        "minutes. Days begin at midnight of the dashboard's time zone; the last one is not over.",
        NO_RULES,
        [onward(WORKLOADS)],
    )
    watts = ("model:energy_model_watts:zero_filled", "model_name", *_WHERE)
    used = q.series(watts[0], *_WHERE, node=q.CLUSTER)
    most = f"topk(10, sum by (model_name) (sum_over_time({used}[7d] @ end())))"
    lines = [Line(f"{recorded.kwh_per_day(*watts)} and on (model_name) {most}", "{{model_name}}")]
    return days(ask, lines, follow=from_line(MODEL, "Open this model", "model_name"))


def _runs() -> Builder[Panel]:
    ask = Ask(
        10,
        "Training runs",
        "How much energy did each training run use?",
        "Energy of each run in the last 30 days. A run is the work of one owner (a Job, a Slurm job) for one model.",
        Empty("No training run", "none was recognised, or its rules have run for less than an hour."),
        [onward(WORKLOADS)],
    )
    known = q.series("run:energy_container_kwh:sum30d", *_WHERE, node=q.CLUSTER)
    last = q.series("run:energy_container_joules:difference4m", *_WHERE, node=q.CLUSTER)
    by = "run, cluster, namespace, model_name"
    return table(
        ask,
        [
            Label("run", "Run", 0),
            CLUSTER,
            Label("namespace", "Namespace", 160, from_place(WORKLOADS, "Open this namespace", namespace="Namespace")),
            Label("model_name", "Model", 320, from_row(MODEL, "Open this model", model_name="Model")),
        ],
        [
            Value("Energy", f"topk(50, sum by ({by}) ({known}))", KWH, 2, 140, total=True),
            Value("Power", f"sum by ({by}) ({last}) / 240", "watt", None, 120, total=True),
        ],
        sort="Energy",
    )


def _bill() -> Builder[Panel]:
    return table(
        Ask(
            12,
            "Tokens, CO2e and cost by model",
            "What did each model bring, emit and cost?",
            "In the time range: generated tokens in millions, requests; CO2e and cost at the carbon intensity and "
            "price of each moment, PUE included, in the currency that is chosen above. J/request is of the last five "
            "minutes. Idle cost is that of the idle power of held GPUs, at work or not.",
            NO_MODEL,
        ),
        [
            Label("model_name", "Model", 0, from_row(MODEL, "Open this model", model_name="Model")),
            CLUSTER,
            Label("namespace", "Namespace", 108, from_place(WORKLOADS, "Open this namespace", namespace="Namespace")),
            Label("phase", "Phase", 80),
        ],
        [
            Value("Energy", q.kwh("model", _BY, *_WHERE), KWH, 2, 110, total=True),
            Value("Tokens", f"{_of_rows(recorded.tokens(_SERVED, *_WHERE))} / 1e6", MILLIONS, 2, 95, total=True),
            Value("Requests", _of_rows(recorded.requests(_SERVED, *_WHERE)), "none", 0, 95, total=True),
            Value("J/request", _of_rows(q.joules_per_request(_SERVED, *_WHERE)), JOULES, 1, 100),
            Value("CO2e", q.grams("model", _BY, *_WHERE), KG, 2, 110, total=True),
            Value("Cost", q.cost("model", _BY, *_WHERE), "none", 2, 100, total=True),
            Value("Idle cost", q.cost("model", _BY, *_WHERE, 'mode="idle"'), "none", 2, 100, total=True),
        ],
        sort="Energy",
    )
