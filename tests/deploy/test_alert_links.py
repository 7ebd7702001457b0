"""Absolute links in alerts: every alert gets them, and nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.alert_links import linked, main
from tests.support.repository import REPOSITORY

RUNBOOKS = "https://git.example.com/energy/docs/runbooks"
GRAFANA = "https://grafana.example.com/monitoring"
FILES = sorted(
    [*REPOSITORY.glob("prometheus/rules/*.yml"), *REPOSITORY.glob("deploy/kubernetes/parts/rules/[!k]*.yaml")]
)


def alerts(content: Any) -> list[dict[str, Any]]:
    groups = content.get("spec", content)["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_alert_has_both_and_nothing_else_changes(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    relative, absolute = yaml.safe_load(text), yaml.safe_load(linked(text, RUNBOOKS, GRAFANA + "/"))
    for before, after in zip(alerts(relative), alerts(absolute), strict=True):
        notes = before["annotations"]
        name = notes["runbook_url"].removeprefix("docs/runbooks/")
        assert after["annotations"].pop("runbook_url") == f"{RUNBOOKS}/{name}"
        assert after["annotations"].pop("dashboard_url") == GRAFANA + notes["dashboard_url"]
        del notes["runbook_url"], notes["dashboard_url"]
    assert relative == absolute


def test_rules_inside_a_config_map_get_them_too() -> None:
    text = (REPOSITORY / "deploy/kubernetes/parts/scrape-config/rules.yaml").read_text(encoding="utf-8")
    files = yaml.safe_load(linked(text, RUNBOOKS, GRAFANA))["data"]
    found = [alert for content in files.values() for alert in alerts(yaml.safe_load(content))]
    assert len(found) > 20
    assert all(alert["annotations"]["runbook_url"].startswith(RUNBOOKS) for alert in found)
    assert all(alert["annotations"]["dashboard_url"].startswith(GRAFANA) for alert in found)


def test_the_copies_are_written_and_can_be_written_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--runbooks", RUNBOOKS, "--grafana", GRAFANA, "--output", str(tmp_path / "rules")]
    assert main(arguments) == 0
    first = {path.name: path.read_bytes() for path in (tmp_path / "rules").iterdir()}
    assert first.keys() == {path.name for path in REPOSITORY.glob("prometheus/rules/*.yml")}
    assert len(capsys.readouterr().out.splitlines()) == len(first)
    assert main([*arguments, *(str(tmp_path / "rules" / name) for name in first)]) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "rules").iterdir()} == first


@pytest.mark.parametrize("address", ["", "grafana.example.com", "ftp://files.example.com", "https://"])
def test_what_is_no_address_is_an_error(address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--runbooks", RUNBOOKS, "--grafana", address, "--output", str(tmp_path)])
    assert f"'{address}' is no address" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
