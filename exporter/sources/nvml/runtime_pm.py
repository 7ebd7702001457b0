"""Which NVIDIA cards are runtime-suspended: any NVML call about such a card, even for its handle, would wake it."""

from __future__ import annotations

from collections.abc import Iterable

from ...host import Host, list_dir
from ...records import Unavailable


class RuntimePm:
    """Runtime power state of cards by their PCI address (Documentation/power/runtime_pm.rst), from sysfs alone."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def pci_addresses(self) -> set[str]:
        """Addresses of the cards bound to the driver; none where sysfs does not show them."""
        try:
            names = list_dir(self._host.sys("bus/pci/drivers/nvidia"))
        except Unavailable:
            return set()
        return {name for name in names if ":" in name}

    def suspended(self, addresses: Iterable[str]) -> set[str]:
        """The addresses whose card is suspended or suspending."""
        return {address for address in addresses if self._is_suspended(address)}

    def _is_suspended(self, address: str) -> bool:
        try:
            status = self._host.text(self._host.sys("bus/pci/devices", address, "power/runtime_status"))
        except Unavailable:
            return False
        return status.startswith("suspend")
