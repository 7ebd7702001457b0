"""Links from a panel to the dashboard that answers the next question, with variables and time range kept."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models.dashboard import DashboardLinkType

TAG = "ai-energy"
KEPT = ("datasource", "cluster", "job", "instance")
"""Variables that every dashboard has."""

OVERVIEW, MODELS, MODEL, NODES, WORKLOADS, BUDGETS, EXPORTER = (
    "energy-overview",
    "energy-models",
    "energy-model",
    "energy-nodes",
    "energy-workloads",
    "energy-budgets",
    "energy-exporter",
)
TITLES = {
    OVERVIEW: "Overview",
    MODELS: "Models",
    MODEL: "Model detail",
    NODES: "Nodes & GPUs",
    WORKLOADS: "Workloads",
    BUDGETS: "Budgets",
    EXPORTER: "Exporter health",
}


def url(uid: str, **variables: str) -> str:
    """Address of a dashboard; ``variables`` are set to a field of the row (``Model``) or a whole expression (``$x``).

    Grafana percent-encodes what it puts in, so names with slashes and plus signs arrive whole.
    """
    kept = [f"${{{name}:queryparam}}" for name in KEPT if name not in variables]
    chosen = [
        f"var-{name}={value if value.startswith('$') else '${__data.fields.' + value + '}'}"
        for name, value in variables.items()
    ]
    return f"/d/{uid}?{'&'.join([*kept, *chosen, '${__url_time_range}'])}"


def onward(uid: str, title: str = "", **variables: str) -> build.DashboardLink:
    """A link to a dashboard, named after it unless there is a ``title``."""
    return build.DashboardLink(title or TITLES[uid]).type(DashboardLinkType.LINK).url(url(uid, **variables))


def from_row(uid: str, title: str = "", **variables: str) -> build.DashboardLink:
    """The same from a row of a table, with the row's cluster, because two clusters may have nodes or pods of one name.

    Where a table has no column of clusters, Grafana puts in nothing, which is any series without that label.
    """
    return onward(uid, title, cluster="Cluster", **variables)


def outside(title: str, address: str) -> build.DashboardLink:
    """A link to a page of the documentation."""
    return build.DashboardLink(title).type(DashboardLinkType.LINK).url(address).target_blank(True)


def all_dashboards() -> build.DashboardLink:
    """The menu in the head of each dashboard."""
    return (
        build.DashboardLink("Energy")
        .type(DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .as_dropdown(True)
        .include_vars(True)
        .keep_time(True)
    )
