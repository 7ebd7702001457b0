"""The states in which every dashboard is rendered, and the shots that this takes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from . import history

FOLDER = Path(__file__).resolve().parent.parent / "dashboards"
WIDTHS = (1366, 1920)
"""A laptop's screen, and a desk's."""

Boards = Mapping[str, Mapping[str, Any]]
Chosen = Mapping[str, Sequence[str]]


class Data(NamedTuple):
    """What a Prometheus holds: stretches of history, or nothing."""

    name: str
    stretches: Sequence[history.Stretch]
    scrape: str


DAY, MINUTES, NOTHING = (
    Data("day", history.DAY, "60s"),
    Data("minutes", history.MINUTES, "15s"),
    Data("nothing", (), "15s"),
)

_NODE = [history.NODE]
DRILLED: Mapping[str, Chosen] = {
    "energy-overview": {"instance": _NODE, "namespace": ["team-vision"]},
    "energy-models": {"namespace": ["team-nlp"], "model_name": ["Qwen/Qwen2.5-7B-Instruct"]},
    "energy-model": {"namespace": ["team-vision"], "model_name": ["google/gemma-3-27b-it"]},
    "energy-nodes": {"instance": _NODE, "gpu": ["3"]},
    "energy-workloads": {"namespace": ["team-nlp"], "pod": ["qwen2-5-7b-chat-6f7c9d5b8-x2lqp"]},
    "energy-budgets": {"budget": ["team-nlp"]},
    "energy-exporter": {"instance": _NODE},
}
"""What is chosen after some clicks, by dashboard."""


class State(NamedTuple):
    """``hours`` of 0 are the dashboard's own time range."""

    name: str
    data: Data
    hours: float = 0
    theme: str = "dark"
    chosen: Mapping[str, Chosen] = {}
    rows: str = "open"


STATES = (
    State("a day", DAY, 24),
    State("first five minutes", MINUTES),
    State("nothing", NOTHING),
    State("drill-down", DAY, 6, chosen=DRILLED),
    State("light", DAY, 24, theme="light"),
)


def boards() -> dict[str, dict[str, Any]]:
    """Every dashboard by its uid."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))}


def shot(uid: str, board: Mapping[str, Any], path: Path, state: State, server: str) -> dict[str, Any]:
    """What shoot.mjs is to do for one dashboard in one state."""
    own = re.fullmatch(r"now-(\d+)h", board["time"]["from"])
    hours = state.hours or float(own[1] if own else 6)
    return {
        "name": f"{uid}: {state.name}",
        "server": server,
        "board": str(path),
        "from": _iso(history.END - hours * 3600),
        "to": _iso(history.END),
        "scrape": state.data.scrape,
        "theme": state.theme,
        "rows": state.rows,
        "variables": state.chosen.get(uid, {}),
        "widths": list(WIDTHS),
    }


def plan(servers: Mapping[Data, str], states: Sequence[State] = STATES) -> Iterator[dict[str, Any]]:
    """The shots of all dashboards; ``servers`` are the addresses of a Prometheus for each data."""
    for state in states:
        for uid, board in boards().items():
            yield shot(uid, board, FOLDER / f"{uid}.json", state, servers[state.data])


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
