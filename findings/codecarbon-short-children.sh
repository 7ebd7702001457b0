#!/bin/sh
# Expected: tracking_mode="process" has the energy of the program and of its child processes.
# Happens:  a child counts from the second time that it is seen, and sampling is once a second: children that live
#           shorter, such as the steps of a shell script or the runs of a compiler, count nothing, although the kernel
#           reports their CPU time to the parent when it waits for them.
# Package:  codecarbon 3.3.2 (PyPI)
# Source:   https://github.com/mlco2/codecarbon/blob/master/codecarbon/external/hardware.py (_get_process_cpu_times)
# Date:     2026-11-28
# Output:
#> CPU seconds of 120 children, as the kernel counts them: more than 5
#> counted by codecarbon, of their part in 100 W: less than 20 %
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"
"$dir/v/bin/pip" install -q --disable-pip-version-check codecarbon==3.3.2

cat >"$dir/program.py" <<'PY'
import os
import subprocess
import sys

from codecarbon import OfflineEmissionsTracker

BURN = "import time\nwhile time.process_time() < 0.05: pass"
tracker = OfflineEmissionsTracker(
    country_iso_code="FRA", tracking_mode="process", force_cpu_power=100, measure_power_secs=1,
    allow_multiple_runs=True, save_to_file=False, log_level="critical",
)  # fmt: skip
tracker.start()
before = os.times()
for _ in range(120):
    subprocess.run([sys.executable, "-S", "-c", BURN], check=True)
after = os.times()
tracker.stop()
children = after.children_user + after.children_system - before.children_user - before.children_system
counted = tracker.final_emissions_data.cpu_energy * 3.6e6
due = 100 * children / os.cpu_count()
print(f"{children:.2f} s, {counted:.1f} J counted, {due:.1f} J due", file=sys.stderr)
print(f"CPU seconds of 120 children, as the kernel counts them: {'more' if children > 5 else 'not more'} than 5")
print(f"counted by codecarbon, of their part in 100 W: {'less' if counted < due / 5 else 'not less'} than 20 %")
PY
(cd "$dir" && v/bin/python program.py >seen)
sed -n 's/^#> //p' "$0" | diff -u - "$dir/seen"
