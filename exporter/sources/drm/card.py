"""AMD and Intel cards: which exist, their ids, and which meter measures each."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping

from ...host import Host, KeptFile, list_dir
from ...records import Unavailable

DRIVERS = ("amdgpu", "i915", "xe")
"""Supported drivers. NVIDIA's is read through NVML; nouveau, ast, virtio and simpledrm report nothing."""

PARTITION = ""
"""Address of a node that is a partition of a card (MI300's amdgpu_xcp): its fdinfo contains the card's address."""

_TWO_DIES = frozenset({"0x7408", "0x740c"})
"""PCI ids of MI250 and MI250X: two GPUs on one card, of which the first reports the power of both."""

_UNIQUE_ID = re.compile(r"[0-9a-f]{16}")


def gpu_id(host: Host, driver: str, address: str, folder: str) -> str:
    """Id of a card, from its driver, PCI address and device folder in /sys.

    AMD cards have a ``unique_id``, which ROCm shows as ``GPU-<number>`` and which stays the same in another slot. All
    others are identified by driver and address.
    """
    if driver == "amdgpu":
        try:
            number = host.text(f"{folder}/unique_id").lower()
        except Unavailable:
            number = ""
        if _UNIQUE_ID.fullmatch(number) and number.strip("0"):
            return f"GPU-{number}"
    return f"{driver}-{address}"


class DrmCard:
    """One card. ``share`` is its part of the meter ``device``: one half where two GPUs share a meter."""

    def __init__(self, host: Host, driver: str, address: str, folder: str) -> None:
        self.driver = driver
        self.address = address
        self.folder = folder
        self.device = gpu_id(host, driver, address, folder)
        self.share = 1.0
        self._status = _keep(host, f"{folder}/power/runtime_status")
        self._busy = _keep(host, f"{folder}/gpu_busy_percent")

    def suspended(self) -> bool:
        """Whether it is suspended or suspending: then it is not in use, and reading it would wake it."""
        try:
            return self._status is not None and self._status.read(32).startswith(b"suspend")
        except Unavailable:
            return False

    def busy_ratio(self) -> float | None:
        """How busy its shaders are, 0 to 1, averaged by the firmware; None where it does not report that."""
        try:
            return None if self._busy is None else min(1.0, self._busy.counter() / 100)
        except Unavailable:
            return None

    def close(self) -> None:
        """Close its files."""
        for file in (self._status, self._busy):
            if file is not None:
                file.close()


def find_cards(host: Host) -> tuple[dict[str, DrmCard], dict[str, str]]:
    """Cards by PCI address, and the PCI address of each of their nodes in /dev/dri."""
    cards: dict[str, DrmCard] = {}
    nodes: dict[str, str] = {}
    for node, driver, address, folder in _nodes(host):
        nodes[node] = address
        if address and address not in cards:
            cards[address] = DrmCard(host, driver, address, folder)
    in_order = [cards[address] for address in sorted(cards)]
    counts = Counter(card.device for card in in_order)
    for card in in_order:
        if counts[card.device] > 1:  # like the ids of their meters
            card.device = f"{card.device}@{card.address}"
    _pair(host, in_order)
    _share_slots(in_order)
    return cards, nodes


def _nodes(host: Host) -> Iterator[tuple[str, str, str, str]]:
    """Name, driver, address and device folder of every card and render node with a supported driver."""
    root = host.sys("class/drm")
    try:
        names = list_dir(root)
    except Unavailable:
        return
    for name in names:
        if not re.fullmatch(r"(card|renderD)\d+", name):
            continue  # a connector, or the version file
        folder = f"{root}/{name}/device"
        address = os.path.basename(os.path.realpath(folder))
        if address.startswith("amdgpu_xcp"):
            yield name, "amdgpu", PARTITION, folder
            continue
        driver = _uevent(host, folder).get("DRIVER", "")
        if driver in DRIVERS:
            yield name, driver, address, folder


def _pair(host: Host, in_order: list[DrmCard]) -> None:
    """Assign the meter of the first die of each MI250 to both dies: they are adjacent on the bus."""
    dies = [card for card in in_order if card.driver == "amdgpu" and _pci_id(host, card.folder) in _TWO_DIES]
    if len(dies) % 2:
        return  # one die is passed through to a virtual machine
    for first, second in zip(dies[::2], dies[1::2], strict=True):
        second.device = first.device
        first.share = second.share = 0.5


def _share_slots(in_order: list[DrmCard]) -> None:
    """Assign the meter of the first function of each slot to all: partitions of a card share its socket."""
    slots: dict[str, list[DrmCard]] = {}
    for card in in_order:
        if card.driver == "amdgpu":
            slots.setdefault(card.address.rpartition(".")[0], []).append(card)
    for cards in slots.values():
        for card in cards if len(cards) > 1 else ():
            card.device, card.share = cards[0].device, 1.0 / len(cards)


def _pci_id(host: Host, folder: str) -> str:
    try:
        return host.text(f"{folder}/device").lower()
    except Unavailable:
        return ""


def _uevent(host: Host, folder: str) -> Mapping[str, str]:
    try:
        lines = host.text(f"{folder}/uevent").splitlines()
    except Unavailable:
        return {}
    return dict(line.partition("=")[::2] for line in lines)


def _keep(host: Host, path: str) -> KeptFile | None:
    try:
        return host.keep(path)
    except Unavailable:
        return None
