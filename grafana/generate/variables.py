"""The dropdowns of a dashboard; their lists come from metrics that every machine has."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import DatasourceVariable, QueryVariable, TextBoxVariable
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    VariableHide,
    VariableModel,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

PROMETHEUS = DataSourceRef(type_val="prometheus", uid="${datasource}")

RUNBOOKS = "docs/runbooks"
"""Relative until it is set, as runbook_url in the rules is."""

_NODE = 'cluster=~"$cluster",job=~"$job",instance=~"$instance"'
_BUILD = "energy_exporter_build_info"


def datasource() -> Builder[VariableModel]:
    """Which Prometheus."""
    return DatasourceVariable("datasource").label("Data source").type("prometheus")


def _query(name: str, label: str, metric: str, *, all_value: str = ".+") -> QueryVariable:
    return (
        QueryVariable(name)
        .label(label)
        .datasource(PROMETHEUS)
        .query(f"label_values({metric}, {name})")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.NATURAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(all_value)
        .current(VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def cluster() -> QueryVariable:
    """Empty where there is only one: then "All" also means series without the label."""
    return _query("cluster", "Cluster", _BUILD, all_value=".*")


def job() -> Builder[VariableModel]:
    """Hidden, because it is chosen by address at most; links and rules keep it."""
    return _query("job", "Job", f'{_BUILD}{{cluster=~"$cluster"}}').hide(VariableHide.HIDE_VARIABLE)


def instance() -> QueryVariable:
    """The scrape configuration names an instance after its node."""
    return _query("instance", "Node", f'{_BUILD}{{cluster=~"$cluster",job=~"$job"}}')


def namespace() -> Builder[VariableModel]:
    """Empty outside Kubernetes, so that "All" has what runs there too."""
    return _query("namespace", "Namespace", f"energy_container_info{{{_NODE}}}", all_value=".*")


def pod() -> Builder[VariableModel]:
    """Pods of the chosen namespaces."""
    return _query("pod", "Pod", f'energy_container_info{{{_NODE},namespace=~"$namespace"}}', all_value=".*")


def model_name() -> QueryVariable:
    """Models of the chosen nodes."""
    return _query("model_name", "Model", f"energy_model_power_watts{{{_NODE}}}")


def one_model() -> Builder[VariableModel]:
    """One model at a time: the one that used most until another is chosen, because the first of the alphabet may idle.

    The choices are in the order of their energy, which `label_values` cannot give.
    """
    used = f'increase(energy_model_joules_total{{{_NODE},namespace=~"$namespace"}}[$__range])'
    return (
        model_name()
        .query(f"query_result(topk(100, sum by (model_name) ({used})))")
        .regex('/model_name="([^"]+)"/')
        .sort(VariableSort.DISABLED)
        .multi(False)
        .include_all(False)
        .current(VariableOption(text="", value=""))
    )


def currency() -> Builder[VariableModel]:
    """One currency at a time, because a sum over several is nothing."""
    return (
        _query("currency", "Currency", f"energy_impact_info{{{_NODE}}}")
        .multi(False)
        .include_all(False)
        .current(VariableOption(text="", value=""))
    )


def runbooks(address: str) -> Builder[VariableModel]:
    """Where the folder docs/runbooks is."""
    return TextBoxVariable("runbooks").label("Runbooks").default_value(address)


def gpu() -> Builder[VariableModel]:
    """Cards by their number on the node; also machines without any."""
    return _query("gpu", "GPU", f"energy_gpu_info{{{_NODE}}}")


def owner() -> Builder[VariableModel]:
    """Owner of a budget."""
    return _query("owner", "Owner", "budget:energy_selected:bool")


def budget() -> Builder[VariableModel]:
    """Budgets of the chosen owners."""
    return _query("budget", "Budget", 'budget:energy_selected:bool{owner=~"$owner"}')


def everywhere(*, hidden: bool = False) -> list[Builder[VariableModel]]:
    """The variables of every dashboard; ``hidden`` where they do not filter and are only kept in links."""
    of_node = [cluster(), instance()]
    if hidden:
        of_node = [variable.hide(VariableHide.HIDE_VARIABLE) for variable in of_node]
    chosen_cluster, chosen_instance = of_node
    return [datasource(), chosen_cluster, job(), chosen_instance]
