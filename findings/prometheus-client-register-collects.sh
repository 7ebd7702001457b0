#!/bin/sh
# Expected: register() stores a collector; collect() runs at each scrape.
# Happens:  the default registry calls collect() inside register() of a collector without describe(). Hardware is read
#           at import time, a first delta is taken there, and a meter that raises makes register() raise.
#           A collector with describe() (it may return []) is left alone.
# Package:  prometheus_client 0.26.0 (PyPI)
# Source:   https://prometheus.github.io/client_python/collector/custom/
# Date:     2026-11-28
# Output:
#> without describe(): collect() ran 1 time before the first scrape
#> with describe(): collect() ran 0 times before the first scrape
#> a meter that raises, without describe(): register() raised OSError
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"
"$dir/v/bin/pip" install -q --disable-pip-version-check prometheus_client==0.26.0

"$dir/v/bin/python" - >"$dir/seen" <<'PY'
from prometheus_client import REGISTRY


class Meter:
    reads = 0

    def collect(self):
        self.reads += 1
        return []


class Described(Meter):
    def describe(self):
        return []


class Absent(Meter):
    def collect(self):
        raise OSError("no such device")


meter, described = Meter(), Described()
REGISTRY.register(meter)
REGISTRY.register(described)
print(f"without describe(): collect() ran {meter.reads} time before the first scrape")
print(f"with describe(): collect() ran {described.reads} times before the first scrape")
try:
    REGISTRY.register(Absent())
except OSError as error:
    print(f"a meter that raises, without describe(): register() raised {type(error).__name__}")
PY
sed -n 's/^#> //p' "$0" | diff -u - "$dir/seen"
