#!/bin/sh
# Expected: a reading of RAPL that fails is left out, and the energy around it comes from its neighbours.
# Happens:  the failed reading is stored as 0, the fall to 0 is taken for a wrap of the counter, and a whole range is
#           added: 100 W for 4 s with one failed reading in the middle is 65,933 J instead of 400 J (the range here is
#           that of an EPYC). One such reading makes a day at 100 W 0.8 % too large, a minute twelve times.
# Package:  perun 1.0.0 (PyPI)
# Source:   https://github.com/Helmholtz-AI-Energy/perun (backend/powercap_rapl.py, processing.py)
# Date:     2026-11-28
# Output:
#> five readings: 400 J
#> the third one fails: 65933 J
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"
"$dir/v/bin/pip" install -q --disable-pip-version-check perun==1.0.0 numpy==2.4.6

zone="$dir/powercap/intel-rapl:0"
mkdir -p "$zone"
echo package-0 >"$zone/name"
echo 65532610987 >"$zone/max_energy_range_uj"
echo 0 >"$zone/energy_uj"
(cd "$dir" && v/bin/python - >seen 2>log) <<'PY'
from pathlib import Path

import numpy as np
from perun.backend import powercap_rapl
from perun.data_model.data import RawData
from perun.data_model.measurement_type import Magnitude, MetricMetaData, Unit
from perun.processing import processEnergyData

powercap_rapl.RAPL_PATH = "powercap"
backend = powercap_rapl.PowercapRAPLBackend()
sensor = next(iter(backend.devices.values()))
seconds = MetricMetaData(Unit.SECOND, Magnitude.ONE, np.dtype("float32"), np.float32(0), np.float32(9), np.float32(-1))
file = Path("powercap/intel-rapl:0/energy_uj")
for title, failing in (("five readings", None), ("the third one fails", 2)):
    readings = []
    for second in range(5):
        file.write_text("" if second == failing else str(10_000_000_000 + 100_000_000 * second))
        readings.append(sensor.read())
    raw = RawData(np.arange(5, dtype="float32"), np.array(readings, dtype="uint64"), seconds, sensor.dataType)
    print(f"{title}: {processEnergyData(raw)[0]:.0f} J")
PY
sed -n 's/^#> //p' "$0" | diff -u - "$dir/seen"
