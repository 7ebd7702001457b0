"""What panels answer where it is easy to be wrong: ratios, joins, devices within devices, and nothing to divide."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.support.boards import BOARDS, filled, queries
from tests.support.needs import needs
from tests.support.patience import patience

QUERIES = {query.name: query for query in queries()}

NODE = 'job="energy",instance="n1"'
CARD = 'gpu="0",uuid="GPU-1",gpu_instance=""'
HELD = f'{NODE},namespace="a",pod="p",container="c"'
DEVICE = 'instance="n1", device="package-0", component="cpu", source="rapl", quality="measured", method="rapl"'
SERVED = 'model_name="m",phase="inference"'
BUDGET = 'budget="b",owner="o",window="day"'
PER_TOKEN = 'model:energy_per_output_token_joules:rate5m{namespace="%s",model_name="m"}'
IDENTITY = 'runtime="kubernetes",owner_kind="",owner_name=""'


EVERY_150_SECONDS = "_ {0} _ {0} _ " * 12
"""An hour of a series that is recorded every 150 s."""

EVERY_FIVE = "_ _ _ _ _ " + "{0} _ _ _ _ " * 12
"""An hour of a series that is recorded every five minutes."""

LIMIT = "cluster:energy_waste_limit_kwh:week"

WEEK = 7 * 24 * 60
"""Minutes."""


class Case(NamedTuple):
    """Series with their values each minute, a query of a panel, and its answer after some hours to three digits."""

    what: str
    query: str
    series: dict[str, str]
    answer: dict[str, float]
    hours: int = 1
    asked: str = "{}"


def counter(watts: float) -> str:
    """A counter of joules that grows by so many watts."""
    return f"0+{watts * 60:g}x60"


def twice(series: dict[str, tuple[str, str]]) -> dict[str, str]:
    """The same series in the clusters "east" and "west", with the values of each."""
    return {
        name.replace("{", f'{{cluster="{cluster}",', 1): both[index]
        for name, both in series.items()
        for index, cluster in enumerate(("east", "west"))
    }


CASES = [
    Case(
        "one model in two namespaces: 400 W by 200 tokens a second, not 1 J + 3 J",
        "energy-models/8A",
        {
            'model:energy_serving_joules:rate5m{namespace="a",model_name="m"}': "100x60",
            'model:output_tokens:rate5m{namespace="a",model_name="m"}': "100x60",
            'model:energy_serving_joules:rate5m{namespace="b",model_name="m"}': "300x60",
            'model:output_tokens:rate5m{namespace="b",model_name="m"}': "100x60",
            # the tokens of this one are not counted
            'model:energy_serving_joules:rate5m{namespace="c",model_name="m"}': "900x60",
            # the GPU joules of this one belong to no model
            'model:energy_serving_joules:rate5m{namespace="d",model_name="m"}': "1x60",
            'model:output_tokens:rate5m{namespace="d",model_name="m"}': "1000x60",
        }
        | {PER_TOKEN % name: "1x60" for name in "ab"},
        {'{model_name="m"}': 2.0},
    ),
    Case(
        "the same by request",
        "energy-models/14A",
        {
            f'model:{name}:rate5m{{namespace="{where}",model_name="m"}}': f"{value}x60"
            for where, joules, requests in (("a", 100, 1), ("b", 300, 1), ("d", 1, 99))
            for name, value in (("energy_serving_joules", joules), ("requests", requests))
        }
        | {f'model:energy_per_request_joules:rate5m{{namespace="{name}",model_name="m"}}': "1x60" for name in "ab"},
        {'{model_name="m"}': 200.0},
    ),
    Case(
        "the same of a day",
        "energy-model/11B",
        {
            'model:energy_serving_joules:rate5m{namespace="a",model_name="m"}': "100x60",
            'model:output_tokens:rate5m{namespace="a",model_name="m"}': "0x30 100x30",
            'model:energy_serving_joules:rate5m{namespace="b",model_name="m"}': "300x60",
            'model:output_tokens:rate5m{namespace="b",model_name="m"}': "100x60",
            # for most of the time without the joules of its GPU workers, which are left out with their tokens
            'model:energy_serving_joules:rate5m{namespace="d",model_name="m"}': "1x60",
            'model:output_tokens:rate5m{namespace="d",model_name="m"}': "1000x60",
            'model:energy_serving_unresolved_joules:rate5m{namespace="d",model_name="m",reason="gpu_without_model"}': (
                "99x40"
            ),
        },
        {"{}": round(400 * 61 / (100 * 30 + 100 * 61), 3)},
    ),
    Case(
        "a million tokens of 10 EUR in an hour in which it was trained for 5 EUR, and 2 EUR were credited",
        "energy-model/19A",
        {
            f'energy_model_{kind}_total{{{NODE},namespace="a",model_name="m",phase="{phase}",currency="EUR"}}': (
                f"0+{money / 60}x60"
            )
            for kind, phase, money in (("cost", "inference", 12), ("cost", "training", 5), ("credit", "inference", 2))
        }
        | {'model:output_tokens:rate5m{namespace="a",model_name="m"}': EVERY_150_SECONDS.format(1e6 / 3600)},
        {"{}": 10.0},
    ),
    Case(
        "a week of 100 W is 16.8 kWh, by namespace",
        "energy-overview/17A",
        {
            'namespace:energy_container_joules:rate5m{namespace="a",component="gpu",mode="active"}': (
                EVERY_150_SECONDS.format(100) * 170
            )
        },
        {'{namespace="a"}': 16.8},
        hours=170,
    ),
    Case(
        "and its grams, 0.1 a second, of which half a day is recorded so far",
        "energy-overview/20B",
        {
            'model:energy_model_carbon_grams:rate5m{namespace="a",model_name="m",phase="inference",mode="idle"}': (
                "_ 0.1 _ _ _ " * 144
            )
        },
        {'{model_name="m"}': 4.32},
        hours=13,
    ),
    Case(
        "a model that is served and trained: the training makes no tokens",
        "energy-models/6E",
        {
            f'energy_model_joules_total{{{NODE},namespace="a",model_name="m",phase="{phase}"}}': counter(100)
            for phase in ("inference", "training")
        }
        | {
            'model:energy_serving_joules:rate5m{namespace="a",model_name="m"}': "100x60",
            'model:output_tokens:rate5m{namespace="a",model_name="m"}': "50x60",
            PER_TOKEN % "a": "2x60",
        },
        {'{namespace="a", model_name="m", phase="inference"}': 2.0},
    ),
    Case(
        "a container that was restarted is there twice for five minutes",
        "energy-model/10A",
        {
            f"energy_gpu_sm_active_ratio{{{NODE},{CARD}}}": "0.5x60",
            f"energy_gpu_allocated_ratio{{{HELD},{CARD}}}": "1x60",
            f'energy_container_info{{{HELD},{IDENTITY},container_id="1",model_name="m"}}': "1x60",
            f'energy_container_info{{{HELD},{IDENTITY},container_id="2",model_name="m"}}': "1x60",
        },
        {"{}": 0.5},
    ),
    Case(
        "a model that idles in one namespace: that is said first",
        "energy-model/6A",
        {
            f'energy_model_activity_joules_total{{{NODE},namespace="{name}",{SERVED},activity="{activity}"}}': "0+1x60"
            for name, activity in (("a", "compute_bound"), ("b", "idle"))
        },
        {"{}": 1.0},
    ),
    Case(
        "a package contains its cores: half of the power is measured",
        "energy-overview/5A",
        {
            f'energy_node_joules_total{{job="energy",instance="{node}",component="cpu"}}': counter(100)
            for node in ("n1", "vm")
        }
        | {
            f'{name}{{job="energy",instance="{node}",component="cpu",device="{device}"{more}}}': value
            for node, device, watts, quality in (
                ("n1", "package-0", 100, "measured"),
                ("n1", "core-0", 80, "measured"),
                ("vm", "cpu-estimate", 100, "estimated"),
            )
            for name, more, value in (
                ("energy_device_joules_total", "", counter(watts)),
                ("energy_power_source_info", f',quality="{quality}"', "1x60"),
            )
        },
        {"{}": 0.5},
    ),
    Case(
        "a card that is held and not used is waste, and so is a free one",
        "energy-overview/4A",
        {
            'cluster:energy_node_joules:rate5m{component="gpu"}': "_ 200x59",
            'namespace:energy_gpu_unused_joules:rate5m{namespace="a"}': EVERY_FIVE.format(50),
            'namespace:energy_gpu_unused_joules:rate5m{namespace="b"}': EVERY_FIVE.format(20),
            "cluster:energy_gpu_free_joules:rate5m": EVERY_FIVE.format(10),
        },
        {"{}": 0.4},
    ),
    Case(
        "free cards alone",
        "energy-overview/4A",
        {
            'cluster:energy_node_joules:rate5m{component="gpu"}': "_ 100x59",
            "cluster:energy_gpu_free_joules:rate5m": EVERY_FIVE.format(40),
        },
        {"{}": 0.4},
    ),
    Case(
        "all cards at work: no waste",
        "energy-overview/4A",
        {'cluster:energy_node_joules:rate5m{component="gpu"}': "_ 100x59", LIMIT: "100x60"},
        {"{}": 0.0},
    ),
    Case(
        "no rules, no answer", "energy-overview/4A", {f'energy_node_joules_total{{{NODE},component="cpu"}}': "9x60"}, {}
    ),
    Case(
        "the idle floor is the idle power of cards at work: 100 W idle, 70 W of it unused",
        "energy-advice/3A",
        {
            'namespace:energy_container_joules:rate5m{namespace="a",component="gpu",mode="idle"}': "_ 40000x59",
            'namespace:energy_gpu_unused_joules:rate5m{namespace="a"}': EVERY_FIVE.format(70000),
        },
        {"{}": 30.0},
    ),
    Case(
        "unused GPUs of a pod as a share of its energy",
        "energy-workloads/3A",
        {
            'pod:energy_container_joules:rate5m{namespace="a",pod="p",component="gpu",mode="idle"}': "_ 40x59",
            'pod:energy_gpu_unused_joules:rate5m{namespace="a",pod="p",container="c"}': EVERY_FIVE.format(70),
        },
        {"{}": 0.7},
    ),
    Case(
        "of two levers the one that could save more is named",
        "energy-models/6H",
        {
            f'model:energy_advice_kwh_per_month:avg7d{{namespace="a",{SERVED},lever="{lever}"}}': f"{kwh}x60"
            for lever, kwh in (("stop_idle", 20), ("host_cpu", 30))
        },
        {f'{{namespace="a", {SERVED}}}': 6.0},
    ),
    Case(
        "a year, half an hour after the first sample of 1 kW: not half; the first window of five minutes is not full",
        "energy-overview/3A",
        {f'energy_node_joules_total{{{NODE},component="cpu"}}': "_x30 0+60000x30"},
        {"{}": 8176.0},
    ),
    Case(
        "nothing fails on a machine without cards, whose RAPL cannot be read on another",
        "energy-exporter/4A",
        {
            f'energy_source_up{{{NODE},source="nvml"}}': "0x60",
            f'energy_source_failures_total{{{NODE},source="nvml",reason="not_found"}}': "0+1x60",
            f'energy_source_up{{{NODE},source="estimate"}}': "1x60",
            f'energy_source_last_success_timestamp_seconds{{{NODE},source="estimate"}}': "0+60x60",
            'energy_source_up{job="energy",instance="n2",source="rapl"}': "0x60",
            'energy_source_failures_total{job="energy",instance="n2",source="rapl",reason="permission"}': "0+1x60",
        },
        {"{}": 1.0},
    ),
    Case(
        "none of them fails",
        "energy-exporter/4A",
        {
            f'energy_source_up{{{NODE},source="nvml"}}': "0x60",
            f'energy_source_failures_total{{{NODE},source="nvml",reason="not_found"}}': "0+1x60",
        },
        {"{}": 0.0},
    ),
    Case("no exporter is not zero failures", "energy-exporter/4A", {'up{job="other"}': "1x60"}, {}),
    Case(
        "sources are up, failing, or not here",
        "energy-exporter/8A",
        {
            f'energy_source_up{{{NODE},source="nvml"}}': "0x60",
            f'energy_source_failures_total{{{NODE},source="nvml",reason="not_found"}}': "0+1x60",
            f'energy_source_up{{{NODE},source="procfs"}}': "1x60",
            f'energy_source_last_success_timestamp_seconds{{{NODE},source="procfs"}}': "0+60x60",
            f'energy_source_up{{{NODE},source="rapl"}}': "1x30 0x30",
            f'energy_source_last_success_timestamp_seconds{{{NODE},source="rapl"}}': "0+60x30 1800x30",
        },
        {
            '{instance="n1", source="nvml"}': 2.0,
            '{instance="n1", source="procfs"}': 1.0,
            '{instance="n1", source="rapl"}': 0.0,
        },
    ),
    Case(
        "pods of one name in two namespaces are two",
        "energy-workloads/6A",
        {
            f'energy_container_joules_total{{{NODE},namespace="{name}",pod="web-0",container="c"}}': counter(watts)
            for name, watts in (("a", 10), ("b", 20))
        },
        {'{namespace="a", pod="web-0"}': 10.0, '{namespace="b", pod="web-0"}': 20.0},
    ),
    Case(
        "cards of a machine outside Kubernetes are not free, all of an empty node are",
        "energy-nodes/4A",
        {
            f"energy_gpu_info{{{NODE},{CARD}}}": "1x60",
            f'energy_source_up{{{NODE},source="podresources"}}': "1x60",
            'energy_gpu_info{job="energy",instance="desk",gpu="0",uuid="GPU-9",gpu_instance=""}': "1x60",
            'energy_source_up{job="energy",instance="desk",source="podresources"}': "0x60",
        },
        {"{}": 1.0},
    ),
    Case(
        "two exporters of one node do not break the table of devices",
        "energy-exporter/9A",
        {
            f'{name}{{job="{job}",instance="n1",component="cpu",device="package-0",source="rapl"{more}}}': value
            for job in ("energy", "second")
            for name, more, value in (
                ("energy_device_power_watts", "", "70x60"),
                ("energy_power_source_info", ',quality="measured",method="rapl"', "1x60"),
            )
        },
        {f"{{{DEVICE}}}": 70.0},
    ),
    Case(
        "nodes of one name in two clusters are two",
        "energy-nodes/6A",
        twice({f'energy_node_joules_total{{{NODE},component="cpu"}}': (counter(100), counter(30))}),
        {'{cluster="east", instance="n1"}': 100.0, '{cluster="west", instance="n1"}': 30.0},
    ),
    Case(
        "and of each its own part is nobody's",
        "energy-nodes/6J",
        twice(
            {
                f'energy_node_joules_total{{{NODE},component="cpu"}}': (counter(100), counter(30)),
                f'energy_unattributed_joules_total{{{NODE},component="cpu",reason="idle"}}': (counter(20), counter(15)),
            }
        ),
        {'{cluster="east", instance="n1"}': 0.2, '{cluster="west", instance="n1"}': 0.5},
    ),
    Case(
        "their cards are called by the same number, and have limits of their own",
        "energy-nodes/7D",
        twice(
            {
                f'energy_gpu_joules_total{{{NODE},gpu="0",uuid="GPU-1"}}': (counter(70), counter(300)),
                f"energy_gpu_power_limit_watts{{{NODE},{CARD}}}": ("100x60", "400x60"),
                f"energy_gpu_info{{{NODE},{CARD}}}": ("1x60", "1x60"),
            }
        ),
        {
            '{cluster="east", instance="n1", gpu="0"}': 0.7,
            '{cluster="west", instance="n1", gpu="0"}': 0.75,
        },
    ),
    Case(
        "lines of cards are two as well",
        "energy-nodes/8A",
        twice(
            {
                f'energy_gpu_joules_total{{{NODE},gpu="0",uuid="GPU-1"}}': (counter(70), counter(300)),
                f"energy_gpu_info{{{NODE},{CARD}}}": ("1x60", "1x60"),
            }
        ),
        {
            '{cluster="east", instance="n1", gpu="0"}': 70.0,
            '{cluster="west", instance="n1", gpu="0"}': 300.0,
        },
    ),
    Case(
        "exporters of one node's name in two clusters: the one that is stale is told",
        "energy-exporter/7A",
        twice(
            {
                f"energy_sample_timestamp_seconds{{{NODE}}}": ("0+60x60", "0+60x50 3000x10"),
                f'energy_exporter_build_info{{{NODE},version="1",python_version="3",demo="false"}}': ("1x60", "1x60"),
            }
        ),
        {
            f'{{cluster="{cluster}", instance="n1", version="1", python_version="3", demo="false"}}': age
            for cluster, age in (("east", 0.0), ("west", 600.0))
        },
    ),
    Case(
        "pods of one name in two clusters are two, each with its own share of unused GPUs",
        "energy-workloads/7I",
        twice(
            {
                f'energy_container_joules_total{{{HELD},component="gpu",mode="idle"}}': (counter(100), counter(60)),
                f"pod:energy_gpu_unused_joules:rate5m{{{HELD}}}": (EVERY_FIVE.format(10), EVERY_FIVE.format(30)),
                'pod:energy_container_joules:rate5m{instance="n1",namespace="a",pod="p"}': ("_ 40x59", "_ 24x59"),
            }
        ),
        {
            '{cluster="east", namespace="a", pod="p"}': 0.1,
            '{cluster="west", namespace="a", pod="p"}': 0.5,
        },
    ),
    Case(
        "a model in namespaces of one name in two clusters: each has its own joules by token",
        "energy-models/6E",
        twice(
            {
                f'energy_model_joules_total{{{NODE},namespace="a",{SERVED}}}': (counter(100), counter(100)),
                'model:energy_serving_joules:rate5m{namespace="a",model_name="m"}': ("100x60", "300x60"),
                'model:output_tokens:rate5m{namespace="a",model_name="m"}': ("50x60", "100x60"),
                PER_TOKEN % "a": ("2x60", "3x60"),
            }
        ),
        {f'{{cluster="{cluster}", namespace="a", {SERVED}}}': cost for cluster, cost in (("east", 2.0), ("west", 3.0))},
    ),
    Case(
        "and its own reason: in the west it only holds its card, in the east it is little used most of the time",
        "energy-models/6G",
        twice(
            {
                f'energy_model_activity_joules_total{{{NODE},namespace="a",{SERVED},activity="{activity}"}}': watts
                for activity, watts in (
                    ("idle", (counter(10), counter(99))),
                    ("throttled", (counter(9), counter(0))),
                    ("underused", (counter(60), counter(1))),
                    ("compute_bound", (counter(40), counter(0))),
                )
            }
        ),
        {
            f'{{cluster="{cluster}", namespace="a", {SERVED}}}': reason
            for cluster, reason in (("east", 6.0), ("west", 1.0))
        },
    ),
    Case(
        "more than a tenth throttled comes before what takes most",
        "energy-models/6G",
        {
            f'energy_model_activity_joules_total{{{NODE},namespace="a",{SERVED},activity="{activity}"}}': counter(watts)
            for activity, watts in (("throttled", 20), ("compute_bound", 80))
        },
        {f'{{namespace="a", {SERVED}}}': 2.0},
    ),
    Case(
        "containers of one model on nodes of one name",
        "energy-model/12A",
        twice(
            {
                f'energy_container_joules_total{{{HELD},component="gpu",mode="active"}}': (counter(10), counter(30)),
                f'energy_container_info{{{HELD},{IDENTITY},container_id="1",model_name="m"}}': ("1x60", "1x60"),
            }
        ),
        {
            '{cluster="east", instance="n1", namespace="a", pod="p", container="c"}': 10.0,
            '{cluster="west", instance="n1", namespace="a", pod="p", container="c"}': 30.0,
        },
    ),
    Case(
        "budgets of one name, which each cluster evaluates for itself",
        "energy-budgets/7D",
        twice(
            {f"budget:energy_used:ratio{{{BUDGET}}}": ("0.2x60", "0.9x60")},
        ),
        {f'{{cluster="{cluster}", {BUDGET}}}': used for cluster, used in (("east", 0.2), ("west", 0.9))},
    ),
    Case(
        "kWh of pods of two minutes: what their counters show, not half an interval more",
        "energy-workloads/5A",
        {
            f'energy_container_joules_total{{{NODE},namespace="a",pod="p{start}",container="c"}}': (
                f"_x{start} 0 1.8e6 3.6e6x5 stale"
            )
            for start in (5, 20, 40)
        },
        {'{namespace="a"}': 3.0},
    ),
    Case(
        "of one that ran before and goes on, and of one that the first scrape finds at work",
        "energy-workloads/5A",
        {
            f'energy_container_joules_total{{{NODE},namespace="a",pod="old",container="c"}}': "3.6e6+3.6e6x60",
            f'energy_container_joules_total{{{NODE},namespace="b",pod="p",container="c"}}': "_x30 3.6e9+3.6e6x29",
        },
        {'{namespace="a"}': 60.0, '{namespace="b"}': 29.0},
    ),
    Case(
        "of a node whose exporter restarted without a state file: the counter was reset",
        "energy-nodes/6F",
        {f'energy_node_joules_total{{{NODE},component="cpu"}}': "3.6e9+3.6e6x30 3.6e6+3.6e6x28"},
        {'{instance="n1"}': 60.0},
    ),
    Case(
        "a tenth more than a week before",
        "energy-nodes/6I",
        {f'energy_node_joules_total{{{NODE},component="cpu"}}': f"0+6000x{WEEK} {6000 * WEEK + 6600}+6600x120"},
        {'{instance="n1"}': 0.1},
        hours=170,
    ),
    Case(
        "no week before, no comparison",
        "energy-nodes/6I",
        {f'energy_node_joules_total{{{NODE},component="cpu"}}': counter(100)},
        {},
    ),
    Case(
        "a day of 1 kW is 24 kWh",
        "energy-workloads/11A",
        {
            'namespace:energy_container_joules:rate5m{namespace="a",component="gpu",mode="active"}': "_x1440 "
            + EVERY_150_SECONDS.format(1000) * 24
        },
        {'{namespace="a"}': 24.0},
        hours=48,
        # it looks ahead: asked a day later what it was a day before
        asked="max_over_time(({})[1d:1d] offset 1d)",
    ),
    Case(
        "one budget of two selects nothing",
        "energy-budgets/10A",
        {
            f'budget:energy_selected:bool{{budget="{name}",owner="o",window="day"}}': value
            for name, value in (("a", "1x60"), ("typo", "0x60"))
        },
        {"{}": 1.0},
    ),
]


def annotation(uid: str, name: str) -> str:
    """The query of an annotation, with "All" chosen."""
    (found,) = (event for event in BOARDS[uid]["annotations"]["list"] if event["name"] == name)
    return filled(found["expr"], uid, model_name="m")


def of_model(pod: str, owner: str = "Deployment") -> str:
    """A container of the model m."""
    place = f'namespace="a",pod="{pod}",container="c",image="i:{pod}"'
    return f'energy_container_info{{{NODE},{place},owner_kind="{owner}",model_name="m"}}'


@needs("promtool")
def test_annotations_mark_what_happened(tmp_path: Path) -> None:
    """A pod that started two minutes ago; not the one that was there, nor a job, nor all when the exporter is new."""
    rollouts, refused = annotation("energy-model", "Rollouts"), annotation("energy-model", "Configuration refused")
    series = {
        of_model("old"): "1x60",
        of_model("new"): "_x57 1x60",
        of_model("sweep", "Job"): "_x57 1x60",
        f"energy_exporter_build_info{{{NODE}}}": "1x60",
        f"energy_config_last_reload_successful{{{NODE}}}": "1x30 0x30",
    }
    new = '{namespace="a",pod="new",container="c",image="i:new"}'
    questions = [
        {"expr": rollouts, "eval_time": "2m", "exp_samples": []},
        {"expr": rollouts, "eval_time": "56m", "exp_samples": []},
        {"expr": rollouts, "eval_time": "59m", "exp_samples": [{"labels": new, "value": 1}]},
        {"expr": f"{refused} > 0", "eval_time": "20m", "exp_samples": []},
        {"expr": refused, "eval_time": "40m", "exp_samples": [{"labels": f"{{{NODE}}}", "value": 1}]},
    ]
    inputs = [{"series": name, "values": values} for name, values in series.items()]
    promtool(tmp_path, [{"interval": "1m", "input_series": inputs, "promql_expr_test": questions}])


@needs("promtool")
def test_panels_answer_right(tmp_path: Path) -> None:
    tests = []
    for case in CASES:
        query = QUERIES[case.query]
        chosen = {"model_name": "m"} if query.board == "energy-model" else {}
        expr = filled(query.expr, query.board, "5m", "1h", **chosen).replace("5s]", "1m]")
        samples = [{"labels": labels, "value": value} for labels, value in case.answer.items()]
        tests.append(
            {
                "name": case.what,
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
                "promql_expr_test": [
                    {
                        "expr": f"round({case.asked.format(expr)}, 0.001)",
                        "eval_time": f"{case.hours}h",
                        "exp_samples": samples,
                    }
                ],
            }
        )
    promtool(tmp_path, tests)


def promtool(folder: Path, tests: list[dict[str, Any]]) -> None:
    """Have promtool compare answers."""
    file = folder / "answers.yml"
    file.write_text(yaml.safe_dump({"evaluation_interval": "1m", "tests": tests}), encoding="utf-8")
    command = ["promtool", "test", "rules", str(file)]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=patience(60), check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
