"""What Grafana makes of a dashboard's JSON against expectation, each seen in its own components (`make grafana-check`).

These hold what the JSON alone shows; what only a rendered page shows is in grafana/render.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from grafana.generate.__main__ import main
from tests.support.boards import BOARDS, panels, queries, variables

boards = pytest.mark.parametrize("uid", BOARDS)

SCALING = {"watt", "kwatth", "watth", "joule", "s", "bytes", "decbytes", "hertz", "short"}
"""Units that Grafana shows with a prefix: with fixed decimals 3.24 kW is "3 kW"."""
PIXELS_PER_COLUMN = (1366 - 2 * 16) / 24
PANEL_EDGES_PIXELS = 8 + 2 * 9
LEAST_PIXELS, FLEXIBLE_PIXELS = 50, 100
"""The least that Grafana draws of a column, and that a name needs in one without a width."""


def properties(panel: dict[str, Any], title: str) -> dict[str, Any]:
    """What overrides set for a column or line."""
    return {
        part["id"]: part["value"]
        for override in panel["fieldConfig"].get("overrides", [])
        if override["matcher"]["options"] == title
        for part in override["properties"]
    }


def tables(uid: str) -> list[tuple[dict[str, Any], dict[str, str]]]:
    """Tables, each with its columns: the title by the field that Grafana makes of the answer."""
    return [
        (panel, part["options"]["renameByName"])
        for panel in panels(BOARDS[uid])
        for part in panel.get("transformations", [])
        if part["id"] == "organize"
    ]


def of_kind(uid: str, kind: str) -> list[dict[str, Any]]:
    return [panel for panel in panels(BOARDS[uid]) if panel["type"] == kind]


def is_value(field: str) -> bool:
    return field.startswith("Value")


@boards
def test_an_empty_cell_has_a_text_of_its_own(uid: str) -> None:
    """Without it, it has the panel's, which also goes into the addresses of links."""
    for panel, columns in tables(uid):
        for field, title in columns.items():
            assert properties(panel, title)["noValue"] == ("–" if is_value(field) else ""), (panel["title"], title)


@boards
def test_annotations_can_show_and_have_words(uid: str) -> None:
    """Grafana shows no sample that is 0, and a mark without formats has only its time."""
    for event in BOARDS[uid]["annotations"]["list"]:
        assert not re.search(r"==\s*0\s*$", event["expr"]), event["name"]
        assert all(event[part] for part in ("titleFormat", "textFormat", "tagKeys")), event["name"]


@boards
def test_alerts_do_not_cover_every_graph(uid: str) -> None:
    (alerts,) = (event for event in BOARDS[uid]["annotations"]["list"] if "ALERTS" in event["expr"])
    assert alerts["enable"] == (uid == "energy-overview")
    assert 'severity="critical"' in alerts["expr"]
    assert all(f'{label}=~"${label}|"' in alerts["expr"] for label in ("cluster", "instance"))


def test_rollouts_are_marked_where_a_model_is_compared_with_itself() -> None:
    names = {event["name"] for event in BOARDS["energy-model"]["annotations"]["list"]}
    assert "Rollouts" in names


@boards
def test_units_that_scale_have_no_fixed_decimals(uid: str) -> None:
    for panel in panels(BOARDS[uid]):
        defaults = panel["fieldConfig"]["defaults"]
        assert not (defaults.get("unit") in SCALING and "decimals" in defaults), panel["title"]
        for override in panel["fieldConfig"].get("overrides", []):
            set_here = {part["id"]: part["value"] for part in override["properties"]}
            assert not (set_here.get("unit") in SCALING and "decimals" in set_here), (panel["title"], override)


@boards
def test_energies_that_are_compared_have_one_unit(uid: str) -> None:
    """In a column or a list of bars: 679.80 Wh below 5.36 kWh looks larger."""
    for panel, columns in tables(uid):
        for title in columns.values():
            unit = properties(panel, title).get("unit", "")
            assert unit not in {"kwatth", "watth", "joule"}, (panel["title"], title)
            assert not unit.startswith("suffix: "), "Grafana adds a blank of its own"
            assert (title == "J/token") == (unit == "suffix:J/token")
    for panel in of_kind(uid, "bargauge"):
        assert panel["fieldConfig"]["defaults"]["unit"] not in {"kwatth", "watth", "joule"}


@boards
def test_what_is_empty_says_so_in_few_letters_and_no_alarming_colour(uid: str) -> None:
    """Text is fitted to the panel, and has the colour of the lowest threshold."""
    for panel in panels(BOARDS[uid]):
        assert len(panel["fieldConfig"]["defaults"]["noValue"]) <= 20, panel["title"]
        if panel["type"] in {"stat", "bargauge"}:
            first = panel["fieldConfig"]["defaults"]["thresholds"]["steps"][0]
            assert first["color"] == "text", panel["title"]
    for panel, columns in tables(uid):
        for title in columns.values():
            if levels := properties(panel, title).get("thresholds"):
                assert levels["steps"][0]["color"] == "text", (panel["title"], title)


def test_no_alert_is_not_said_of_a_prometheus_without_rules() -> None:
    (alerts,) = (panel for panel in panels(BOARDS["energy-overview"]) if panel["title"] == "Alerts")
    assert re.search(r"or vector\(0\)\) and on \(\) group\(", alerts["targets"][0]["expr"])


@boards
def test_bars_have_sizes_that_do_not_follow_their_number(uid: str) -> None:
    for panel in of_kind(uid, "bargauge"):
        options = panel["options"]
        assert (options["sizing"], options["text"]) == ("manual", {"titleSize": 13, "valueSize": 14})
        assert options["minVizHeight"] <= 18 <= options["maxVizHeight"] <= 40


@boards
def test_lines_of_a_panel_have_different_colours(uid: str) -> None:
    """By name, Grafana hashes into few colours: of eight GPUs two pairs were the same."""
    for panel in of_kind(uid, "timeseries"):
        assert panel["fieldConfig"]["defaults"]["color"]["mode"] == "palette-classic"
        fixed = [
            part["value"]["fixedColor"]
            for override in panel["fieldConfig"].get("overrides", [])
            for part in override["properties"]
            if part["id"] == "color"
        ]
        assert len(set(fixed)) == len(fixed), panel["title"]


@boards
def test_an_axis_of_zeros_does_not_end_at_10000_percent(uid: str) -> None:
    for panel in of_kind(uid, "timeseries"):
        defaults = panel["fieldConfig"]["defaults"]
        if defaults["unit"] in {"percentunit", "none", "suffix:/min"} and "max" not in defaults:
            most = defaults["custom"]["axisSoftMax"]
            assert most == (0.001 if defaults["unit"] == "percentunit" else 1), panel["title"]


@boards
def test_tables_are_not_wider_than_their_panels(uid: str) -> None:
    """What is wider pushes its last columns out of sight. All have a column for clusters."""
    for panel, columns in tables(uid):
        widths = [properties(panel, title).get("custom.width", 0) for title in columns.values()]
        assert all(width >= LEAST_PIXELS for width in widths if width), "Grafana draws it wider than it counts it"
        needed = sum(width or FLEXIBLE_PIXELS for width in widths)
        room = panel["gridPos"]["w"] * PIXELS_PER_COLUMN - PANEL_EDGES_PIXELS
        assert needed <= room, (panel["title"], needed, round(room))


@boards
def test_numbers_have_no_curve_through_them(uid: str) -> None:
    for panel in of_kind(uid, "stat"):
        assert (panel["options"]["graphMode"], panel["options"]["wideLayout"]) == ("none", False), panel["title"]


def test_model_detail_opens_on_the_model_that_used_most() -> None:
    variable = variables(BOARDS["energy-model"])["model_name"]
    assert variable["query"].startswith("query_result(topk(")
    assert variable["sort"] == 0
    answered = '{model_name="a/b+c"} 12.5 1767963600000'
    (found,) = re.findall(variable["regex"].strip("/"), answered)
    assert found == "a/b+c"


@boards
def test_what_links_put_into_addresses_is_encoded(uid: str) -> None:
    """Grafana's own encoding leaves + & and # as they are: "R&D" arrives as "R"."""
    put_in = re.findall(r"\$\{__(?:data|field)\.[^}]*\}", json.dumps(BOARDS[uid]["panels"]))
    assert put_in
    assert all(each.endswith(":percentencode}") for each in put_in)


@boards
def test_the_first_minutes_are_to_be_seen(uid: str) -> None:
    of_a_day = {"energy-budgets", "energy-advice"}
    assert BOARDS[uid]["time"]["from"] == ("now-24h" if uid in of_a_day else "now-1h")
    assert BOARDS[uid]["refresh"] == "1m"


def test_the_namespaces_of_a_chosen_pod_are_its_own() -> None:
    for query in queries():
        if query.board == "energy-workloads" and query.panel["title"] != "kWh per day":
            assert 'pod=~"$pod"' in query.expr, query.name


# --- what people expect of a dashboard --------------------------------------------------------------------------------


@boards
def test_graphs_of_power_have_mean_largest_and_last(uid: str) -> None:
    for panel in of_kind(uid, "timeseries"):
        if panel["fieldConfig"]["defaults"]["unit"] == "watt":
            legend = panel["options"]["legend"]
            assert (legend["displayMode"], legend["calcs"]) == ("table", ["mean", "max", "lastNotNull"]), panel["title"]


@boards
def test_tables_add_up_power_and_energy(uid: str) -> None:
    """In the way of Grafana up to 12.1, and in that of later ones."""
    for panel, columns in tables(uid):
        sums = {field for field, title in columns.items() if "custom.footer" in properties(panel, title)}
        footer = panel["options"].get("footer", {})
        assert set(footer.get("fields", ())) == sums, panel["title"]
        if {"Power", "Energy"} & set(columns.values()) and panel["title"] != "Devices":  # devices include each other
            wanted = {field for field, title in columns.items() if title in {"Power", "Energy"}}
            assert wanted <= sums, panel["title"]
            assert (footer["show"], footer["reducer"]) == (True, ["sum"])


@pytest.mark.parametrize("uid", ["energy-models", "energy-model", "energy-workloads"])
def test_energy_per_day_is_shown_as_bars(uid: str) -> None:
    (panel,) = (panel for panel in panels(BOARDS[uid]) if panel["title"] == "kWh per day")
    custom = panel["fieldConfig"]["defaults"]["custom"]
    assert (custom["drawStyle"], custom["stacking"]["mode"], custom["barAlignment"]) == ("bars", "normal", 1)
    assert (panel["timeFrom"], panel["interval"], panel["options"]["legend"]["calcs"]) == ("6d/d", "1d", ["sum"])


def test_power_and_energy_are_compared_with_the_week_before() -> None:
    compared = {query.board for query in queries() if "offset 1w" in query.expr}
    assert compared == {"energy-overview", "energy-models", "energy-model", "energy-nodes", "energy-workloads"}
    for uid in ("energy-overview", "energy-model"):
        (panel,) = (each for each in of_kind(uid, "timeseries") if properties(each, "A week before"))
        before = properties(panel, "A week before")
        assert before["custom.stacking"]["mode"] == "none"
        assert before["custom.lineStyle"]["fill"] == "dash"


@boards
def test_lines_and_bars_lead_to_what_they_are_of(uid: str) -> None:
    for panel in [*of_kind(uid, "timeseries"), *of_kind(uid, "bargauge")]:
        legends = " ".join(target["legendFormat"] for target in panel["targets"])
        links = json.dumps(panel["fieldConfig"]["defaults"].get("links", []))
        for label in ("model_name", "pod", "gpu", "instance", "budget", "namespace"):
            if f"{{{{{label}}}}}" in legends:
                assert f"var-{label}=${{__field.labels.{label}:percentencode}}" in links, (panel["title"], label)


def test_alerts_lead_to_their_runbooks() -> None:
    (panel,) = (panel for panel in panels(BOARDS["energy-overview"]) if panel["title"] == "Firing alerts")
    (link,) = properties(panel, "Alert")["links"]
    assert link["url"] == "${runbooks}/${__data.fields.Alert:percentencode}.md"
    assert variables(BOARDS["energy-overview"])["runbooks"]["type"] == "textbox"


def test_the_address_of_the_runbooks_can_be_built_in(tmp_path: Path) -> None:
    assert main(["--runbooks", "https://docs.example.com/runbooks", str(tmp_path)]) == 0
    board = json.loads((tmp_path / "energy-overview.json").read_text(encoding="utf-8"))
    assert variables(board)["runbooks"]["query"] == "https://docs.example.com/runbooks"


@boards
def test_dashboards_can_be_edited(uid: str) -> None:
    assert BOARDS[uid]["editable"] is True


@boards
def test_titles_are_nouns(uid: str) -> None:
    words = r"\b(held down|given|stumbles?|dearer|who|how|which|what|where|does|is)\b"
    for panel in panels(BOARDS[uid]):
        assert not re.search(words, panel["title"], re.IGNORECASE), panel["title"]
