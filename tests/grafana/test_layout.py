"""Dashboards are read at a glance, lead onward, and their colours mean the same thing everywhere."""

from __future__ import annotations

import re
from itertools import combinations
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from grafana.generate import palette
from grafana.generate.links import KEPT
from tests.support.boards import BOARDS, panels, variables

boards = pytest.mark.parametrize("uid", BOARDS)

PIXELS_PER_COLUMN = (1366 - 2 * 16) / 24
PIXELS_PER_LETTER = 7.3
ICONS_PIXELS = 106
"""What a panel's edges and the icons beside its title take: information and link."""
SCREEN_ROWS = 16
"""Grid units below the head of a dashboard on a screen of 1366 × 768."""


@boards
def test_panels_fill_the_width_and_do_not_overlap(uid: str) -> None:
    open_panels = [panel for panel in BOARDS[uid]["panels"] if panel["type"] != "row"]
    for one, other in combinations([panel["gridPos"] for panel in open_panels], 2):
        apart = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert apart or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
    lines: dict[int, int] = {}
    for panel in open_panels:
        lines[panel["gridPos"]["y"]] = lines.get(panel["gridPos"]["y"], 0) + panel["gridPos"]["w"]
    assert set(lines.values()) == {24}


@boards
def test_the_first_screen_answers_with_few_panels(uid: str) -> None:
    first = [panel for panel in BOARDS[uid]["panels"] if panel["gridPos"]["y"] < SCREEN_ROWS]
    assert 5 <= len(first) <= 11
    assert sum(1 for panel in BOARDS[uid]["panels"] if panel["type"] != "row") <= 20
    assert sum(1 for panel in panels(BOARDS[uid])) <= 24


@boards
def test_titles_fit_above_their_panels(uid: str) -> None:
    for panel in panels(BOARDS[uid]):
        room = panel["gridPos"]["w"] * PIXELS_PER_COLUMN - ICONS_PIXELS
        assert len(panel["title"]) * PIXELS_PER_LETTER <= room, panel["title"]


def links(panel: dict[str, Any]) -> list[dict[str, Any]]:
    """Those of the panel itself, of its bars, and of a table's cells."""
    found = [*panel.get("links", []), *panel["fieldConfig"]["defaults"].get("links", [])]
    for override in panel["fieldConfig"].get("overrides", []):
        for part in override["properties"]:
            if part["id"] == "links":
                found += part["value"]
    return found


@boards
def test_every_panel_leads_onward(uid: str) -> None:
    for panel in panels(BOARDS[uid]):
        assert links(panel), panel["title"]


@boards
def test_links_lead_to_dashboards_and_keep_what_was_chosen(uid: str) -> None:
    for panel in panels(BOARDS[uid]):
        titles = _columns(panel)
        for link in links(panel):
            assert link["title"]
            if link["url"] == "${runbooks}/${__data.fields.Alert:percentencode}.md":
                continue
            address = urlsplit(link["url"])
            target = address.path.removeprefix("/d/")
            assert target in BOARDS, link["url"]
            set_here = dict(parse_qsl(address.query.replace("${__url_time_range}", "")))
            for name in KEPT:
                assert f"${{{name}:queryparam}}" in address.query or f"var-{name}" in set_here
            assert address.query.endswith("${__url_time_range}")
            for name, value in set_here.items():
                if name.startswith("var-"):
                    assert name.removeprefix("var-") in variables(BOARDS[target]), link["url"]
                if field := re.fullmatch(r"\$\{__data\.fields\.(.+):percentencode\}", value):
                    assert field[1] in titles, link["url"]


def _columns(panel: dict[str, Any]) -> set[str]:
    return {
        title
        for part in panel.get("transformations", [])
        if part["id"] == "organize"
        for title in part["options"]["renameByName"].values()
    }


@boards
def test_the_head_leads_to_all_others(uid: str) -> None:
    (menu,) = BOARDS[uid]["links"]
    assert (menu["type"], menu["asDropdown"], menu["includeVars"], menu["keepTime"]) == ("dashboards", True, True, True)
    assert menu["tags"] == BOARDS[uid]["tags"]


def colours(place: Any) -> set[str]:
    """Every colour that is named somewhere below."""
    if isinstance(place, dict):
        own = {place[key] for key in ("color", "fixedColor") if isinstance(place.get(key), str)}
        return own.union(*map(colours, place.values()))
    if isinstance(place, list):
        return set().union(*map(colours, place))
    return set()


def meanings() -> set[str]:
    found: set[str] = set()
    for name, value in vars(palette).items():
        if isinstance(value, dict):
            found |= {colour for colour in value.values() if isinstance(colour, str)}
        elif isinstance(value, str) and (value.startswith("#") or name in {"TEXT", "GOOD", "WARN", "BAD"}):
            found.add(value)
    return found


LOSS_SHADES = {"#7A86D9", "#A58FBF"}
"""Kernel and exited processes, on one panel only."""


@boards
def test_colours_are_those_that_mean_something(uid: str) -> None:
    assert colours(BOARDS[uid]["panels"]) <= meanings() | LOSS_SHADES | {"transparent"}


def test_what_is_told_apart_has_colours_of_its_own() -> None:
    uses = [palette.ACTIVE, palette.HELD_IDLE, palette.NODE_IDLE, palette.LOST]
    for group in (palette.COMPONENT.values(), palette.PHASE.values(), palette.MODE.values(), uses):
        assert len(set(group)) == len(list(group))
    assert set(palette.MODE.values()) == {palette.ACTIVE, palette.HELD_IDLE}


@boards
def test_columns_of_tables_have_titles_of_their_own(uid: str) -> None:
    for panel in panels(BOARDS[uid]):
        if panel["type"] == "table":
            (organize,) = (part["options"] for part in panel["transformations"] if part["id"] == "organize")
            titles = list(organize["renameByName"].values())
            assert len(set(titles)) == len(titles)
            assert {sort["displayName"] for sort in panel["options"]["sortBy"]} <= set(titles)
            named = {override["matcher"]["options"] for override in panel["fieldConfig"].get("overrides", [])}
            assert named <= set(titles)
