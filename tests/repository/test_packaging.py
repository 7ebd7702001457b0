"""What is shipped: the wheel has the whole package and runs, and the lock can be trusted on any machine."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import exporter
from tests.support.patience import patience
from tests.support.repository import REPOSITORY

LOCKS = {path.name: path.read_text(encoding="utf-8") for path in REPOSITORY.glob("requirements*.lock")}
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source archive."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, timeout=patience(60))
    return folder


def test_the_wheel_has_every_module_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    assert wheel.name == f"ai_energy_exporter-{exporter.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        licensed = [name for name in archive.namelist() if name.endswith("/licenses/LICENSE")]
    kinds = ("*.py", "*.csv")
    sources = {str(path.relative_to(REPOSITORY)) for kind in kinds for path in (REPOSITORY / "exporter").rglob(kind)}
    assert names == sources | {"exporter/py.typed"}
    assert len(licensed) == 1


def test_the_command_of_the_wheel_runs(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    (entry,) = tmp_path.glob("*.dist-info/entry_points.txt")
    module, function = re.findall(r"ai-energy-exporter = ([\w.]+):(\w+)", entry.read_text())[0]
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from {module} import {function}; sys.exit({function}())"
    run = subprocess.run(
        [sys.executable, "-I", "-c", code, "--version"],
        capture_output=True,
        text=True,
        timeout=patience(30),
        check=True,
    )
    assert run.stdout == f"ai-energy-exporter {exporter.__version__}\n"


def test_the_source_archive_can_be_tested(built: Path) -> None:
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"Makefile", "requirements-dev.lock", "README.md", "LICENSE", "tests/repository/test_packaging.py"} <= names
    folder = REPOSITORY / "deploy" / "kubernetes"
    manifests = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix in (".yaml", ".rules")}
    for top in ("deploy/kubernetes", "deploy/helm/ai-energy-exporter/manifests"):
        assert {f"{top}/{name}" for name in manifests} <= names, top


@pytest.mark.parametrize(
    ("name", "fewest"), [("requirements-dev.lock", 15), ("requirements.lock", 6), ("requirements-build.lock", 2)]
)
def test_the_lock_pins_and_hashes_everything_and_names_no_registry(name: str, fewest: int) -> None:
    lock = LOCKS[name]
    blocks = re.split(r"\n(?=[a-zA-Z0-9])", lock[lock.index("\n", lock.index("# ")) :].strip())
    pinned = [block for block in blocks if not block.startswith("#")]
    assert len(pinned) > fewest
    for block in pinned:
        assert re.match(r"[a-z0-9-]+==\S+", block), block[:60]
        assert "--hash=sha256:" in block, block[:60]
    assert "://" not in lock
    assert "index-url" not in lock
    assert "find-links" not in lock


def test_the_locks_have_every_dependency_that_is_declared() -> None:
    project, groups = PROJECT["project"], PROJECT["dependency-groups"]
    extras = [entry for extra in project["optional-dependencies"].values() for entry in extra]
    tested = [entry for entry in groups["dev"] if isinstance(entry, str)]
    assert [entry for entry in groups["dev"] if entry not in tested] == [{"include-group": "build"}]
    declared = {
        "requirements-build.lock": groups["build"],
        "requirements-dev.lock": [*project["dependencies"], *groups["build"], *tested],
        "requirements.lock": [*project["dependencies"], *extras],
    }
    assert declared.keys() == LOCKS.keys()
    for lock, entries in declared.items():
        names = {re.split(r"[<>=~!\[ ]", entry)[0].lower() for entry in entries}
        pinned = set(re.findall(r"^([a-z0-9-]+)==", LOCKS[lock], re.MULTILINE))
        assert names <= pinned, lock


def test_no_two_locks_pin_different_versions() -> None:
    """They are installed into one virtual environment."""
    pins = {pin for lock in LOCKS.values() for pin in re.findall(r"^([a-z0-9-]+)==(\S+)", lock, re.MULTILINE)}
    assert len(pins) == len({name for name, _ in pins})


def test_the_version_is_in_the_changelog() -> None:
    changes = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{exporter.__version__}]" in changes


def test_the_readme_links_to_files_that_exist() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)#]+)[^)]*\)", readme) if "://" not in target]
    assert targets
    assert [target for target in targets if not (REPOSITORY / target).exists()] == []


def test_every_target_of_the_makefile_is_in_its_help() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    phony = set(re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[0].split())
    assert phony == set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))
    command = ["make", "--no-print-directory", "help"]
    helped = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=patience())
    assert phony == {line.split()[1] for line in helped.stdout.splitlines()}
