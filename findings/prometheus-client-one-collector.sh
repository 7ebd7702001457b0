#!/bin/sh
# Expected: a collector that raises costs its own metrics; those of the other collectors are still served.
# Happens:  the whole scrape is answered with 500 and up is 0: one unreadable meter hides every other meter.
#           A collector has to catch what its hardware raises, and say so in a metric of its own.
# Package:  prometheus_client 0.26.0 (PyPI)
# Source:   https://github.com/prometheus/client_python/issues/84 and
#           https://github.com/prometheus/client_python/pull/119 (the 500 is intended)
# Date:     2026-11-28
# Output:
#> status with the meter readable: 200, package_joules_total served: True
#> status with one meter raising OSError: 500, package_joules_total served: False
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"
"$dir/v/bin/pip" install -q --disable-pip-version-check prometheus_client==0.26.0

"$dir/v/bin/python" - >"$dir/seen" 2>"$dir/log" <<'PY'
import urllib.error
import urllib.request

from prometheus_client import CollectorRegistry, Counter, start_http_server
from prometheus_client.core import GaugeMetricFamily


class Meter:
    broken = False

    def collect(self):
        if self.broken:
            raise OSError("no such device")
        yield GaugeMetricFamily("board_watts", "Power.", value=70)


registry = CollectorRegistry()
Counter("package_joules", "Energy.", registry=registry).inc(5)
meter = Meter()
registry.register(meter)
server, thread = start_http_server(0, "127.0.0.1", registry)


def scrape():
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics") as answer:
            status, body = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        status, body = error.code, error.read()
    return f"{status}, package_joules_total served: {b'package_joules_total 5.0' in body}"


print("status with the meter readable:", scrape())
meter.broken = True
print("status with one meter raising OSError:", scrape())
server.shutdown()
PY
sed -n 's/^#> //p' "$0" | diff -u - "$dir/seen"
