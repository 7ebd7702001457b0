"""Packs the files of `tree` as a Debian and as an RPM package, the same bytes for the same files and ``epoch``."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.packages.tree import CONFIGURATION, NAME, REPOSITORY, Tree

HERE = Path(__file__).resolve().parent
SCRIPTS = ("postinst", "postrm", "prerm")
ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}
"""Debian's names, and those of RPM and the kernel."""

_CONTROL = """\
Package: {name}
Version: {version}
Architecture: {architecture}
Maintainer: ai-energy-exporter maintainers
Installed-Size: {kib}
Depends: python3 (>= 3.11), procps
Pre-Depends: init-system-helpers (>= 1.54~)
Section: net
Priority: optional
Description: Prometheus exporter for the energy of models, containers and processes
 Reads the energy meters of a node and attributes every joule to the container,
 process and AI model that caused it. It runs as a confined systemd service and
 listens on 127.0.0.1:9400 unless configured otherwise.
"""


def deb(folder: Path, files: Tree, version: str, architecture: str, epoch: int) -> Path:
    """Write NAME_VERSION_ARCHITECTURE.deb. Returns its path. Raises CalledProcessError."""
    path = folder / f"{NAME}_{version}_{architecture}.deb"
    with _laid_out(files) as root:
        control = root / "DEBIAN"
        control.mkdir(mode=0o755)
        kib = sum(len(file.content) + 1023 for file in files.values()) // 1024
        text = _CONTROL.format(name=NAME, version=version, architecture=architecture, kib=kib)
        (control / "control").write_text(text, encoding="utf-8")
        (control / "conffiles").write_text(f"/{CONFIGURATION}\n", encoding="utf-8")
        sums = [f"{hashlib.md5(file.content, usedforsecurity=False).hexdigest()}  {at}\n" for at, file in files.items()]
        (control / "md5sums").write_text("".join(sums), encoding="utf-8")
        for name in SCRIPTS:
            shutil.copyfile(HERE / "debian" / name, control / name)
        for each in control.iterdir():
            each.chmod(0o755 if each.name in SCRIPTS else 0o644)
        _set_times(root, epoch)
        command = ["dpkg-deb", "--root-owner-group", "-Zxz", "--threads-max=1", "--build", str(root), str(path)]
        _run(command, epoch)
    return path


def rpm(folder: Path, files: Tree, version: str, architecture: str, epoch: int) -> Path:
    """Write NAME-VERSION-1.ARCHITECTURE.rpm. Returns its path. Raises CalledProcessError."""
    target = ARCHITECTURES[architecture]
    with _laid_out(files) as root, tempfile.TemporaryDirectory() as top:
        _set_times(root, epoch)
        listing = Path(top, "listing")
        listing.write_text("".join(_listed(files)), encoding="utf-8")
        defined = {
            "_topdir": top,
            "_rpmdir": top,
            "version": version,
            "layout": str(root),
            "listing": str(listing),
            "_buildhost": "localhost",
            "use_source_date_epoch_as_buildtime": "1",
            "clamp_mtime_to_source_date_epoch": "1",
            "_build_id_links": "none",
            "debug_package": "%{nil}",
            "__os_install_post": "%{nil}",
            "_binary_payload": "w6.xzdio",
        }
        defines = [f"--define={name} {value}" for name, value in defined.items()]
        command = ["rpmbuild", "-bb", "--quiet", f"--target={target}-linux", *defines, str(HERE / f"{NAME}.spec")]
        _run(command, epoch)
        (made,) = Path(top).rglob("*.rpm")
        return Path(shutil.move(made, folder / made.name))


def _listed(files: Tree) -> Iterator[str]:
    """Lines of RPM's list: each file and the folders that no other package has."""
    folders = {parent for at in files for parent in Path(at).parents if NAME in str(parent)}
    yield "%defattr(-,root,root)\n"
    for folder in sorted(folders):
        yield f"%dir %attr(0755,root,root) /{folder}\n"
    for at, file in files.items():
        kind = "%config(noreplace) " if at == CONFIGURATION else "%doc " if at.startswith("usr/share/doc/") else ""
        yield f'{kind}%attr({file.mode:04o},root,root) "/{at}"\n'


@contextmanager
def _laid_out(files: Tree) -> Iterator[Path]:
    """The files in a folder of their own."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name, "root")
        root.mkdir(mode=0o755)
        for at, file in files.items():
            path = root / at
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.content)
            path.chmod(file.mode)
        for here, folders, _ in os.walk(root):
            for folder in folders:
                Path(here, folder).chmod(0o755)
        yield root


def _set_times(root: Path, epoch: int) -> None:
    for here, folders, names in os.walk(root):
        for name in (*folders, *names):
            os.utime(Path(here, name), (epoch, epoch))
    os.utime(root, (epoch, epoch))


def _run(command: list[str], epoch: int) -> None:
    environment = os.environ | {"SOURCE_DATE_EPOCH": str(epoch), "LC_ALL": "C.UTF-8"}
    subprocess.run(command, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL, check=True)
