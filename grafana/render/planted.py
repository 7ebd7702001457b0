"""Faults that the check has to find: a dashboard that is broken in each of these ways."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from .findings import Finding

Board = Mapping[str, Any]

FAULTS = {
    "title": "Power now",
    "cell": "Models by energy",
    "small": "Energy",
    "wide": "Training runs",
    "colour": "Power by phase",
    "link": "Energy per token",
    "query": "Models",
}
"""Which panel of the dashboard Models has the fault, by the kind of finding."""


def broken(models: Board) -> dict[str, Any]:
    """The dashboard Models with all of `FAULTS`."""
    board: dict[str, Any] = copy.deepcopy(dict(models))
    panels = {panel["title"]: panel for panel in board["panels"]}
    at = {kind: panels[title] for kind, title in FAULTS.items()}
    at["title"]["title"] = FAULTS["title"] + ", with a title that has far more words than there is room for"
    for override in at["cell"]["fieldConfig"]["overrides"]:
        override["properties"] = [each for each in override["properties"] if each["id"] != "noValue"]
    at["small"]["options"]["text"] = {"valueSize": 8}
    for override in at["wide"]["fieldConfig"]["overrides"]:
        override["properties"].append({"id": "custom.width", "value": 900})
    for override in at["colour"]["fieldConfig"]["overrides"]:
        override["properties"] = [{"id": "color", "value": {"mode": "fixed", "fixedColor": "#8FC7F0"}}]
    at["link"]["links"][0]["url"] += "&var-model_name=${no_such_variable}"
    at["query"]["targets"][0]["expr"] = "sum(("
    return board


def overlooked(found: Sequence[Finding]) -> list[Finding]:
    """Planted faults that are not among these findings."""
    kinds = {finding.kind for finding in found}
    return [Finding("overlooked", title, kind) for kind, title in FAULTS.items() if kind not in kinds]
