"""Grafana's dashboard linter, ported: it is a Go program, and some of its rules are too lax for us.

https://github.com/grafana/dashboard-linter/tree/main/docs/rules has the rules of these names; those marked "ours" are
not in it. Every rule tells what it finds, exclusions take some of it back, each with its reason.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from grafana_foundation_sdk.models import units

from tests.support.boards import BOARDS, filled, panels, queries, selectors, variables
from tests.support.needs import needs
from tests.support.patience import patience

QUERIES = queries()
UNITS = {value for name, value in vars(units).items() if isinstance(value, str) and not name.startswith("_")} | {
    f"suffix:{unit}"
    for unit in ("kWh", "kWh/month", "kWh/year", "J/token", "tokens/s", "/min", "×", "kg", "g/kWh", "J", "M")
}


class Exclusion(NamedTuple):
    """What a rule may find, by a pattern searched in its finding, and why that is right."""

    rule: str
    pattern: str
    reason: str


RECORDED = "sums that rules make over nodes and jobs: they have neither label"
EXCLUSIONS = [
    Exclusion("uneditable-dashboard-rule", "editable", "people adapt dashboards, and could not save without it"),
    Exclusion("template-label-promql-rule", r"^model_name: query_result", "the largest first, not the first letter"),
    Exclusion(
        "template-label-promql-rule", r"\(budget:energy_selected:bool", "a recorded series, of budgets of any unit"
    ),
    Exclusion("template-instance-rule", "label is Node", "an instance is a node here, and is called what people say"),
    Exclusion("target-job-rule", r" \w+:\w+:\w+ ", RECORDED),
    Exclusion("target-instance-rule", r" \w+:\w+:\w+ ", RECORDED),
    Exclusion("target-job-rule", " energy_budget_joules ", "a constant that a rule makes; it belongs to no node"),
    Exclusion("target-instance-rule", " energy_budget_joules ", "the same"),
    Exclusion("target-job-rule", " ALERTS ", "alerts about models and budgets have neither label"),
    Exclusion("target-instance-rule", " ALERTS ", "the same"),
    Exclusion("target-cluster-rule", " cluster:energy_waste_limit_kwh:week ", "one limit for all clusters"),
    Exclusion("target-cluster-rule", " (budget:|energy_budget_joules |ALERTS )", "budgets may span clusters"),
    Exclusion("target-rate-interval-rule", r"\[\$__range\]", "a mean of the whole time range is asked for"),
    Exclusion(
        "target-counter-agg-rule",
        r"(and on \(cluster, job, instance\)|last_over_time\() ?energy_samples_total",
        "only its presence is asked for: it tells exporters from other targets",
    ),
    Exclusion(
        "target-counter-agg-rule",
        r"(max_over_time\(|\]\) - \(\(|min_over_time\(|resets\()energy_\w+_(joules|grams|cost|credit)_total$",
        "the difference of a counter's values, where it was not reset: increase() is extrapolated",
    ),
]

Finding = str
Rule = Callable[[str], Iterator[Finding]]
RULES: dict[str, Rule] = {}


def rule(name: str) -> Callable[[Rule], Rule]:
    def add(check: Rule) -> Rule:
        RULES[name] = check
        return check

    return add


@rule("template-datasource-rule")
def _(uid: str) -> Iterator[Finding]:
    found = variables(BOARDS[uid])["datasource"]
    if (found["type"], found["query"], found["label"]) != ("datasource", "prometheus", "Data source"):
        yield f"{found}"


@rule("template-job-rule")
def _(uid: str) -> Iterator[Finding]:
    return _node_variable(uid, "job", "Job")


@rule("template-instance-rule")
def _(uid: str) -> Iterator[Finding]:
    return _node_variable(uid, "instance", "Instance")


def _node_variable(uid: str, name: str, label: str) -> Iterator[Finding]:
    found = variables(BOARDS[uid])[name]
    if found["label"] != label:
        yield f"{name}: label is {found['label']}"
    if (found["type"], found["multi"], found["allValue"]) != ("query", True, ".+"):
        yield f"{name}: not a query with several answers, or another value for all of them"
    if found["datasource"]["uid"] != "${datasource}":
        yield f"{name}: asks a fixed data source"


@rule("template-on-time-change-reload-rule")
def _(uid: str) -> Iterator[Finding]:
    for name, variable in variables(BOARDS[uid]).items():
        if variable["type"] == "query" and variable["refresh"] != 2:
            yield name


@rule("template-label-promql-rule")
def _(uid: str) -> Iterator[Finding]:
    for name, variable in variables(BOARDS[uid]).items():
        if variable["type"] == "query" and not re.fullmatch(
            rf"label_values\(\w+({{.*}})?, {name}\)", variable["query"]
        ):
            yield f"{name}: {variable['query']}"


@rule("uneditable-dashboard-rule")
def _(uid: str) -> Iterator[Finding]:
    if BOARDS[uid]["editable"] is not False:
        yield "editable"


@rule("panel-datasource-rule")
def _(uid: str) -> Iterator[Finding]:
    for panel in panels(BOARDS[uid]):
        for place in (panel, *panel["targets"], *BOARDS[uid]["annotations"]["list"]):
            if place["datasource"] != {"type": "prometheus", "uid": "${datasource}"}:
                yield f"{panel['title']}: {place['datasource']}"


@rule("panel-title-description-rule")
def _(uid: str) -> Iterator[Finding]:
    for panel in panels(BOARDS[uid]):
        title, empty = panel["title"], panel["fieldConfig"]["defaults"].get("noValue", "")
        question, mark, meaning = panel["description"].partition("? ")
        if not title or title.endswith("?"):
            yield f"{title}: not a noun"
        if not mark or "." in question or not meaning.endswith("."):
            yield f"{title}: no description of a question and sentences"
        if empty.lower().startswith("no data") or f"“{empty}”: " not in meaning:
            yield f"{title}: does not say why there is no data"


@rule("panel-units-rule")
def _(uid: str) -> Iterator[Finding]:
    for panel in panels(BOARDS[uid]):
        config = panel["fieldConfig"]
        used = [config["defaults"].get("unit")]
        for override in config.get("overrides", []):
            used += [part["value"] for part in override["properties"] if part["id"] == "unit"]
        if not set(used) <= UNITS:
            yield f"{panel['title']}: {used}"


@rule("panel-no-targets-rule")
def _(uid: str) -> Iterator[Finding]:
    for panel in panels(BOARDS[uid]):
        if not panel["targets"]:
            yield panel["title"]


@rule("target-rate-interval-rule")
def _(uid: str) -> Iterator[Finding]:
    for query in QUERIES:
        for window in re.findall(r"(?:rate|irate)\([^\[\]]*(\[[^\]]*\])", query.expr):
            if query.board == uid and window != "[$__rate_interval]":
                yield f"{query.name}: {window}"


@rule("target-job-rule")
def _(uid: str) -> Iterator[Finding]:
    return _unmatched(uid, "job")


@rule("target-instance-rule")
def _(uid: str) -> Iterator[Finding]:
    return _unmatched(uid, "instance")


@rule("target-cluster-rule")  # ours: without it, a dashboard over Thanos or Mimir mixes clusters
def _(uid: str) -> Iterator[Finding]:
    return _unmatched(uid, "cluster")


def _unmatched(uid: str, label: str) -> Iterator[Finding]:
    for query in QUERIES:
        for selector in selectors(query.expr):
            if query.board == uid and selector.matchers.get(label) != ("=~", f"${label}"):
                yield f"{query.name}: {selector.metric} of every {label}"


@rule("target-cluster-kept-rule")  # ours: two clusters may have nodes, namespaces and pods of the same name
def _(uid: str) -> Iterator[Finding]:
    for query in QUERIES:
        for written in re.findall(r"\b(?:by|on) \(([^)]*)\)", query.expr):
            labels = {label.strip() for label in written.split(",")}
            if query.board == uid and labels & {"instance", "namespace", "pod", "budget"} and "cluster" not in labels:
                yield f"{query.name}: ({written})"


@rule("table-cluster-rule")  # ours: or rows that look the same are of different clusters
def _(uid: str) -> Iterator[Finding]:
    for panel in panels(BOARDS[uid]):
        if panel["type"] == "table":
            (organize,) = (part["options"] for part in panel["transformations"] if part["id"] == "organize")
            if organize["renameByName"].get("cluster") != "Cluster":
                yield panel["title"]


@rule("legend-cluster-rule")  # ours: the same of lines and bars
def _(uid: str) -> Iterator[Finding]:
    for query in QUERIES:
        named = set(re.findall(r"\{\{(\w+)\}\}", query.target["legendFormat"]))
        if query.board == uid and named & {"instance", "namespace", "pod", "budget"} and "cluster" not in named:
            yield f"{query.name}: {query.target['legendFormat']}"


@rule("link-cluster-rule")  # ours: a click on a row leads to that row's node or pod, not to one of the same name
def _(uid: str) -> Iterator[Finding]:
    for panel in panels(BOARDS[uid]):
        for override in panel["fieldConfig"].get("overrides", []):
            for link in (link for part in override["properties"] if part["id"] == "links" for link in part["value"]):
                if re.search(r"var-(instance|namespace|pod)=\$\{__data", link["url"]) and (
                    "var-cluster=${__data.fields.Cluster:percentencode}" not in link["url"]
                ):
                    yield f"{panel['title']}: {link['title']}"


@rule("target-counter-agg-rule")  # stricter: the linter looks at a selector's last letters, and misses ours with braces
def _(uid: str) -> Iterator[Finding]:
    for query in QUERIES:
        for found in re.finditer(r"(\w+_total)\{[^}]*\}", query.expr):
            before = query.expr[: found.start()]
            if query.board == uid and not re.search(r"\b(rate|irate|increase)\(\s*$", before):
                yield f"{query.name}: {before[-60:]}{found[1]}"


@rule("target-gauge-rule")  # ours: a rate over a gauge is nonsense, and Prometheus does not mind
def _(uid: str) -> Iterator[Finding]:
    for query in QUERIES:
        for metric in re.findall(r"\b(?:rate|irate|increase)\(([\w:]+)\{", query.expr):
            if query.board == uid and not metric.endswith(("_total", "_bucket")):
                yield f"{query.name}: {metric}"


@rule("target-braces-rule")  # ours: so that no selector escapes the rules above
def _(uid: str) -> Iterator[Finding]:
    for query in QUERIES:
        bare = re.sub(r"\{[^}]*\}", "{}", re.sub(r'"(?:[^"\\]|\\.)*"', '""', query.expr))
        for metric in re.findall(r"\b(?:energy_\w+|process_\w+|\w+:\w+:\w+)(?![\w:{])", bare):
            if query.board == uid:
                yield f"{query.name}: {metric}"


@pytest.mark.parametrize("uid", BOARDS)
@pytest.mark.parametrize("name", RULES)
def test_rule(name: str, uid: str) -> None:
    patterns = [exclusion.pattern for exclusion in EXCLUSIONS if exclusion.rule == name]
    found = [each for each in RULES[name](uid) if not any(re.search(pattern, each) for pattern in patterns)]
    assert found == []


@pytest.mark.parametrize("exclusion", EXCLUSIONS, ids=[f"{each.rule} {each.pattern}" for each in EXCLUSIONS])
def test_no_exclusion_is_left_over(exclusion: Exclusion) -> None:
    findings = [finding for uid in BOARDS for finding in RULES[exclusion.rule](uid)]
    assert any(re.search(exclusion.pattern, finding) for finding in findings)


@needs("promtool")
def test_target_promql_rule(tmp_path: Path) -> None:
    """Every expression is one that Prometheus takes."""
    rules = [
        {"record": f"query:{index}:x", "expr": filled(query.expr, query.board, model_name="x")}
        for index, query in enumerate(QUERIES)
    ]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}), encoding="utf-8")
    command = ["promtool", "check", "rules", "--lint=none", str(file)]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=patience(30), check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
