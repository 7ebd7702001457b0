"""Tables: label columns that name a row, and one query for each column of values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import common, prometheus
from grafana_foundation_sdk.builders import table as tables
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as shapes
from grafana_foundation_sdk.models.dashboard import DataTransformerConfig, DynamicConfigValue, Panel
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from .palette import TEXT
from .panels import Ask, Link, Steps, framed, thresholds, words
from .variables import PROMETHEUS


@dataclass(frozen=True, slots=True)
class Label:
    """A column that shows a label; a click on it follows ``follow``."""

    label: str
    title: str
    width: int = 0
    follow: Link | None = None
    texts: Mapping[str, tuple[str, str]] | None = None


CLUSTER = Label("cluster", "Cluster", 90)
"""In every table. Grafana makes columns of the labels that are there, so without clusters there is no such column."""


@dataclass(frozen=True, slots=True)
class Value:
    """A column of values. ``bar`` is the value at which its gauge is full; 0 shows the number alone.

    ``total`` puts the sum of all rows into the table's footer. A click follows ``follow``.
    """

    title: str
    expr: str
    unit: str
    decimals: int | None = None
    width: int = 0
    steps: Steps = ()
    base: str = TEXT
    bar: float = 0
    texts: Mapping[float, tuple[str, str]] | None = None
    total: bool = False
    follow: Link | None = None


def table(ask: Ask, labels: Sequence[Label], values: Sequence[Value], *, sort: str) -> Builder[Panel]:
    """A row for each combination of labels; every query must keep exactly these labels."""
    panel = framed(tables.Panel(), ask, "none").cell_height(shapes.TableCellHeight.SM).show_header(True)
    totals: list[str] = []
    renamed: dict[str, str] = {}
    order: dict[str, int] = {}
    for label in labels:
        renamed[label.label], order[label.label] = label.title, len(order)
    for index, value in enumerate(values):
        ref = chr(ord("A") + index)
        panel.with_target(
            prometheus.Dataquery()
            .ref_id(ref)
            .expr(value.expr)
            .datasource(PROMETHEUS)
            .format(PromQueryFormat.TABLE)
            .instant()
            .legend_format("__auto")
        )
        # Grafana calls the column of the only query plainly "Value".
        field = "Value" if len(values) == 1 else f"Value #{ref}"
        renamed[field], order[field] = value.title, len(order)
        if value.total:
            totals.append(field)
    panel.with_transformation(DataTransformerConfig("merge", options={}))
    panel.with_transformation(
        DataTransformerConfig(
            "organize",
            options={"excludeByName": {"Time": True}, "indexByName": order, "renameByName": renamed},
        )
    )
    panel.sort_by([common.TableSortByFieldState().display_name(sort).desc(True)])
    if totals:  # for Grafana up to 12.1; later ones have it by column
        panel.footer(common.TableFooterOptions().show(True).reducer(["sum"]).fields(totals).count_rows(False))
    for label in labels:
        panel.override_by_name(label.title, _of_label(label))
    for value in values:
        panel.override_by_name(value.title, _of_value(value))
    return panel


def _of_label(label: Label) -> list[DynamicConfigValue]:
    # without it the panel's own text stands in empty cells, and in what links put into addresses
    properties = [DynamicConfigValue("noValue", "")]
    if label.width:
        properties.append(DynamicConfigValue("custom.width", label.width))
    if label.follow is not None:
        properties.append(DynamicConfigValue("links", [label.follow.build()]))
    if label.texts:
        options = {text: {"text": shown, "color": colour} for text, (shown, colour) in label.texts.items()}
        properties.append(DynamicConfigValue("mappings", [{"type": "value", "options": options}]))
        properties.append(DynamicConfigValue("custom.cellOptions", {"type": "color-text"}))
    return properties


def _of_value(value: Value) -> list[DynamicConfigValue]:
    properties = [DynamicConfigValue("unit", value.unit), DynamicConfigValue("noValue", "–")]
    if value.total:
        properties.append(DynamicConfigValue("custom.footer", {"reducers": ["sum"]}))
    if value.decimals is not None:
        properties.append(DynamicConfigValue("decimals", value.decimals))
    if value.width:
        properties.append(DynamicConfigValue("custom.width", value.width))
    if value.follow is not None:
        properties.append(DynamicConfigValue("links", [value.follow.build()]))
    if value.texts:
        properties.append(DynamicConfigValue("mappings", [words(value.texts)]))
        properties.append(DynamicConfigValue("custom.cellOptions", {"type": "color-text"}))
    if value.steps or value.bar:
        properties.append(DynamicConfigValue("thresholds", thresholds(value.steps, value.base).build()))
        properties.append(DynamicConfigValue("color", {"mode": "thresholds"}))
    if value.bar:
        properties.append(
            DynamicConfigValue("custom.cellOptions", {"type": "gauge", "mode": "basic", "valueDisplayMode": "text"})
        )
        properties += [DynamicConfigValue("min", 0), DynamicConfigValue("max", value.bar)]
    elif value.steps:
        properties.append(DynamicConfigValue("custom.cellOptions", {"type": "color-text"}))
    return properties
