"""Runs the whole suite as two pytest runs side by side: what mostly waits, and what mostly computes.

``python -m tests [pytest's arguments]``: prints the one that ends later after the other; fails if either does.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
WAITING = (
    "prometheus",
    "grafana",
    "sources",
    "test_engines_end_to_end.py",
    "test_gpu_check.py",
    "test_gpu_faults.py",
    "test_kubernetes.py",
    "test_models_end_to_end.py",
)
"""Folders and files whose tests start servers, exporters and drivers, and wait for them."""


def main(arguments: list[str]) -> int:
    """Run both. Returns the worse exit status."""
    waiting = [str(HERE / name) for name in WAITING]
    shards = [waiting, [str(HERE), *[f"--ignore={path}" for path in waiting]]]
    pytest = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    with tempfile.TemporaryFile() as later:
        second = subprocess.Popen([*pytest, *shards[0]], stdout=later, stderr=subprocess.STDOUT)
        statuses = [subprocess.run([*pytest, *shards[1]], check=False).returncode, second.wait()]
        later.seek(0)
        sys.stdout.buffer.write(later.read())
        sys.stdout.flush()
    return max(statuses)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
