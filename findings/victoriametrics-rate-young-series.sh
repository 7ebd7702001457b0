#!/bin/sh
# Expected: rate(joules[5m]) of a job that ran for one of the five minutes is its increase over 300 s, so that the sum
#           over jobs is the power of the node.
# Happens:  it is divided by the time for which the series has samples in the window. A job of 60 W that began a minute
#           ago has 60 W, not the 12 W of Prometheus; five such jobs, one after another, are 137 W on a node that draws 60 W.
# Package:  victoria-metrics 1.79.5+ds1-2+b5 (Debian 12)
# Source:   https://github.com/VictoriaMetrics/VictoriaMetrics/issues/1215
# Date:     2026-11-28
# Output:
#> sum(rate(job_joules_total[5m])): 137 W of 60 W
#> sum(increase(job_joules_total[5m])) / 300: 60 W of 60 W
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
# each job works for a minute, and its counter is exposed until the end
page = "".join(
    f'job_joules_total{{job="{job}"}} {60 * min(max(second - 60 * job, 0), 60)} {(start + second) * 1000}\n'
    for job in range(5)
    for second in range(60 * job, 301, 15)
)
urllib.request.urlopen(sys.argv[1] + "/api/v1/import/prometheus", page.encode()).read()
urllib.request.urlopen(sys.argv[1] + "/internal/force_flush").read()
for expression in ("sum(rate(job_joules_total[5m]))", "sum(increase(job_joules_total[5m])) / 300"):
    query = {"query": expression, "time": start + 300, "nocache": 1}
    answer = json.load(urllib.request.urlopen(f"{sys.argv[1]}/api/v1/query?{urllib.parse.urlencode(query)}"))
    print(f"{expression}: {float(answer['data']['result'][0]['value'][1]):.0f} W of 60 W")
PY
sed -n 's/^#> //p' "$0" | diff -u - "$dir/seen"
