#!/bin/sh
# Expected: the linter objects to units that are not base units, and to nothing in a well-formed energy metric.
# Happens:  the words counter, gauge, histogram and summary may not occur between underscores, so a count of the wraps
#           of an energy counter may not be called by its name; kilowatt_hours should be "seconds"; and kwh, kilowatts,
#           milliwatts and wh pass, because joules and watts have no rule at all.
# Package:  prometheus 2.42.0+ds-5+deb12u1 (Debian 12), promtool
# Source:   https://github.com/prometheus/client_golang/tree/main/prometheus/testutil/promlint
# Date:     2026-11-28
# Output:
#> a_kilowatt_hours use base unit "seconds" instead of "hours"
#> energy_counter_wraps_total metric name should not include type 'counter'
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
(cd "$dir" && apt-get download -qq prometheus=2.42.0+ds-5+deb12u1 && dpkg-deb -x prometheus_*.deb .)

for metric in "counter energy_counter_wraps_total" "gauge a_kilowatt_hours" "gauge b_kwh" "gauge c_kilowatts" \
    "gauge d_milliwatts" "gauge e_energy_wh" "gauge f_percent"; do
    echo "# HELP ${metric#* } Help."
    echo "# TYPE ${metric#* } ${metric% *}"
    echo "${metric#* } 1"
done >"$dir/page"
"$dir/usr/bin/promtool" check metrics <"$dir/page" >"$dir/seen" 2>&1 || true
sed -n 's/^#> //p' "$0" | diff -u - "$dir/seen"
