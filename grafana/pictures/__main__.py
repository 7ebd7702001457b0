"""Draws docs/pictures/*.png: ``python -m grafana.pictures [--data FOLDER] [DASHBOARD]...``

It simulates a day of the demonstration, has promtool make blocks of it and of all that the shipped rules would have
recorded, asks a real Prometheus every query of a dashboard's JSON, draws the answers in Grafana's look, and lets
chromium take the picture. With ``--data`` the day is kept there and used again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from . import draw, png, storage
from .frames import Asker
from .look import GAP, HEAD, MARGIN, STYLE, UNIT, WIDTH

ROOT = Path(__file__).resolve().parent.parent.parent
BOARDS, PICTURES = ROOT / "grafana" / "dashboards", ROOT / "docs" / "pictures"

CHOSEN = {"energy-model": {"model_name": "Qwen/Qwen2.5-7B-Instruct"}}
"""What is chosen where there is no "All"."""


def page(board: Mapping[str, Any], asker: Asker, chosen: Mapping[str, str]) -> tuple[str, int]:
    """The dashboard as HTML, and its height in pixels. What is folded away stays so."""
    column = (WIDTH - 2 * MARGIN + GAP) / 24
    parts, bottom = [], 0
    for panel in board["panels"]:
        if panel["type"] == "row":
            continue
        place = panel["gridPos"]
        width, height = round(place["w"] * column) - GAP, place["h"] * (UNIT + GAP) - GAP
        left, top = MARGIN + round(place["x"] * column), HEAD + place["y"] * (UNIT + GAP)
        bottom = max(bottom, top + height)
        parts.append(
            f'<section class="panel" style="left:{left}px;top:{top}px;width:{width}px;height:{height}px">'
            f"<h2>{escape(panel['title'])}</h2>{_content(panel, asker, width, height)}</section>"
        )
    shown = "".join(
        f"<span><b>{escape(variable['label'])}</b><i>{escape(chosen.get(variable['name'], 'All'))}</i></span>"
        for variable in board["templating"]["list"]
        if not variable.get("hide") and variable["type"] == "query"
    )
    head = (
        f'<div class="head">{escape(board["title"])}<span class="time">Last 3 hours · drawn from the dashboard\'s '
        f'JSON and demo data</span></div><div class="vars">{shown}</div>'
    )
    style = f"<style>{STYLE}</style>"
    return f"<!doctype html><meta charset=utf-8>{style}<body>{head}{''.join(parts)}", bottom + MARGIN


def _content(panel: Mapping[str, Any], asker: Asker, width: int, height: int) -> str:
    if panel["type"] == "table":
        columns, rows = asker.rows(panel)
        return draw.grid(panel, columns, rows, height) if rows else draw.nothing(panel)
    series = asker.series(panel)
    if not series:
        return draw.nothing(panel)
    if panel["type"] == "stat":
        return draw.stat(panel, series, width, height)
    if panel["type"] == "bargauge":
        return draw.bars(panel, series, width)
    return draw.lines(panel, series, width, height)


def shoot(html: str, height: int, picture: Path) -> None:
    """Let a browser without a screen take the picture."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "page.html"
        source.write_text(html, encoding="utf-8")
        shot = Path(folder) / "shot.png"
        command = ["chromium", "--headless=new", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
        command += [f"--user-data-dir={folder}/profile", f"--window-size={WIDTH},{height}", f"--screenshot={shot}"]
        if os.geteuid() == 0:
            command.append("--no-sandbox")
        subprocess.run([*command, source.as_uri()], check=True, capture_output=True, timeout=120)
        picture.write_bytes(png.reduced(shot.read_bytes()))


def main(arguments: list[str]) -> int:
    """Draw all dashboards, or those that are named."""
    parser = argparse.ArgumentParser(prog="python -m grafana.pictures", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder in which the simulated day is kept")
    parser.add_argument("dashboards", nargs="*", help="uids; all without")
    options = parser.parse_args(arguments)
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.data or Path(scratch) / "history"
        if not (folder / "data").exists():
            storage.build(folder)
        with storage.serving(folder) as (server, _):
            for uid in options.dashboards or sorted(path.stem for path in BOARDS.glob("*.json")):
                board = json.loads((BOARDS / f"{uid}.json").read_text(encoding="utf-8"))
                chosen = CHOSEN.get(uid, {})
                html, height = page(board, Asker(server, board, chosen), chosen)
                shoot(html, height, PICTURES / f"{uid}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
