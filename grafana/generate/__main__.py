"""Writes every dashboard: ``python -m grafana.generate [FOLDER]``, by default grafana/dashboards."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from . import budgets, exporter, model, models, nodes, overview, workloads

FOLDER = Path(__file__).resolve().parent.parent / "dashboards"


def dashboards() -> list[Dashboard]:
    """All of them, in the order of the menu."""
    return [room.dashboard() for room in (overview, models, model, nodes, workloads, budgets, exporter)]


def texts() -> dict[str, str]:
    """File name and content of every dashboard."""
    return {
        f"{board.uid}.json": json.dumps(board, cls=JSONEncoder, indent=2, ensure_ascii=False) + "\n"
        for board in dashboards()
    }


def main(arguments: list[str]) -> int:
    """Write the files, and take away those of dashboards that are no more."""
    folder = Path(arguments[0]) if arguments else FOLDER
    made = texts()
    for name, text in made.items():
        (folder / name).write_text(text, encoding="utf-8")
    for path in folder.glob("*.json"):
        if path.name not in made:
            path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
