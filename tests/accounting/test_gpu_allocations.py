"""The cluster's name of a card is matched to the cards of the node, and an allocation is valid until the next list."""

from __future__ import annotations

import pytest

from exporter.accounting.gpu_allocations import KEPT_SECONDS, AllocationCache
from exporter.records import Allocation, GpuState

CARD, OTHER = "GPU-1", "GPU-2"
CARDS = (
    GpuState(CARD, "0", pci_bus_id="0000:41:00.0"),
    GpuState(OTHER, "1", pci_bus_id="0000:81:00.0"),
)
CUT = (
    GpuState(CARD, "0", pci_bus_id="0000:41:00.0"),
    GpuState(CARD, "0", "1", mig_uuids=("MIG-a",), slice_ratio=3 / 7, pci_bus_id="0000:41:00.0"),
    GpuState(CARD, "0", "5", mig_uuids=("MIG-b", "MIG-c"), slice_ratio=2 / 7, pci_bus_id="0000:41:00.0"),
)


def given(device: str, share: float = 1.0, gpu_instance: str = "") -> Allocation:
    return Allocation(device, "ns", "pod", "c", share, gpu_instance)


def found(device: str, share: float = 1.0, gpu_instance: str = "", gpu: str = "0") -> Allocation:
    return Allocation(device, "ns", "pod", "c", share, gpu_instance, gpu)


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        (given(CARD), found(CARD)),
        (given(CARD, 2.0), found(CARD, 2.0)),
        (given("0000:41:00.0", 3 / 7), found(CARD, 3 / 7)),
        (given("MIG-a"), found(CARD, 3 / 7, "1")),
        (given("MIG-a", 2.0), found(CARD, 6 / 7, "1")),
        (given("MIG-b"), found(CARD, 1 / 7, "5")),
        (given("0000:41:00.0", 1.0, "5"), found(CARD, 2 / 7, "5")),
        (given(CARD, 1.0, "1"), found(CARD, 3 / 7, "1")),
    ],
)
def test_a_card_is_found_by_each_of_its_names(listed: Allocation, expected: Allocation) -> None:
    assert AllocationCache().update((listed,), CUT, 0.0) == (expected,)


@pytest.mark.parametrize("device", ["GPU-9", "MIG-z", "0000:99:00.0", ""])
def test_what_is_no_card_here_is_left_out(device: str) -> None:
    cards = (*CUT, GpuState("amdgpu", "1"))
    assert AllocationCache().update((given(device), given(CARD, 1.0, "7")), cards, 0.0) == ()


def test_it_counts_until_something_else_is_said() -> None:
    allocations = AllocationCache()
    assert allocations.update(None, CARDS, 0.0) == ()
    assert allocations.update((given(CARD),), CARDS, 1.0) == (found(CARD),)
    assert allocations.update(None, CARDS, 2.0) == (found(CARD),)
    assert allocations.update((given(OTHER),), CARDS, 11.0) == (found(OTHER, gpu="1"),)
    assert allocations.update((), CARDS, 21.0) == ()


def test_a_silent_kubelet_is_believed_for_a_while() -> None:
    """Fault 49: longer than a restart takes, not for ever."""
    allocations = AllocationCache()
    allocations.update((given(CARD),), CARDS, 0.0)
    assert allocations.update(None, CARDS, KEPT_SECONDS) == (found(CARD),)
    assert allocations.update(None, CARDS, KEPT_SECONDS + 1) == ()
    assert allocations.update((given(CARD),), CARDS, KEPT_SECONDS + 2) == (found(CARD),)


def test_cards_may_come_later_than_the_word() -> None:
    allocations = AllocationCache()
    assert allocations.update((given(CARD), given(OTHER)), (), 0.0) == ()
    assert allocations.update(None, CARDS[:1], 1.0) == (found(CARD),)
    assert allocations.update(None, CARDS, 2.0) == (found(CARD), found(OTHER, gpu="1"))


def test_a_card_that_is_silent_is_as_it_was() -> None:
    """One that sleeps or hangs is still given away."""
    allocations = AllocationCache()
    allocations.update((given("MIG-a"), given(OTHER)), (*CUT, CARDS[1]), 0.0)
    expected = (found(CARD, 3 / 7, "1"), found(OTHER, gpu="1"))
    assert allocations.update(None, (), 1.0) == expected
    assert allocations.update(None, CARDS[1:], 2.0) == expected


def test_changed_layout() -> None:
    """Fault 26: the old slices are gone, and may even have passed on their names."""
    allocations = AllocationCache()
    listed = (given("MIG-a"), given("MIG-b"))
    allocations.update(listed, CUT, 0.0)
    changed = GpuState(CARD, "0", "2", mig_uuids=("MIG-b",), slice_ratio=1 / 7)
    assert allocations.update(None, (CUT[0], changed), 1.0) == (found(CARD, 1 / 7, "2"),)
    assert allocations.update(None, CUT[:1], 2.0) == ()


def test_indexes_change_places() -> None:
    """Fault 31."""
    allocations = AllocationCache()
    allocations.update((given(CARD),), CARDS, 0.0)
    swapped = (GpuState(OTHER, "0"), GpuState(CARD, "1"))
    assert allocations.update(None, swapped, 1.0) == (found(CARD, gpu="1"),)
