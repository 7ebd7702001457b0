"""The built image, and programs that run in it as a container runtime would run them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.support.image_builder import Image, built, missing
from tests.support.image_container import Container
from tests.support.patience import patience


@pytest.fixture(scope="session")
def image() -> Iterator[Image]:
    """Built once. Where it cannot be, its tests are skipped, but not among the checks of a change."""
    if reason := missing():
        assert "CI" not in os.environ, reason
        pytest.skip(reason)
    with built() as one:
        yield one


@pytest.fixture
def start(image: Image) -> Iterator[Callable[..., Container]]:
    """Start the exporter of the image; whatever still runs at the end of a test is killed."""
    started: list[Container] = []

    def start_one(*flags: str, user: str = "") -> Container:
        started.append(Container(image, flags, user or image.config["User"]))
        return started[-1]

    yield start_one
    for one in started:
        one.end()


@pytest.fixture
def python(image: Image) -> Callable[[str], str]:
    """Run a line of Python by the image's interpreter; returns what it prints."""

    def run(code: str) -> str:
        command = ["/usr/sbin/chroot", str(image.root), "/opt/venv/bin/python", "-B", "-W", "error", "-c", code]
        return subprocess.run(command, capture_output=True, text=True, timeout=patience(60), check=True, env={}).stdout

    return run
