"""Panels of one look: a noun as title, its question and meaning as description, and a link onward."""

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

from .empty import Empty
from .palette import TEXT
from .variables import PROMETHEUS

Link = build.DashboardLink
Steps = Sequence[tuple[float, str]]
"""From which value on a colour holds."""

KWH, KWH_PER_YEAR, PER_TOKEN, KG = "suffix:kWh", "suffix:kWh/year", "suffix:J/token", "suffix:kg"
KWH_PER_MONTH = "suffix:kWh/month"
JOULES, MILLIONS = "suffix:J", "suffix:M"
"""Units that do not scale, for values that are compared: 679.80 Wh below 5.36 kWh looks larger."""

SOFT_MAX = {"percentunit": 0.001, "none": 1.0, "suffix:/min": 1.0, "suffix:/s": 1.0}
"""Upper end of an axis on which all is 0: without it Grafana draws 0 to 100, or to 10000 %."""

Kind = TypeVar("Kind", stat.Panel, timeseries.Panel, bargauge.Panel, tables.Panel)


@dataclass(frozen=True, slots=True)
class Ask:
    """A question's panel: a stable ``id`` within its dashboard (addresses of panels have it), and the words around it.

    ``title`` is a short noun, because Grafana cuts what does not fit beside its icons.
    """

    id: int
    title: str
    question: str
    meaning: str
    empty: Empty
    links: Sequence[Link] = ()

    @property
    def description(self) -> str:
        """The question, what the value means, and what it means that there is none."""
        return f"{self.question} {self.meaning} “{self.empty.text}”: {self.empty.reason}"


@dataclass(frozen=True, slots=True)
class Line:
    """A query whose series are named by ``legend``."""

    expr: str
    legend: str = ""


def framed(panel: Kind, ask: Ask, unit: str, decimals: int | None = None) -> Kind:
    """A panel with its words and links, and the unit of its values."""
    panel.id(ask.id).title(ask.title).description(ask.description).datasource(PROMETHEUS)
    panel.no_value(ask.empty.text).unit(unit)
    if decimals is not None:
        panel.decimals(decimals)
    if ask.links:
        panel.links(list(ask.links))
    return panel


def _query(expr: str, ref: str, legend: str = "", *, instant: bool = False) -> prometheus.Dataquery:
    query = prometheus.Dataquery().ref_id(ref).expr(expr).datasource(PROMETHEUS).legend_format(legend or "__auto")
    return query.instant() if instant else query.range()


def thresholds(steps: Steps, base: str = TEXT) -> build.ThresholdsConfig:
    """Colours by value, ``base`` from 0 on; below it, where Grafana takes the colour of an absent value, neutral."""
    levels = [Threshold(None, TEXT)]
    if base != TEXT:
        levels.append(Threshold(0, base))
    levels += [Threshold(value, colour) for value, colour in steps]
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
    texts: Mapping[float, tuple[str, str]] | None = None,
) -> Builder[Panel]:
    """One large number. Its course would be drawn through it at this size, so there is none."""
    panel = framed(stat.Panel(), ask, unit, decimals)
    panel.with_target(_query(expr, "A", instant=True))
    panel.thresholds(thresholds(steps, base)).color_scheme(_by_thresholds())
    panel.graph_mode(shapes.BigValueGraphMode.NONE).wide_layout(False)
    panel.color_mode(shapes.BigValueColorMode.VALUE).justify_mode(shapes.BigValueJustifyMode.AUTO)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False).fields(""))
    if texts:
        mapping: list[ValueMapping] = [words(texts)]
        panel.mappings(mapping)
    return panel


def _over_time(
    ask: Ask, lines: Sequence[Line], unit: str, decimals: int | None, colours: Mapping[str, str], follow: Link | None
) -> timeseries.Panel:
    """What lines and bars over time have in common. Colours differ within a panel, in the order of the names."""
    panel = framed(timeseries.Panel(), ask, unit, decimals)
    for index, line in enumerate(lines):
        panel.with_target(_query(line.expr, chr(ord("A") + index), line.legend))
    panel.color_scheme(build.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC)).min(0).axis_soft_min(0)
    if (most := SOFT_MAX.get(unit)) is not None:
        panel.axis_soft_max(most)
    panel.show_points(shapes.VisibilityMode.NEVER)
    panel.tooltip(common.VizTooltipOptions().mode(shapes.TooltipDisplayMode.MULTI).sort(shapes.SortOrder.DESCENDING))
    for name, colour in colours.items():
        panel.override_by_name(name, [DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour})])
    if follow is not None:
        panel.data_links([follow])
    return panel


def _legend(calcs: Sequence[str] = (), *, right: bool = False) -> common.VizLegendOptions:
    legend = common.VizLegendOptions().show_legend(True).calcs(list(calcs))
    legend.display_mode(shapes.LegendDisplayMode.TABLE if calcs else shapes.LegendDisplayMode.LIST)
    legend.placement(shapes.LegendPlacement.RIGHT if right else shapes.LegendPlacement.BOTTOM)
    return legend


def _stacking(panel: timeseries.Panel, *, stacked: bool) -> None:
    mode = shapes.StackingMode.NORMAL if stacked else shapes.StackingMode.NONE
    panel.stacking(common.StackingConfig().mode(mode).group("A"))


def course(
    ask: Ask,
    lines: Sequence[Line],
    unit: str,
    *,
    colours: Mapping[str, str] | None = None,
    stacked: bool = False,
    before: str = "",
    steps: Steps = (),
    decimals: int | None = None,
    most: float | None = None,
    summary: str = "",
    follow: Link | None = None,
) -> Builder[Panel]:
    """Lines over time; ``colours`` by the name of a line, else from Grafana's palette.

    ``before`` is the name of a line of an earlier time: dashed, and outside of the stack. ``steps`` are drawn as dashed
    lines; ``most`` is the upper end of the axis. ``summary`` is "right" or "bottom", where a table has the mean, the
    largest and the last value of each line. ``follow`` is where a click on a line leads.
    """
    panel = _over_time(ask, lines, unit, decimals, colours or {}, follow)
    panel.line_width(1.5 if stacked else 2).fill_opacity(55 if stacked else 0)
    _stacking(panel, stacked=stacked)
    panel.legend(_legend(["mean", "max", "lastNotNull"] if summary else [], right=summary == "right"))
    if most is not None:
        panel.max(most)
    if steps:
        levels = [Threshold(None, "transparent"), *(Threshold(value, colour) for value, colour in steps)]
        panel.thresholds(build.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(levels))
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(shapes.GraphThresholdsStyleMode.DASHED))
    if before:
        panel.override_by_name(
            before,
            [
                DynamicConfigValue("color", {"mode": "fixed", "fixedColor": TEXT}),
                DynamicConfigValue("custom.stacking", {"mode": "none", "group": "A"}),
                DynamicConfigValue("custom.fillOpacity", 0),
                DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [8, 6]}),
            ],
        )
    return panel


def days(
    ask: Ask, lines: Sequence[Line], *, colours: Mapping[str, str] | None = None, follow: Link | None = None
) -> Builder[Panel]:
    """Stacked bars of kWh, one for each of the last seven days, whatever the dashboard's time range is."""
    panel = _over_time(ask, lines, KWH, None, colours or {}, follow)
    panel.draw_style(shapes.GraphDrawStyle.BARS).bar_alignment(shapes.BarAlignment.AFTER).bar_width_factor(0.8)
    panel.line_width(0).fill_opacity(80)
    _stacking(panel, stacked=True)
    panel.legend(_legend(["sum"], right=True))
    panel.time_from("6d/d").hide_time_override(True).interval("1d")
    return panel


def bars(
    ask: Ask,
    lines: Sequence[Line],
    unit: str,
    *,
    steps: Steps = (),
    base: str,
    most: float | None = None,
    decimals: int | None = None,
    follow: Link | None = None,
) -> Builder[Panel]:
    """One horizontal bar for each series; ``follow`` is where a click on a bar leads.

    Sizes are fixed: Grafana fits names and numbers to the height of a bar, and a single bar would fill the panel.
    """
    panel = framed(bargauge.Panel(), ask, unit, decimals)
    for index, line in enumerate(lines):
        panel.with_target(_query(line.expr, chr(ord("A") + index), line.legend, instant=True))
    panel.orientation(shapes.VizOrientation.HORIZONTAL).display_mode(shapes.BarGaugeDisplayMode.BASIC)
    panel.show_unfilled(True).value_mode(shapes.BarGaugeValueMode.TEXT)
    panel.sizing(shapes.BarGaugeSizing.MANUAL).min_viz_height(18).max_viz_height(36)
    panel.text(common.VizTextDisplayOptions().title_size(13).value_size(14))
    panel.name_placement(shapes.BarGaugeNamePlacement.LEFT)
    panel.thresholds(thresholds(steps, base)).color_scheme(_by_thresholds()).min(0)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False).fields(""))
    if most is not None:
        panel.max(most)
    if follow is not None:
        panel.data_links([follow])
    return panel
