"""What is made of a rendered dashboard: the history that it shows, the findings, and the pictures of the documents.

The rendering itself is `make grafana-check`, which needs Node and a browser.
"""

from __future__ import annotations

import copy
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from grafana.render import planted, storage
from grafana.render.__main__ import TAKEN
from grafana.render.findings import CHECKS, Finding, findings
from grafana.render.history import END, Stretch, write
from grafana.render.states import DAY, MINUTES, NOTHING, STATES, plan
from tests.support.boards import BOARDS, panels, variables
from tests.support.needs import needs
from tests.support.patience import patience
from tests.support.repository import REPOSITORY

PICTURES = REPOSITORY / "docs" / "pictures"

# --- findings ---------------------------------------------------------------------------------------------------------

BOARD: dict[str, Any] = {"panels": [{"id": 1, "type": "table", "title": "Pods"}]}


def facts(**changed: Any) -> dict[str, Any]:
    """What shoot.mjs reports of a board with one table, without any fault but those given."""
    panel = {
        "title": "Pods",
        "state": "Done",
        "empty": "No pod",
        "columns": ["Pod", "Power"],
        "rows": [["a", "3 W"], ["", "–"]],
        "links": [{"href": "/d/energy-nodes?var-job=$__all&var-instance=a&from=1"}],
        "panelLinks": [{"href": "docs/runbooks/A.md"}],
        "cutTitles": [],
        "cutHeaders": [],
        "cutCells": ["a long name"],
        "small": [],
        "wide": False,
        "series": [{"name": "a", "color": "#1", "points": 3}, {"name": "b", "color": "#1", "points": 0}],
    }
    return {"failed": None, "messages": [], "queries": [{"expr": "up"}], "panels": {"1": panel | changed}}


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    assert findings(facts(), BOARD, BOARDS) == []


@pytest.mark.parametrize(
    ("changed", "kind", "detail"),
    [
        ({"rows": [["a", "No pod"]]}, "cell", "Power: No pod"),
        ({"cutTitles": ["Pods"]}, "title", "Pods"),
        ({"cutHeaders": ["Power"]}, "title", "column Power"),
        ({"small": [{"text": "No budgets", "size": 5.9}]}, "small", "'No budgets' has 5.9 px"),
        ({"wide": True}, "wide", "the table is wider than its panel"),
        ({"series": [{"name": name, "color": "#1", "points": 3} for name in "ab"]}, "colour", "#1: a, b"),
        ({"state": "Error", "error": "bad_data"}, "query", "bad_data"),
        ({"links": [{"href": "/d/energy-nodes?var-gpu=${x}"}]}, "link", "unresolved: /d/energy-nodes?var-gpu=${x}"),
        ({"panelLinks": [{"href": "/d/energy-old?"}]}, "link", "no such dashboard: /d/energy-old?"),
        (
            {"links": [{"href": "/d/energy-nodes?var-pod="}]},
            "link",
            "var-pod is unknown to the target: /d/energy-nodes?var-pod=",
        ),
    ],
)
def test_each_fault_is_found(changed: dict[str, Any], kind: str, detail: str) -> None:
    assert findings(facts(**changed), BOARD, BOARDS) == [Finding(kind, "Pods", detail)]


def test_faults_of_the_page_are_found() -> None:
    broken = facts() | {"failed": "Error: x", "messages": ["y"], "queries": [{"expr": "sum((", "error": "parse"}]}
    two = {"panels": [*BOARD["panels"], {"id": 9, "type": "row", "panels": [{"id": 2, "type": "stat", "title": "B"}]}]}
    assert findings(broken, two, BOARDS) == [
        Finding("page", "", "Error: x"),
        Finding("page", "", "y"),
        Finding("query", "", "parse: sum(("),
        Finding("page", "B", "not drawn"),
    ]


def test_a_fault_of_each_kind_is_planted() -> None:
    """The check fails unless it finds them."""
    assert set(planted.FAULTS) == {*CHECKS, "link"}
    good = BOARDS["energy-models"]
    before, bad = copy.deepcopy(good), planted.broken(good)
    assert good == before
    changed = {
        one["title"]
        for one, other in zip(panels(good), panels(bad), strict=True)
        if json.dumps(one) != json.dumps(other)
    }
    assert changed == set(planted.FAULTS.values())


def test_a_check_that_overlooks_a_planted_fault_says_so() -> None:
    found = [Finding(kind, title, "") for kind, title in planted.FAULTS.items()]
    assert planted.overlooked(found) == []
    assert planted.overlooked([each for each in found if each.kind != "wide"]) == [
        Finding("overlooked", "Training runs", "wide")
    ]


# --- states -----------------------------------------------------------------------------------------------------------


def test_every_dashboard_is_rendered_in_every_state_and_width() -> None:
    shots = list(plan({DAY: "a", MINUTES: "b", NOTHING: "c"}))
    assert {shot["name"] for shot in shots} == {f"{uid}: {state.name}" for uid in BOARDS for state in STATES}
    assert {tuple(shot["widths"]) for shot in shots} == {(1366, 1920)}
    assert {(shot["server"], shot["theme"]) for shot in shots} == {
        ("a", "dark"),
        ("a", "light"),
        ("b", "dark"),
        ("c", "dark"),
    }


def test_what_is_chosen_after_clicks_are_variables_of_the_dashboard() -> None:
    for state in STATES:
        for uid, chosen in state.chosen.items():
            assert set(chosen) <= set(variables(BOARDS[uid]))


# --- history ----------------------------------------------------------------------------------------------------------


def test_a_history_ends_at_its_end_and_keeps_what_is_asked_for(tmp_path: Path) -> None:
    stretches = (Stretch(1 / 60, 5, 30, "up|energy_node_joules_total"), Stretch(1 / 60, 5, 15))
    text = "".join(path.read_text(encoding="utf-8") for path in write(tmp_path, stretches))
    first, second = (
        {line.split("{")[0] for line in text.splitlines() if line.endswith(f" {at:.0f}")} for at in (END - 90, END)
    )
    assert first == {"up", "energy_node_joules_total"}
    assert {"energy_model_joules_total", "energy_gpu_joules_total"} <= second
    ups = [line.split()[-1] for line in text.splitlines() if line.startswith("up{")]
    assert ups == [f"{END + seconds:.0f}" for seconds in (-120, -90, -60, -45, -30, -15, 0)]


def test_rules_come_after_those_they_need() -> None:
    done: set[str] = set()
    for groups in storage.levels():
        level = [rule for group in groups for rule in group["rules"]]
        names = {rule["record"] for rule in level}
        for rule in level:
            words = set(re.findall(r"[\w:]+", rule["expr"]))
            assert not words & (names - {rule["record"]}), rule["record"]
        done |= names
    assert "model:energy_per_output_token_joules:rate1d" in done
    of_a_week = {name for name in done if storage.OF_A_WEEK.fullmatch(name)}
    assert of_a_week > {"model:energy_model_watts:zero_filled", "model:output_tokens:rate5m"}
    assert not {name for name in of_a_week if name.startswith(("gpu:", "run:", "budget:"))}


@needs("promtool")
def test_alerts_can_be_recorded(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yml"
    rules.write_text(yaml.safe_dump({"groups": storage.alerts()}), encoding="utf-8")
    command = ["promtool", "check", "rules", "--lint=none", str(rules)]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=patience(30), check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_pictures_are_those_that_are_taken_and_small() -> None:
    made = {path.stem: path.stat().st_size for path in PICTURES.glob("*.webp")}
    assert set(made) == set(TAKEN)
    assert set(BOARDS) <= set(made)
    assert max(made.values()) < 250_000


def test_pictures_in_the_documents_exist() -> None:
    for document in (REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")):
        for link in re.findall(r"\]\(([^)]+\.(?:png|svg|webp))\)", document.read_text(encoding="utf-8")):
            assert (document.parent / link).exists(), link
