#!/bin/sh
# Expected: every CPU package is a series of node_rapl_package_joules_total, distinguished by labels.
# Happens:  the metric's name is made of the zone's name, and on CPUs of several dies that is package-0-die-1: each die
#           is a metric of its own. sum(node_rapl_package_joules_total) has nothing on such a machine, and an alert or
#           recording rule that works on one server is empty on the next. index is 0 for each of them.
# Package:  prometheus-node-exporter 1.5.0-1+b6 (Debian 12)
# Source:   https://github.com/prometheus/node_exporter/blob/v1.5.0/collector/rapl_linux.go
# Date:     2026-11-28
# Output:
#> one die, two sockets:
#> node_rapl_package_joules_total{index="0"} 1
#> node_rapl_package_joules_total{index="1"} 2
#> two dies, one socket:
#> node_rapl_package_0_die_0_joules_total{index="0"} 1
#> node_rapl_package_0_die_1_joules_total{index="0"} 2
set -eu
dir=$(mktemp -d)
pid=
stop() { if [ "$pid" ]; then kill "$pid"; wait "$pid" 2>/dev/null || true; pid=; fi; }
trap 'stop; rm -rf "$dir"' EXIT
(cd "$dir" && apt-get download -qq prometheus-node-exporter=1.5.0-1+b6 && dpkg-deb -x prometheus-node-exporter_*.deb .)
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')

scrape() { # of a written /sys with these names of zones
    echo "$1:"
    shift
    rm -rf "$dir/sys"
    number=0
    for zone in "$@"; do
        mkdir -p "$dir/sys/class/powercap/intel-rapl:$number"
        echo "$zone" >"$dir/sys/class/powercap/intel-rapl:$number/name"
        echo 262143328850 >"$dir/sys/class/powercap/intel-rapl:$number/max_energy_range_uj"
        number=$((number + 1))
        echo "${number}000000" >"$dir/sys/class/powercap/intel-rapl:$((number - 1))/energy_uj"
    done
    "$dir/usr/bin/prometheus-node-exporter" --path.sysfs="$dir/sys" --collector.disable-defaults --collector.rapl \
        --web.listen-address="127.0.0.1:$port" 2>"$dir/log" &
    pid=$!
    curl -s --retry 30 --retry-delay 1 --retry-connrefused "http://127.0.0.1:$port/metrics" >"$dir/page"
    stop
    sed -n 's/^\(node_rapl.*\),path=.*}/\1}/p' "$dir/page"
}
{
    scrape "one die, two sockets" package-0 package-1
    scrape "two dies, one socket" package-0-die-0 package-0-die-1
} >"$dir/seen"
sed -n 's/^#> //p' "$0" | diff -u - "$dir/seen"
