"""The files of dist/ after ``make release``, and the packages in a bare Debian: ``make release-check``."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.packages import build
from deploy.packages.tree import CONFIGURATION, MODULES, NAME, File, Tree
from exporter import __version__
from exporter.config.settings_table import TABLE
from tests.support import bare_machine
from tests.support.bare_machine import Machine
from tests.support.patience import patience
from tests.support.repository import REPOSITORY

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="a root folder of a machine takes root"),
]

DIST = REPOSITORY / "dist"
COMMAND = f"/usr/bin/{NAME}"
STATE = f"var/lib/{NAME}/state"
ADDED = "AI_ENERGY_LOG_LEVEL=debug\n"
DEB = {name: DIST / f"{NAME}_{__version__}_{name}.deb" for name in build.ARCHITECTURES}
RPM = {name: DIST / f"{NAME}-{__version__}-1.{machine}.rpm" for name, machine in build.ARCHITECTURES.items()}
MACHINE = {"amd64": 62, "arm64": 183}
"""Numbers of ELF."""
HERE = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]


def unpacked(package: Path, folder: Path) -> Tree:
    """Files of a Debian package."""
    subprocess.run(["dpkg-deb", "--extract", str(package), str(folder)], check=True, timeout=patience(60))
    return {
        str(path.relative_to(folder)): File(path.read_bytes(), path.stat().st_mode & 0o777)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """What the package for this machine has."""
    return unpacked(DEB[HERE], tmp_path_factory.mktemp("deb"))


@pytest.fixture
def before(files: Tree) -> Tree:
    """An earlier version: other settings were shipped, and it had a module that is gone."""
    return files | {
        CONFIGURATION: File(b"# of the version before\n"),
        f"{MODULES}/exporter/former/__init__.py": File(b'"""Gone."""\n'),
    }


@pytest.fixture
def machine() -> Iterator[Machine]:
    """A bare Debian."""
    with bare_machine.made() as one:
        yield one


def said(machine: Machine, *command: str) -> str:
    """What a command prints, which has to succeed."""
    done = machine.run(*command, capture=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def left(machine: Machine) -> set[str]:
    """All paths of the package that are there."""
    found = said(machine, "find", "/", "-xdev", "-path", "/tmp", "-prune", "-o", "-path", f"*{NAME}*", "-print")
    return {path for path in found.splitlines() if not path.startswith(("/var/lib/dpkg/", "/var/lib/rpm/"))}


def check_that_it_works(machine: Machine) -> None:
    """The command runs and shares no module with other programs."""
    assert said(machine, COMMAND, "--version") == f"{NAME} {__version__}\n"
    said(machine, COMMAND, "--config.check")
    assert "energy_exporter_build_info" in said(machine, COMMAND, "--once", "--demo")
    assert "bcrypt" in said(
        machine,
        "python3",
        "-I",
        "-c",
        f"import sys; sys.path.insert(0, '/{MODULES}'); import bcrypt, h2, psutil, pynvml; print(bcrypt.__name__)",
    )
    assert machine.run("python3", "-c", "import h11", capture=True).returncode != 0
    (machine.root / "tmp/yaml.py").write_text("raise SystemExit(9)\n")
    said(machine, "env", "PYTHONPATH=/tmp", COMMAND, "--version")
    assert any((machine.root / MODULES / "exporter").glob("__pycache__/*.pyc"))


def test_dist_has_every_file_of_the_release_and_their_sums() -> None:
    names = {path.name for path in DIST.iterdir() if path.is_file()}
    made = {path.name for path in (*DEB.values(), *RPM.values())}
    made |= {f"{NAME}-{__version__}.tgz", f"{NAME}-{__version__}.cdx.json", "SHA256SUMS"}
    stem = f"{NAME.replace('-', '_')}-{__version__}"
    made |= {f"{stem}-py3-none-any.whl", f"{stem}.tar.gz"}
    images = {name for name in names - made if name.startswith(f"{NAME}-{__version__}-image-")}
    assert names - images == made
    lines = (DIST / "SHA256SUMS").read_text().splitlines()
    sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
    assert sums == {name: hashlib.sha256((DIST / name).read_bytes()).hexdigest() for name in names - {"SHA256SUMS"}}
    for name in images:
        with tarfile.open(DIST / name) as archive:
            member = archive.extractfile("manifest.json")
            assert member is not None
            assert [tag for each in json.load(member) for tag in each["RepoTags"]] != []


@pytest.mark.parametrize("architecture", build.ARCHITECTURES)
def test_both_packages_have_the_same_files_for_their_machine(architecture: str, tmp_path: Path) -> None:
    found = unpacked(DEB[architecture], tmp_path)
    command = ["rpm", "--query", "--package", "--dump", str(RPM[architecture])]
    listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=patience(60)).stdout
    rows = [line.split() for line in listed.splitlines()]
    assert {row[0]: (row[3], row[4][-3:]) for row in rows if row[4].startswith("0100")} == {
        f"/{at}": (hashlib.sha256(file.content).hexdigest(), f"{file.mode:o}") for at, file in found.items()
    }
    libraries = {at: file.content for at, file in found.items() if at.endswith(".so")}
    assert len(libraries) >= 2
    for at, content in libraries.items():
        assert at.endswith(".abi3.so"), at
        assert int.from_bytes(content[18:20], "little") == MACHINE[architecture], at


def test_they_are_the_same_each_time(files: Tree, tmp_path: Path) -> None:
    for make in (build.deb, build.rpm):
        made = []
        for name in "ab":
            folder = tmp_path / name
            folder.mkdir(exist_ok=True)
            made.append(make(folder, files, "1.2.3", HERE, 1_700_000_000).read_bytes())
        assert made[0] == made[1], make.__name__


def test_the_bill_of_materials_has_every_package_that_is_shipped(files: Tree) -> None:
    bill = json.loads((DIST / f"{NAME}-{__version__}.cdx.json").read_text())
    named = {(part["name"], part["version"]) for part in (*bill["components"], bill["metadata"]["component"])}
    shipped = {
        (name.replace("_", "-").lower(), version)
        for at in files
        if at.endswith(".dist-info/METADATA")
        for name, version in [at.split("/")[-2].removesuffix(".dist-info").rsplit("-", 1)]
    }
    assert named == shipped


def test_the_debian_package(machine: Machine, before: Tree, tmp_path: Path) -> None:
    """Install, upgrade, remove, purge: settings are kept until the purge, and so is the state."""
    old = build.deb(tmp_path, before, "0.0.1", HERE, 1_700_000_000)
    for package in (old, DEB[HERE]):
        (machine.root / "tmp" / package.name).write_bytes(package.read_bytes())
    get = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet", "--yes", "--no-install-recommends")
    keep = ("-o", "Dpkg::Options::=--force-confold")
    said(machine, *get, "update")
    said(machine, *get, "install", "systemd")
    none = left(machine)

    said(machine, *get, "install", f"/tmp/{old.name}")
    assert said(machine, "systemctl", "--root=/", "is-enabled", f"{NAME}.service") == "enabled\n"
    assert said(machine, "getent", "passwd", NAME).endswith(":/usr/sbin/nologin\n")
    with (machine.root / CONFIGURATION).open("a") as file:
        file.write(ADDED)
    state = machine.root / STATE
    state.parent.mkdir()
    state.write_text("counters")

    said(machine, *get, *keep, "install", f"/tmp/{DEB[HERE].name}")
    check_that_it_works(machine)
    assert (machine.root / CONFIGURATION).read_text().endswith(ADDED)
    assert not (machine.root / MODULES / "exporter/former").exists()
    assert state.read_text() == "counters"
    assert said(machine, "dpkg", "--verify", NAME).split() == ["??5??????", "c", f"/{CONFIGURATION}"]
    verified = machine.run("systemd-analyze", "verify", "--man=no", f"/usr/lib/systemd/system/{NAME}.service")
    assert verified.returncode == 0

    said(machine, *get, "remove", NAME)
    assert not (machine.root / MODULES).exists()
    assert (machine.root / CONFIGURATION).read_text().endswith(ADDED)
    assert state.read_text() == "counters"

    said(machine, *get, "purge", NAME)
    assert left(machine) - none == set()


def test_the_rpm_package(machine: Machine, before: Tree, tmp_path: Path) -> None:
    """RPM's own way with settings, and the state is never removed."""
    old = build.rpm(tmp_path, before, "0.0.1", HERE, 1_700_000_000)
    none = left(machine)

    def rpm(*arguments: str) -> None:
        """Dependencies are Debian's here."""
        command = ["rpm", f"--root={machine.root}", "--nodeps", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=patience(120))
        assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr

    rpm("--install", str(old))
    with (machine.root / CONFIGURATION).open("a") as file:
        file.write(ADDED)
    state = machine.root / STATE
    state.parent.mkdir()
    state.write_text("counters")
    rpm("--upgrade", str(RPM[HERE]))
    check_that_it_works(machine)
    assert (machine.root / CONFIGURATION).read_text().endswith(ADDED)
    assert not (machine.root / MODULES / "exporter/former").exists()
    rpm("--erase", NAME)
    kept = {f"/{STATE}", f"/{Path(STATE).parent}", f"/etc/{NAME}", f"/{CONFIGURATION}.rpmsave"}
    kept |= {f"/{CONFIGURATION}.rpmnew"}
    assert left(machine) - none == kept


def test_the_man_page_is_installed_and_has_every_setting(files: Tree, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.1.gz").write_bytes(files[f"usr/share/man/man1/{NAME}.1.gz"].content)
    command = f"gzip --decompress --stdout {tmp_path}/{NAME}.1.gz | groff -man -Tascii -P-cbou -ww"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True, timeout=patience(60))
    assert done.stderr == ""
    assert [name for name in TABLE if f"--{name}" not in done.stdout] == []
