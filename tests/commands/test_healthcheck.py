"""The image's health check: which address it queries, and how it judges the response."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from exporter.cli import main
from exporter.commands.healthcheck import NoHealthAddressError, target
from exporter.config.loading import load
from exporter.config.value_types import Address
from tests.support.patience import patience
from tests.support.program import ENVIRONMENT, Running
from tests.support.repository import REPOSITORY

VARIABLE = "AI_ENERGY_WEB_LISTEN_ADDRESS"


@pytest.mark.parametrize(
    ("listen", "queried"),
    [
        (":9400", Address("127.0.0.1", 9400)),
        ("0.0.0.0:9401", Address("127.0.0.1", 9401)),
        ("[::]:9402", Address("::1", 9402)),
        ("10.0.0.7:9403", Address("10.0.0.7", 9403)),
    ],
)
def test_every_interface_is_queried_on_loopback(listen: str, queried: Address) -> None:
    assert target(load({}, {VARIABLE: listen})) == queried


def test_the_address_for_health_goes_first() -> None:
    settings = load({"web.health-address": ["127.0.0.1:9999"], "web.config.file": "web.yml"}, {VARIABLE: ":9400"})
    assert target(settings) == Address("127.0.0.1", 9999)


def test_where_a_certificate_may_be_demanded_it_says_what_to_set() -> None:
    with pytest.raises(NoHealthAddressError, match=r"set --web\.health-address"):
        target(load({"web.config.file": "web.yml"}, {}))


def test_a_healthy_exporter(start: Callable[..., Running]) -> None:
    """As Docker runs it: a program of its own, the address from the environment."""
    address = start("--demo").url.split("/")[2]
    command = [sys.executable, "-W", "error", "-m", "exporter", "healthcheck"]
    environ = ENVIRONMENT | {VARIABLE: address}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environ, capture_output=True, text=True, timeout=patience(), check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "healthy\n", "")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 10\r\n\r\nunhealthy\n", "unhealthy\n"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "BadStatusLine"),
        (b"", "RemoteDisconnected"),
    ],
)
def test_whatever_else_answers_is_not_healthy(answer: bytes, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            with client:
                client.recv(4096)
                client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        address = Address(*server.getsockname())
        assert main(["healthcheck", "--web.listen-address", str(address)], {}) == 1
        thread.join()
    assert text in capsys.readouterr().out


def test_nothing_listens(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = Address(*server.getsockname())
    assert main(["healthcheck", "--web.listen-address", str(address)], {}) == 1
    assert f"{address}: ConnectionRefusedError" in capsys.readouterr().out


def test_settings_that_cannot_be_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["healthcheck"], {VARIABLE: "nonsense"}) == 1
    assert VARIABLE in capsys.readouterr().out
