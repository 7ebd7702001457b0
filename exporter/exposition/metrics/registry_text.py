"""The text of a prometheus_client registry: the same as its own, with names and labels formatted only once."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.utils import floatToGoString

from .labels import escape, escape_help, pairs

_SUFFIXES = {"counter": "_total", "info": "_info"}
"""What the text format adds to a family's name, where OpenMetrics adds it to the samples only."""

_TEXT_TYPES = {"info": "gauge", "unknown": "untyped"}


class RegistryText:
    """Writes a registry whose series are few and stay the same: `generate_latest` takes three times as long.

    Exemplars, timestamps and ``_created`` series are not written; the exporter's own instruments have none.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._headers: dict[tuple[str, bool], bytes] = {}
        self._prefixes: dict[tuple[str, tuple[tuple[str, str], ...]], str] = {}

    def body(self, *, openmetrics: bool) -> bytes:
        """Collect the registry and return its lines, without the ``# EOF`` of OpenMetrics."""
        parts = []
        for metric in self._registry.collect():
            header = self._headers.get((metric.name, openmetrics))
            if header is None:
                header = self._headers[metric.name, openmetrics] = _header(metric, openmetrics)
            parts.append(header)
            for name, labels, value, *_ in metric.samples:
                key = (name, tuple(labels.items()))
                prefix = self._prefixes.get(key)
                if prefix is None:
                    text = pairs(*zip(*sorted(labels.items()), strict=True)) if labels else ""
                    prefix = self._prefixes[key] = f"{name}{{{text}}} " if text else f"{name} "
                number = floatToGoString(value)  # type: ignore[no-untyped-call]
                parts.append(f"{prefix}{number}\n".encode())
        return b"".join(parts)


def _header(metric: Metric, openmetrics: bool) -> bytes:
    if openmetrics:
        unit = f"# UNIT {metric.name} {metric.unit}\n" if metric.unit else ""
        return (
            f"# HELP {metric.name} {escape(metric.documentation)}\n# TYPE {metric.name} {metric.type}\n{unit}".encode()
        )
    name = metric.name + _SUFFIXES.get(metric.type, "")
    kind = _TEXT_TYPES.get(metric.type, metric.type)
    return f"# HELP {name} {escape_help(metric.documentation)}\n# TYPE {name} {kind}\n".encode()
