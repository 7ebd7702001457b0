#!/bin/sh
# Expected: of two formats in an Accept header the one with the higher q is sent (RFC 9110, section 12.5.1).
# Happens:  q is not looked at; OpenMetrics is sent whenever it is listed, even when the client rejects it with q=0.
#           A scraper cannot ask this server for the text format by weight, only by leaving OpenMetrics out.
# Package:  prometheus_client 0.26.0 (PyPI)
# Source:   https://github.com/prometheus/client_python/blob/master/prometheus_client/exposition.py (choose_encoder)
# Date:     2026-11-28
# Output:
#> text q=0.9, OpenMetrics q=0.1 -> application/openmetrics-text
#> text q=1,   OpenMetrics q=0   -> application/openmetrics-text
#> text only                     -> text/plain
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"
"$dir/v/bin/pip" install -q --disable-pip-version-check prometheus_client==0.26.0

"$dir/v/bin/python" - >"$dir/seen" <<'PY'
from prometheus_client.exposition import choose_encoder

ACCEPT = {
    "text q=0.9, OpenMetrics q=0.1": "text/plain;q=0.9, application/openmetrics-text;version=1.0.0;q=0.1",
    "text q=1,   OpenMetrics q=0  ": "text/plain, application/openmetrics-text;version=1.0.0;q=0",
    "text only                    ": "text/plain",
}
for title, header in ACCEPT.items():
    print(title, "->", choose_encoder(header)[1].split(";")[0])
PY
sed -n 's/^#> //p' "$0" | diff -u - "$dir/seen"
