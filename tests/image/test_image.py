"""The image that is built here: what is in it, what it says of itself, and that the exporter in it works."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import exporter
from tests.support.image_builder import Image
from tests.support.image_container import STATE_FOLDER, Container
from tests.support.repository import REPOSITORY

pytestmark = pytest.mark.timeout(600)  # the first test waits for the image

LOCK = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8")
PROMISED_STOP_SECONDS = 5.0
CAP_DAC = 0b110
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: with one of them, owners and modes would mean nothing."""
MIB = 2**20

Start = Callable[..., Container]
Python = Callable[[str], str]


def everything(root: Path) -> Iterator[Path]:
    """Every file and folder below the image's root, links not followed."""
    for here, folders, files in os.walk(root):
        yield from (Path(here, name) for name in (*folders, *files))


class TestRunning:
    def test_it_answers_on_a_read_only_root_without_any_right(self, start: Start) -> None:
        one = start()
        samples = {s.name for family in text_string_to_metric_families(one.metrics()) for s in family.samples}
        assert {"energy_exporter_build_info", "energy_source_up", "energy_conservation_error_ratio"} <= samples
        status = one.status()
        assert (status["Uid"].split()[0], status["Gid"].split()[0], status["Groups"]) == ("65532", "65532", "")
        assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapInh")} == {0}
        assert status["NoNewPrivs"] == "1"

    def test_sigterm_stops_it(self, start: Start) -> None:
        one = start()
        one.metrics()
        one.process.terminate()
        assert one.process.wait(PROMISED_STOP_SECONDS) == 0

    def test_it_shows_the_simulated_node(self, start: Start) -> None:
        assert 'gpu_model="' in start("--demo").metrics()

    @pytest.mark.parametrize("user", ["65532:65532", "0:0"], ids=["unprivileged", "root without capabilities"])
    def test_counters_can_be_kept_in_a_new_volume(self, start: Start, user: str, capfd: Any) -> None:
        one = start(f"--state.file=/{STATE_FOLDER}/state", user=user)
        one.metrics()
        assert not int(one.status()["CapEff"], 16) & CAP_DAC
        one.process.terminate()
        assert one.process.wait(PROMISED_STOP_SECONDS) == 0
        assert "no checkpoints" not in capfd.readouterr().err

    def test_the_health_check(self, start: Start) -> None:
        one = start()
        one.metrics()
        assert one.check_health() == (0, "healthy\n")
        one.process.terminate()
        one.process.wait(PROMISED_STOP_SECONDS)
        status, said = one.check_health()
        assert status == 1
        assert f"{one.address.rpartition(':')[2]}" in said

    def test_every_module_can_be_imported(self, python: Python) -> None:
        """Nothing of the standard library was left out that is needed."""
        names = [
            ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
            for path in (REPOSITORY / "exporter").rglob("*.py")
            if path.stem != "__main__"
        ]
        names += ["bcrypt", "h2.connection", "prometheus_client", "psutil", "pynvml", "yaml"]
        assert python(f"import importlib\nfor name in {names!r}: importlib.import_module(name)") == ""

    def test_libraries_of_drivers_find_theirs(self, python: Python) -> None:
        """NVML is linked to names that are only stubs since glibc 2.34."""
        names = ["libdl.so.2", "libpthread.so.0", "librt.so.1", "libm.so.6", "libgcc_s.so.1"]
        assert python(f"import ctypes\nfor n in {names!r}: ctypes.CDLL(n)") == ""


class TestFiles:
    def test_there_is_no_program_but_the_exporter_and_its_interpreter(self, image: Image) -> None:
        programs = {p.name for p in everything(image.root) if p.parent.name in {"bin", "sbin", "libexec"}}
        minor = next(p.name for p in (image.root / "opt/venv/lib").iterdir())
        assert {"ai-energy-exporter", "python"} <= programs <= {"ai-energy-exporter", "python", "python3", minor}

    def test_there_is_no_installer_and_no_compiler(self, image: Image) -> None:
        names = {re.split(r"[-.]", p.name)[0] for p in everything(image.root)}
        assert names & {"pip", "ensurepip", "setuptools", "wheel", "distutils", "apt", "cc1"} == set()
        assert not list(image.root.rglob("*.h"))
        assert not list(image.root.rglob("*.a"))

    def test_nothing_of_the_build_is_left(self, image: Image) -> None:
        top = {p.name for p in image.root.iterdir()}
        assert top <= {"dev", "etc", "lib", "lib64", "opt", "proc", "sys", "usr", "var"}
        assert {p.name for p in (image.root / "var").iterdir()} == {"lib"}
        assert {p.name for p in (image.root / "var/lib").iterdir()} == {"ai-energy-exporter", "dpkg"}

    def test_nobody_gains_rights_by_a_file(self, image: Image) -> None:
        for path in everything(image.root):
            about = path.lstat()
            if stat.S_ISLNK(about.st_mode):
                assert (image.root / _inside(path, image.root)).exists(), path
                continue
            assert stat.S_ISREG(about.st_mode) or stat.S_ISDIR(about.st_mode), path
            assert not about.st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IWOTH), path
            if path != image.root / STATE_FOLDER:
                assert (about.st_uid, about.st_gid) == (0, 0), path
            assert not [name for name in os.listxattr(path, follow_symlinks=False) if name.startswith("security.cap")]

    def test_all_bytecode_is_there_and_is_not_compared_with_sources(self, image: Image) -> None:
        """A read-only root cannot take it, and the times of files are not those of the build."""
        sources = list(image.root.rglob("*.py"))
        assert len(sources) > 500
        for source in sources:
            (code,) = (source.parent / "__pycache__").glob(f"{source.stem}.cpython-3??.pyc")
            assert int.from_bytes(code.read_bytes()[4:8], "little") == 1, source  # PEP 552: by hash, unchecked

    def test_packages_are_those_of_the_lock(self, image: Image) -> None:
        site = next((image.root / "opt/venv/lib").iterdir()) / "site-packages"
        installed = {p.name.removesuffix(".dist-info").lower().replace("_", "-") for p in site.glob("*.dist-info")}
        locked = re.findall(r"^([\w-]+)==(\S+)", LOCK, re.MULTILINE)
        assert installed == {f"{name}-{version}" for name, version in locked}

    def test_scanners_and_lawyers_find_the_packages_of_debian(self, image: Image) -> None:
        about = {p.name: p.read_text() for p in (image.root / "var/lib/dpkg/status.d").iterdir()}
        assert {"base-files", "libc6", "libffi8", "libgcc-s1", "libssl3"} <= set(about)
        for name, text in about.items():
            assert re.search(rf"^Package: {re.escape(name)}$", text, re.MULTILINE)
            assert re.search(r"^Version: \d", text, re.MULTILINE)
            assert (image.root / "usr/share/doc" / name / "copyright").exists(), name
        assert "ID=debian" in (image.root / "etc/os-release").read_text()

    def test_it_is_small(self, image: Image) -> None:
        """docs/image.md states the size; this is a quarter more, so that a dependency by mistake does not pass."""
        assert sum(p.lstat().st_size for p in everything(image.root) if p.is_file() and not p.is_symlink()) < 56 * MIB


def test_what_it_says_of_itself(image: Image) -> None:
    config = image.config
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in config["Labels"].items()}
    assert labels["title"] == "ai-energy-exporter"
    assert labels["licenses"] == "Apache-2.0"
    assert labels["version"] == exporter.__version__
    assert labels["revision"] == "tested"
    assert "source" not in labels, "an address that is not known is not named"
    assert labels["description"]
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["/opt/venv/bin/ai-energy-exporter"]
    assert config["ExposedPorts"] == {"9400/tcp": {}}
    assert config["StopSignal"] == "SIGTERM"
    assert not config["Cmd"]
    assert not config["Volumes"]


def _inside(link: Path, root: Path) -> Path:
    """Where a link leads to inside of the image, relative to its root."""
    target = link.readlink()
    base = root if target.is_absolute() else link.parent
    return Path(os.path.normpath(base / str(target).lstrip("/"))).relative_to(root)
