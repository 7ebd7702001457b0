#!/bin/sh
# Expected: the text parser returns the sample names of the page, which are those that Prometheus stores.
# Happens:  a counter whose name lacks _total gets it: code that reads a server's page with this parser finds
#           tgi_request_count_total, and the same name in PromQL finds nothing. Text Generation Inference, Triton and
#           older vLLM count without _total.
# Package:  prometheus_client 0.26.0 (PyPI)
# Source:   https://prometheus.io/docs/instrumenting/exposition_formats/ (_total is a convention of the text format)
# Date:     2026-11-28
# Output:
#> page: tgi_request_count 7 -> parser: tgi_request_count_total 7
#> page: nv_energy_consumption{gpu="0"} 9 -> parser: nv_energy_consumption_total{gpu="0"} 9
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"
"$dir/v/bin/pip" install -q --disable-pip-version-check prometheus_client==0.26.0

"$dir/v/bin/python" - >"$dir/seen" <<'PY'
from prometheus_client.parser import text_string_to_metric_families

for sample in ("tgi_request_count 7", 'nv_energy_consumption{gpu="0"} 9'):
    name = sample.split()[0].split("{")[0]
    for family in text_string_to_metric_families(f"# TYPE {name} counter\n{sample}\n"):
        for found in family.samples:
            labels = ",".join(f'{key}="{value}"' for key, value in found.labels.items())
            print(f"page: {sample} -> parser: {found.name}{'{' + labels + '}' if labels else ''} {found.value:g}")
PY
sed -n 's/^#> //p' "$0" | diff -u - "$dir/seen"
