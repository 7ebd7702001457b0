#!/bin/sh
# Expected: RAY_JOB_ID in the environment of a Ray worker says for which job it works: the name is that of the job, and
#           ray.get_runtime_context().get_job_id() returns it in the same process.
# Happens:  workers that Ray started before they had work keep the nil job, ffffffff, in os.environ and in
#           /proc/PID/environ, while they run tasks of job 01000000. Actors have the job. What a monitor adds up by
#           this variable lacks most tasks.
# Package:  ray 2.60.0 (PyPI), Linux
# Source:   https://docs.ray.io/en/latest/ray-core/api/runtime-context.html (what else names the job)
# Date:     2026-11-29
# Output:
#> task: job 01000000, RAY_JOB_ID ffffffff, /proc ffffffff
#> actor: job 01000000, RAY_JOB_ID 01000000, /proc 01000000
set -eu
dir=$(mktemp -d /tmp/ray-XXXXXX)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"
"$dir/v/bin/pip" install -q --disable-pip-version-check ray==2.60.0

RAY_TMPDIR="$dir" RAY_ENABLE_UV_RUN_RUNTIME_ENV=0 RAY_USAGE_STATS_ENABLED=0 "$dir/v/bin/python" >"$dir/seen" 2>"$dir/log" <<'PY' || { tail -n 20 "$dir/log"; exit 1; }
import os
import time

import ray


def names() -> str:
    variables = open("/proc/self/environ", encoding="utf-8").read().split("\0")
    proc = next(one.partition("=")[2] for one in variables if one.startswith("RAY_JOB_ID="))
    job = ray.get_runtime_context().get_job_id()
    return f"job {job}, RAY_JOB_ID {os.environ['RAY_JOB_ID']}, /proc {proc}"


class Worker:
    def names(self) -> str:
        return names()


ray.init(num_cpus=1, include_dashboard=False, object_store_memory=100_000_000, log_to_driver=False)
time.sleep(5)
print("task:", ray.get(ray.remote(names).remote()))
print("actor:", ray.get(ray.remote(Worker).remote().names.remote()))
PY
sed -n 's/^#> //p' "$0" | diff -u - "$dir/seen"
