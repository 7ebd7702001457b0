#!/bin/sh
# Expected: pip install grafana-foundation-sdk brings the newest Grafana's types, and >=12 no older ones.
# Happens:  each release day publishes one version for every supported Grafana, with the time in seconds as the epoch
#           (TIME!GRAFANA), and the epoch outranks the rest. The oldest Grafana is published last, so pip's newest is
#           10.1.0; it satisfies >=12 as well, and ==12.2.0, ~=12.2 and <13 match nothing that has an epoch. Only the
#           whole version, epoch included, selects a Grafana.
# Package:  grafana-foundation-sdk 1769699998!10.1.0 (PyPI), pip 23.2
# Source:   https://packaging.python.org/en/latest/specifications/version-specifiers/#version-epochs and
#           https://github.com/grafana/grafana-foundation-sdk
# Date:     2026-11-28
# Output:
#> >=12 installs 1769699998!10.1.0
#> 1769699590!11.3.0 matches ==11.3.0: False
#> 1769699590!11.3.0 matches <13: False
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"
"$dir/v/bin/pip" install -q --disable-pip-version-check packaging==26.4
# The upper bound leaves out what is published after this was written.
"$dir/v/bin/pip" install -q --disable-pip-version-check --no-deps "grafana-foundation-sdk>=12,<1769699999!0"

"$dir/v/bin/python" - >"$dir/seen" <<'PY'
from importlib.metadata import version

from packaging.specifiers import SpecifierSet

print(">=12 installs", version("grafana-foundation-sdk"))
for specifier in ("==11.3.0", "<13"):
    print(f"1769699590!11.3.0 matches {specifier}:", "1769699590!11.3.0" in SpecifierSet(specifier))
PY
sed -n 's/^#> //p' "$0" | diff -u - "$dir/seen"
