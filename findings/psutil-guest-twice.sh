#!/bin/sh
# Expected: the fields of cpu_times() divide the machine's time: their sum is the time of all CPUs.
# Happens:  on a host of virtual machines guest is contained in user as well, and guest_nice in nice, as in the kernel's
#           /proc/stat. Of the 91.5 s here sum() makes 95.5; a share of the sum is too low for everything but guests.
#           (iowait is no CPU time either: such a CPU is idle.)
# Package:  psutil 7.2.2 (PyPI), Linux
# Source:   https://github.com/giampaolo/psutil/pull/940 (the same, in psutil's percentages)
# Date:     2026-11-28
# Output:
#> user 10.0, of it guest 4.0, system 1.0, idle 80.0, iowait 0.5
#> sum(cpu_times()) = 95.5, time of the CPU = 91.5
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"
"$dir/v/bin/pip" install -q --disable-pip-version-check psutil==7.2.2

hertz=$(getconf CLK_TCK)
mkdir "$dir/proc"
# user nice system idle iowait irq softirq steal guest guest_nice
echo "cpu $((10 * hertz)) 0 $hertz $((80 * hertz)) $((hertz / 2)) 0 0 0 $((4 * hertz)) 0" >"$dir/proc/stat"
"$dir/v/bin/python" - "$dir/proc" >"$dir/seen" <<'PY'
import sys

import psutil

psutil.PROCFS_PATH = sys.argv[1]
cpu = psutil.cpu_times()
print(f"user {cpu.user}, of it guest {cpu.guest}, system {cpu.system}, idle {cpu.idle}, iowait {cpu.iowait}")
print(f"sum(cpu_times()) = {sum(cpu)}, time of the CPU = {sum(cpu) - cpu.guest - cpu.guest_nice}")
PY
sed -n 's/^#> //p' "$0" | diff -u - "$dir/seen"
