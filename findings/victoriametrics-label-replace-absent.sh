#!/bin/sh
# Expected: label_replace() changes nothing where its regular expression does not match, and "(.+)" does not match a
#           label that is absent. So no series gets a label "model" here.
# Happens:  after an aggregation "without" over "or", the new label has the value of another one: the pod's name becomes
#           the name of its model. Without "or", the label is there and empty. 1.148.9 has neither.
# Package:  victoria-metrics 1.79.5+ds1-2+b5 (Debian 12)
# Source:   https://docs.victoriametrics.com/metricsql/#label_replace
# Date:     2026-11-28
# Output:
#> max without (job) (tokens): {"model": "", "pod": "chat-0"}
#> max without (job) (other or tokens): {"model": "chat-0", "pod": "chat-0"}
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

now = int(time.time()) - 600
page = f'tokens{{job="servers",pod="chat-0"}} 1 {now * 1000}\n'
urllib.request.urlopen(sys.argv[1] + "/api/v1/import/prometheus", page.encode()).read()
urllib.request.urlopen(sys.argv[1] + "/internal/force_flush").read()
for servers in ("max without (job) (tokens)", "max without (job) (other or tokens)"):
    query = {"query": f'label_replace({servers}, "model", "$1", "name", "(.+)")', "time": now + 60, "nocache": 1}
    answer = json.load(urllib.request.urlopen(f"{sys.argv[1]}/api/v1/query?{urllib.parse.urlencode(query)}"))
    print(f"{servers}: {json.dumps(answer['data']['result'][0]['metric'], sort_keys=True)}")
PY
sed -n 's/^#> //p' "$0" | diff -u - "$dir/seen"
