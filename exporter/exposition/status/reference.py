"""The page that says what each metric means, made from the catalogue that the exporter publishes."""

from __future__ import annotations

from ..metrics.reference import QUERIES, sections
from .assets import STYLE, content_security_policy
from .markup import Head, card, table, text

HEADERS = ((b"Content-Security-Policy", content_security_policy()), (b"Referrer-Policy", b"no-referrer"))


def reference_page(status_path: str = "/") -> bytes:
    """Return the page."""
    heads = (Head("Metric"), Head("Type", "t"), Head("Labels", "t full labels"), Head("Meaning", "t full"))
    tables = "".join(
        [
            card(
                text(title),
                table(
                    heads,
                    [
                        (f"<code>{metric.name}</code>", metric.kind, ", ".join(metric.labels), text(metric.help))
                        for metric in metrics
                    ],
                    "stack",
                ),
            )
            for title, metrics in sections()
        ]
    )
    queries = "".join([f"<dt>{text(title)}</dt><dd><code>{text(query)}</code></dd>" for title, query in QUERIES])
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Metrics – AI Energy Exporter</title>'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{STYLE}</style></head>'
        '<body><header><h1>What the metrics mean</h1><nav aria-label="Exporter">'
        f'<a href="{text(status_path)}">Status</a></nav></header>'
        f'<main class="reference">{tables}{card("Queries", f"<dl>{queries}</dl>")}</main></body></html>'
    ).encode()
