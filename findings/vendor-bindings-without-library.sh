#!/bin/sh
# Expected: a vendor's Python bindings on a machine without its driver fail in one way, so that one "except ImportError"
#           (or the package's own error) shows that this vendor has no card here.
# Happens:  four vendors, four ways. amdsmi raises KeyError from the import, pyzes OSError from the import, pyhlml says
#           so on the terminal, imports, and then raises AttributeError from the first call that is not hlmlInit; only
#           pynvml imports silently and raises its own error from nvmlInit.
# Package:  nvidia-ml-py 13.615.71, amdsmi 7.0.2, pyzes 0.1.3, habana-pyhlml 1.24.2.481 (PyPI)
# Source:   https://rocm.docs.amd.com/projects/amdsmi/en/latest/ and https://pypi.org/project/pyzes/ and
#           https://pypi.org/project/habana-pyhlml/
# Date:     2026-11-28
# Output:
#> pynvml: import works; nvmlInit raises NVMLError_LibraryNotFound, nvmlDeviceGetCount raises NVMLError_Uninitialized
#> amdsmi: import raises KeyError
#> pyzes: import raises OSError
#> pyhlml: import works; hlmlInit raises HLMLError_Uninitialized, hlmlDeviceGetCount raises AttributeError
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"
"$dir/v/bin/pip" install -q --disable-pip-version-check nvidia-ml-py==13.615.71 amdsmi==7.0.2 pyzes==0.1.3 \
    habana-pyhlml==1.24.2.481

for name in pynvml amdsmi pyzes pyhlml; do
    "$dir/v/bin/python" - "$name" "$dir/seen" >"$dir/said" 2>&1 <<'PY'
import importlib
import sys

name, result = sys.argv[1:]


def call(function):
    try:
        function()
    except Exception as error:
        return f"raises {type(error).__name__}"
    return "works"


outcome = "import " + call(lambda: importlib.import_module(name))
if outcome == "import works":
    module, prefix = sys.modules[name], {"pynvml": "nvml", "pyhlml": "hlml"}[name]
    calls = (f"{prefix}Init", f"{prefix}DeviceGetCount")
    outcome += "; " + ", ".join(f"{each} {call(getattr(module, each))}" for each in calls)
with open(result, "a") as seen:
    print(f"{name}: {outcome}", file=seen)
PY
done
sed -n 's/^#> //p' "$0" | diff -u - "$dir/seen"
