"""Takes the factors of another exporter, so that one of a fleet asks the services and the others ask that one."""

from __future__ import annotations

import base64

from .. import __version__
from ..network.http_client import HttpClient
from ..network.secret import secret
from ..records import Unavailable
from .exchange import PATH, Taken, load
from .feeds.protocol import Fixes

RETRY_SECONDS = (5.0, 300.0)
"""First and longest time before the other exporter is asked again: it may be starting, and has no limits."""

_FIXES: Fixes = {
    401: "write USER:PASSWORD of a login of the other exporter into the file of --impact.from-credentials",
    404: "--impact.from must name an exporter of this version or newer, that knows an intensity or a price itself",
    "tls": "name the CA of the other exporter's certificate in the variable SSL_CERT_FILE",
    "not_found": "check --impact.from, and that network policies let the exporters reach each other",
}


class OtherExporter:
    """Asks another exporter for its factors. ``currency`` is that of this one, "" if it has none."""

    name = "impact-from"
    poll_seconds = 60.0

    def __init__(self, url: str, credentials_file: str = "", currency: str = "") -> None:
        self._client = HttpClient(
            url,
            _FIXES,
            user_agent=f"ai-energy-exporter/{__version__}",
            response_timeout_seconds=20.0,
            max_response_bytes=1 << 20,
        )
        self._credentials_file = credentials_file
        self._currency = currency

    def read(self, now: float) -> Taken:
        """Its factors. Raises `Unavailable`."""
        headers = {}
        if self._credentials_file:
            word = base64.b64encode(secret(self._credentials_file).encode("ascii")).decode("ascii")
            headers["Authorization"] = f"Basic {word}"
        content = self._client.json(PATH, headers=headers)
        try:
            factors = load(content)
        except ValueError as error:
            raise Unavailable("implausible", f"{self._client.url}: {error}", _FIXES[404]) from None
        if factors.price is not None:
            if self._currency not in ("", factors.currency):
                raise Unavailable(
                    "implausible",
                    f"{self._client.url}: its prices are in {factors.currency}, those of this exporter in "
                    f"{self._currency}: sums of both would have no unit",
                    "give both exporters one currency, and restart this one",
                )
            self._currency = factors.currency
        return Taken(factors, now)

    def interrupt(self) -> None:
        """End the current request."""
        self._client.interrupt()
