"""Every metric, label and variable that a dashboard names exists: a rename without its dashboards fails here."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache

import pytest
import yaml

from exporter.exposition.metrics.catalogue import CATALOGUE
from exporter.exposition.metrics.collector import Instruments
from tests.support.boards import BOARDS, Query, queries, selectors, variables
from tests.support.repository import DEMO_BUDGETS, RULE_FILES

QUERIES = queries()
HISTOGRAM = {"energy_sample_duration_seconds", "energy_scrape_duration_seconds"}
FAMILIES = {family.name: frozenset(family.labels) for family in CATALOGUE} | {
    f"{own.name}_bucket" if own.name in HISTOGRAM else own.name: frozenset(own.labels) for own in Instruments().rows()
}
TARGET = {"cluster", "job", "instance"}

FOREIGN = {
    "up": TARGET,
    "scrape_samples_scraped": TARGET,
    "process_cpu_seconds_total": TARGET,
    "process_resident_memory_bytes": TARGET,
    "ALERTS": {"alertname", "alertstate", "severity"},
}
"""What is not ours: made by Prometheus itself, or the exporter's own process."""


@cache
def recorded() -> dict[str, set[str]]:
    """Names that the shipped rules record, with the labels that they set or keep by name."""
    found: dict[str, set[str]] = {}
    for path in (*RULE_FILES, DEMO_BUDGETS):
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
            for rule in group["rules"]:
                if "record" in rule:
                    kept = re.findall(r"\b(?:by|group_left|group_right)\b[^(]*\(([^)]*)\)", rule["expr"])
                    labels = {label.strip() for part in kept for label in part.split(",")}
                    found.setdefault(rule["record"], set()).update(labels, rule.get("labels", {}))
    return found


def unknown(query: Query, families: Mapping[str, frozenset[str]]) -> set[str]:
    """Metrics and labels of a query that nobody makes."""
    rules = recorded()
    wrong = set()
    for metric, matchers in selectors(query.expr):
        if metric in families:
            wrong |= {f"{metric}{{{label}}}" for label in matchers if label not in families[metric] | TARGET}
        elif metric in FOREIGN:
            wrong |= {f"{metric}{{{label}}}" for label in matchers if label not in FOREIGN[metric]}
        elif metric not in rules:
            wrong.add(metric)
    return wrong


@pytest.mark.parametrize("uid", BOARDS)
def test_every_metric_and_label_exists(uid: str) -> None:
    mine = [query for query in QUERIES if query.board == uid]
    assert all(selectors(query.expr) for query in mine)
    assert {query.name: wrong for query in mine if (wrong := unknown(query, FAMILIES))} == {}


def used_families() -> set[str]:
    return {metric for query in QUERIES for metric, _ in selectors(query.expr)} & set(FAMILIES)


@pytest.mark.parametrize("metric", sorted(used_families()))
def test_a_renamed_metric_is_noticed(metric: str) -> None:
    renamed = {name: labels for name, labels in FAMILIES.items() if name != metric}
    assert any(metric in unknown(query, renamed) for query in QUERIES)


@pytest.mark.parametrize("label", ["mode", "component", "gpu_instance", "reason", "state", "quality", "namespace"])
def test_a_dropped_label_is_noticed(label: str) -> None:
    dropped = {name: labels - {label} for name, labels in FAMILIES.items()}
    assert any(unknown(query, dropped) for query in QUERIES)


def test_most_of_the_catalogue_is_on_show() -> None:
    """What is on no dashboard is there by choice."""
    other_form = {"energy_node_power_watts", "energy_container_power_watts", "energy_process_power_watts"}
    shares = {name for name in FAMILIES if name.endswith("_utilization_ratio") and "gpu" not in name}
    rest = {
        "energy_retired_joules_total",  # grows in steps when accounts are closed: its rate is no power
        "energy_device_joules_total",  # devices include each other: nodes and cards are shown
        "energy_device_retired_joules_total",  # the same of devices that were given up
        "energy_unnamed_joules",  # half a minute of a container's life
        "energy_device_period_seconds",  # a fact of a BMC or of a meter of one's own, which doctor shows
        "energy_gpu_power_utilization_ratio",  # of accelerators that report no watts: not comparable with cards that do
    }
    rest |= {"energy_model_requests_total", "energy_container_tokens_total"}  # recorded
    rest |= {"energy_history_last_write_timestamp_seconds"}  # doctor and the log say what is wrong with a history
    # Counts beside the joules of regions, ends of an interval of which the other half is shown, and the intake's own.
    regions = ("seconds_total", "gpu_seconds_total", "low_watts", "info", "programs")
    rest |= {f"energy_region_{part}" for part in (*regions, "runs_lost_total", "messages_rejected_total")}
    rest |= {"energy_model_token_step", "energy_token_source_info"}  # in a reason; a label of the same servers
    kinds = ("carbon_grams", "cost", "credit")
    rest |= {f"energy_{part}_{kind}_total" for kind in kinds for part in ("unattributed", "retired")}
    rest |= {f"energy_unnamed_{kind}" for kind in kinds}
    rest |= {"energy_pue_ratio", "energy_impact_info", "energy_impact_factor_timestamp_seconds"}
    rest |= {"energy_marginal_carbon_intensity_grams_per_kilowatt_hour"}
    rest |= {name for name in FAMILIES if "embodied" in name}  # off unless an operator sets it
    # Dashboards take tokens from the recording rules, which also know servers that are only scraped.
    tokens = {name for name in FAMILIES if "_token" in name} | {"energy_model_requests_total"}
    assert set(FAMILIES) - used_families() == other_form | shares | rest | (tokens - used_families())


@pytest.mark.parametrize("uid", BOARDS)
def test_every_variable_in_use_exists(uid: str) -> None:
    board = BOARDS[uid]
    names = set(variables(board))
    used = {
        name
        for query in QUERIES
        if query.board == uid
        for name in re.findall(r"\$\{?(\w+)", query.expr)
        if not name.startswith("__") and not name.isdigit()
    }
    assert used <= names
    order = list(variables(board))
    for variable in board["templating"]["list"]:
        asked = set(re.findall(r"\$(\w+)", variable.get("query", ""))) - {"__range"}
        assert asked <= set(order[: order.index(variable["name"])]), "a dropdown may only ask those before it"
    linked = set(re.findall(r"\$\{(\w+)\}", json.dumps(board["panels"])))
    on_show = names - {"datasource", "cluster", "job", "instance"}
    assert on_show <= used | linked | {"owner"}
