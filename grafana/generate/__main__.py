"""Writes every dashboard: ``python -m grafana.generate [--runbooks ADDRESS] [FOLDER]``, into grafana/dashboards."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from . import advice, budgets, exporter, model, models, nodes, overview, workloads
from .variables import RUNBOOKS

FOLDER = Path(__file__).resolve().parent.parent / "dashboards"


def dashboards(runbooks: str = RUNBOOKS) -> list[Dashboard]:
    """All of them, in the order of the menu; ``runbooks`` is the address of the folder docs/runbooks."""
    others = [room.dashboard() for room in (models, model, nodes, workloads, advice, budgets, exporter)]
    return [overview.dashboard(runbooks), *others]


def texts(runbooks: str = RUNBOOKS) -> dict[str, str]:
    """File name and content of every dashboard."""
    return {
        f"{board.uid}.json": json.dumps(board, cls=JSONEncoder, indent=2, ensure_ascii=False) + "\n"
        for board in dashboards(runbooks)
    }


def main(arguments: list[str]) -> int:
    """Write the files, and take away those of dashboards that are no more."""
    parser = argparse.ArgumentParser(prog="python -m grafana.generate", description="Writes every dashboard.")
    parser.add_argument("--runbooks", default=RUNBOOKS, help="address of the folder docs/runbooks")
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    options = parser.parse_args(arguments)
    folder, made = options.folder, texts(options.runbooks)
    for name, text in made.items():
        (folder / name).write_text(text, encoding="utf-8")
    for path in folder.glob("*.json"):
        if path.name not in made:
            path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
