"""Publishes fewer series before the kernel kills the exporter."""

from __future__ import annotations

import logging

from ..accounting.ledger import Ledger
from ..host import Host

_log = logging.getLogger("sampler")

_CHECK_SECONDS = 10.0
_SHED_RATIO = 0.85
_BACK_RATIO = 0.75


class MemoryWatch:
    """Drops process series while little memory is left: they are the first that can be missed."""

    def __init__(self, host: Host, ledger: Ledger) -> None:
        self._host = host
        self._ledger = ledger
        self._checked_at = float("-inf")

    def check(self, now: float) -> None:
        """Compare the memory used with its limit, every 10 s."""
        if now - self._checked_at < _CHECK_SECONDS:
            return
        self._checked_at = now
        ratio = self._host.memory_ratio()
        if ratio is None:
            return
        shed = ratio >= (_BACK_RATIO if self._ledger.shed_processes else _SHED_RATIO)
        if shed != self._ledger.shed_processes:
            self._ledger.shed_processes = shed
            _log.warning("process series %s", "dropped: memory is short" if shed else "restored: memory is free again")
