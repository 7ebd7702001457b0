#!/bin/sh
# Expected: a country whose electricity is all from rivers has the lifecycle intensity of hydropower, some 24 g/kWh, as
#           the same package gives for that source; or no value, if there is none.
# Happens:  for the Central African Republic the tables of two trackers have 0, so that what runs there emits nothing.
#           No other country of CodeCarbon's table is below 10. A reader who takes 0 for "unknown" loses real zeros.
# Package:  codecarbon 3.3.2, carbontracker 2.4.7 (PyPI)
# Source:   codecarbon/data/private_infra/global_energy_mix.json and carbon_intensity_per_source.json,
#           carbontracker/data/carbon-intensities.csv; https://ourworldindata.org/grapher/carbon-intensity-electricity
# Date:     2026-11-28
# Output:
#> codecarbon: CAF 0.0 g/kWh, 100 % hydroelectricity; its own factor for that source: 26 g/kWh
#> codecarbon: countries below 10 g/kWh: CAF
#> carbontracker: CF 0.0 g/kWh
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" download -q --no-deps --disable-pip-version-check -d "$dir" codecarbon==3.3.2 carbontracker==2.4.7
cat >"$dir/show.py" <<'PY'
import csv
import io
import json
import sys
import zipfile
from pathlib import Path

wheels = {path.name.partition("-")[0]: zipfile.ZipFile(path) for path in Path(sys.argv[1]).glob("*.whl")}
data = "codecarbon/data/private_infra/"
mix = json.loads(wheels["codecarbon"].read(data + "global_energy_mix.json"))
sources = json.loads(wheels["codecarbon"].read(data + "carbon_intensity_per_source.json"))
car = mix["CAF"]
share = 100 * car["hydroelectricity_TWh"] / car["total_TWh"]
print(
    f"codecarbon: CAF {car['carbon_intensity']} g/kWh, {share:.0f} % hydroelectricity; "
    f"its own factor for that source: {sources['hydroelectricity']} g/kWh"
)
low = [code for code, row in mix.items() if row.get("carbon_intensity") is not None and row["carbon_intensity"] < 10]
print("codecarbon: countries below 10 g/kWh:", *low)
text = wheels["carbontracker"].read("carbontracker/data/carbon-intensities.csv").decode()
for row in csv.DictReader(io.StringIO(text)):
    if row["alpha-2"] == "CF":
        print("carbontracker: CF", row["Carbon intensity of electricity (gCO2eq/kWh)"], "g/kWh")
PY
python3 "$dir/show.py" "$dir" >"$dir/seen"
sed -n 's/^#> //p' "$0" | diff -u - "$dir/seen"
