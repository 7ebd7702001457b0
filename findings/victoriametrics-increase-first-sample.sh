#!/bin/sh
# Expected: increase() treats the first sample of every new series alike.
# Happens:  the first value counts as an increase from 0 if it is less than about ten times the step to the second, and
#           not at all if it is more. Of two jobs that began at 0 J, one that is first scraped at 500 J has its whole
#           1500 J, one that is first scraped at 5000 J has 1000 J of its 6000 J.
# Package:  victoria-metrics 1.79.5+ds1-2+b5 (Debian 12)
# Source:   https://docs.victoriametrics.com/metricsql/ and
#           https://github.com/VictoriaMetrics/VictoriaMetrics/pull/8377 (the factor)
# Date:     2026-11-28
# Output:
#> first sample 500, last 1500: increase 1500
#> first sample 5000, last 6000: increase 1000
set -eu
dir=$(mktemp -d)
pid=
trap 'if [ "$pid" ]; then kill "$pid"; wait "$pid" 2>/dev/null || true; fi; rm -rf "$dir"' EXIT
(cd "$dir" && apt-get download -qq victoria-metrics=1.79.5+ds1-2+b5 && dpkg-deb -x victoria-metrics_*.deb .)

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$dir/usr/bin/victoria-metrics" -httpListenAddr="127.0.0.1:$port" -storageDataPath="$dir/data" >"$dir/log" 2>&1 &
pid=$!
curl -s -o "$dir/up" --retry 30 --retry-delay 1 --retry-connrefused "http://127.0.0.1:$port/health"

python3 - "http://127.0.0.1:$port" >"$dir/seen" <<'PY'
import json
import sys
import time
import urllib.parse
import urllib.request

start = int(time.time()) // 60 * 60 - 3600
page = "".join(
    f'job_joules_total{{first="{first}"}} {first + 100 * minute} {(start + 60 * minute) * 1000}\n'
    for first in (500, 5000)
    for minute in range(11)
)
urllib.request.urlopen(sys.argv[1] + "/api/v1/import/prometheus", page.encode()).read()
urllib.request.urlopen(sys.argv[1] + "/internal/force_flush").read()
query = {"query": "increase(job_joules_total[20m])", "time": start + 600, "nocache": 1}
answer = json.load(urllib.request.urlopen(f"{sys.argv[1]}/api/v1/query?{urllib.parse.urlencode(query)}"))
for series in sorted(answer["data"]["result"], key=lambda series: int(series["metric"]["first"])):
    first = int(series["metric"]["first"])
    print(f"first sample {first}, last {first + 1000}: increase {series['value'][1]}")
PY
sed -n 's/^#> //p' "$0" | diff -u - "$dir/seen"
