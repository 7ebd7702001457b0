"""Builds all files of a release but the image: ``python -m deploy.packages.release FOLDER``.

Wheel, source archive, chart, one Debian and one RPM package for each architecture, and the bill of materials. The times
in them are SOURCE_DATE_EPOCH, or that of the last commit.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from deploy.packages import build, chart, sbom
from deploy.packages.tree import NAME, REPOSITORY, tree
from exporter import __version__

SUMS = "SHA256SUMS"
PYTHON = "3.11"
_GLIBC = ("2_17", "2_28", "2_34")
"""Debian 12, RHEL 9 and newer have at least the last."""


def main(folder: Path) -> int:
    """Write the files. Returns the exit status."""
    epoch = _epoch()
    folder.mkdir(parents=True, exist_ok=True)
    wheel = _python(folder, epoch)
    chart.write(folder, epoch)
    lock = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8")
    for architecture in build.ARCHITECTURES:
        with tempfile.TemporaryDirectory() as name:
            wheels = [wheel, *_dependencies(Path(name), build.ARCHITECTURES[architecture])]
            files = tree(wheels)
            build.deb(folder, files, __version__, architecture, epoch)
            build.rpm(folder, files, __version__, architecture, epoch)
            bill = sbom.document(lock, wheels, (NAME, __version__), epoch)
        (folder / f"{NAME}-{__version__}.cdx.json").write_text(bill, encoding="utf-8")
    return 0


def write_sums(folder: Path) -> int:
    """Write SHA256SUMS of all files there, for ``sha256sum --check``."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != SUMS
    ]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")
    return 0


def _epoch() -> int:
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    command = ["git", "log", "-1", "--format=%ct"]
    return int(subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout)


def _python(folder: Path, epoch: int) -> Path:
    """Wheel and source archive. Returns the wheel."""
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    environment = os.environ | {"SOURCE_DATE_EPOCH": str(epoch)}
    subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, check=True)
    return folder / f"{NAME.replace('-', '_')}-{__version__}-py3-none-any.whl"


def _dependencies(folder: Path, machine: str) -> list[Path]:
    """Wheels of all that the lock has, for a machine, compared with the lock's hashes."""
    platforms = [f"--platform=manylinux_{version}_{machine}" for version in _GLIBC]
    fit = [*platforms, f"--platform=manylinux2014_{machine}", f"--python-version={PYTHON}", "--implementation=cp"]
    fit += ["--abi=abi3", f"--abi=cp{PYTHON.replace('.', '')}", "--abi=none"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--require-hashes", *fit, f"--dest={folder}", "--requirement=requirements.lock"]
    subprocess.run(command, cwd=REPOSITORY, check=True)
    return sorted(folder.iterdir())


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--sums", folder]:
            sys.exit(write_sums(Path(folder)))
        case [folder]:
            sys.exit(main(Path(folder)))
        case _:
            sys.exit(__doc__)
