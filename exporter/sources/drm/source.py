"""Use of AMD and Intel GPUs by process, as the kernel reports it; their joules come from the hwmon source."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping

from ...host import Host
from ...records import GpuUse, Problem, Reading, Unavailable
from ..usage.pid_lookup import PidResolver
from .card import DrmCard, find_cards
from .clients import Clients, Use
from .files import OpenFiles
from .kfd import Kfd

RESCAN_SECONDS = 60.0
"""How often to look for cards that were added or removed."""

"""Stands for use of an unknown process; it is charged to no other process."""

_DEVICES = ("/dev/dri/", "/dev/kfd")

_NO_CLIENT_IDS = Problem(
    "driver",
    "the GPU driver does not report use by process (no drm-client-id in /proc/PID/fdinfo)",
    "run Linux 5.19 or newer (6.11 for xe); until then only a card's single user is charged",
)
_HIDDEN = Problem(
    "not_found",
    "processes that ROCm lists are not in /proc: their pids belong to another pid namespace",
    "run in the host's pid namespace (hostPID: true, docker run --pid=host), with --path.procfs at the host's /proc",
)
_DENIED = Problem(
    "permission",
    "the GPUs that some processes have open are hidden from this user",
    "add CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH (docker run --cap-add SYS_PTRACE --cap-add DAC_READ_SEARCH; "
    "Kubernetes: capabilities.add [SYS_PTRACE, DAC_READ_SEARCH]; systemd: the drop-in see-processes.conf)",
)
_LATE = Problem(
    "timeout",
    "there are so many open files that a scan of all of them takes more than a minute",
    "nothing to do: a process that opens a GPU long after its start is found late, and charged from then on",
)


class DrmSource:
    """Busy seconds of each process on each AMD or Intel card, as the driver counts them in fdinfo.

    Use by ROCm is missing there. It is the busy time that the firmware reports beyond what fdinfo explains, or without
    that value the whole rest of the time. It is attributed to the only process with queues on the card. Several
    processes share it in proportion to the compute units they occupied when any were last occupied; where the driver
    does not report these, it stays unattributed, because an equal split would charge one process for another's work.
    """

    name = "drm"

    def __init__(self, host: Host) -> None:
        self._host = host
        self._resolver = PidResolver(host, _DEVICES)
        self._files = OpenFiles(host)
        self._clients = Clients(host, self._resolver)
        self._kfd = Kfd(host)
        self._cards: dict[str, DrmCard] = {}
        self._nodes: dict[str, str] = {}
        self._occupancy: dict[str, dict[int, float]] = {}
        self._is_host_namespace = False
        self._hidden = False
        self._scan_at = -math.inf
        self._read_at: float | None = None

    def read(self, now: float) -> Reading:
        """Use since the last call. Raises `Unavailable` if there is no such card."""
        if now >= self._scan_at:
            self._scan(now)
        window = 0.0 if self._read_at is None else now - self._read_at
        self._read_at = now
        active = [address for address, card in self._cards.items() if not card.suspended()]
        self._files.refresh(now)
        fdinfo_uses = self._clients.read(self._files.opened, self._nodes, active, now, window)
        kfd_pids = self._kfd.processes(now)
        self._hidden = False
        uses: defaultdict[tuple[str, int | None], list[GpuUse]] = defaultdict(list)
        for address in active:
            for use in self._of_card(self._cards[address], fdinfo_uses[address], kfd_pids, now, window):
                uses[use.device, use.pid].append(use)
        return Reading(gpu_uses=tuple(_merged(same) for same in uses.values()), problems=tuple(self._problems()))

    def close(self) -> None:
        """Close all files; the next read starts again."""
        self._clients.close()
        for card in self._cards.values():
            card.close()
        self._cards, self._nodes = {}, {}
        self._scan_at, self._read_at = -math.inf, None

    def _scan(self, now: float) -> None:
        """Find the cards again. Raises `Unavailable` if there is none."""
        for card in self._cards.values():
            card.close()
        self._cards, self._nodes = find_cards(self._host)
        if not self._cards:
            self.close()
            raise Unavailable(
                "not_found",
                f"{self._host.sys('class/drm')}: no GPU here is driven by amdgpu, i915 or xe",
                "nothing to do on machines without an AMD or Intel GPU; NVIDIA's are read by the source nvml",
            )
        self._kfd.find_nodes(self._cards)
        self._is_host_namespace = self._is_whole_host()
        self._resolver.expire(now)
        self._scan_at = now + RESCAN_SECONDS

    def _is_whole_host(self) -> bool:
        """Whether /proc shows the host's own pid namespace: only there pid 2 is kthreadd."""
        try:
            return self._host.text(self._host.proc("2/comm")) == "kthreadd"
        except Unavailable:
            return False

    # --- one card -----------------------------------------------------------------------------------

    def _of_card(
        self,
        card: DrmCard,
        fdinfo_uses: Mapping[int, Use],
        kfd_pids: Mapping[str, Collection[int]],
        now: float,
        window: float,
    ) -> list[GpuUse]:
        """Use of every holder of a card, at most ``window`` seconds in total.

        ROCm opens every card, so its processes hold only the cards on which they have queues or were busy; other
        processes hold a card on which they were busy or have memory.
        """
        queued = kfd_pids.get(card.address, ())
        rocm = {pid for pids in kfd_pids.values() for pid in pids}
        seconds = {pid: min(window, use.seconds) for pid, use in fdinfo_uses.items()}
        holders = {pid for pid, use in fdinfo_uses.items() if use.worked or (use.vram_bytes and pid not in rocm)}
        lost = self._add_compute(card, queued, seconds, window)
        holders.update(queued)
        if holders:  # without any, the card counts as idle
            lost += self._clients.lost.get(card.address, 0.0)
        total = sum(seconds.values()) + lost
        scale = card.share * (window / total if total > window else 1.0)
        uses = []
        unseen = 0
        for pid in sorted(holders | {pid for pid, used in seconds.items() if used > 0}):
            identity = self._resolver.find(pid, now) if pid not in queued or self._is_same_pid(pid) else None
            if identity is not None:
                hold = card.share if pid in holders else 0.0
                used = seconds.get(pid, 0.0) * scale
                uses.append(GpuUse(card.device, identity.group, identity.process, used, hold))
                continue
            lost += seconds.get(pid, 0.0)
            if pid in queued and not self._resolver.recently_exited(pid):
                self._hidden = True
                unseen += 1
        if lost > 0 or unseen:
            uses.append(GpuUse(card.device, None, None, lost * scale, card.share * unseen))
        return uses

    def _add_compute(self, card: DrmCard, queued: Collection[int], seconds: dict[int, float], window: float) -> float:
        """Add the use by ROCm to ``seconds``; returns the part that cannot be attributed to a process."""
        if not queued:
            self._occupancy.pop(card.address, None)
            return 0.0
        ratio = card.busy_ratio()
        rest = max(0.0, (1.0 if ratio is None else ratio) * window - sum(seconds.values()))
        shares = dict.fromkeys(queued, 1.0) if len(queued) == 1 else self._shares(card.address, queued)
        for pid, share in shares.items():
            seconds[pid] = seconds.get(pid, 0.0) + rest * share
        return 0.0 if shares else rest

    def _shares(self, address: str, queued: Collection[int]) -> dict[int, float]:
        """How several processes share a card's compute units; empty if that is not known."""
        found = {pid: self._kfd.occupancy(pid, address) for pid in queued}
        occupancy = {pid: part for pid, part in found.items() if part is not None}
        if len(occupancy) < len(queued):
            return {}
        if not any(occupancy.values()):  # between two kernels: the occupancy when last seen
            last = self._occupancy.get(address, {})
            occupancy = {pid: last.get(pid, 0.0) for pid in queued}
        self._occupancy[address] = occupancy
        total = sum(occupancy.values())
        return {pid: part / total for pid, part in occupancy.items()} if total > 0 else {}

    def _is_same_pid(self, pid: int) -> bool:
        """Whether the pid that ROCm lists is the same process in this /proc."""
        return self._is_host_namespace or self._files.has_card_open(pid)

    def _problems(self) -> list[Problem]:
        problems = []
        if self._files.denied or self._clients.denied:
            problems.append(_DENIED)
        if self._clients.lacks_client_ids:
            problems.append(_NO_CLIENT_IDS)
        if self._hidden:
            problems.append(_HIDDEN)
        if self._files.late:
            problems.append(_LATE)
        return problems


def _merged(uses: list[GpuUse]) -> GpuUse:
    """Merge the use of both dies behind one meter by the same process."""
    if len(uses) == 1:
        return uses[0]
    return uses[0]._replace(seconds=sum(use.seconds for use in uses), hold=sum(use.hold for use in uses))
