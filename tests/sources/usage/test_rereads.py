"""Titles that a program sets late, as vLLM does half a minute after its start."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.written_cgroups import WrittenMachine


@pytest.mark.parametrize("set_after", [3, 25, 70])
def test_a_title_set_late_is_shown(tmp_path: Path, set_after: int) -> None:
    machine = WrittenMachine(tmp_path, "")
    machine.group("/a.service")
    machine.tick()
    machine.group("/a.service", 7)
    machine.process(7, comm="python3")
    for second in range(2 * set_after + 15):
        if second == set_after:
            machine.process(7, comm="VLLM::EngineCor")
        machine.run("/a.service", 7, 0.2)
        machine.tick()
    assert machine.shown[7] == "VLLM::EngineCor"


def test_a_title_set_after_the_exporter_started_is_shown(tmp_path: Path) -> None:
    machine = WrittenMachine(tmp_path, "")
    machine.group("/a.service", 7)
    machine.process(7, comm="python3")
    machine.tick()
    machine.process(7, comm="ray::Actor.step")
    for _ in range(70):
        machine.run("/a.service", 7, 0.2)
        machine.tick()
    assert machine.shown[7] == "ray::Actor.step"


def test_processes_that_do_not_run_are_not_read(tmp_path: Path) -> None:
    machine = WrittenMachine(tmp_path, "")
    machine.group("/a.service", 7, 8)
    machine.process(7, comm="busy")
    machine.process(8, comm="idle")
    machine.tick()
    for second in range(400):
        if second == 70:
            (tmp_path / "proc/8/stat").write_text("not read")
        machine.run("/a.service", 7, 0.2)
        machine.used["/a.service"] += 0.0
        machine.tick()
    assert machine.shown[7] == "busy"
