#!/bin/sh
# Expected: vmalert reads the alerting rules of a Prometheus of its time, and goes without a field that it lacks.
# Happens:  keep_firing_for, which Prometheus has since 2.42, makes this vmalert refuse the file: with it no alert of
#           the file is evaluated, also those without the field. vmalert has the field since 1.92.
# Package:  victoria-metrics 1.79.5+ds1-2+b5, prometheus 2.42.0+ds-5+deb12u1 (Debian 12)
# Source:   https://github.com/VictoriaMetrics/VictoriaMetrics/issues/4529,
#           https://prometheus.io/docs/prometheus/latest/configuration/alerting_rules/
# Date:     2026-11-28
# Output:
#> promtool: 2 rules found
#> vmalert: unknown fields in rule: keep_firing_for
#> vmalert without the field: accepted
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
(
    cd "$dir"
    apt-get download -qq victoria-metrics=1.79.5+ds1-2+b5 prometheus=2.42.0+ds-5+deb12u1
    for package in *.deb; do dpkg-deb -x "$package" .; done
)
cat >"$dir/with.yml" <<'YML'
groups:
  - name: power
    rules:
      - alert: PowerHigh
        expr: sum(node_power_watts) > 900
        for: 5m
        keep_firing_for: 10m
      - alert: MeterLost
        expr: absent(node_power_watts)
YML
grep -v keep_firing_for "$dir/with.yml" >"$dir/without.yml"
{
    "$dir/usr/bin/promtool" check rules "$dir/with.yml" | sed -n 's/.*SUCCESS: /promtool: /p'
    "$dir/usr/bin/vmalert" -dryRun -rule="$dir/with.yml" 2>&1 | grep -o 'unknown fields in rule: keep_firing_for' |
        sed 's/^/vmalert: /'
    "$dir/usr/bin/vmalert" -dryRun -rule="$dir/without.yml" >/dev/null 2>&1 &&
        echo "vmalert without the field: accepted"
} >"$dir/seen"
sed -n 's/^#> //p' "$0" | diff -u - "$dir/seen"
