"""Every device is shown once: read, awaited, or given up after a week."""

from __future__ import annotations

from exporter.accounting.device_inventory import GIVE_UP_SECONDS, Roster, SavedDevice
from exporter.records import Device

PACKAGE = Device("package-0", "cpu", "rapl", "measured", "package-0", 4.0)
CORE = Device("core-0", "cpu", "rapl", "measured", "core", 4.0, within="package-0")
PSYS = Device("psys-0", "platform", "rapl", "measured", "psys", 4.0)
BOARD = Device("board", "platform", "hwmon", "measured", "board", 4.0)
ESTIMATE = Device("cpu-estimate", "cpu", "estimate", "estimated", "cpu", 4.0)
AT = 1.7e9


def saved(*devices: Device) -> dict[str, SavedDevice]:
    return {device.id: SavedDevice(device) for device in devices}


def read(*devices: Device) -> dict[str, Device]:
    return {device.id: device for device in devices}


def test_a_device_that_is_read_is_awaited_no_more() -> None:
    roster = Roster(saved(PACKAGE, CORE), AT)
    assert (roster.known, roster.awaited) == ({}, read(PACKAGE, CORE))
    again = Device("package-0", "cpu", "rapl", "measured", "package-0", 8.0)
    roster.learn(read(again), metered=True)
    assert (roster.known, roster.awaited) == (read(again), read(CORE))
    assert roster.saved().keys() == {"package-0", "core-0"}


def test_only_what_is_new_is_worth_a_checkpoint() -> None:
    roster = Roster({}, AT)
    revisions = []
    for devices in ((PACKAGE,), (PACKAGE,), (), (PACKAGE, CORE)):
        roster.learn(read(*devices), metered=True)
        revisions.append(roster.revision)
    assert revisions == [1, 1, 1, 2]


def test_who_is_awaited_still_includes_others_but_is_no_platform() -> None:
    """Another meter of the whole machine may have its place, and would not count beside it."""
    roster = Roster(saved(PACKAGE, PSYS), AT)
    roster.learn(read(CORE, BOARD), metered=True)
    assert roster.counted == {"package-0"}
    assert roster.platforms == ["board"]


def test_who_is_missed_for_a_week_on_end_is_given_up() -> None:
    roster = Roster(saved(PACKAGE, CORE), AT)
    roster.learn(read(PACKAGE), metered=True)
    roster.review({"core-0"}, AT + GIVE_UP_SECONDS - 1)
    roster.review(set(), AT + GIVE_UP_SECONDS)
    roster.review({"core-0", "package-0"}, AT + GIVE_UP_SECONDS + 1)
    roster.review({"core-0", "package-0"}, AT + 2 * GIVE_UP_SECONDS)
    assert roster.take_gone() == []
    assert {entry.missed_since for entry in roster.saved().values()} == {AT + GIVE_UP_SECONDS + 1}
    roster.review({"core-0", "package-0"}, AT + 2 * GIVE_UP_SECONDS + 1)
    assert {(device.id, device.component) for device in roster.take_gone()} == {("package-0", "cpu"), ("core-0", None)}
    assert (roster.take_gone(), roster.saved()) == ([], {})


def test_who_was_read_is_missed_anew() -> None:
    """However long the node is off before it is missed: it was there when the node was last on."""
    roster = Roster(saved(PACKAGE), AT)
    roster.learn(read(PACKAGE), metered=True)
    later = Roster(roster.saved(), AT + 2 * GIVE_UP_SECONDS)
    later.review({"package-0"}, AT + 2 * GIVE_UP_SECONDS + 600)
    assert later.take_gone() == []


def test_who_will_not_tell_what_it_used_includes_nobody() -> None:
    roster = Roster(saved(PACKAGE, CORE), AT, ["package-0"])
    assert (roster.counted, roster.replaced) == ({"package-0"}, set())
    roster.learn(read(CORE), metered=True)
    assert (roster.counted, roster.replaced) == ({"package-0", "core-0"}, {"package-0"})
    roster.learn(read(PACKAGE, CORE), metered=True)
    assert (roster.counted, roster.replaced) == ({"package-0"}, set())


def test_who_was_given_up_is_replaced_by_its_parts() -> None:
    roster = Roster({}, AT)
    roster.learn(read(PACKAGE, CORE), metered=True)
    for at in (AT, AT + GIVE_UP_SECONDS):
        roster.review({"package-0"}, at)
    assert (roster.counted, roster.replaced) == ({"core-0"}, {"package-0"})


def test_a_wall_clock_that_is_set_back_gives_nobody_up() -> None:
    """Fault 50."""
    roster = Roster({"core-0": SavedDevice(CORE, AT)}, AT)
    roster.review({"core-0"}, 0.0)
    assert roster.take_gone() == []


def test_a_meter_of_the_cpu_ends_its_stand_in_of_this_run_or_of_the_one_before() -> None:
    roster = Roster(saved(ESTIMATE), AT)
    roster.learn(read(PACKAGE), metered=True)
    assert [device.id for device in roster.take_gone()] == ["cpu-estimate"]
    roster = Roster({}, AT)
    roster.learn(read(ESTIMATE), metered=False)
    roster.learn(read(PACKAGE), metered=True)
    assert [(device.id, device.component) for device in roster.take_gone()] == [("cpu-estimate", "cpu")]
