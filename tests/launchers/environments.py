"""The pinned packages that the trials need, each group in a virtual environment of its own, made when first needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple


class Environment(NamedTuple):
    """Packages of one virtual environment.

    ``instead`` are requirements that replace those of the packages, ``known_as`` further distributions that they take
    themselves for.
    """

    packages: tuple[str, ...]
    instead: tuple[str, ...] = ()
    known_as: tuple[str, ...] = ()


def prepare(name: str, environment: Environment, folder: Path) -> Path:
    """The folder with the programs of an environment, which is made if it is not there.

    Raises `subprocess.CalledProcessError` if a package cannot be had.
    """
    home = folder / "environments" / name
    done, wanted = home / ".installed", "\n".join((*environment.packages, *environment.instead, *environment.known_as))
    if not (done.exists() and done.read_text(encoding="utf-8") == wanted):
        uv = _uv(folder)
        cache = f"--cache-dir={folder / 'cache'}"
        subprocess.run([uv, "venv", "--quiet", "--clear", cache, f"--python={sys.base_prefix}", str(home)], check=True)
        overrides = folder / f"{name}.override.txt"
        overrides.write_text("\n".join(environment.instead), encoding="utf-8")
        install = [uv, "pip", "install", "--quiet", cache, f"--python={home}", f"--override={overrides}"]
        subprocess.run([*install, *environment.packages], check=True)
        for name_and_version in environment.known_as:
            _declare(home, *name_and_version.split("=="))
        done.write_text(wanted, encoding="utf-8")
    return home / "bin"


def _declare(home: Path, name: str, version: str) -> None:
    (packages,) = home.glob("lib/python3*/site-packages")
    folder = packages / f"{name}-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")


def _uv(folder: Path) -> str:
    """uv, which shares the files of packages among environments: PyTorch alone has gigabytes."""
    home = folder / "uv"
    if not (home / "bin/uv").exists():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        subprocess.run([str(home / "bin/pip"), "install", "--quiet", "uv==0.13.9"], check=True)
    return str(home / "bin/uv")
