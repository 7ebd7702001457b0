"""``ai-energy-exporter healthcheck``: query the health of the exporter in this container.

For an image without a shell or curl. Flags are needed where neither the environment nor the settings file contains the
exporter's addresses.
"""

from __future__ import annotations

import contextlib
import http.client
import sys
from collections.abc import Mapping

from ..config.loading import ConfigError, load
from ..config.settings import Settings
from ..config.value_types import Address

TIMEOUT_SECONDS = 4.0
"""Less than Docker's own timeout of five seconds, so that the reason is printed."""

_LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


class NoHealthAddressError(Exception):
    """Every configured address may demand a certificate or a password."""


def target(settings: Settings) -> Address:
    """Address to query. Raises `NoHealthAddressError` if it might demand a client certificate or a password."""
    if settings.web_config_file and not settings.web_health_address:
        raise NoHealthAddressError("--web.config.file may demand a certificate or a password: set --web.health-address")
    host, port = (settings.web_health_address or settings.web_listen_address)[0]
    return Address(_LOOPBACK.get(host, host), port)


def runs_here(settings: Settings) -> bool:
    """Whether an exporter with these settings answers, healthy or not; False where its addresses may demand more."""
    try:
        _, text = _ask(target(settings))
    except (NoHealthAddressError, OSError, http.client.HTTPException):
        return False
    return text.startswith(("healthy", "unhealthy"))


def _ask(address: Address) -> tuple[int, str]:
    """Status and text of one answer. Raises OSError and HTTPException."""
    with contextlib.closing(http.client.HTTPConnection(*address, timeout=TIMEOUT_SECONDS)) as connection:
        connection.request("GET", "/-/healthy")
        answer = connection.getresponse()
        return answer.status, answer.read(1000).decode(errors="replace")


def run(flags: Mapping[str, object], environ: Mapping[str, str]) -> int:
    """Send one request and print the answer. Returns the exit status: 1 if unhealthy or unreachable."""
    try:
        address = target(load(flags, environ))
        status, text = _ask(address)
        healthy = status == http.client.OK
    except (ConfigError, NoHealthAddressError) as error:
        healthy, text = False, f"{error}\n"
    except (OSError, http.client.HTTPException) as error:
        healthy, text = False, f"{address}: {error!r}\n"
    sys.stdout.write(text)
    return 0 if healthy else 1
