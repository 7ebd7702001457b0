"""A priced trace as one HTML page without scripts: a picture whose widths are joules, and the table."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from ..formats import quantity
from .table import OUTSIDE, PricedTrace, top
from .trace import Work

_WIDTH, _ROW = 1200, 22
_LEAST_PIXELS = 1.0
_LETTER_PIXELS = 7.0

_STYLE = """\
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1240px; margin: 2rem auto; padding: 0 1rem }
svg { width: 100%; height: auto; font: 12px system-ui, sans-serif }
rect { stroke: Canvas }
text { pointer-events: none; fill: #000 }
table { border-collapse: collapse; margin-top: 1.5rem }
td, th { padding: .25rem .75rem; text-align: right; border-bottom: 1px solid #8884 }
td:first-child, th:first-child { text-align: left; overflow-wrap: anywhere }
"""


@dataclass
class _Node:
    name: str
    joules: float = 0.0
    children: dict[str, _Node] = field(default_factory=dict)

    def add(self, path: Sequence[str], joules: float) -> None:
        self.joules += joules
        if path:
            self.children.setdefault(path[0], _Node(path[0])).add(path[1:], joules)

    @property
    def depth(self) -> int:
        return 1 + max((child.depth for child in self.children.values()), default=0)


def page(found: PricedTrace, by: str, title: str) -> str:
    """The page."""
    head = f"<!doctype html>\n<html lang=en><meta charset=utf-8><title>{html.escape(title)}</title>"
    body = [f"<style>{_STYLE}</style>", f"<h1>{html.escape(title)}</h1>", _picture(found), _table(found, by)]
    return "\n".join([head, *body, *(f"<p>{html.escape(note)}</p>" for note in found.notes), "</html>", ""])


def _path(one: Work) -> tuple[str, ...]:
    return (*one.ranges, *one.layers, one.name)


def _picture(found: PricedTrace) -> str:
    root = _Node(f"{quantity(found.total_joules)} J")
    for work, priced in found.priced.values():
        for one, joules in zip(work, priced.joules, strict=True):
            root.add(_path(one), joules)
        root.add((OUTSIDE,), priced.outside_joules)
    if root.joules <= 0:
        return ""
    boxes = "\n".join(_boxes(root, 0.0, 0, _WIDTH / root.joules))
    size = f"0 0 {_WIDTH} {root.depth * _ROW}"
    return f'<svg viewBox="{size}" role=img aria-label="Joules by range, layer and kernel">\n{boxes}\n</svg>'


def _boxes(node: _Node, left: float, row: int, pixels_per_joule: float) -> Iterator[str]:
    width = node.joules * pixels_per_joule
    if width < _LEAST_PIXELS:
        return
    name = html.escape(node.name)
    yield (
        f'<g><title>{name}: {quantity(node.joules)} J</title><rect x="{left:.1f}" y="{row * _ROW}" '
        f'width="{width:.1f}" height="{_ROW}" fill="{_colour(node.name)}"/>'
    )
    letters = int((width - 6) / _LETTER_PIXELS)
    if letters >= 3:
        shown = node.name if len(node.name) <= letters else f"{node.name[: letters - 1]}…"
        yield f'<text x="{left + 3:.1f}" y="{row * _ROW + 15}">{html.escape(shown)}</text>'
    yield "</g>"
    for child in sorted(node.children.values(), key=lambda one: (-one.joules, one.name)):
        yield from _boxes(child, left, row + 1, pixels_per_joule)
        left += child.joules * pixels_per_joule


def _colour(name: str) -> str:
    """The same name has the same colour; light enough for black text."""
    hue = int.from_bytes(blake2b(name.encode(), digest_size=2).digest(), "big") % 360
    return f"hsl({hue} 65% 75%)"


def _table(found: PricedTrace, by: str) -> str:
    rows = [
        f"<tr><td>{html.escape(line.name)}<td>{quantity(line.joules)}<td>{line.joules / found.total_joules:.1%}"
        f"<td>{line.count or '':}<td>{quantity(line.joules / line.count) if line.count else ''}"
        for line in top(found.lines(by), 100)
        if found.total_joules > 0
    ]
    return "\n".join([f"<table><tr><th>{by}<th>J<th>share<th>count<th>J each", *rows, "</table>"])
