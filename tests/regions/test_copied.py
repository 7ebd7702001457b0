"""The client is one file of the standard library, for Python 3.9 and later, and loads nothing else of the package."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.patience import wait_for
from tests.support.region_server import RegionServer
from tests.support.repository import REPOSITORY

FOLDER = REPOSITORY / "exporter/regions"
FILES = sorted(FOLDER.glob("*.py"))

_PROGRAM = """
import sys
sys.path.insert(0, {folder!r})
from {module} import region, step

@region("function")
def function():
    return 1

for _ in step([1, 2, 3]):
    with region("body") as body:
        body.add(samples=32)
    function()
print(sorted(name for name in sys.modules if name.split(".")[0] in ("exporter", "energy_regions")))
"""


def run(folder: Path, module: str, socket: Path) -> str:
    return subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", _PROGRAM.format(folder=str(folder), module=module)],
        env={"AI_ENERGY_REGIONS_SOCKET": str(socket)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_importing_it_loads_nothing_else_of_the_package(tmp_path: Path) -> None:
    loaded = run(REPOSITORY, "exporter.regions", tmp_path / "absent.sock")
    assert ast.literal_eval(loaded) == ["exporter", "exporter.regions", "exporter.regions.client"]


def test_a_copy_of_the_file_works_alone_and_sends_at_the_end_of_the_program(
    tmp_path: Path, server: RegionServer
) -> None:
    shutil.copy(FOLDER / "client.py", tmp_path / "energy_regions.py")
    assert ast.literal_eval(run(tmp_path, "energy_regions", server.path)) == ["energy_regions"]
    wait_for(lambda: server.totals().runs["step"] == 3)
    totals = server.totals()
    assert (totals.runs["body"], totals.runs["function"], totals.units["body", "samples"]) == (3, 3, 96.0)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_python_3_9_can_read_it(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_is_imported_at_once_is_of_the_standard_library(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = [alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom) and not node.level]
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names
