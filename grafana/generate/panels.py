"""Panels of one look: a question as title, its answer, what it means, and a link onward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from grafana_foundation_sdk.builders import bargauge, common, prometheus, stat, timeseries
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import table as tables
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as shapes
from grafana_foundation_sdk.models.dashboard import (
    DynamicConfigValue,
    FieldColorModeId,
    Panel,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMapping,
    ValueMappingResult,
)

from .palette import BAD, GOOD, TEXT
from .variables import PROMETHEUS

Link = build.DashboardLink
Steps = Sequence[tuple[float, str]]
"""From which value on a colour holds; below the first one it is plain text."""

Kind = TypeVar("Kind", stat.Panel, timeseries.Panel, bargauge.Panel, tables.Panel)


@dataclass(frozen=True, slots=True)
class Ask:
    """A question's panel: a stable ``id`` within its dashboard (addresses of panels have it), and the words around it.

    ``empty`` is what stands there when there is no data: why that may be, and never "No data".
    """

    id: int
    question: str
    meaning: str
    empty: str
    links: Sequence[Link] = ()


@dataclass(frozen=True, slots=True)
class Line:
    """A query whose series are named by ``legend``."""

    expr: str
    legend: str = ""


def _framed(panel: Kind, ask: Ask, unit: str, decimals: int | None) -> Kind:
    panel.id(ask.id).title(ask.question).description(ask.meaning).datasource(PROMETHEUS).no_value(ask.empty).unit(unit)
    if decimals is not None:
        panel.decimals(decimals)
    if ask.links:
        panel.links(list(ask.links))
    return panel


def _query(expr: str, ref: str, legend: str = "", *, instant: bool = False) -> prometheus.Dataquery:
    query = prometheus.Dataquery().ref_id(ref).expr(expr).datasource(PROMETHEUS).legend_format(legend or "__auto")
    return query.instant() if instant else query.range()


def thresholds(steps: Steps, base: str = TEXT) -> build.ThresholdsConfig:
    """Colours by value."""
    levels = [Threshold(None, base), *(Threshold(value, colour) for value, colour in steps)]
    return build.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(levels)


def _by_thresholds() -> build.FieldColor:
    return build.FieldColor().mode(FieldColorModeId.THRESHOLDS)


def words(texts: Mapping[float, tuple[str, str]]) -> ValueMap:
    """Numbers shown as words in a colour."""
    return ValueMap(
        {
            f"{value:g}": ValueMappingResult(text=text, color=colour, index=index)
            for index, (value, (text, colour)) in enumerate(texts.items())
        }
    )


def number(
    ask: Ask,
    expr: str,
    unit: str,
    *,
    steps: Steps = (),
    base: str = TEXT,
    decimals: int | None = None,
    trend: bool = False,
    texts: Mapping[float, tuple[str, str]] | None = None,
) -> Builder[Panel]:
    """One large number, with its course behind it if it has a ``trend``."""
    panel = _framed(stat.Panel(), ask, unit, decimals)
    panel.with_target(_query(expr, "A", instant=not trend))
    panel.thresholds(thresholds(steps, base)).color_scheme(_by_thresholds())
    panel.graph_mode(shapes.BigValueGraphMode.AREA if trend else shapes.BigValueGraphMode.NONE)
    panel.color_mode(shapes.BigValueColorMode.VALUE).justify_mode(shapes.BigValueJustifyMode.AUTO)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False).fields(""))
    if texts:
        mapping: list[ValueMapping] = [words(texts)]
        panel.mappings(mapping)
    return panel


def course(
    ask: Ask,
    lines: Sequence[Line],
    unit: str,
    *,
    colours: Mapping[str, str] | None = None,
    stacked: bool = False,
    steps: Steps = (),
    decimals: int | None = None,
    most: float | None = None,
) -> Builder[Panel]:
    """Lines over time; ``colours`` by the name of a line, else by name from Grafana's palette.

    ``steps`` are drawn as dashed lines; ``most`` is the upper end of the axis.
    """
    panel = _framed(timeseries.Panel(), ask, unit, decimals)
    for index, line in enumerate(lines):
        panel.with_target(_query(line.expr, chr(ord("A") + index), line.legend))
    panel.color_scheme(build.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
    panel.line_width(1.5 if stacked else 2).fill_opacity(55 if stacked else 0).min(0)
    panel.show_points(shapes.VisibilityMode.NEVER).axis_soft_min(0)
    panel.stacking(
        common.StackingConfig().mode(shapes.StackingMode.NORMAL if stacked else shapes.StackingMode.NONE).group("A")
    )
    panel.tooltip(common.VizTooltipOptions().mode(shapes.TooltipDisplayMode.MULTI).sort(shapes.SortOrder.DESCENDING))
    panel.legend(
        common.VizLegendOptions()
        .display_mode(shapes.LegendDisplayMode.LIST)
        .placement(shapes.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs([])
    )
    if most is not None:
        panel.max(most)
    if steps:
        panel.thresholds(thresholds(steps, "transparent")).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(shapes.GraphThresholdsStyleMode.DASHED)
        )
    for name, colour in (colours or {}).items():
        panel.override_by_name(name, [DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour})])
    return panel


def bars(
    ask: Ask,
    lines: Sequence[Line],
    unit: str,
    *,
    steps: Steps = (),
    base: str = GOOD,
    most: float | None = None,
    decimals: int | None = None,
    follow: Link | None = None,
) -> Builder[Panel]:
    """One horizontal bar for each series; ``follow`` is where a click on a bar leads."""
    panel = _framed(bargauge.Panel(), ask, unit, decimals)
    for index, line in enumerate(lines):
        panel.with_target(_query(line.expr, chr(ord("A") + index), line.legend, instant=True))
    panel.orientation(shapes.VizOrientation.HORIZONTAL).display_mode(shapes.BarGaugeDisplayMode.BASIC)
    panel.show_unfilled(True).value_mode(shapes.BarGaugeValueMode.TEXT).min_viz_height(18)
    panel.name_placement(shapes.BarGaugeNamePlacement.LEFT)
    panel.thresholds(thresholds(steps, base)).color_scheme(_by_thresholds()).min(0)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False).fields(""))
    if most is not None:
        panel.max(most)
    if follow is not None:
        panel.data_links([follow])
    return panel


def failing_from(value: float) -> Steps:
    """Red from a value on."""
    return ((value, BAD),)
