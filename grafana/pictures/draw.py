"""Panels as HTML and SVG: large numbers, lines, bars and tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from math import ceil, floor, log10
from typing import Any

from .frames import SPAN_SECONDS, Panel, Row, Series
from .history import END
from .look import FAINT, GRID, INK, at, by_name, plain
from .units import shown

Axis = Callable[[float], float]
"""Time or value → pixel."""

_LEFT, _TOP, _RIGHT, _AXIS = 56, 34, 12, 20


def _defaults(panel: Panel) -> Mapping[str, Any]:
    found: Mapping[str, Any] = panel["fieldConfig"]["defaults"]
    return found


def _steps(config: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    found: Sequence[Mapping[str, Any]] = config.get("thresholds", {}).get("steps", [])
    return found


def _written(value: float, config: Mapping[str, Any]) -> tuple[str, str, str]:
    """Number, unit and colour of a value, or its words."""
    for mapping in config.get("mappings", []):
        words = mapping["options"].get(f"{value:g}")
        if words:
            return words["text"], "", plain(words["color"])
    number, unit = shown(value, config.get("unit", "none"), config.get("decimals"))
    return number, unit, at(value, _steps(config))


def nothing(panel: Panel) -> str:
    """The panel's words for the absence of data."""
    return f'<div class="empty">{escape(_defaults(panel)["noValue"])}</div>'


def stat(panel: Panel, series: Sequence[Series], width: int, height: int) -> str:
    """One number, with its course below it."""
    points = series[0].points
    number, unit, colour = _written(points[-1][1], _defaults(panel))
    room = width - 26
    size = min(44.0, height * 0.40, room / (0.60 * (len(number) + 0.62 * len(unit)) + 0.2))
    trend = ""
    if len(points) > 1:
        most = max(value for _, value in points) or 1.0
        least = min(value for _, value in points)
        low = least - (most - least) * 0.2
        tall = height * 0.34
        line = " ".join(
            f"{(at_ - points[0][0]) / (points[-1][0] - points[0][0]) * width:.1f},"
            f"{tall - (value - low) / ((most - low) or 1) * tall * 0.9:.1f}"
            for at_, value in points
        )
        ink = "#5794F2" if colour == INK else colour
        trend = (
            f'<svg width="{width}" height="{tall:.0f}" style="bottom:0;left:0"><polygon points="0,{tall:.0f} {line} '
            f'{width},{tall:.0f}" fill="{ink}" opacity=".16"/><polyline points="{line}" fill="none" stroke="{ink}" '
            'stroke-width="1.4"/></svg>'
        )
    top = (height - 30) / 2 + (24 if not trend else 12) - size * 0.6
    return (
        f'{trend}<div style="position:absolute;left:0;right:0;top:{top:.0f}px;text-align:center;font-weight:500;'
        f'color:{colour};font-size:{size:.0f}px;line-height:1.1;white-space:nowrap">{escape(number)}'
        f'<span style="font-size:.62em">{escape(unit)}</span></div>'
    )


def _nice(most: float) -> float:
    """A step that makes three to six lines."""
    raw = most / 5
    size = 10 ** floor(log10(raw))
    return next(float(step * size) for step in (1, 2, 2.5, 5, 10) if step * size >= raw)


def lines(panel: Panel, series: Sequence[Series], width: int, height: int) -> str:
    """Lines or stacked areas over time."""
    config = _defaults(panel)
    custom = config["custom"]
    stacked = custom["stacking"]["mode"] == "normal"
    colours = {
        override["matcher"]["options"]: part["value"]["fixedColor"]
        for override in panel["fieldConfig"].get("overrides", [])
        for part in override["properties"]
        if part["id"] == "color"
    }
    inked = {each.name: colours.get(each.name) or by_name(each.name) for each in series}
    rows = _legend_rows(list(inked), width)
    bottom = _AXIS + 8 + 18 * rows
    tall, wide = height - _TOP - bottom, width - _LEFT - _RIGHT
    curves, most = _curves(series, stacked=stacked)
    most = float(config.get("max") or most or 1.0)
    limits = [step for step in _steps(config) if step.get("value") is not None] if "thresholdsStyle" in custom else []
    most = max([most, *(step["value"] * 1.02 for step in limits if step["value"] <= most * 2.2)])
    step = _nice(most)
    ceiling: float = ceil(most / step - 1e-9) * step

    def x(time: float) -> float:
        return _LEFT + (time - (END - SPAN_SECONDS)) / SPAN_SECONDS * wide

    def y(value: float) -> float:
        return _TOP + tall - min(value, ceiling * 1.02) / ceiling * tall

    parts = [_axes(config, step, ceiling, width, x, y)]
    for name, points, base in reversed(curves) if stacked else curves:
        path = " ".join(f"{x(time):.1f},{y(value):.1f}" for time, value in points)
        under = " ".join(f"{x(time):.1f},{y(value):.1f}" for time, value in reversed(base))
        fill = custom["fillOpacity"] / 100
        parts.append(f'<polygon points="{path} {under}" fill="{inked[name]}" opacity="{fill}"/>')
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{inked[name]}" stroke-width="{custom["lineWidth"]}" '
            'stroke-linejoin="round"/>'
        )
    parts += [
        f'<line x1="{_LEFT}" x2="{width - _RIGHT}" y1="{y(limit["value"]):.1f}" y2="{y(limit["value"]):.1f}" '
        f'stroke="{plain(limit["color"])}" stroke-dasharray="8 6" stroke-width="1.3"/>'
        for limit in limits
        if limit["value"] <= ceiling
    ]
    legend = "".join(
        f'<span><i style="background:{colour}"></i>{escape(_short(name))}</span>' for name, colour in inked.items()
    )
    return (
        f'<svg width="{width}" height="{height}" style="left:0;top:0">{"".join(parts)}</svg>'
        f'<div class="legend">{legend}</div>'
    )


def _short(name: str) -> str:
    return name if len(name) <= 44 else name[:42] + "…"


def _legend_rows(names: Sequence[str], width: int) -> int:
    rows, used = 1, 0.0
    for name in names:
        wide = 33 + 6.1 * len(_short(name))
        if used and used + wide > width - 20:
            rows, used = rows + 1, 0.0
        used += wide
    return rows


Curve = tuple[str, list[tuple[float, float]], list[tuple[float, float]]]
"""Name, upper line, lower line."""


def _curves(series: Sequence[Series], *, stacked: bool) -> tuple[list[Curve], float]:
    below: dict[float, float] = {}
    made = []
    most = 0.0
    times = sorted({time for each in series for time, _ in each.points}) if stacked else []
    for each in series:
        if stacked:
            known = dict(each.points)
            base = [(time, below.get(time, 0.0)) for time in times]
            points = [(time, under + known.get(time, 0.0)) for time, under in base]
            below = dict(points)
        else:
            points = each.points
            base = [(points[0][0], 0.0), (points[-1][0], 0.0)]
        most = max([most, *(value for _, value in points)])
        made.append((each.name, points, base))
    return made, most


def _digits(config: Mapping[str, Any], step: float) -> int | None:
    """Decimals that tell the lines of an axis apart."""
    if config.get("unit") == "percentunit":
        return max(0, -floor(log10(step * 100) + 1e-9))
    return int(config["decimals"]) if step < 1 and "decimals" in config else None


def _axes(config: Mapping[str, Any], step: float, ceiling: float, width: int, x: Axis, y: Axis) -> str:
    parts = []
    for index in range(round(ceiling / step) + 1):
        value = index * step
        number, unit = shown(value, config.get("unit", "none"), _digits(config, step))
        parts.append(
            f'<line x1="{_LEFT}" x2="{width - _RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="{GRID}"/>'
            f'<text x="{_LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end" fill="{FAINT}" font-size="11.5">'
            f"{number}{unit}</text>"
        )
    every = 1800.0 if width > 420 else 3600.0
    first = ceil((END - SPAN_SECONDS) / every) * every
    for index in range(int(SPAN_SECONDS // every) + 1):
        moment = first + index * every
        if _LEFT + 6 < x(moment) < width - _RIGHT - 6:
            label = datetime.fromtimestamp(moment, UTC).strftime("%H:%M")
            parts.append(
                f'<line x1="{x(moment):.1f}" x2="{x(moment):.1f}" y1="{y(ceiling):.1f}" y2="{y(0):.1f}" '
                f'stroke="{GRID}"/><text x="{x(moment):.1f}" y="{y(0) + 16:.1f}" text-anchor="middle" fill="{FAINT}" '
                f'font-size="11.5">{label}</text>'
            )
    return "".join(parts)


def bars(panel: Panel, series: Sequence[Series], width: int) -> str:
    """A horizontal bar for each series."""
    config = _defaults(panel)
    most = config.get("max") or max(each.points[-1][1] for each in series) or 1.0
    name_wide = min(width * 0.44, 8 + 6.7 * max(len(each.name) for each in series))
    made = []
    for each in series:
        value = each.points[-1][1]
        number, unit, colour = _written(value, config)
        part = max(0.0, min(1.0, value / most)) * 100
        made.append(
            f'<div><b style="width:{name_wide:.0f}px">{escape(each.name)}</b>'
            f'<u><s style="width:{part:.1f}%;background:{colour}"></s></u>'
            f'<i style="color:{colour}">{escape(number + unit)}</i></div>'
        )
    return f'<div class="bars">{"".join(made)}</div>'


def grid(panel: Panel, columns: Sequence[str], rows: Sequence[Row], height: int) -> str:
    """A table; what does not fit is cut off, as it would be out of sight."""
    overrides: dict[str, dict[str, Any]] = {}
    for override in panel["fieldConfig"].get("overrides", []):
        properties = {part["id"].removeprefix("custom."): part["value"] for part in override["properties"]}
        overrides[override["matcher"]["options"]] = properties
    numeric = {column for column in columns if "unit" in overrides.get(column, {})}
    head = "".join(
        f"<th{_class(column in numeric)}{_wide(overrides.get(column, {}))}>{escape(column)}</th>" for column in columns
    )
    fits = max(1, (height - 60) // 28)
    body = ""
    for row in rows[:fits]:
        cells = [_cell(row.get(column), overrides.get(column, {}), column in numeric) for column in columns]
        body += f"<tr>{''.join(cells)}</tr>"
    return f"<table><tr>{head}</tr>{body}</table>"


def _class(number: bool) -> str:
    return ' class="n"' if number else ""


def _wide(config: Mapping[str, Any]) -> str:
    return f' style="width:{config["width"]}px"' if "width" in config else ""


def _cell(value: str | float | None, config: Mapping[str, Any], number: bool) -> str:
    if value is None:
        return f"<td{_class(number)}></td>"
    if isinstance(value, str):
        words = next((part["options"].get(value) for part in config.get("mappings", [])), None)
        style = f' style="color:{plain(words["color"])}"' if words else ""
        link = ' class="link"' if "links" in config else ""
        return f"<td{link}{style}>{escape(words['text'] if words else value)}</td>"
    text, unit, colour = _written(value, config)
    kind = config.get("cellOptions", {}).get("type", "auto")
    if kind == "gauge":
        part = max(0.0, min(1.0, value / config["max"])) * 100
        return (
            f'<td><div><u><s style="width:{part:.1f}%;background:{colour}"></s></u><i style="color:{colour}">'
            f"{escape(text + unit)}</i></div></td>"
        )
    style = f' style="color:{colour}"' if kind == "color-text" else ""
    return f"<td{_class(number)}{style}>{escape(text + unit)}</td>"
