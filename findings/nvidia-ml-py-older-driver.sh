#!/bin/sh
# Expected: whatever NVML cannot do is an NVMLError, and a function that an older driver lacks is
#           NVMLError_FunctionNotFound.
# Happens:  the three calls that list processes raise NVMLLibraryMismatchError, which is not an NVMLError: code that
#           guards its calls with "except NVMLError" fails on drivers that have only the older version of the call.
#           (The driver here is a stand-in library with only NVML's first call.)
# Package:  nvidia-ml-py 13.615.71 (PyPI)
# Source:   https://pypi.org/project/nvidia-ml-py/ (pynvml.py, throwOnVersionMismatch)
# Date:     2026-11-28
# Output:
#> nvmlDeviceGetTotalEnergyConsumption NVMLError_FunctionNotFound, an NVMLError: True
#> nvmlDeviceGetMemoryInfo NVMLError_FunctionNotFound, an NVMLError: True
#> nvmlDeviceGetComputeRunningProcesses NVMLLibraryMismatchError, an NVMLError: False
#> nvmlDeviceGetGraphicsRunningProcesses NVMLLibraryMismatchError, an NVMLError: False
#> nvmlDeviceGetMPSComputeRunningProcesses NVMLLibraryMismatchError, an NVMLError: False
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"
"$dir/v/bin/pip" install -q --disable-pip-version-check nvidia-ml-py==13.615.71
echo 'int nvmlInitWithFlags(unsigned flags) { return 0; }' |
    cc -shared -fPIC -x c -o "$dir/libnvidia-ml.so.1" -

LD_LIBRARY_PATH="$dir" "$dir/v/bin/python" - >"$dir/seen" <<'PY'
import pynvml

pynvml.nvmlInit()
LISTS = (f"{kind}RunningProcesses" for kind in ("Compute", "Graphics", "MPSCompute"))
for name in ("TotalEnergyConsumption", "MemoryInfo", *LISTS):
    try:
        getattr(pynvml, f"nvmlDeviceGet{name}")(None)
    except Exception as error:
        kind = isinstance(error, pynvml.NVMLError)
        print(f"nvmlDeviceGet{name} {type(error).__name__}, an NVMLError: {kind}")
PY
sed -n 's/^#> //p' "$0" | diff -u - "$dir/seen"
