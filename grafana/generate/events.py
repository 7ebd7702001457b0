"""Annotations: what happened, as marks in every graph of a dashboard."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import AnnotationQuery

from . import queries as q
from .palette import BAD, PLAIN
from .variables import PROMETHEUS

_PODS = "cluster, namespace, pod, container, image"


class Event(AnnotationQuery):
    """An annotation whose marks have a title, a text and tags; Grafana's own type for Python lacks these three.

    Labels in the texts are written ``{{label}}``. Grafana shows no sample that is 0.
    """

    def __init__(self, name: str, expr: str, title: str, text: str, tags: str, colour: str, *, shown: bool) -> None:
        super().__init__(name=name, datasource=PROMETHEUS, enable=shown, icon_color=colour, expr=expr)
        self._texts: dict[str, object] = {"titleFormat": title, "textFormat": text, "tagKeys": tags, "step": "60s"}

    def to_json(self) -> dict[str, object]:
        """As in the dashboard's JSON."""
        return super().to_json() | self._texts


def alerts(*, shown: bool) -> Event:
    """Critical alerts, but those of budgets: they hold for days, and would be a red bar below every graph."""
    # alerts about models and budgets have no such labels
    where = 'cluster=~"$cluster|",instance=~"$instance|"'
    return Event(
        "Critical alerts",
        f'ALERTS{{alertstate="firing",alertname=~"Energy.*",alertname!~"EnergyBudget.*",severity="critical",{where}}}',
        "{{alertname}}",
        "{{namespace}} {{pod}} {{model_name}} {{instance}}",
        "severity",
        BAD,
        shown=shown,
    )


def refused_reloads() -> Event:
    """Configurations that the exporter did not take."""
    return Event(
        "Configuration refused",
        f"{q.series('energy_config_last_reload_successful')} == bool 0",
        "Configuration refused",
        "{{instance}} keeps the configuration before: see its log",
        "instance",
        PLAIN,
        shown=True,
    )


def rollouts() -> Event:
    """Containers of the chosen model that were not there five minutes before, on exporters that were; no jobs."""
    info = q.series("energy_container_info", q.MODEL, q.NAMESPACE, 'owner_kind!~"Job|CronJob"')
    before = f"last_over_time({info}[5m] offset 5m)"
    known = f"{q.series('energy_exporter_build_info')} offset 10m"
    return Event(
        "Rollouts",
        f"group by ({_PODS}) ({info} and on (cluster, job, instance) {known}) "
        f"unless on ({_PODS}) group by ({_PODS}) ({before})",
        "Container started",
        "{{namespace}} {{pod}} {{container}} {{image}}",
        "namespace",
        PLAIN,
        shown=True,
    )
