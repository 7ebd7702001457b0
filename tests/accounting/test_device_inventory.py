"""Every device is shown once: read, pending, or retired after a week."""

from __future__ import annotations

from exporter.accounting.device_inventory import RETIRE_AFTER_SECONDS, DeviceInventory, SavedDevice
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


def test_a_device_that_is_read_is_pending_no_more() -> None:
    inventory = DeviceInventory(saved(PACKAGE, CORE), AT)
    assert (inventory.known, inventory.pending) == ({}, read(PACKAGE, CORE))
    again = Device("package-0", "cpu", "rapl", "measured", "package-0", 8.0)
    inventory.update(read(again), metered=True)
    assert (inventory.known, inventory.pending) == (read(again), read(CORE))
    assert inventory.saved().keys() == {"package-0", "core-0"}


def test_only_what_is_new_is_worth_a_checkpoint() -> None:
    inventory = DeviceInventory({}, AT)
    revisions = []
    for devices in ((PACKAGE,), (PACKAGE,), (), (PACKAGE, CORE)):
        inventory.update(read(*devices), metered=True)
        revisions.append(inventory.revision)
    assert revisions == [1, 1, 1, 2]


def test_who_is_pending_still_includes_others_but_is_no_platform() -> None:
    """Another meter of the whole machine may have its place, and would not count beside it."""
    inventory = DeviceInventory(saved(PACKAGE, PSYS), AT)
    inventory.update(read(CORE, BOARD), metered=True)
    assert inventory.counted == {"package-0"}
    assert [[device.id for device in choice] for choice in inventory.platform_choices] == [["board"]]


def test_who_is_missed_for_a_week_on_end_is_retired() -> None:
    inventory = DeviceInventory(saved(PACKAGE, CORE), AT)
    inventory.update(read(PACKAGE), metered=True)
    inventory.review({"core-0"}, AT + RETIRE_AFTER_SECONDS - 1)
    inventory.review(set(), AT + RETIRE_AFTER_SECONDS)
    inventory.review({"core-0", "package-0"}, AT + RETIRE_AFTER_SECONDS + 1)
    inventory.review({"core-0", "package-0"}, AT + 2 * RETIRE_AFTER_SECONDS)
    assert inventory.take_retired() == []
    assert {entry.missed_since for entry in inventory.saved().values()} == {AT + RETIRE_AFTER_SECONDS + 1}
    inventory.review({"core-0", "package-0"}, AT + 2 * RETIRE_AFTER_SECONDS + 1)
    assert {(device.id, device.component) for device in inventory.take_retired()} == {
        ("package-0", "cpu"),
        ("core-0", None),
    }
    assert (inventory.take_retired(), inventory.saved()) == ([], {})


def test_who_was_read_is_missed_anew() -> None:
    """However long the node is off before it is missed: it was there when the node was last on."""
    inventory = DeviceInventory(saved(PACKAGE), AT)
    inventory.update(read(PACKAGE), metered=True)
    later = DeviceInventory(inventory.saved(), AT + 2 * RETIRE_AFTER_SECONDS)
    later.review({"package-0"}, AT + 2 * RETIRE_AFTER_SECONDS + 600)
    assert later.take_retired() == []


def test_who_will_not_tell_what_it_used_includes_nobody() -> None:
    inventory = DeviceInventory(saved(PACKAGE, CORE), AT, ["package-0"])
    assert (inventory.counted, inventory.superseded) == ({"package-0"}, set())
    inventory.update(read(CORE), metered=True)
    assert (inventory.counted, inventory.superseded) == ({"package-0", "core-0"}, {"package-0"})
    inventory.update(read(PACKAGE, CORE), metered=True)
    assert (inventory.counted, inventory.superseded) == ({"package-0"}, set())


def test_who_was_retired_is_replaced_by_its_parts() -> None:
    inventory = DeviceInventory({}, AT)
    inventory.update(read(PACKAGE, CORE), metered=True)
    for at in (AT, AT + RETIRE_AFTER_SECONDS):
        inventory.review({"package-0"}, at)
    assert (inventory.counted, inventory.superseded) == ({"core-0"}, {"package-0"})


def test_a_wall_clock_that_is_set_back_gives_nobody_up() -> None:
    """Fault 50."""
    inventory = DeviceInventory({"core-0": SavedDevice(CORE, AT)}, AT)
    inventory.review({"core-0"}, 0.0)
    assert inventory.take_retired() == []


def test_a_meter_of_the_cpu_ends_its_stand_in_of_this_run_or_of_the_one_before() -> None:
    inventory = DeviceInventory(saved(ESTIMATE), AT)
    inventory.update(read(PACKAGE), metered=True)
    assert [device.id for device in inventory.take_retired()] == ["cpu-estimate"]
    inventory = DeviceInventory({}, AT)
    inventory.update(read(ESTIMATE), metered=False)
    inventory.update(read(PACKAGE), metered=True)
    assert [(device.id, device.component) for device in inventory.take_retired()] == [("cpu-estimate", "cpu")]
