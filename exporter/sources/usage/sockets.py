"""Which CPU belongs to which socket, read again when CPUs go on- or offline."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ...host import Host
from ..cpu.topology import cpu_packages

_CHECK_SECONDS = 60.0


class Sockets:
    """``of`` maps the number of every online CPU to its package; empty unless the kernel reports all of them."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._seen: frozenset[int] = frozenset()
        self._checked_at = float("-inf")
        self.of: Mapping[int, int] = {}
        self.several = False

    def refresh(self, now: float, online: Collection[int]) -> None:
        """Read the topology again if the CPUs that are ``online`` changed, at least once a minute."""
        if len(online) == len(self._seen) and now - self._checked_at < _CHECK_SECONDS:
            return
        if frozenset(online) != self._seen or not self.of:
            packages = cpu_packages(self._host)
            known = {cpu: package for cpu, package in packages.items() if package is not None}
            self.of = known if len(known) == len(packages) else {}
            self.several = len(set(self.of.values())) > 1
        self._seen, self._checked_at = frozenset(online), now
