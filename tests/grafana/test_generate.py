"""The committed dashboards are what the code makes, and stay what links, provisioning and ConfigMaps rely on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana.generate.__main__ import FOLDER, main, texts
from grafana.generate.links import TITLES
from tests.support.boards import BOARDS, panels
from tests.support.repository import REPOSITORY


def test_committed_equals_generated() -> None:
    committed = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    assert committed == texts(), "run make dashboards"


def test_writing_takes_away_what_is_no_more(tmp_path: Path) -> None:
    (tmp_path / "energy-old.json").write_text("{}", encoding="utf-8")
    (tmp_path / "README.md").write_text("mine", encoding="utf-8")
    assert main([str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {*texts(), "README.md"}


def test_addresses_and_titles_are_those_that_alerts_and_bookmarks_have() -> None:
    assert {uid: board["title"] for uid, board in BOARDS.items()} == {
        "energy-overview": "Energy / Overview",
        "energy-models": "Energy / Models",
        "energy-model": "Energy / Model detail",
        "energy-nodes": "Energy / Nodes & GPUs",
        "energy-workloads": "Energy / Workloads",
        "energy-advice": "Energy / Advice",
        "energy-budgets": "Energy / Budgets",
        "energy-exporter": "Energy / Exporter health",
    }
    assert all(board["uid"] == uid for uid, board in BOARDS.items())
    assert set(TITLES) == set(BOARDS)


@pytest.mark.parametrize("uid", BOARDS)
def test_it_is_a_classic_dashboard_of_the_version_that_all_grafanas_read(uid: str) -> None:
    """Schema 39 loads from Grafana 10.4 on; the SDK's default build would write 36, its newest 42."""
    board = BOARDS[uid]
    assert board["schemaVersion"] == 39
    assert isinstance(board["refresh"], str)
    assert "__inputs" not in board
    assert "formatTime" not in json.dumps(board)
    assert "libraryPanel" not in json.dumps(board)
    # a ConfigMap of more than 256 KiB cannot be applied by kubectl apply
    assert len(json.dumps(board)) < 250_000


@pytest.mark.parametrize("uid", BOARDS)
def test_grafanas_own_types_read_it_back_unchanged(uid: str) -> None:
    again = json.loads(json.dumps(Dashboard.from_json(BOARDS[uid]), cls=JSONEncoder))
    lacking = {"titleFormat", "textFormat", "tagKeys", "step"}  # in the SDK's type of annotations
    events = [{k: v for k, v in event.items() if k not in lacking} for event in BOARDS[uid]["annotations"]["list"]]
    assert again == BOARDS[uid] | {"annotations": {"list": events}}


@pytest.mark.parametrize("uid", BOARDS)
def test_ids_are_unique_and_queries_have_letters(uid: str) -> None:
    """Grafana makes ids up where there are none, and then addresses of panels change with each start."""
    ids = [panel["id"] for panel in panels(BOARDS[uid])] + [
        row["id"] for row in BOARDS[uid]["panels"] if row["type"] == "row"
    ]
    assert len(set(ids)) == len(ids)
    for panel in panels(BOARDS[uid]):
        assert [target["refId"] for target in panel["targets"]] == [*"ABCDEFGHIJKLMN"[: len(panel["targets"])]]


def test_the_sdk_is_pinned() -> None:
    """An unpinned install selects the build for Grafana 10.1, because the versions' epochs are build stamps."""
    project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    assert '"grafana-foundation-sdk==1769699590!11.3.0"' in project
