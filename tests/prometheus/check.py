"""``make prometheus-check``: the rules, their unit tests and the live tests on current Prometheus and Alertmanager.

Outside the suite. Builds pinned releases from their Go modules into a folder (``--folder``, else a temporary one; Go
fetches it), puts its programs before Debian's in PATH and runs the tests that use them; then `benchmarks.scale_check`
asks that Prometheus and Debian's every rule and query on the same data (``--tests-only``: not). Arguments of the rest
go to pytest: ``ARGS="tests/prometheus -k runbooks"``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.support.repository import REPOSITORY


class Release(NamedTuple):
    """A Go module, its tag, the version that this is, and programs by the names that Debian gives them.

    ``embedded`` is a file that is built in and not part of the module: a page, which these tests do not open.
    """

    module: str
    tag: str
    version: str
    programs: Mapping[str, str]
    embedded: str | None = None


PROMETHEUS = Release(
    "github.com/prometheus/prometheus", "v0.316.0", "3.16.0", {"prometheus": "prometheus", "promtool": "promtool"}
)
ALERTMANAGER = Release(
    "github.com/prometheus/alertmanager",
    "v0.35.0",
    "0.35.0",
    {"alertmanager": "prometheus-alertmanager", "amtool": "amtool"},
    "ui/app/dist/index.html",
)
TESTS = (
    "tests/prometheus",
    "tests/grafana",
    "tests/analysis",
    "tests/budgets",
    "tests/deploy/test_kubernetes.py",
    "tests/end_to_end/test_prometheus.py",
)
"""Where tests start these programs."""


def build(release: Release, folder: Path) -> None:
    """Build the programs that are not in the folder yet. Raises CalledProcessError."""
    missing = {program: name for program, name in release.programs.items() if not (folder / name).exists()}
    if not missing:
        return
    print(f"building {release.module} {release.tag}", flush=True)
    environment = {**os.environ, "GOFLAGS": "-mod=mod", "GOWORK": "off"}
    download = ["go", "mod", "download", "-json", f"{release.module}@{release.tag}"]
    with tempfile.TemporaryDirectory() as scratch:
        answer = subprocess.run(download, cwd=scratch, env=environment, check=True, stdout=subprocess.PIPE).stdout
        source = Path(scratch) / "source"
        shutil.copytree(json.loads(answer)["Dir"], source, copy_function=shutil.copyfile)
        if release.embedded is not None:
            subprocess.run(["chmod", "-R", "u+w", str(source)], check=True)  # modules are kept read-only
            (source / release.embedded).parent.mkdir(parents=True, exist_ok=True)
            (source / release.embedded).write_text("", encoding="utf-8")
        for program, name in missing.items():
            command = ["go", "build", "-o", str(folder / name), f"./cmd/{program}"]
            subprocess.run(command, cwd=source, env=environment, check=True)


def run_tests(folder: Path, arguments: list[str]) -> int:
    """Exit status of pytest with the programs of the folder before all others."""
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, "-m", "pytest", "-q", *(arguments or TESTS)]
    return subprocess.run(command, cwd=REPOSITORY, env=environment, check=False).returncode


def compare(folder: Path) -> int:
    """Exit status of the comparison with Debian's Prometheus."""
    program = f"{PROMETHEUS.version}={folder / 'prometheus'}"
    command = [sys.executable, "-m", "benchmarks.scale_check", "--prometheus", program]
    return subprocess.run(command, cwd=REPOSITORY, check=False).returncode


def main() -> int:
    """Build, test and compare; returns an exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.prometheus.check", description=__doc__)
    parser.add_argument("--folder", type=Path, help="folder in which the programs are kept")
    parser.add_argument("--tests-only", action="store_true", help="no comparison of all rules and queries")
    options, arguments = parser.parse_known_args()
    if shutil.which("go") is None:
        print("go is missing: apt-get install golang, 1.26.7 or newer, or go.dev", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as scratch:
        folder = (options.folder or Path(scratch)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        for release in (PROMETHEUS, ALERTMANAGER):
            build(release, folder)
        failed = run_tests(folder, arguments)
        if not options.tests_only:
            failed |= compare(folder)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
