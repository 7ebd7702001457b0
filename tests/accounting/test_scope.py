"""Joules of a machine are divided by the busy time of that machine, or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.accounting.scope import ScopeCheck
from exporter.records import CpuUse, MachineUse

PARTIAL = "only our own subtree"


def used(seconds: float) -> CpuUse:
    return CpuUse(0.0, 1.0, seconds)


def test_the_whole_machine_is_divided_as_it_is() -> None:
    check = ScopeCheck()
    assert check.apply(used(2.0), MachineUse(2.0, 1.0), metered=True) == (used(2.0), True)
    assert check.problems == ()


@given(st.lists(st.tuples(st.floats(0, 4), st.floats(0, 4)), min_size=1, max_size=50))
def test_what_others_used_is_outside_and_never_negative(ticks: list[tuple[float, float]]) -> None:
    check = ScopeCheck()
    for own, others in ticks:
        cpu, divisible = check.apply(used(own), MachineUse(own + others, 1.0, PARTIAL), metered=True)
        assert divisible
        assert cpu is not None
        assert cpu.outside_seconds == pytest.approx(others, abs=1e-9)
        assert cpu.busy_seconds == pytest.approx(own + cpu.outside_seconds)


def test_processes_of_unknown_groups_are_outside_as_well() -> None:
    check = ScopeCheck()
    own = CpuUse(0.0, 1.0, 2.0, outside_seconds=0.5)
    cpu, _ = check.apply(own, MachineUse(3.0, 1.0, PARTIAL), metered=True)
    assert cpu is not None
    assert (cpu.busy_seconds, cpu.outside_seconds) == (3.0, 1.5)


def test_rounding_of_proc_stat_is_made_up_for() -> None:
    """Groups are counted in microseconds, /proc/stat in ticks of 10 ms: 5 ms a second arrive as 10 every other time."""
    check = ScopeCheck()
    outside = 0.0
    for tick in range(100):
        cpu, _ = check.apply(used(0.005), MachineUse(0.01 * (tick % 2), 1.0, PARTIAL), metered=True)
        assert cpu is not None
        outside += cpu.outside_seconds
    assert outside == pytest.approx(0.0, abs=0.011)


def test_without_the_machines_busy_time_a_part_is_not_divided() -> None:
    check = ScopeCheck()
    assert check.apply(used(1.0), MachineUse(None, 1.0, PARTIAL), metered=True) == (used(1.0), False)
    (problem,) = check.problems
    assert problem.reason == "not_found"
    assert PARTIAL in problem.message
    assert problem.fix


def test_an_estimate_is_of_the_visible_part() -> None:
    check = ScopeCheck()
    assert check.apply(used(1.0), MachineUse(None, 1.0, PARTIAL), metered=False) == (used(1.0), True)
    assert check.problems == ()


@pytest.mark.parametrize(
    ("grouped", "counted", "implausible"),
    [
        (1.0, 0.0, True),  # another machine's /proc/stat
        (0.5, 2.0, True),  # a part of the cgroups
        (1.0, 1.2, False),  # less than a quarter: interrupts
        (0.0, 0.09, False),  # less than a tenth of a CPU
    ],
)
def test_sums_that_contradict_each_other_for_a_minute(grouped: float, counted: float, *, implausible: bool) -> None:
    check = ScopeCheck()
    for _ in range(61):
        check.apply(used(grouped), MachineUse(counted, 1.0), metered=True)
    assert [problem.reason for problem in check.problems] == ["implausible"] * implausible
    for _ in range(61):
        check.apply(used(1.0), MachineUse(1.0, 1.0), metered=True)
    for _ in range(61):
        check.apply(used(1.0), MachineUse(1.0, 1.0), metered=True)
    assert check.problems == ()


def test_a_time_without_readable_groups_is_not_compared() -> None:
    """The sums of busy time would be of different times: 2 CPUs all the while, the groups unread for 40 seconds."""
    check = ScopeCheck()
    for second in range(300):
        away = 100 <= second < 140
        cpu = None if away else CpuUse(0.0, 41.0 if second == 140 else 1.0, 82.0 if second == 140 else 2.0)
        check.apply(cpu, MachineUse(2.0, 1.0), metered=True)
        assert check.problems == ()
