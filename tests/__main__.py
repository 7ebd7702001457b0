"""Runs the whole suite as several pytest runs side by side, because most tests wait for something.

``python -m tests [pytest's arguments]``: prints each run as it ends, and last one line for each reason for which tests
were skipped; fails if a run does.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

HERE = Path(__file__).parent
APART = (
    ("prometheus", "grafana", "end_to_end/test_prometheus.py"),
    ("sources", "end_to_end/test_endurance.py", "end_to_end/test_gpu_check.py", "end_to_end/test_gpu_faults.py"),
    (
        "end_to_end/test_cli.py",
        "end_to_end/test_container_engines.py",
        "end_to_end/test_kubernetes.py",
        "end_to_end/test_models.py",
        "deploy",
        "analysis",
        "runs",
    ),
    ("accounting", "sampling", "hosts", "workloads", "config", "end_to_end/test_restart.py"),
)
"""Folders and files of each run but the last, which takes the rest: what starts servers, exporters and drivers."""
ELSEWHERE = ("image", "chart", "packages")
"""Folders that are in none of them: ``make image-test``, ``chart-check`` and ``release-check`` have them; they take
root, programs that Debian does not have, or minutes."""


def main(arguments: list[str]) -> int:
    """Run all. Returns the worst exit status."""
    waiting = [[str(HERE / name) for name in names] for names in APART]
    rest = [str(HERE), *[f"--ignore={path}" for paths in waiting for path in paths]]
    rest += [f"--ignore={HERE / name}" for name in ELSEWHERE]
    pytest = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    # Tests start the program hundreds of times: compiled once, as where it is installed.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([sys.executable, "-m", "compileall", "-q", "exporter"], cwd=HERE.parent, env=environment, check=True)
    with tempfile.TemporaryDirectory() as folder:
        running: dict[subprocess.Popen[bytes], Path] = {}

        def pass_on(number: int, _: object) -> None:
            for process in running:
                process.send_signal(number)

        signal.signal(signal.SIGTERM, pass_on)
        signal.signal(signal.SIGINT, lambda *_: None)  # a terminal tells all: they end what they started
        for number, paths in enumerate([*waiting, rest]):
            output = Path(folder, str(number))
            command = [*pytest, f"--junitxml={output}.xml", *paths]
            with output.open("wb") as file:
                process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
                running[process] = output
        worst = 0
        while running:
            time.sleep(0.2)
            for process in [process for process in running if process.poll() is not None]:
                sys.stdout.buffer.write(running.pop(process).read_bytes())
                sys.stdout.flush()
                worst = max(worst, process.returncode)
        for reason, count in sorted(skipped(Path(folder).glob("*.xml")).items()):
            print(f"not run: {count} {'test' if count == 1 else 'tests'}: {reason}")
    return worst


def skipped(reports: Iterable[Path]) -> Counter[str]:
    """How many tests the JUnit reports of pytest say were skipped, by reason. Expected failures are none."""
    found = [each for path in reports for each in ElementTree.parse(path).iter("skipped")]
    return Counter(str(each.get("message")) for each in found if each.get("type") == "pytest.skip")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
