"""Grafana's dark look: colours, sizes and the style sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

WIDTH = 1366
"""A laptop's screen, in pixels."""
UNIT, GAP, MARGIN, HEAD = 30, 8, 16, 88

INK, FAINT, GRID = "#ccccdc", "#9a9aab", "#2a2d33"
_CLASSIC = (
    "#73BF69",
    "#F2CC0C",
    "#8AB8FF",
    "#FF780A",
    "#F2495C",
    "#5794F2",
    "#B877D9",
    "#9D8FD9",
    "#56A64B",
    "#FADE2A",
    "#6ED0E0",
    "#E0752D",
    "#E5A8E2",
    "#96D98D",
    "#C15C17",
    "#FFB357",
)

STYLE = """
*{box-sizing:border-box;margin:0}
body{background:#111217;color:#ccccdc;font:13px/1.4 Inter,Roboto,"Liberation Sans",Arial,sans-serif;width:1366px;
position:relative;-webkit-font-smoothing:antialiased}
.head{position:absolute;left:16px;right:16px;top:0;height:40px;display:flex;align-items:center;gap:10px;
color:#ccccdc;font-size:14px;border-bottom:1px solid #22252b}
.head .time{margin-left:auto;color:#9a9aab;font-size:12px}
.vars{position:absolute;left:16px;right:16px;top:48px;display:flex;gap:8px;font-size:12px}
.vars span{border:1px solid #2e3138;border-radius:2px;display:flex;height:28px;align-items:center;overflow:hidden}
.vars b{font-weight:500;background:#181b1f;padding:0 8px;height:100%;display:flex;align-items:center}
.vars i{font-style:normal;padding:0 10px;background:#111217;color:#ccccdc}
.panel{position:absolute;background:#181b1f;border:1px solid #26292f;border-radius:2px;overflow:hidden}
.panel h2{font-size:13.5px;font-weight:500;padding:7px 9px 3px;white-space:nowrap;overflow:hidden;
text-overflow:ellipsis;line-height:19px}
.empty{display:flex;align-items:center;justify-content:center;height:100%;padding:0 20px 34px;color:#9a9aab;
text-align:center}
svg{display:block;position:absolute}
.legend{position:absolute;left:10px;right:10px;bottom:5px;display:flex;flex-wrap:wrap;gap:1px 14px;font-size:11.5px;
color:#b9b9c8}
.legend span{display:flex;align-items:center;gap:6px;white-space:nowrap}
.legend i{width:13px;height:3px;border-radius:2px}
.bars{position:absolute;left:9px;right:9px;top:32px;bottom:8px;display:flex;flex-direction:column;gap:6px}
.bars div{flex:1;display:flex;align-items:center;gap:8px;max-height:38px;min-height:0}
.bars b{font-weight:400;font-size:12.5px;overflow:hidden;white-space:nowrap;text-overflow:ellipsis;flex:none}
.bars u{text-decoration:none;flex:1;background:#22252b;height:100%;display:block}
.bars u s{display:block;height:100%}
.bars i{font-style:normal;width:62px;flex:none;font-size:13px;font-weight:500}
table{width:100%;border-collapse:collapse;table-layout:fixed;font-size:12.5px}
th{font-weight:500;text-align:left;color:#6ea6ff;padding:4px 8px;border-bottom:1px solid #2a2d33;white-space:nowrap;
overflow:hidden}
td{padding:0 8px;height:28px;border-bottom:1px solid #22252b;white-space:nowrap;overflow:hidden;
text-overflow:ellipsis}
th.n,td.n{text-align:right}
td.link{color:#dfe4f5}
td div{display:flex;align-items:center;gap:7px;height:100%}
td u{flex:1;background:#22252b;height:17px}
td u s{display:block;height:100%}
td div i{font-style:normal;width:40px;text-align:right}
"""

_given: dict[str, str] = {}


def by_name(name: str) -> str:
    """Grafana's palette: another colour for each name, the same on every picture of a run."""
    return _given.setdefault(name, _CLASSIC[len(_given) % len(_CLASSIC)])


def plain(colour: str) -> str:
    """A colour of Grafana's as one of CSS."""
    return {"text": INK, "transparent": "none"}.get(colour, colour)


def at(value: float, steps: Sequence[Mapping[str, Any]]) -> str:
    """Colour of a value by its thresholds."""
    colour = "text"
    for step in steps:
        if step.get("value") is None or value >= step["value"]:
            colour = step["color"]
    return plain(colour)
