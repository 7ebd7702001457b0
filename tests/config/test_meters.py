"""Meters of one's own: parsing, units, and errors of one line with file, line and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.config.loading import ConfigError, load
from exporter.config.meters import MeterSetting

GOOD = """\
- name: pdu
  command: [snmpget, -v2c, pdu-3]
  unit: kWh
  scale: 0.1
  scope: outlet
- name: rail
  file: /run/lab/value
  unit: µW
  component: cpu
  contains: [package-*, dram-0]
"""


def of_file(folder: Path, text: str) -> tuple[MeterSetting, ...]:
    """The meters of a file of their own."""
    path = folder / "m.yml"
    path.write_text(text)
    return load({"meters.file": str(path)}, {}).meters


def problems(folder: Path, text: str) -> list[str]:
    """Every error, without the folder."""
    with pytest.raises(ConfigError) as caught:
        of_file(folder, text)
    return [line.replace(f"{folder}/", "") for line in caught.value.problems]


def test_units_become_joules_and_watts(tmp_path: Path) -> None:
    pdu, rail = of_file(tmp_path, GOOD)
    assert (pdu.counter, pdu.factor, pdu.step_joules, pdu.interval_seconds) == (True, 0.1 * 3.6e6, 0.1 * 3.6e6, 10.0)
    assert (rail.counter, rail.factor, rail.step_joules, rail.interval_seconds) == (False, 1e-6, 0.0, 1.0)
    assert (pdu.command, rail.contains) == (("snmpget", "-v2c", "pdu-3"), ("package-*", "dram-0"))


def test_the_same_in_the_configuration_and_by_flag(tmp_path: Path) -> None:
    path = tmp_path / "c.yml"
    path.write_text("meters:\n" + "".join(f"  {line}\n" for line in GOOD.splitlines()))
    expected = of_file(tmp_path, GOOD)
    assert load({"config.file": str(path)}, {}).meters == expected
    assert load({"meters": ["{name: a, file: /a, unit: J}"]}, {}).meters[0].name == "a"
    assert load({"config.file": str(path)}, {"AI_ENERGY_METERS": "{name: b, file: /b, unit: W}"}).meters[0].name == "b"


def test_both_places_are_added(tmp_path: Path) -> None:
    (tmp_path / "m.yml").write_text(GOOD)
    (tmp_path / "c.yml").write_text(f"meters: [{{name: x, file: /x, unit: J}}]\nmeters.file: {tmp_path}/m.yml\n")
    assert [one.name for one in load({"config.file": str(tmp_path / "c.yml")}, {}).meters] == ["x", "pdu", "rail"]


def test_a_command_as_text_is_split_without_a_shell(tmp_path: Path) -> None:
    (meter,) = of_file(tmp_path, "{name: a, unit: W, command: 'ipmitool -x \"a b\" $HOME ;reboot'}")
    assert meter.command == ("ipmitool", "-x", "a b", "$HOME", ";reboot")


def test_wrap_and_step_are_in_the_meters_own_numbers(tmp_path: Path) -> None:
    (meter,) = of_file(tmp_path, "{name: a, unit: mJ, file: /a, scale: 15.259, wrap: 4294967296, step: 2}")
    assert meter.wraps_at == pytest.approx(4294967296 * 15.259e-3)
    assert meter.step_joules == pytest.approx(2 * 15.259e-3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- name: a\n  fiel: /a\n  unit: J", "m.yml:2: meters: unknown key: 'fiel'; did you mean file?"),
        ("- name: a\n  unit: J", "m.yml:1: meters: a meter needs either file or command"),
        ("- name: a\n  file: /a\n  command: b\n  unit: J", "m.yml:1: meters: a meter needs either file or command"),
        ("- file: /a\n  unit: J", "m.yml:1: meters: a meter needs name"),
        ("- name: a\n  file: /a", "m.yml:1: meters: a meter needs unit"),
        ("- name: A b\n  file: /a\n  unit: J", "m.yml:1: meters: name: 'A b' is not a name of letters a-z, digits, "),
        ("- name: a\n  file: a\n  unit: J", "m.yml:2: meters: file: 'a' is not an absolute path"),
        ("- name: a\n  file: /a\n  unit: joule", "m.yml:3: meters: unit: 'joule' is not one of nJ, uJ, mJ, J, kJ, "),
        (
            "- name: a\n  file: /a\n  unit: W\n  kind: counter",
            "m.yml:4: meters: kind: a counter needs one of the units",
        ),
        (
            "- name: a\n  file: /a\n  unit: J\n  kind: gauge",
            "m.yml:4: meters: kind: a gauge needs one of the units uW, ",
        ),
        ("- name: a\n  file: /a\n  unit: W\n  wrap: 9", "m.yml:4: meters: wrap: only a counter has one"),
        ("- name: a\n  file: /a\n  unit: J\n  scale: -1", "m.yml:4: meters: scale: '-1' is not a number from"),
        ("- name: a\n  command: ''\n  unit: J", "m.yml:2: meters: command: is empty"),
        ("- name: a\n  command: 'x \"y'\n  unit: J", "m.yml:2: meters: command: No closing quotation"),
        ("- name: a\n  file: /a\n  unit: J\n  pattern: '['", "m.yml:4: meters: pattern: '[' is not a regular expres"),
        ("- name: a\n  file: /a\n  unit: J\n  pattern: abc", "m.yml:4: meters: pattern: 'abc' needs one group"),
        ("- name: a\n  file: /a\n  unit: J\n  matches: sum", "m.yml:4: meters: matches: needs a pattern"),
        ("- name: a\n  file: /a\n  unit: J\n  component: fan", "m.yml:4: meters: component: 'fan' is not one of cpu, "),
        (
            "- name: a\n  file: /a\n  unit: J\n  component: cpu\n  scope: node",
            "m.yml:5: meters: scope: only of component platform",
        ),
        (
            "- name: a\n  file: /a\n  unit: J\n  inside: custom-a",
            "m.yml:4: meters: inside: a meter is not inside itself",
        ),
        ("- name: a\n  file: /a\n  unit: J\n  interval: 10ms", "m.yml:4: meters: interval: 10ms is not between 1s"),
        ("- name: a\n  file: [/a]\n  unit: J", "m.yml:2: meters: file must not be a list"),
        (
            "- {name: a, file: /a, unit: J}\n- {name: a, file: /b, unit: J}",
            "m.yml:2: meters: two meters are named 'a'",
        ),
        ("- name: [", "m.yml: meters: 1: not YAML"),
        ("", "m.yml: meters: is empty"),
        ("just text", "m.yml: meters: must be a list of mappings"),
    ],
)
def test_an_error_names_file_line_and_key(tmp_path: Path, text: str, expected: str) -> None:
    assert problems(tmp_path, text)[0].startswith(expected)


def test_all_errors_are_reported(tmp_path: Path) -> None:
    assert len(problems(tmp_path, "- {name: a, file: b, unit: x}\n- {name: c, command: d, unit: W, wrap: 1}")) == 3


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load({"meters.file": str(tmp_path / "none.yml")}, {})
    assert caught.value.problems == (f"{tmp_path}/none.yml: meters: No such file or directory",)


def test_a_name_in_both_places_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "m.yml").write_text(GOOD)
    with pytest.raises(ConfigError) as caught:
        load({"meters.file": str(tmp_path / "m.yml"), "meters": ["{name: pdu, file: /x, unit: J}"]}, {})
    assert "another meter is named 'pdu' already" in caught.value.problems[0]
