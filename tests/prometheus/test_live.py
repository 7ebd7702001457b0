"""The shipped rules and routes at work: every rule has data, every alert the demonstration provokes arrives."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from typing import TYPE_CHECKING

import pytest

from tests.prometheus.test_impact import RECORDED
from tests.support.patience import wait_for
from tests.support.repository import REPOSITORY

if TYPE_CHECKING:
    from tests.prometheus.conftest import Stack

DOCUMENT = (REPOSITORY / "docs/rules.md").read_text(encoding="utf-8")
DOCUMENTED = {
    name: set(re.findall(r"`(\w+)`", labels))
    for name, labels in re.findall(r"^\| `([\w:]+)` \| ((?:`\w+`(?:, )?)+|–) \|", DOCUMENT, re.MULTILINE)
}

EXPECTED = {
    ("EnergyExporterDown", "platform"): {"instance": "lost-node", "job": "energy", "severity": "warning"},
    ("EnergyGpuPowerThrottled", "platform"): {"instance": "demo-node", "gpu": "0", "reason": "sw_power_cap"},
    ("EnergyModelLoadedButIdle", "team-vision"): {"model_name": "google/gemma-3-27b-it", "severity": "warning"},
    ("EnergyGpuIdleButAllocated", "team-vision"): {"pod": "gemma-3-27b-demo-84f6b7d9c-hw7jr", "owner": "team-vision"},
    ("EnergyGpuIdleButAllocated", "platform"): {"namespace": "team-research", "owner": "team-research"},
    ("EnergyModelServerNotScraped", "platform"): {"model_name": "BAAI/bge-m3", "severity": "info"},
    ("EnergyBudgetBurnFast", "platform"): {"budget": "node-hour", "severity": "warning", "window": "hour"},
    ("EnergyBudgetBurnSlow", "platform"): {"budget": "node-hour", "severity": "info", "window": "hour"},
    ("EnergyBudgetProjectedExhaustion", "platform"): {"budget": "node-hour", "owner": "platform"},
    ("EnergyBudget80Percent", "platform"): {"budget": "node-hour", "owner": "platform"},
    ("EnergyBudgetExceeded", "platform"): {"budget": "node-hour", "severity": "warning", "owner": "platform"},
}
"""Alert and receiver → labels it must have. team-research has no route of its own."""

NOW_AND_THEN = {"EnergyGpuTooHot", "EnergyGpuXidErrors", "EnergyGpuMemoryErrors"}
"""What the simulated cards suffer from at some times."""


def has(seen: dict[tuple[str, str], list[dict[str, str]]], alert: str, receiver: str) -> bool:
    """Whether an alert reached a receiver with the labels that it must have, not only that of another card."""
    wanted = EXPECTED[alert, receiver].items()
    return any(wanted <= labels.items() for labels in seen.get((alert, receiver), []))


@pytest.fixture(scope="module")
def arrived(stack: Stack) -> dict[tuple[str, str], list[dict[str, str]]]:
    """Labels of whatever reached the Alertmanager until all that is expected had, by alert and receiver."""
    seen: dict[tuple[str, str], list[dict[str, str]]] = {}
    stack.wait_for('up{instance="demo-node"} == 1')

    def all_have() -> bool:
        for alert in stack.alerts():
            if "cluster" in alert["labels"]:
                continue  # made up by a test below
            for receiver in alert["receivers"]:
                labels = seen.setdefault((alert["labels"]["alertname"], receiver["name"]), [])
                if alert["labels"] not in labels:
                    labels.append(alert["labels"])
        return all(has(seen, *expected) for expected in EXPECTED)

    with contextlib.suppress(AssertionError):  # each test says which of its own is missing
        wait_for(all_have, "all alerts", 50.0)
    return seen


@pytest.mark.parametrize(("alert", "receiver"), EXPECTED)
def test_an_alert_arrives_with_its_labels_at_its_owner(
    arrived: dict[tuple[str, str], list[dict[str, str]]], alert: str, receiver: str
) -> None:
    assert has(arrived, alert, receiver), sorted(arrived)


def test_nothing_is_wrong_with_the_measurement(arrived: dict[tuple[str, str], list[dict[str, str]]]) -> None:
    about_exporters = {name for name, _ in arrived} - {name for name, _ in EXPECTED} - NOW_AND_THEN
    assert about_exporters == set()


def test_an_exceeded_budget_holds_back_what_else_is_said_of_it(
    stack: Stack, arrived: dict[tuple[str, str], list[dict[str, str]]]
) -> None:
    assert ("EnergyBudgetExceeded", "platform") in arrived

    def is_held_back() -> bool:
        burning = [one for one in stack.alerts() if one["labels"]["alertname"] == "EnergyBudgetBurnSlow"]
        return bool(burning) and all(one["status"]["inhibitedBy"] for one in burning)

    wait_for(is_held_back, "the inhibition")


Case = tuple[str, dict[str, str], str, dict[str, str]]
"""What it is about, the cause's labels, the name of an effect and in which labels that differs from its cause."""

HELD_BACK: list[Case] = [
    ("a node that is not scraped", {"alertname": "EnergyExporterDown", "instance": "a"}, "EnergyDeviceDown", {}),
    ("old samples", {"alertname": "EnergyExporterStale", "instance": "a"}, "EnergyReadingsStale", {}),
    ("a lost card", {"alertname": "EnergyDeviceDown", "instance": "a", "device": "d"}, "EnergyMeterStuck", {}),
    ("a used up budget", {"alertname": "EnergyBudgetExceeded", "budget": "b"}, "EnergyBudget80Percent", {}),
    (
        "an idle model",
        {"alertname": "EnergyModelLoadedButIdle", "namespace": "n", "model_name": "m"},
        "EnergyGpuIdleButAllocated",
        {"pod": "p"},
    ),
]
TOLD: list[Case] = [
    ("another node", {"alertname": "EnergyExporterDown", "instance": "a"}, "EnergyDeviceDown", {"instance": "b"}),
    ("a model, if nothing is scraped", {"alertname": "EnergyExporterDown"}, "EnergyModelLoadedButIdle", {}),
    ("another trouble", {"alertname": "EnergyExporterStale", "instance": "a"}, "EnergyNodePowerNearCap", {}),
    ("another card", {"alertname": "EnergyDeviceDown", "device": "d"}, "EnergyMeterStuck", {"device": "e"}),
    ("another budget", {"alertname": "EnergyBudgetExceeded", "budget": "b"}, "EnergyBudgetBurnFast", {"budget": "c"}),
    (
        "a budget of the same name elsewhere",
        {"alertname": "EnergyBudgetExceeded", "budget": "b"},
        "EnergyBudgetBurnFast",
        {"cluster": "elsewhere"},
    ),
    (
        "a pod with another model",
        {"alertname": "EnergyModelLoadedButIdle", "namespace": "n", "model_name": "m"},
        "EnergyGpuIdleButAllocated",
        {"pod": "p", "model_name": "o"},
    ),
    (
        "a pod without a model",
        {"alertname": "EnergyModelLoadedButIdle", "namespace": "n"},
        "EnergyGpuIdleButAllocated",
        {"pod": "p"},
    ),
    ("the cause itself", {"alertname": "EnergyExporterDown", "instance": "a"}, "EnergyExporterDown", {}),
]


def test_a_cause_holds_back_its_effects_and_nothing_else(stack: Stack) -> None:
    pairs = []
    for case, source, effect, other in (*TOLD, *HELD_BACK):
        cause = {**source, "cluster": case}  # so that the cases do not meet
        pairs.append((case, cause, {**cause, "alertname": effect, **other}))
    for _, cause, labels in pairs:
        stack.tell(cause, labels)
    silent = {case for case, *_ in HELD_BACK}

    def held() -> set[str]:
        return {case for case, _, labels in pairs if stack.alert(labels)["status"]["inhibitedBy"]}

    wait_for(lambda: held() >= silent, "the inhibition")  # causes are noted one by one: the last ones are the last
    assert held() == silent


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_recorded_series_is_there_with_the_labels_it_promises(stack: Stack, name: str) -> None:
    found = stack.wait_for(f'{{__name__="{name}"}}')
    labels = set().union(*(labels for labels, _ in found)) - {"__name__", "cluster"}
    # a label is empty, and so not there, where nothing has it: most labels of an aggregation are there somewhere
    assert labels == DOCUMENTED[name]


def test_every_rule_was_evaluated_without_error(stack: Stack) -> None:
    rules = stack.rules("record") + stack.rules("alert")
    assert len(rules) > 80
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []


def test_the_parts_add_up(stack: Stack) -> None:
    """Watts of pods and of nobody are those of the node; where rules are evaluated late, they are seconds apart."""
    stack.wait_for("count_over_time(node:energy_node_joules:rate5m[6s]) > 4")
    parts = (
        "(sum(avg_over_time(pod:energy_container_joules:rate5m[5s]))"
        " + sum(avg_over_time(node:energy_unattributed_joules:rate5m[5s])))"
        " / sum(avg_over_time(node:energy_node_joules:rate5m[5s]))"
    )
    assert stack.wait_for(f"abs({parts} - 1) < 0.1")


def test_only_what_was_recorded_is_sent_away(stack: Stack) -> None:
    store = dataclasses.replace(stack, prometheus=stack.store)
    assert store.wait_for("model:energy_model_kwh_per_year:avg7d")
    ((_, raw),) = store.query('count({__name__=~".+", __name__!~".+:.+:.+|energy_budget_.+|ALERTS"}) or vector(0)')
    assert raw == 0


@pytest.mark.parametrize(
    ("record", "counter"),
    [
        ("node:energy_carbon_grams:rate5m", "energy_node_carbon_grams_total"),
        ("node:energy_cost:rate5m", "energy_node_cost_total"),
    ],
)
def test_counters_and_rule_agree_in_a_real_prometheus(stack: Stack, record: str, counter: str) -> None:
    """Of the demonstration's node, over the same twenty seconds, in which no factor changed."""
    by_rule = RECORDED[record].replace("[5m]", "[20s]").replace(" offset 150s", "")
    counted = f"sum by (cluster, instance) (rate({counter}[20s]))"
    steady = " and on (instance) ".join(
        f"changes({name}[20s]) == 0"
        for name in ("energy_carbon_intensity_grams_per_kilowatt_hour", "energy_electricity_price_per_kilowatt_hour")
    )
    known = "count_over_time(energy_carbon_intensity_grams_per_kilowatt_hour[25s]) > 22"
    found = stack.wait_for(
        f"(sum by (cluster, instance) ({by_rule}) / {counted}) and on (instance) {steady} and on (instance) {known}"
    )
    assert [value for _, value in found] == [pytest.approx(1.0, abs=0.01)]


class TestLabels:
    """The exporter's target says that it runs in the pod monitoring/energy-x7x2p; nobody's energy is billed to it."""

    def test_a_pod_keeps_its_own_namespace_and_name(self, stack: Stack) -> None:
        found = stack.wait_for('energy_container_joules_total{runtime="kubernetes"}')
        assert {labels["namespace"] for labels, _ in found} >= {"team-nlp", "team-vision"}
        assert all("exported_pod" not in labels and labels["instance"] == "demo-node" for labels, _ in found)

    @pytest.mark.parametrize(
        "name", ["energy_node_joules_total", 'energy_container_joules_total{runtime="host"}', "up"]
    )
    def test_what_has_no_pod_gets_none(self, stack: Stack, name: str) -> None:
        stack.wait_for(name)
        found = stack.query(name if name != "up" else 'up{job="energy"}')
        assert all(not labels.keys() & {"namespace", "pod", "service", "node"} for labels, _ in found)

    def test_without_honor_labels_the_exporter_is_billed_for_everything(self, stack: Stack) -> None:
        found = stack.wait_for('naive_energy_container_joules_total{runtime="kubernetes"}')
        assert {labels["pod"] for labels, _ in found} == {"energy-x7x2p"}

    def test_without_labeldrop_it_is_billed_for_the_node(self, stack: Stack) -> None:
        found = stack.wait_for("undropped_energy_node_joules_total")
        assert {labels["pod"] for labels, _ in found} == {"energy-x7x2p"}
