#!/bin/sh
# Expected: a job's counter starts at 0 J, is first scraped at 5000 J and last at 6000 J: increase() is 6000 J.
# Happens:  increase() only counts from the first sample on, so the 5000 J before it are lost. The shorter a
#           workload and the longer the scrape interval, the more of its energy is missing. (The 1000 J become 1150
#           because the slope is stretched towards the ends of the window.)
# Package:  prometheus 2.42.0+ds-5+deb12u1 (Debian 12), promtool
# Source:   https://prometheus.io/docs/prometheus/latest/querying/functions/#increase and
#           https://github.com/prometheus/prometheus/issues/12967
# Date:     2026-11-28
# Output:
#>     expr: "increase(job_joules_total[20m])", time: 16m,
#>         exp: {} 6E+03
#>         got: {} 1.15E+03
#>     expr: "max_over_time(job_joules_total[20m])", time: 16m,
#>         exp: {} 0E+00
#>         got: {} 6E+03
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
(cd "$dir" && apt-get download -qq prometheus=2.42.0+ds-5+deb12u1 && dpkg-deb -x prometheus_*.deb .)

cat >"$dir/test.yml" <<'YAML'
tests:
  - interval: 1m
    input_series: [{series: job_joules_total, values: "_x5 5000+100x10"}]
    promql_expr_test: # what is expected is wrong on purpose: promtool prints what it got
      - {expr: "increase(job_joules_total[20m])", eval_time: 16m, exp_samples: [{labels: "{}", value: 6000}]}
      - {expr: "max_over_time(job_joules_total[20m])", eval_time: 16m, exp_samples: [{labels: "{}", value: 0}]}
YAML
"$dir/usr/bin/promtool" test rules "$dir/test.yml" 2>&1 | grep -E "expr:|exp:|got:" >"$dir/seen"
sed -n 's/^#> //p' "$0" | diff -u - "$dir/seen"
