"""Labels and patterns become the PromQL of their power."""

from __future__ import annotations

import pytest

from exporter.budgets.selector import check, contradiction, rate


@pytest.mark.parametrize(
    ("label", "pattern", "expression"),
    [
        ("namespace", "a", 'sum(increase(energy_container_joules_total{namespace="a"}[5m])) / 300'),
        ("namespace", "a, b", 'sum(increase(energy_container_joules_total{namespace=~"a|b"}[5m])) / 300'),
        ("namespace", "team-*", 'sum(increase(energy_container_joules_total{namespace=~"team-.*"}[5m])) / 300'),
        ("model", "org/m-1.5", 'sum(increase(energy_model_joules_total{model_name="org/m-1.5"}[5m])) / 300'),
        ("model", "org/m-1.5*", 'sum(increase(energy_model_joules_total{model_name=~"org/m-1\\\\.5.*"}[5m])) / 300'),
        ("variant", "awq", 'sum(increase(energy_model_joules_total{variant="awq"}[5m])) / 300'),
        ("phase", "training", 'sum(increase(energy_model_joules_total{phase="training"}[5m])) / 300'),
        ("node", "n1", 'sum(increase(energy_node_joules_total{instance="n1"}[5m])) / 300'),
        ("rack", "r12", 'sum(increase(energy_node_joules_total{rack="r12"}[5m])) / 300'),
        ("mode", "idle", 'sum(increase(energy_container_joules_total{mode="idle"}[5m])) / 300'),
        ("model", 'a"b\\c', 'sum(increase(energy_model_joules_total{model_name="a\\"b\\\\c"}[5m])) / 300'),
    ],
)
def test_power_of_one_label(label: str, pattern: str, expression: str) -> None:
    assert rate([check(label, pattern)]) == expression


def test_pod_labels_are_looked_up_in_the_identity_of_containers() -> None:
    assert rate([check("label_team", "nlp"), check("namespace", "a")]) == (
        "sum(\n"
        '  increase(energy_container_joules_total{namespace="a"}[5m]) / 300\n'
        "    and on (cluster, instance, namespace, pod, container)\n"
        '  energy_container_info{label_team="nlp"}\n'
        ")"
    )


@pytest.mark.parametrize(
    ("labels", "possible"),
    [
        (("namespace", "model_name", "instance", "component", "rack"), True),
        (("namespace", "pod", "label_team", "owner_name"), True),
        (("model_name", "container"), False),
        (("phase", "label_team"), False),
    ],
)
def test_labels_that_no_series_has_together_are_rejected(labels: tuple[str, ...], possible: bool) -> None:
    assert (contradiction(labels) is None) is possible


@pytest.mark.parametrize("label", ["nod", "modle", "namespaces", "intance", "conponent"])
def test_typing_errors_do_not_become_labels(label: str) -> None:
    with pytest.raises(ValueError, match="did you mean"):
        check(label, "x")


@pytest.mark.parametrize("label", ["team", "rack", "zone", "site", "env", "tenant", "label_team"])
def test_any_label_may_be_selected(label: str) -> None:
    assert check(label, "x") == (label, "x")
