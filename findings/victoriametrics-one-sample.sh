#!/bin/sh
# Expected: a graph shows a value that a rule records every 150 s until it is recorded again, whether that sample is its
#           first or its hundredth: Prometheus shows each for five minutes.
# Happens:  how long a sample counts is taken from the distance of the samples before it. A series of one sample has none:
#           a graph of 15 s steps shows it for 15 s, that is at two points, and a graph of 60 s steps for 60 s. From the
#           second sample on it is there until the next one.
# Package:  victoria-metrics 1.79.5+ds1-2+b5 (Debian 12)
# Source:   https://docs.victoriametrics.com/ (-search.maxStalenessInterval, -search.setLookbackToStep)
# Date:     2026-11-29
# Output:
#> 1 sample, step 15 s: 11 points expected, seen 2
#> 1 sample, step 60 s: 3 points expected, seen 2
#> 2 samples, step 15 s: 11 points expected, seen 11
#> 2 samples, step 60 s: 3 points expected, seen 3
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

last = int(time.time()) // 60 * 60 - 3600
page = "".join(
    f'model:joules:rate{{samples="{samples}"}} 60 {(last - 150 * earlier) * 1000}\n'
    for samples in (1, 2)
    for earlier in range(samples)
)
urllib.request.urlopen(sys.argv[1] + "/api/v1/import/prometheus", page.encode()).read()
urllib.request.urlopen(sys.argv[1] + "/internal/force_flush").read()
for samples, word in ((1, "sample"), (2, "samples")):
    for step in (15, 60):
        query = {
            "query": f'model:joules:rate{{samples="{samples}"}}',
            "start": last,
            "end": last + 150,
            "step": step,
            "nocache": 1,
        }
        answer = json.load(urllib.request.urlopen(f"{sys.argv[1]}/api/v1/query_range?{urllib.parse.urlencode(query)}"))
        points = sum(len(series["values"]) for series in answer["data"]["result"])
        print(f"{samples} {word}, step {step} s: {150 // step + 1} points expected, seen {points}")
PY
sed -n 's/^#> //p' "$0" | diff -u - "$dir/seen"
