"""Builds the image with buildah, on a base made from Debian's packages, because a registry may be out of reach."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.patience import patience
from tests.support.repository import REPOSITORY

SUITE = "bookworm"
TOOLS = ("buildah", "mmdebstrap")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
PATIENCE_SECONDS = 500


class Image(NamedTuple):
    """An image that was built: its root's files, its configuration as Docker has it, and how long each part took."""

    root: Path
    config: dict[str, Any]
    archive: Path
    base_seconds: float
    build_seconds: float


def missing() -> str:
    """What keeps this machine from building, "" if nothing does."""
    if os.geteuid() != 0:
        return "building an image takes root"
    return ", ".join(f"{tool} is not installed" for tool in TOOLS if shutil.which(tool) is None)


@contextmanager
def built() -> Iterator[Image]:
    """Base and image, in a storage of their own that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="ai-energy-image-") as name:
        folder = Path(name)
        buildah = _Buildah(folder)
        began = time.monotonic()
        base = _make_base(buildah)
        based = time.monotonic()
        # The machine's own authorities: there are networks whose proxy signs what it hands out.
        trusted = [f"--volume={CERTIFICATES}:{CERTIFICATES}:ro", f"--build-arg=PIP_CERT={CERTIFICATES}"]
        options = ["--build-arg=REVISION=tested", *(trusted if CERTIFICATES.exists() else [])]
        image = "localhost/ai-energy-exporter"
        where = ["--format=docker", "--pull-never", "--isolation=chroot", f"--tag={image}", str(REPOSITORY)]
        buildah.run("build", f"--build-arg=BASE={base}", *options, *where)
        ended = time.monotonic()
        buildah.run("push", image, f"docker-archive:{folder / 'image.tar'}")
        config = json.loads(buildah.run("inspect", "--type=image", image))["Docker"]["config"]
        root = Path(buildah.run("mount", buildah.run("from", "--pull-never", image)))
        yield Image(root, config, folder / "image.tar", based - began, ended - based)


class _Buildah:
    """buildah with a storage below a folder; vfs works on every file system."""

    def __init__(self, folder: Path) -> None:
        self._command = ["buildah", f"--root={folder}/root", f"--runroot={folder}/run", "--storage-driver=vfs"]

    def run(self, *arguments: str) -> str:
        """What one command prints. Fails with what it complains of."""
        return _run(*self._command, *arguments)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=patience(PATIENCE_SECONDS), check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout.strip()


def _make_base(buildah: _Buildah) -> str:
    """What debian:12-slim with python3-venv would be. Returns its name."""
    container = buildah.run("from", "scratch")
    options = ["--mode=root", "--format=directory", "--variant=essential", "--include=python3-venv,tzdata", "--quiet"]
    options += ["--aptopt=Acquire::Languages none", "--dpkgopt=force-unsafe-io"]
    options += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "locale", "man")]
    options += ["--dpkgopt=path-include=/usr/share/doc/*/copyright"]
    _run("mmdebstrap", *options, SUITE, buildah.run("mount", container))
    name = f"localhost/debian-{SUITE}-python"
    buildah.run("commit", "--rm", "--disable-compression", container, name)
    return name
