"""How to reach the BMC. Apart from the source, which loads an HTTP client that most machines do not need."""

from __future__ import annotations

from dataclasses import dataclass

PERIOD_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class BmcOptions:
    """What the operator set: the BMC's address, the file with its login, whose certificate is trusted, the period.

    ``url`` is "" without Redfish, ``ipmi`` whether to ask the BMC through ``/dev/ipmi0``. ``ca_file``, ``fingerprint``
    and ``insecure`` are those of `exporter.network.kept_connection.Trust`.
    """

    url: str = ""
    credentials: str = ""
    ca_file: str = ""
    fingerprint: str = ""
    insecure: bool = False
    system: str = ""
    ipmi: bool = False
    period_seconds: float = PERIOD_SECONDS

    @property
    def wanted(self) -> bool:
        """Whether there is anything to read."""
        return bool(self.url) or self.ipmi
