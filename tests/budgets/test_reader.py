"""Budgets are read strictly: every invalid file gives one message with the line and the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.budgets.budget import WINDOWS
from exporter.budgets.command import run
from exporter.budgets.reader import read
from exporter.config.loading import ConfigError

GOOD = """\
budgets:
  - name: team-a
    selector: {namespace: team-a}
    kwh: 10
    window: day
    owner: team-a
    severity: critical
"""


def problems(path: Path, content: str | bytes) -> tuple[str, ...]:
    """Messages about a file, without its folder."""
    file = path / "b.yaml"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ConfigError) as error:
        read(str(file))
    return tuple(problem.removeprefix(f"{path}/") for problem in error.value.problems)


def test_a_good_file(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(GOOD)
    (budget,) = read(str(tmp_path / "b.yaml"))
    assert budget.amount == 36e6
    assert budget.window is WINDOWS["day"]
    assert budget.selector == (("namespace", "team-a"),)
    assert budget.labels == {"budget": "team-a", "owner": "team-a", "severity": "critical", "window": "day"}


def test_severity_is_warning_unless_given(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(GOOD.replace("    severity: critical\n", ""))
    assert read(str(tmp_path / "b.yaml"))[0].severity == "warning"


WRONG = [
    ("", "1: the file must be a mapping with the key budgets"),
    ("- a\n", "1: the file must be a mapping with the key budgets"),
    (b"budgets:\n- \xff\n", "2: not UTF-8 text"),
    ("budgets:\n  - name: [\n", "3: not YAML: expected the node content, but found '<stream end>'"),
    ("budgets: []\n---\nx: 1\n", "2: not YAML: but found another document"),
    ("a: 1\n" + GOOD, "1: no such key: 'a'"),
    ("budget: []\n", "1: no such key: 'budget'; did you mean budgets?"),
    ("budgets: []\n", "1: budgets must be a list with at least one budget"),
    ("budgets:\n  name: a\n", "2: budgets must be a list with at least one budget"),
    ("budgets:\n  - team-a\n", "2: a budget must be a mapping of name, selector, kwh, grams, cost, currency, window,"),
    (GOOD.replace("kwh:", "kWh:"), "4: budgets: no such key: 'kWh'; did you mean kwh?"),
    (GOOD.replace("selector:", "selectors:"), "3: budgets: no such key: 'selectors'; did you mean selector?"),
    (GOOD.replace("    kwh: 10\n", ""), "2: budgets: one of the keys kwh, grams, cost is missing"),
    (GOOD.replace("    owner: team-a\n", ""), "2: budgets: the key owner is missing"),
    (GOOD + "    kwh: 11\n", "8: budgets: kwh is set twice, first in line 4"),
    (GOOD.replace("kwh: 10", "kwh:"), "4: kwh: has no value"),
    (GOOD.replace("kwh: 10", "kwh: lots"), "4: kwh: 'lots' is not a number from 0 to 1e+09"),
    (GOOD.replace("kwh: 10", "kwh: 0"), "4: kwh: must be above 0"),
    (GOOD.replace("kwh: 10", "kwh: -5"), "4: kwh: '-5' is not a number from 0 to 1e+09"),
    (GOOD.replace("kwh: 10", "kwh: 9999999999"), "4: kwh: 9999999999 is not between 0 and 1e+09"),
    (GOOD.replace("kwh: 10", "kwh: .inf"), "4: kwh: '.inf' is not a number from 0 to 1e+09"),
    (GOOD.replace("kwh: 10", "kwh: [10]"), "4: kwh: must be one value, not a list"),
    (GOOD.replace("owner: team-a", "owner: {team: a}"), "6: owner: must be one value, not a mapping"),
    (
        GOOD.replace("window: day", "window: monthly"),
        "5: window: 'monthly' is not one of hour, day, week, 30d, month; take month, or 30d",
    ),
    (GOOD.replace("window: day", "window: 7d"), "5: window: '7d' is not one of hour, day, week, 30d, month"),
    (GOOD.replace("critical", "fatal"), "7: severity: 'fatal' is not one of critical, warning, info"),
    (
        GOOD.replace("name: team-a", "name: Team A"),
        "2: name: 'Team A' is not 1 to 63 of lower-case letters, digits and dashes",
    ),
    (
        GOOD.replace("owner: team-a", 'owner: "a\\nb"'),
        "6: owner: 'a\\nb' is not 1 to 63 of letters, digits and . _ @ -",
    ),
    (
        GOOD.replace("{namespace: team-a}", "team-a"),
        "3: selector: must be a mapping of labels, such as {namespace: team-a}",
    ),
    (
        GOOD.replace("{namespace: team-a}", "{}"),
        "3: selector: must be a mapping of labels, such as {namespace: team-a}",
    ),
    (GOOD.replace("namespace:", "namspace:"), "3: selector.namspace: is no such label; did you mean namespace?"),
    (GOOD.replace("namespace:", "a-b:"), "3: selector.a-b: is not the name of a label"),
    (GOOD.replace("namespace: team-a}", 'namespace: ""}'), "3: selector.namespace: has no value"),
    (GOOD.replace("namespace: team-a}", 'namespace: "a,,b"}'), "3: selector.namespace: has an empty item"),
    (GOOD.replace("namespace: team-a}", "namespace: [a, b]}"), "3: selector.namespace: must be one value, not a list"),
    (GOOD.replace("namespace: team-a", "phase: serving"), "3: selector.phase: 'serving' is not one of training,"),
    (GOOD.replace("namespace: team-a", "node: a, instance: b"), "3: selector.instance: instance is selected twice"),
    (GOOD.replace("namespace: team-a", "model: m, pod: p"), "3: selector: pod cannot be combined with model_name"),
    (GOOD.replace("namespace: team-a", "uuid: GPU-1"), "3: selector.uuid: cannot be selected: no joules of nodes,"),
    (GOOD + "    grams: 5\n", "8: grams: a budget is an amount of one thing, and has kwh"),
    (GOOD + "    currency: EUR\n", "8: currency: only a budget of cost has one"),
    (GOOD.replace("kwh:", "cost:"), "2: budgets: the key currency is missing"),
    (GOOD.replace("kwh:", "cost:") + "    currency: euro\n", "8: currency: 'euro' is not a code such as EUR"),
    (GOOD.replace("kwh: 10", "grams: none"), "4: grams: 'none' is not a number from 0 to 1e+09"),
    (
        GOOD.replace("kwh:", "grams:").replace("namespace: team-a", "component: gpu"),
        "3: selector.component: grams are counted for all components together",
    ),
    (GOOD + GOOD.removeprefix("budgets:\n"), "8: name: 'team-a' is taken by the budget in line 2"),
    (
        GOOD + GOOD.removeprefix("budgets:\n").replace("name: team-a", "name: other"),
        "9: selector: 'team-a' has the same selector and window",
    ),
]


@pytest.mark.parametrize(("content", "message"), WRONG, ids=lambda value: None)
def test_an_invalid_file_gives_one_message_with_line_and_key_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | bytes, message: str
) -> None:
    (found,) = problems(tmp_path, content)
    assert found.startswith(f"b.yaml:{message}")
    assert run([str(tmp_path / "b.yaml")]) == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err == f"{tmp_path}/{found}\n"
    assert len(written.err.splitlines()) == 1


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        read(str(tmp_path / "none.yaml"))
    assert error.value.problems == (f"{tmp_path}/none.yaml: No such file or directory",)


def test_all_errors_are_reported_together(tmp_path: Path) -> None:
    wrong = GOOD.replace("kwh: 10", "kwh: x").replace("window: day", "window: y").replace("critical", "z")
    assert [line.split(":")[2].strip() for line in problems(tmp_path, wrong)] == ["kwh", "window", "severity"]
