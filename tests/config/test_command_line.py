"""The command line: every setting has a flag, the help lists all of them, and usage errors exit with 2."""

from __future__ import annotations

import re

import pytest

from exporter import __version__
from exporter.config.command_line import TITLES, parse
from exporter.config.settings_table import TABLE

KNOWN = "(commands: doctor, healthcheck, explain, run, report, advise, compare, trace, budgets)"


def rejected(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Return the first line of the usage error."""
    with pytest.raises(SystemExit) as leave:
        parse(words)
    assert leave.value.code == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.count("\n") == 2
    return written.err.splitlines()[0]


def test_only_what_was_given_is_a_flag() -> None:
    arguments = parse([])
    assert arguments.flags == {}
    assert (arguments.command, arguments.once, arguments.check) == ("", False, False)


def test_flags_are_passed_on_unparsed() -> None:
    words = "--web.listen-address=:1 --web.listen-address [::1]:2 --no-source.rapl --source.hwmon --idle.watts a=1"
    assert parse(words.split()).flags == {
        "web.listen-address": [":1", "[::1]:2"],
        "source.rapl": False,
        "source.hwmon": True,
        "idle.watts": ["a=1"],
    }


@pytest.mark.parametrize("words", ["doctor --path.procfs /p", "--path.procfs /p doctor"])
def test_the_command_may_come_first_or_last(words: str) -> None:
    arguments = parse(words.split())
    assert arguments.command == "doctor"
    assert arguments.flags == {"path.procfs": "/p"}


def test_modes() -> None:
    assert parse(["--once"]).once
    assert parse(["--config.check"]).check
    assert parse(["--demo"]).flags == {"demo": True}


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("--web.listen-adress :1", "unknown flag: --web.listen-adress; did you mean --web.listen-address?"),
        ("--no-process.top", "unknown flag: --no-process.top"),
        ("--process 3", "unknown flag: --process"),
        ("--process.top", "argument --process.top: expected one argument"),
        ("--once=3", "argument --once: ignored explicit argument '3'"),
        ("serve", f"unknown command: 'serve' {KNOWN}"),
        (
            "docter",
            f"unknown command: 'docter'; did you mean doctor? {KNOWN}",
        ),
        (
            "--demo docter",
            f"unknown command: 'docter'; did you mean doctor? {KNOWN}",
        ),
        (
            "budgts b.yaml --output r.yml",
            f"unknown command: 'budgts'; did you mean budgets? {KNOWN}",
        ),
        ("--demo budgets b.yaml", "budgets must come before all flags: ai-energy-exporter budgets FILE"),
        ("doctor doctor", "unrecognized arguments: doctor"),
        ("-x", "unrecognized arguments: -x"),
        ("--", ""),
    ],
)
def test_usage_errors(capsys: pytest.CaptureFixture[str], words: str, error: str) -> None:
    if error:
        assert error in rejected(capsys, *words.split())
    else:
        assert parse(words.split()).flags == {}


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leave:
        parse(["--version"])
    assert leave.value.code == 0
    assert capsys.readouterr().out == f"ai-energy-exporter {__version__}\n"


def test_help_lists_every_setting_with_variable_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leave:
        parse(["--help"])
    assert leave.value.code == 0
    page = capsys.readouterr().out
    flat = re.sub(r"\s+", " ", page)
    for name, row in TABLE.items():
        assert f" --{name}" in flat
        assert f"[{row.variable}]" in flat
        assert row.help in flat
    assert "Default: 127.0.0.1:9400." in flat
    assert max(map(len, page.splitlines())) <= 100


def test_every_group_of_settings_has_a_title() -> None:
    assert set(TITLES) == {name.partition(".")[0] for name in TABLE}
