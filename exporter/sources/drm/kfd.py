"""Processes that compute on AMD cards through ROCm: /sys/class/kfd/kfd (drivers/gpu/drm/amd/amdkfd/kfd_process.c)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import NamedTuple

from ...host import Host, names_in
from ...records import Unavailable

_QUEUES_SECONDS = 5.0
"""How often to read on which cards a process has queues: they are created with its first kernel and stay."""


class Node(NamedTuple):
    """One compute node: the card's PCI address and how many compute units it has there (0 is unknown)."""

    address: str
    compute_units: int


class Kfd:
    """ROCm's processes and the cards on which they have queues.

    Programs write to the queues from user space, so the driver counts no busy time for them: fdinfo shows none, and the
    only value per process is ``cu_occupancy``, the compute units occupied at the moment of the read, which GPUs after
    gfx9 (Instinct MI, Vega) do not have. The pids in the directory are those of the host's own namespace.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._root = host.sys("class/kfd/kfd")
        self._nodes: dict[str, Node] = {}
        self._queues: dict[int, tuple[float, frozenset[str]]] = {}

    def find_nodes(self, cards: Collection[str]) -> None:
        """Find the compute nodes of these cards."""
        root = f"{self._root}/topology/nodes"
        self._nodes = {}
        for name in names_in(root):
            try:
                gpu = self._host.text(f"{root}/{name}/gpu_id")
                text = self._host.text(f"{root}/{name}/properties")
            except Unavailable:
                continue
            if gpu.strip("0"):  # 0 is a CPU
                self._nodes[gpu] = _node(text, cards)

    def processes(self, now: float) -> dict[str, set[int]]:
        """Pids by the address of the cards they have queues on."""
        found: defaultdict[str, set[int]] = defaultdict(set)
        pids = [int(name) for name in names_in(f"{self._root}/proc") if name.isdigit()] if self._nodes else []
        for pid in pids:
            looked_at, gpus = self._queues.get(pid, (float("-inf"), frozenset()))
            if now - looked_at >= _QUEUES_SECONDS or not gpus:
                gpus = self._gpus(pid)
                self._queues[pid] = (now, gpus)
            for gpu in gpus:
                if gpu in self._nodes:
                    found[self._nodes[gpu].address].add(pid)
        for pid in self._queues.keys() - set(pids):
            del self._queues[pid]
        return found

    def occupancy(self, pid: int, address: str) -> float | None:
        """Share (0 to 1) of a card's compute units that a process occupies now; None where the driver has no value.

        A snapshot without averaging, and on several dies extrapolated from the first one: suitable to compare
        processes, not to measure one.
        """
        occupied = units = 0
        for gpu in self._queues.get(pid, (0.0, frozenset()))[1]:
            node = self._nodes.get(gpu)
            if node is None or node.address != address:
                continue
            try:
                occupied += self._host.counter(f"{self._root}/proc/{pid}/stats_{gpu}/cu_occupancy")
            except Unavailable:
                return None
            units += node.compute_units
        return min(1.0, occupied / units) if units else None

    def _gpus(self, pid: int) -> frozenset[str]:
        root = f"{self._root}/proc/{pid}/queues"
        gpus = set()
        for queue in names_in(root):
            try:
                gpus.add(self._host.text(f"{root}/{queue}/gpuid"))
            except Unavailable:
                continue
        return frozenset(gpus)


def _node(text: str, cards: Collection[str]) -> Node:
    """A node's ``properties``: lines of a name and a number.

    ``location_id`` is bus and slot. The number of a partition of a card is in the bits above them, or in older kernels
    in those of the PCI function.
    """
    values: dict[str, int] = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if value.isdigit():
            values[name] = int(value)
    location = values.get("location_id", 0)
    slot = f"{values.get('domain', 0):04x}:{location >> 8 & 0xFF:02x}:{location >> 3 & 0x1F:02x}"
    address = f"{slot}.{location & 7}"
    units = values.get("simd_count", 0) // max(1, values.get("simd_per_cu", 1))
    return Node(address if address in cards else f"{slot}.0", units)
