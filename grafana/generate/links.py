"""Links from a panel to the dashboard that answers the next question, with variables and time range kept."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models.dashboard import DashboardLinkType

TAG = "ai-energy"
KEPT = ("datasource", "cluster", "job", "instance")
"""Variables that every dashboard has."""

OVERVIEW, MODELS, MODEL, NODES, WORKLOADS, ADVICE, BUDGETS, EXPORTER = (
    "energy-overview",
    "energy-models",
    "energy-model",
    "energy-nodes",
    "energy-workloads",
    "energy-advice",
    "energy-budgets",
    "energy-exporter",
)
TITLES = {
    OVERVIEW: "Overview",
    MODELS: "Models",
    MODEL: "Model detail",
    NODES: "Nodes & GPUs",
    WORKLOADS: "Workloads",
    ADVICE: "Advice",
    BUDGETS: "Budgets",
    EXPORTER: "Exporter health",
}


def column(title: str) -> str:
    """A cell of the row that is clicked."""
    return f"${{__data.fields.{title}:percentencode}}"


def label(name: str) -> str:
    """A label of the line or bar that is clicked."""
    return f"${{__field.labels.{name}:percentencode}}"


def url(uid: str, **variables: str) -> str:
    """Address of a dashboard; ``variables`` are set to a `column` or a `label`.

    Both encode all that is special in an address: Grafana's own encoding leaves ``+``, ``&`` and ``#`` as they are.
    """
    kept = [f"${{{name}:queryparam}}" for name in KEPT if name not in variables]
    chosen = [f"var-{name}={value}" for name, value in variables.items()]
    return f"/d/{uid}?{'&'.join([*kept, *chosen, '${__url_time_range}'])}"


def onward(uid: str, title: str = "", **variables: str) -> build.DashboardLink:
    """A link to a dashboard, named after it unless there is a ``title``."""
    return build.DashboardLink(title or TITLES[uid]).type(DashboardLinkType.LINK).url(url(uid, **variables))


def from_row(uid: str, title: str = "", **columns: str) -> build.DashboardLink:
    """A link from a row of a table: variables with the titles of the columns that set them."""
    return onward(uid, title, **{name: column(title) for name, title in columns.items()})


def from_place(uid: str, title: str = "", **columns: str) -> build.DashboardLink:
    """The same with the row's cluster, because two clusters may have nodes or pods of one name.

    Where a table has no column of clusters, Grafana puts in nothing, which is any series without that label.
    """
    return from_row(uid, title, cluster="Cluster", **columns)


def from_line(uid: str, title: str, *labels: str) -> build.DashboardLink:
    """A link from a line or a bar: its labels set the variables of their name."""
    return onward(uid, title, **{name: label(name) for name in labels})


def runbook() -> build.DashboardLink:
    """The page of the alert in a row; where the pages are is a variable of the dashboard."""
    link = build.DashboardLink("Open the runbook").type(DashboardLinkType.LINK).target_blank(True)
    return link.url(f"${{runbooks}}/{column('Alert')}.md")


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
