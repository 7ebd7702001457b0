"""The image as far as it can be checked without building it: tests/image builds it."""

from __future__ import annotations

import fnmatch
import re
import subprocess
import tomllib

import pytest

import exporter
from tests.support.patience import patience
from tests.support.repository import REPOSITORY

DOCKERFILE = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
IGNORED = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def locked(name: str) -> dict[str, str]:
    """Package → version and hashes."""
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    blocks = re.split(r"\n(?=[a-z0-9])", text)
    return {block.partition("==")[0]: re.sub(r"\s*#.*", "", block.partition("==")[2]).strip() for block in blocks[1:]}


def test_the_base_is_pinned_and_there_is_one() -> None:
    (base,) = re.findall(r"^ARG BASE=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert re.fullmatch(r"docker\.io/library/python:\d+\.\d+\.\d+-slim-[a-z]+", base)
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE) == ["${BASE}", "scratch"]


def test_nothing_in_it_is_of_one_architecture() -> None:
    scripts = DOCKERFILE + (REPOSITORY / "deploy" / "image" / "rootfs.py").read_text(encoding="utf-8")
    assert re.findall(r"x86.64|amd64|aarch64|arm64", scripts.replace("# For amd64 and arm64", "")) == []


def test_its_version_is_that_of_the_package() -> None:
    assert re.findall(r"^ARG VERSION=(\S+)$", DOCKERFILE, re.MULTILINE) == [exporter.__version__]
    command = ["make", "--dry-run", "--no-print-directory", "image", "image-archive", "ENGINE=engine"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=patience())
    assert f"--tag ai-energy-exporter:{exporter.__version__} " in done.stdout
    assert f"--build-arg VERSION={exporter.__version__} " in done.stdout
    assert f"/ai-energy-exporter-{exporter.__version__}-image-" in done.stdout


def test_what_is_copied_exists_and_reaches_the_builder() -> None:
    sources = [name for line in re.findall(r"^COPY (?!--)(.+) \S+$", DOCKERFILE, re.MULTILINE) for name in line.split()]
    assert sources
    assert {f"!{name}" for name in sources} == {line for line in IGNORED if line.startswith("!")}
    for name in sources:
        assert (REPOSITORY / name).exists(), name


@pytest.mark.parametrize("path", ["exporter/__pycache__", "exporter/sources/__pycache__", "exporter/cli.pyc", ".git"])
def test_what_would_only_change_the_image_by_chance_does_not_reach_it(path: str) -> None:
    left_out = [line for line in IGNORED if not line.startswith("!")]
    assert any(fnmatch.fnmatch(path, line) or fnmatch.fnmatch(f"/{path}", line) for line in left_out)


def test_the_lock_has_the_dependencies_and_the_extras_in_the_versions_that_are_tested() -> None:
    lock, tested = locked("requirements.lock"), locked("requirements-dev.lock")
    declared = [
        *PROJECT["dependencies"],
        *(one for extra in PROJECT["optional-dependencies"].values() for one in extra),
    ]
    names = {re.split(r"[<>=~!\[ ]", entry)[0].lower() for entry in declared}
    assert names <= set(lock)
    assert lock == {name: tested[name] for name in lock}
    assert all("--hash=sha256:" in entry for entry in lock.values())
