"""The shipped rules against the exporter's catalogue and their own documentation: a name that drifts fails here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter.analysis.fleet_queries import Queries
from exporter.exposition.metrics.catalogue import CATALOGUE
from exporter.exposition.metrics.collector import Instruments
from tests.support import boards, promql
from tests.support.repository import DEMO_BUDGETS, REPOSITORY, RULE_FILES

RULES = [*RULE_FILES, DEMO_BUDGETS]
DOCUMENT = (REPOSITORY / "docs/rules.md").read_text(encoding="utf-8")
RUNBOOKS = REPOSITORY / "docs/runbooks"
DASHBOARDS = {"overview", "models", "model", "nodes", "workloads", "budgets", "advice", "exporter"}

SCRAPE = {"service", "endpoint", "container", "prometheus", "prometheus_replica"}
"""Labels that say who scraped a server and why, not what it is."""

TARGET = {"job", "instance", "cluster", "served_model", "llm_d_ai_role"} | SCRAPE
"""Labels that scraping adds; served_model and llm_d_ai_role are some that operators may add (docs/rules.md)."""

POD = {"namespace", "pod"}
_VLLM = {"model_name", "engine", "finished_reason"}
_SGLANG = {"model_name", "engine_type", "tp_rank", "pp_rank", "moe_ep_rank", "mode", "worker_addr"}
_RAY = {"model_name", "WorkerId"}
_DEPLOYMENT = {"deployment", "replica", "application", "route"}
FOREIGN: Mapping[str, set[str]] = {
    "up": POD,
    "process_start_time_seconds": POD,
    **{f"vllm{sign}{name}_total": _VLLM for sign in ":_" for name in ("generation_tokens", "prompt_tokens")},
    **{f"vllm{sign}request_success_total": _VLLM for sign in ":_"},
    **{f"sglang{sign}{name}_tokens_total": _SGLANG for sign in ":_" for name in ("generation", "realtime", "prompt")},
    **{f"sglang{sign}num_requests_total": _SGLANG for sign in ":_"},
    **{f"llamacpp{sign}{name}_total": set() for sign in ":_" for name in ("tokens_predicted", "prompt_tokens")},
    **{f"{name}_total": _VLLM for name in ("generation_tokens", "prompt_tokens", "request_success")},
    "tgi_request_generated_tokens_sum": set(),
    "tgi_request_input_length_sum": set(),
    "tgi_request_success": set(),
    "nv_inference_request_success": {"model", "version", "gpu_uuid"},
    "trtllm_generation_tokens_total": {"model_name", "engine_type"},
    "trtllm_prompt_tokens_total": {"model_name", "engine_type"},
    "trtllm_request_success_total": {"model_name", "engine_type"},
    **{
        f"ray_vllm{form}": _RAY
        for form in ("_generation_tokens_total", ":generation_tokens_total", "_generation_tokens")
    },
    **{f"ray_vllm{sign}request_prompt_tokens_sum": _RAY for sign in ":_"},
    **{f"ray_vllm{form}": _RAY for form in ("_request_success_total", ":request_success_total", "_request_success")},
    **{f"ray_serve_deployment_request_counter{end}": _DEPLOYMENT for end in ("", "_total")},
}
"""Metrics of model servers, with the labels that rules may count on; all have the pod's."""

OWN = {family.name: set(family.labels) for family in CATALOGUE} | {
    own.name: set(own.labels) for own in Instruments().rows()
}


def groups() -> Iterator[dict[str, Any]]:
    """Every group of every rule file."""
    for path in RULES:
        yield from yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]


RECORDS = [rule for group in groups() for rule in group["rules"] if "record" in rule]
ALERTS = [rule for group in groups() for rule in group["rules"] if "alert" in rule]
DOCUMENTED = {
    name: set(re.findall(r"`(\w+)`", labels))
    for name, labels in re.findall(r"^\| `([\w:]+)` \| ((?:`\w+`(?:, )?)+|–) \|", DOCUMENT, re.MULTILINE)
}


def complaints(expression: str, own: Mapping[str, set[str]]) -> list[str]:
    """Metrics and labels that an expression names and nothing has."""
    found = promql.names(expression)
    known = {**own} | {name: labels | POD for name, labels in FOREIGN.items()} | DOCUMENTED
    wrong = [f"no such metric: {name}" for name, _ in found.metrics if name not in known]
    everywhere = set(TARGET) | found.made
    for name, matched in found.metrics:
        everywhere |= known.get(name, set())
        extra = {label for label in matched if label.startswith("label_")} if name == "energy_container_info" else set()
        wrong += [f"{name} has no label {one}" for one in matched - known.get(name, set()) - TARGET - extra]
    return wrong + [f"nothing here has a label {label}" for label in found.labels - everywhere]


@pytest.mark.parametrize("rule", [*RECORDS, *ALERTS], ids=lambda rule: str(rule.get("record") or rule["alert"]))
def test_every_metric_and_label_of_a_rule_exists(rule: dict[str, Any]) -> None:
    assert complaints(rule["expr"], OWN) == []


def test_a_renamed_metric_or_a_dropped_label_is_noticed() -> None:
    """The mutation that this file is for, for everything that any rule uses."""
    used = [promql.names(rule["expr"]) for rule in (*RECORDS, *ALERTS)]
    metrics = {name for one in used for name, _ in one.metrics if name in OWN}
    assert len(metrics) > 20
    for name in metrics:
        without = {other: labels for other, labels in OWN.items() if other != name}
        assert any(complaints(rule["expr"], without) for rule in (*RECORDS, *ALERTS)), name
    for name in metrics:
        for label in {label for one in used for metric, labels in one.metrics if metric == name for label in labels}:
            dropped = OWN | {name: OWN[name] - {label}}
            free = label in TARGET or label.startswith("label_")
            assert free or any(complaints(rule["expr"], dropped) for rule in (*RECORDS, *ALERTS)), (
                name,
                label,
            )
    for label in {label for one in used for label in one.labels} - TARGET - {label for o in used for label in o.made}:
        gone = {name: labels - {label} for name, labels in OWN.items()}
        if gone != OWN:
            assert any(complaints(rule["expr"], gone) for rule in (*RECORDS, *ALERTS)), label


@pytest.mark.parametrize(
    ("expression", "metrics", "labels", "made"),
    [
        ('sum by (a, b) (rate(x_total{c="1", d!~"2"}[5m]))', [("x_total", {"c", "d"})], {"a", "b"}, set()),
        ("x * on (a) group_left (b) y offset 1w > 3e6", [("x", set()), ("y", set())], {"a", "b"}, set()),
        ('label_replace(a:b:c, "new", "$1", "old", "(.+)")', [("a:b:c", set())], {"old"}, {"new"}),
        ("max without (l) (x) and absent(up) # y", [("x", set()), ("up", set())], {"l"}, set()),
    ],
)
def test_the_reader_of_expressions_sees_all_names(
    expression: str, metrics: list[tuple[str, set[str]]], labels: set[str], made: set[str]
) -> None:
    found = promql.names(expression.replace("# y", "\n# y"))
    assert (found.metrics, found.labels, found.made) == (metrics, labels, made)


def test_every_recorded_series_is_documented_and_nothing_else() -> None:
    assert {rule["record"] for rule in RECORDS} == set(DOCUMENTED)


@pytest.mark.parametrize("rule", RECORDS, ids=lambda rule: str(rule["record"]))
def test_names_say_level_metric_and_operation(rule: dict[str, Any]) -> None:
    level = r"(cluster|node|gpu|pod|namespace|model|run|server|budget)"
    assert re.fullmatch(rf"{level}:[a-z_]+:[a-z0-9_]+|energy_budget_(joules|carbon_grams|cost)", rule["record"])
    assert "_total" not in rule["record"]
    assert "_watts" not in re.sub(r"power_limit_watts|model_watts", "", rule["expr"]), "rates of joules are the truth"


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: str(rule["alert"]))
class TestAlert:
    def test_is_named_routed_and_explained(self, rule: dict[str, Any]) -> None:
        assert re.fullmatch(r"Energy[A-Za-z0-9]+", rule["alert"])
        labels, notes = rule.get("labels", {}), rule["annotations"]
        if not rule["alert"].startswith("EnergyBudget"):
            assert set(re.sub(r"{{.*?}}", " ", labels["severity"]).split()) <= {"critical", "warning", "info"}
            assert labels["owner"]
        assert "{{" not in notes["summary"], "a summary does not change"
        assert re.search(r"\$value|\d", notes["description"]), "a description has numbers"
        assert set(notes) == {"summary", "description", "runbook_url", "dashboard_url"}

    def test_links_to_its_runbook_and_to_a_dashboard(self, rule: dict[str, Any]) -> None:
        notes = rule["annotations"]
        assert notes["runbook_url"] == f"docs/runbooks/{rule['alert']}.md"
        text = (RUNBOOKS / f"{rule['alert']}.md").read_text(encoding="utf-8")
        assert text.startswith(f"# {rule['alert']}\n")
        for part in ("**Meaning.**", "**Impact.**", "**Severity.**", "## Diagnosis", "## Fix"):
            assert part in text
        board = re.match(r"/d/energy-([a-z]+)\?", notes["dashboard_url"])
        assert board
        assert board[1] in DASHBOARDS

    def test_the_runbook_and_the_list_give_its_severity(self, rule: dict[str, Any]) -> None:
        severity = rule.get("labels", {}).get("severity", "that of the budget")
        written = severity.replace('eq $labels.severity "info"', "")
        possible = re.findall(r"critical|warning|info", written) or [severity]
        text = (RUNBOOKS / f"{rule['alert']}.md").read_text(encoding="utf-8")
        given = text.partition("**Severity.** ")[2].partition("\n\n")[0]
        assert given.startswith(tuple(possible))
        assert all(word in given for word in possible)
        row = re.search(rf"^\| \[{rule['alert']}\]\(.*?\) \| (.*?) \|", DOCUMENT, re.MULTILINE)
        assert row
        assert set(re.findall(r"critical|warning|info", row[1])) == set(possible) & {"critical", "warning", "info"}

    def test_fires_in_one_case_and_is_silent_in_another(self, rule: dict[str, Any]) -> None:
        fires, silent = 0, 0
        for path in (REPOSITORY / "prometheus/tests").glob("alerts-*.yml"):
            for test in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]:
                for one in test.get("alert_rule_test", []):
                    if one["alertname"] == rule["alert"]:
                        fires += bool(one["exp_alerts"])
                        silent += not one["exp_alerts"]
        assert fires
        assert silent

    def test_is_in_the_list_of_alerts(self, rule: dict[str, Any]) -> None:
        assert f"[{rule['alert']}](runbooks/{rule['alert']}.md)" in DOCUMENT


def test_no_runbook_is_for_an_alert_that_is_gone() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == {rule["alert"] for rule in ALERTS}


@pytest.mark.parametrize("path", sorted(RUNBOOKS.glob("*.md")), ids=lambda path: str(path.stem))
def test_queries_of_runbooks_name_what_exists(path: Path) -> None:
    (block,) = re.findall(r"```promql\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
    assert complaints(block, OWN) == []
    assert "\n".join(promql.queries(block)).split() == re.sub(r"#.*", "", block).split()


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ("a\nb == 0\n", ["a", "b == 0"]),
        ("# why\na\n  + b\nc\n", ["a\n  + b", "c"]),
        ('sum by (x) (\n  {y="(z"}\n)\nb\n', ['sum by (x) (\n  {y="(z"}\n)', "b"]),
        ("a\n  - on (x)\nsum by (x) (b)\nc", ["a\n  - on (x)\nsum by (x) (b)", "c"]),
        ("a and\nb\nc", ["a and\nb", "c"]),
    ],
)
def test_a_block_is_read_as_queries(block: str, expected: list[str]) -> None:
    assert promql.queries(block) == expected


def test_watts_are_divided_by_the_window_and_not_by_the_age_of_a_series() -> None:
    """As VictoriaMetrics' rate() does: the joules of a container of one minute would count five times."""
    watts = [rule["expr"] for rule in RECORDS if "joules_total" in rule["expr"]]
    assert sum(expr.count("/ 300") for expr in watts) >= 10
    for expr in watts:
        assert re.findall(r"(\w+)\(energy_\w*joules_total", expr).count("rate") == 0, expr
        assert len(re.findall(r"increase\(energy_\w*joules_total[^\[]*\[5m\]\)+ / 300", expr)) == expr.count(
            "increase("
        )


SUMMED = r"sum_over_time\(([a-z]+:[\w:]+)(?:\{[^}]*\})?\[[^]]*\](?: offset -?\w+)?\)+ \* (\d+)"
"""A recorded series that is added up, and by what the sum is multiplied."""


def test_sums_over_time_agree_with_the_interval_of_what_they_add_up() -> None:
    """A sample stands for the time between two evaluations, in rules and alerts, dashboards, and reports."""
    seconds = {"1m": 60, "2m": 120, "150s": 150, "4m": 240, "5m": 300, "15m": 900}
    interval = {
        rule["record"]: seconds[group["interval"]] for group in groups() for rule in group["rules"] if "record" in rule
    }
    report = Queries(3600.0, recorded=True, recorded_activities=True)
    asked = {
        "rules": [rule["expr"] for group in groups() for rule in group["rules"]],
        "dashboards": [query.expr for query in boards.queries()],
        "report": [report.joules(), report.activities()],
    }
    summed = {name: [found for expr in exprs for found in re.findall(SUMMED, expr)] for name, exprs in asked.items()}
    assert len(summed["report"]) == 2
    assert min(len(summed["rules"]), len(summed["dashboards"])) > 20
    every = [(where, record, int(factor)) for where, found in summed.items() for record, factor in found]
    assert [sum_ for sum_ in every if sum_[2] != interval[sum_[1]]] == []
