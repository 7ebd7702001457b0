#!/bin/sh
# Expected: a card's reading that is not available cannot be taken for a number.
# Happens:  nvitop's NA (what Device.power_usage() returns on a card without a power sensor) is 0 as an int, greater
#           than every number, and NaN in sums. For a card that says nothing int(power) writes 0 W into a log,
#           and an alert "power > limit" fires. The test is: value is NA (or isinstance(value, NaType)).
# Package:  nvitop 1.7.2 (PyPI)
# Source:   https://nvitop.readthedocs.io/en/latest/api/utils.html (NaType)
# Date:     2026-11-28
# Output:
#> int(NA) = 0
#> float(NA) = nan
#> sum([NA, 70_000]) = nan
#> NA > 1_000_000 = True
#> NA == "N/A" = True
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"
"$dir/v/bin/pip" install -q --disable-pip-version-check nvitop==1.7.2

"$dir/v/bin/python" - >"$dir/seen" <<'PY'
from nvitop import NA

for expression in ("int(NA)", "float(NA)", "sum([NA, 70_000])", "NA > 1_000_000", 'NA == "N/A"'):
    print(expression, "=", eval(expression, {"NA": NA}))
PY
sed -n 's/^#> //p' "$0" | diff -u - "$dir/seen"
