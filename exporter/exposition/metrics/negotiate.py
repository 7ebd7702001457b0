"""Choose format and encoding from request headers; malformed headers select plain text.

prometheus_client 0.26 has `choose_encoder`, which ignores q-values: it answers OpenMetrics where the header likes it
less than plain text, and even where it refuses it (``q=0``).
"""

from __future__ import annotations

from collections.abc import Iterator

_OPENMETRICS_VERSIONS = {"", "0.0.1", "1.0.0"}


def _weights(header: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """Yield the value, parameters and q of each element; an unreadable q counts as 0, a missing one as 1."""
    for element in header.lower().split(","):
        value, *rest = element.split(";")
        parameters = {}
        for parameter in rest:
            name, _, text = parameter.partition("=")
            parameters[name.strip()] = text.strip().strip('"')
        try:
            weight = float(parameters.pop("q", "1"))
        except ValueError:
            weight = 0.0
        yield value.strip(), parameters, weight if 0 <= weight <= 1 else 0.0


def prefers_openmetrics(accept: str) -> bool:
    """Return whether an ``Accept`` header names OpenMetrics 1.0 with at least the q of plain text."""
    openmetrics = text = 0.0
    for media_type, parameters, weight in _weights(accept):
        if media_type == "application/openmetrics-text" and parameters.get("version", "") in _OPENMETRICS_VERSIONS:
            openmetrics = max(openmetrics, weight)
        elif media_type in {"text/plain", "text/*"}:
            text = max(text, weight)
    return openmetrics > 0 and openmetrics >= text


def accepts_gzip(accept_encoding: str) -> bool:
    """Return whether an ``Accept-Encoding`` header allows gzip: by name, else by ``*``, with q above 0."""
    weights = {value: weight for value, _, weight in _weights(accept_encoding)}
    return weights.get("gzip", weights.get("*", 0.0)) > 0
