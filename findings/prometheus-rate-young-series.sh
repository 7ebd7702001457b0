#!/bin/sh
# Expected: a node that draws a steady 100 W and was added half an hour ago has rate(joules[6h]) = 100 W.
# Happens:  rate() divides by the whole window, whatever part of it has samples: 8.6 W. A budget or yearly estimate
#           from a long rate() is too low by window / age for everything that is younger than the window. The mean of a
#           short rate comes near, 93.5 W, and treats the time in which there was no series as if it had not been.
# Package:  prometheus 2.42.0+ds-5+deb12u1 (Debian 12), promtool
# Source:   https://prometheus.io/docs/prometheus/latest/querying/functions/#rate
# Date:     2026-11-28
# Output:
#>     expr: "rate(node_joules_total[6h])", time: 6h,
#>         exp: {} 0E+00
#>         got: {} 8.611111111111112E+00
#>     expr: "avg_over_time(rate(node_joules_total[5m])[6h:1m])", time: 6h,
#>         exp: {} 0E+00
#>         got: {} 9.35483870967742E+01
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
(cd "$dir" && apt-get download -qq prometheus=2.42.0+ds-5+deb12u1 && dpkg-deb -x prometheus_*.deb .)

cat >"$dir/test.yml" <<'YAML'
tests:
  - interval: 1m
    input_series: [{series: node_joules_total, values: "_x329 0+6000x30"}]
    promql_expr_test: # 0 is wrong on purpose: promtool prints what it got
      - {expr: "rate(node_joules_total[6h])", eval_time: 6h, exp_samples: [{labels: "{}", value: 0}]}
      - expr: avg_over_time(rate(node_joules_total[5m])[6h:1m])
        eval_time: 6h
        exp_samples: [{labels: "{}", value: 0}]
YAML
"$dir/usr/bin/promtool" test rules "$dir/test.yml" 2>&1 | grep -E "expr:|exp:|got:" >"$dir/seen"
sed -n 's/^#> //p' "$0" | diff -u - "$dir/seen"
