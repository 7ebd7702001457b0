#!/bin/sh
# Expected: node_rapl_package_joules_total only grows, as a counter does.
# Happens:  it is the hardware's register in joules: it falls when that wraps, and the range it wraps at is not exposed.
#           increase() takes the fall for a restart from 0. Here 4199 J passed between two scrapes (15 s at 280 W) and
#           Prometheus sees 2056 J; of a wrap that fits between two scrapes it sees nothing at all (a range of
#           65 kJ, as on EPYC, lasts 4 minutes at 280 W).
# Package:  prometheus-node-exporter 1.5.0-1+b6 (Debian 12)
# Source:   https://github.com/prometheus/node_exporter/blob/v1.5.0/collector/rapl_linux.go and
#           https://docs.kernel.org/power/powercap/powercap.html (energy_uj, max_energy_range_uj)
# Date:     2026-11-28
# Output:
#> node_rapl_package_joules_total 260000
#> node_rapl_package_joules_total 2056
#> series with the range: 0
set -eu
dir=$(mktemp -d)
pid=
trap 'if [ "$pid" ]; then kill "$pid"; wait "$pid" 2>/dev/null || true; fi; rm -rf "$dir"' EXIT
(cd "$dir" && apt-get download -qq prometheus-node-exporter=1.5.0-1+b6 && dpkg-deb -x prometheus-node-exporter_*.deb .)
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')

zone="$dir/sys/class/powercap/intel-rapl:0"
mkdir -p "$zone"
echo package-0 >"$zone/name"
echo 262143328850 >"$zone/max_energy_range_uj"
echo 260000000000 >"$zone/energy_uj"
"$dir/usr/bin/prometheus-node-exporter" --path.sysfs="$dir/sys" --collector.disable-defaults --collector.rapl \
    --web.listen-address="127.0.0.1:$port" 2>"$dir/log" &
pid=$!
scrape() { curl -s --retry 30 --retry-delay 1 --retry-connrefused "http://127.0.0.1:$port/metrics" >"$dir/page"; }
{
    scrape
    sed -n 's/^\(node_rapl_package_joules_total\){.*}/\1/p' "$dir/page"
    echo 2056000000 >"$zone/energy_uj" # 260000 J + 4199.3 J, less the range
    scrape
    sed -n 's/^\(node_rapl_package_joules_total\){.*}/\1/p' "$dir/page"
    echo "series with the range: $(grep -v '^#' "$dir/page" | grep -c -e range -e 262143 || true)"
} >"$dir/seen"
sed -n 's/^#> //p' "$0" | diff -u - "$dir/seen"
