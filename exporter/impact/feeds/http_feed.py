"""Base of feeds over HTTP."""

from __future__ import annotations

from ... import __version__
from ...network.http_client import HttpClient
from ...network.secret import secret
from ...records import Unavailable
from .protocol import FeedOptions, Fixes

_MAX_RESPONSE_BYTES = 4 << 20


class HttpFeed:
    """A service that is asked by GET requests for JSON; ``poll_seconds`` is set by each service."""

    poll_seconds = 300.0

    def __init__(self, options: FeedOptions, fixes: Fixes) -> None:
        self.name = f"{options.name}-{options.quantity}"  # two quantities may be of one service
        self._options = options
        self._client = HttpClient(
            options.url,
            {
                "not_found": f"let this machine reach {options.url}, or take the factors from an exporter that can: "
                "--impact.from",
                "tls": "if a proxy replaces certificates, name its CA in the variable SSL_CERT_FILE",
                429: "the service limits requests: let one exporter ask, and others take its factors (--impact.from)",
                **fixes,
            },
            user_agent=f"ai-energy-exporter/{__version__}",
            response_timeout_seconds=30.0,
            max_response_bytes=_MAX_RESPONSE_BYTES,
        )

    def interrupt(self) -> None:
        """End the current request."""
        self._client.interrupt()

    def _secret(self) -> str:
        """Content of the token file, read for each request, so that it may be replaced. Raises `Unavailable`."""
        return secret(self._options.token_file)

    def _implausible(self, what: str) -> Unavailable:
        return Unavailable("implausible", f"{self._options.url}: {what}", "look at what this address answers")
