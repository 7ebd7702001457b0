"""What the Debian and the RPM package install: the same files, as a mapping of path to content.

The exporter and its locked dependencies are in one folder that only this program imports from, so they neither need nor
replace packages of the system. They run on any Python from 3.11 on: no file is for one version of it.
"""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from deploy.packages import manual

NAME = "ai-energy-exporter"
REPOSITORY = Path(__file__).resolve().parent.parent.parent
MODULES = f"usr/lib/{NAME}"
CONFIGURATION = f"etc/{NAME}/environment"
UNIT = f"usr/lib/systemd/system/{NAME}.service"
SHARED = f"usr/share/{NAME}"

_COMMAND = f"""\
#!/usr/bin/python3 -I
import sys

sys.path.insert(0, "/{MODULES}")
from exporter.cli import main

sys.exit(main())
"""
_IN_THE_UNIT = f"ExecStart=/opt/{NAME}/bin/{NAME}\n"


class File(NamedTuple):
    """A regular file of root."""

    content: bytes
    mode: int = 0o644


Tree = dict[str, File]
"""Path below the root to file."""


class UnfitWheelError(Exception):
    """A wheel that cannot be installed by unpacking, or only runs on one version of Python."""


def tree(wheels: Iterable[Path]) -> Tree:
    """All files of a package. ``wheels`` are the exporter's and those of its dependencies. Raises `UnfitWheelError`."""
    files: Tree = {}
    for wheel in wheels:
        files |= modules(wheel)
    systemd = REPOSITORY / "deploy/systemd"
    files[f"usr/bin/{NAME}"] = File(_COMMAND.encode(), 0o755)
    files[UNIT] = File(unit().encode())
    files[CONFIGURATION] = File((systemd / "environment").read_bytes())
    files[f"usr/lib/sysusers.d/{NAME}.conf"] = File((systemd / f"{NAME}.sysusers").read_bytes())
    for name in (f"60-{NAME}.rules", "non-root.conf", "see-processes.conf"):
        files[f"{SHARED}/{name}"] = File((systemd / name).read_bytes())
    files[f"usr/share/man/man1/{NAME}.1.gz"] = File(_packed(manual.document().encode()))
    documents = f"usr/share/doc/{NAME}"
    files[f"{documents}/copyright"] = File((REPOSITORY / "LICENSE").read_bytes())
    files[f"{documents}/CHANGELOG.md.gz"] = File(_packed((REPOSITORY / "CHANGELOG.md").read_bytes()))
    for path in sorted((REPOSITORY / "docs").glob("*.md")):
        files[f"{documents}/{path.name}"] = File(path.read_bytes())
    return dict(sorted(files.items()))


def modules(wheel: Path) -> Tree:
    """The files of one wheel. Raises `UnfitWheelError`."""
    files: Tree = {}
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if ".data/" in name:
                raise UnfitWheelError(f"{wheel.name} has files outside of its modules: {name}")
            if name.startswith("yaml/_yaml.") and name.endswith(".so"):
                continue  # libyaml's loader, which PyYAML has in Python too
            if name.endswith(".so") and not name.endswith(".abi3.so"):
                raise UnfitWheelError(f"{wheel.name} is for one version of Python: {name}")
            if not name.endswith("/"):
                files[f"{MODULES}/{name}"] = File(archive.read(name))
    return files


def unit() -> str:
    """The systemd unit, with the command where the package has it."""
    text = (REPOSITORY / f"deploy/systemd/{NAME}.service").read_text(encoding="utf-8")
    before, after = text.split(_IN_THE_UNIT)
    return f"{before}ExecStart=/usr/bin/{NAME}\n{after}"


def _packed(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)
