"""Options of the test suite, and the program as a process."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support.hlml import control as hlml_control
from tests.support.nvml import control
from tests.support.nvml.node import fresh_bindings
from tests.support.patience import patience
from tests.support.program import Running, children_of

# On a busy machine any example may take long: that is no failure. A change is judged by the same examples each time;
# `--hypothesis-profile=explore` looks for new ones.
settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("steady", settings.get_profile("explore"), derandomize=True, database=None)
settings.load_profile("steady")


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--update-golden`` writes the expected scrapes anew instead of comparing them."""
    parser.addoption("--update-golden", action="store_true", help="write tests/hosts/*/expected.prom anew")


def pytest_configure() -> None:
    """SIGTERM ends a run as Ctrl-C does: fixtures end what they started."""

    def interrupt(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # once: the next would interrupt the fixtures
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


@pytest.hookimpl(wrapper=True)
def pytest_timeout_set_timer(settings: Any) -> Generator[None, object, object]:
    """Let the limit of a test grow with the load, also while it runs, as all does that it waits for."""
    began = time.monotonic()
    answer = yield
    fail = signal.getsignal(signal.SIGALRM)
    if settings.method == "signal" and callable(fail):

        def fail_unless_busy(number: int, frame: FrameType | None) -> None:
            left = began + patience(settings.timeout) - time.monotonic()
            if left > 0:
                signal.setitimer(signal.ITIMER_REAL, left)
            else:
                fail(number, frame)

        signal.signal(signal.SIGALRM, fail_unless_busy)
    return answer


@pytest.fixture(scope="session", autouse=True)
def _nobody_is_left() -> Iterator[None]:
    """Kill what still runs in the end: a test may fail before a fixture knows of what it started."""
    yield
    for pid in children_of(os.getpid()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripted NVIDIA driver, compiled when the first test asks for it."""
    return control.build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="session")
def hlml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripted library of Gaudi cards."""
    return hlml_control.build(tmp_path_factory.mktemp("hlml"))


@pytest.fixture(scope="module")
def bindings(library: Path) -> Any:
    """NVIDIA's own bindings, loaded anew, on top of it."""
    return fresh_bindings(library)


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    """Start the program; whatever still runs at the end of a test is killed."""
    started: list[Running] = []

    def start_one(*flags: str) -> Running:
        started.append(Running(flags))
        return started[-1]

    yield start_one
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()
