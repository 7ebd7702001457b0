"""Models: a ranking of all models by energy, with the reasons."""

from __future__ import annotations

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from . import queries as q
from .board import Row, board
from .links import MODEL, MODELS, WORKLOADS, from_row, onward
from .palette import ACTIVE, BAD, GOOD, HELD_IDLE, PHASE, WARN
from .panels import Ask, Line, course, number
from .reasons import TEXTS, why
from .table import CLUSTER, Label, Value, table
from .variables import everywhere, model_name, namespace

NO_MODEL = "No model is running here, or none was recognised: see docs/models.md"
_BY = "cluster, model_name, namespace, phase"
_WHERE = (q.NAMESPACE, 'model_name=~"$model_name"')


def _per_token_of_rows() -> str:
    """Joules per token, which have no node and no phase, joined to the rows of `_BY` that are not training."""
    rows = q.watts("model", _BY, 'phase!="training"', *_WHERE)
    known = q.joules_per_token("cluster, model_name, namespace", *_WHERE)
    return f"0 * {rows} + on (cluster, model_name, namespace) group_left () ({known})"


def dashboard() -> Dashboard:
    """A table that ranks all models, and its two most important columns over time."""
    return board(
        MODELS,
        "How much power, energy and joules per token does each model use, how much of it is idle, and why?",
        [*everywhere(), namespace(), model_name()],
        [
            Row(4, [(5, _power()), (5, _energy()), (5, _share()), (5, _idle()), (4, _count())]),
            Row(10, [(24, _league())]),
            Row(9, [(9, _over_time()), (9, _per_token()), (6, _phases())]),
            Row(7, [(24, _runs())]),
        ],
    )


def _power() -> Builder[Panel]:
    ask = Ask(
        1,
        "How much power do models draw now?",
        "Power of all processes that work for a model: GPU, CPU and memory, work and idle together.",
        NO_MODEL,
        [onward(WORKLOADS)],
    )
    return number(ask, q.watts("model", "", *_WHERE), "watt", trend=True)


def _energy() -> Builder[Panel]:
    ask = Ask(2, "How much energy did they use?", "In the time range of the dashboard.", NO_MODEL, [onward(WORKLOADS)])
    return number(ask, q.kwh("model", "", *_WHERE), "kwatth", decimals=1)


def _share() -> Builder[Panel]:
    ask = Ask(
        3,
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
        "How much of it is idle?",
        "Share of the models' energy that is idle power of GPUs that they hold, in the time range.",
        NO_MODEL,
        [onward(WORKLOADS)],
    )
    idle = q.total(q.increase("energy_model_joules_total", 'mode="idle"', *_WHERE))
    every = q.total(q.increase("energy_model_joules_total", *_WHERE))
    steps = [(0.3, WARN), (0.6, BAD)]
    return number(ask, f"{idle} / ({every} > 0)", "percentunit", steps=steps, base=GOOD, decimals=0)


def _count() -> Builder[Panel]:
    ask = Ask(5, "How many models are there?", "Models that have a process now.", NO_MODEL, [onward(WORKLOADS)])
    present = q.series("energy_model_power_watts", *_WHERE)
    return number(ask, f"count(group by (model_name) ({present}))", "none")


def _league() -> Builder[Panel]:
    power = q.watts("model", _BY, *_WHERE)
    energy = q.kwh("model", _BY, *_WHERE)
    everything = q.total(q.increase("energy_model_joules_total", *_WHERE))
    used = q.total(q.increase("energy_model_joules_total", *_WHERE), _BY)
    ask = Ask(
        6,
        "Which model costs most, and why?",
        "Energy, share and idle share are for the time range; power is now. kWh/year is the mean power of the last "
        "week, idle hours included, over a year. J/token is energy, idle included, per generated token of the last "
        "five minutes; empty if no server reports tokens. Why is the first finding that applies: see "
        "docs/dashboards.md. Click a model for its details.",
        NO_MODEL,
    )
    return table(
        ask,
        [
            Label("model_name", "Model", 0, onward(MODEL, "Open this model", model_name="Model")),
            CLUSTER,
            Label("namespace", "Namespace", 120, from_row(WORKLOADS, "Open this namespace", namespace="Namespace")),
            Label("phase", "Phase", 90, texts={phase: (phase, colour) for phase, colour in PHASE.items()}),
        ],
        [
            Value("Power", power, "watt", 0, 80),
            Value("Energy", energy, "kwatth", 2, 100),
            Value("Share", f"{used} / scalar({everything})", "percentunit", 0, 130, base=ACTIVE, bar=1),
            Value("kWh/year", _per_year(), "none", 0, 85),
            Value("J/token", _per_token_of_rows(), "none", 2, 80),
            Value(
                "Idle",
                q.idle_share("model", _BY, *_WHERE),
                "percentunit",
                0,
                130,
                [(0.5, WARN), (0.9, BAD)],
                HELD_IDLE,
                1,
            ),
            Value("Why", why(_BY, *_WHERE), "none", 0, 190, texts=TEXTS),
        ],
        sort="Energy",
    )


def _per_year() -> str:
    return q.total(q.per_year_of_models(*_WHERE), _BY)


def _over_time() -> Builder[Panel]:
    ask = Ask(
        7,
        "How did the models' power change?",
        "Power of the eight models that used most in the time range.",
        NO_MODEL,
        [onward(WORKLOADS)],
    )
    power = q.top(8, q.watts("model", "model_name", *_WHERE), "model_name", "model", *_WHERE)
    return course(ask, [Line(power, "{{model_name}}")], "watt", stacked=True)


def _per_token() -> Builder[Panel]:
    ask = Ask(
        8,
        "What does a token cost, and is it getting worse?",
        "Joules of the model, idle included, per generated token over five minutes. With few requests a token costs "
        "more, because the idle power of the card is spread over few tokens. Of a model that the exporter does not "
        "know: joules of the server's whole pod (model:energy_serving_pod:info).",
        "No server reports its tokens: add it to prometheus/targets/model-servers.yml",
        [onward(WORKLOADS)],
    )
    return course(ask, [Line(q.joules_per_token("model_name", *_WHERE), "{{model_name}}")], "joule")


def _phases() -> Builder[Panel]:
    ask = Ask(
        9,
        "Training or inference?",
        "Power by phase of the models' processes. Unknown is a notebook, or a program from which no phase is detected.",
        NO_MODEL,
        [onward(WORKLOADS)],
    )
    power = q.watts("model", "phase", *_WHERE)
    return course(ask, [Line(power, "{{phase}}")], "watt", colours=PHASE, stacked=True)


def _runs() -> Builder[Panel]:
    ask = Ask(
        10,
        "How much energy did each training run use?",
        "Energy of each run in the last 30 days. A run is the work of one owner (a Job, a Slurm job) for one model.",
        "No training run found, or its rules have run for less than an hour",
        [onward(WORKLOADS)],
    )
    known = q.series("run:energy_container_kwh:sum30d", *_WHERE, node=q.CLUSTER)
    now = q.series("run:energy_container_joules:rate5m", *_WHERE, node=q.CLUSTER)
    by = "run, cluster, namespace, model_name"
    return table(
        ask,
        [
            Label("run", "Run", 0),
            CLUSTER,
            Label("namespace", "Namespace", 160, from_row(WORKLOADS, "Open this namespace", namespace="Namespace")),
            Label("model_name", "Model", 320, onward(MODEL, "Open this model", model_name="Model")),
        ],
        [
            Value("Energy", f"topk(50, sum by ({by}) ({known}))", "kwatth", 2, 140),
            Value("Power", f"sum by ({by}) ({now})", "watt", 0, 120),
        ],
        sort="Energy",
    )
