#!/bin/sh
# Expected: without a meter, power is estimated from CPU load and the CPU's TDP about in proportion, as other tools do.
# Happens:  in machine mode power is TDP x (0.1 + 0.9 load^3): half load is 21 W of 100 W. In process mode, by the same
#           source, it is proportional and has no floor, so the parts of a machine do not add up to it.
#           A proportional estimate of the same machine is 2.35 times as high at half load.
# Package:  codecarbon 3.3.2 (PyPI)
# Source:   https://github.com/mlco2/codecarbon/blob/master/codecarbon/external/hardware.py
# Date:     2026-11-28
# Output:
#> machine at   0 %: 10.0 W
#> machine at  25 %: 11.4 W
#> machine at  50 %: 21.3 W
#> machine at  75 %: 48.0 W
#> machine at 100 %: 100.0 W
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"
"$dir/v/bin/pip" install -q --disable-pip-version-check codecarbon==3.3.2

(cd "$dir" && v/bin/python - >seen 2>log) <<'PY'
from codecarbon.external.hardware import CPU, MODE_CPU_LOAD


class Load:
    def percent(self):
        return self.value


cpu = CPU(output_dir=".", mode=MODE_CPU_LOAD, model="any", tdp=100)
cpu._cpu_load_meter = Load()
for cpu._cpu_load_meter.value in (0, 25, 50, 75, 100):
    print(f"machine at {cpu._cpu_load_meter.value:3} %: {cpu._get_power_from_cpus().W:.1f} W")
PY
sed -n 's/^#> //p' "$0" | diff -u - "$dir/seen"
