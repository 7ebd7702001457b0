"""The program with a web configuration: errors are reported, and everything else keeps working."""

from __future__ import annotations

import http.client
import signal
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path

import bcrypt
import pytest

from tests.support.patience import patience, wait_for
from tests.support.program import Running, run
from tests.support.served import HASH, PASSWORD, WebFolder, basic, users

Start = Callable[..., Running]


@pytest.fixture
def web(tmp_path: Path) -> WebFolder:
    """Certificates and an empty folder for a web configuration."""
    return WebFolder(tmp_path)


@pytest.mark.parametrize("mode", [["--config.check"], []])
def test_an_invalid_one_is_status_2_and_one_line_per_error(web: WebFolder, mode: list[str]) -> None:
    """Fault 58."""
    path = web.write("tls_server_config:\n  cert_file: gone.crt\nbasic_auth_users:\n  bob: my secret\n")
    done = run("--demo", "--web.config.file", path, *mode)
    assert (done.returncode, done.stdout) == (2, "")
    assert sorted(done.stderr.splitlines()) == [
        f"{path}:2: tls_server_config.cert_file: {web.folder}/gone.crt: No such file or directory",
        f"{path}:2: tls_server_config.key_file: is missing",
        f"{path}:4: basic_auth_users: not a bcrypt hash; make one with: htpasswd -nBC 10 NAME",
    ]


def test_a_valid_one_passes_the_check(web: WebFolder) -> None:
    done = run("--config.check", "--web.config.file", web.serve_mtls(rest=users(bob=HASH)))
    assert (done.returncode, done.stdout, done.stderr) == (0, "OK\n", "")


def test_a_scrape_through_all_of_it_and_a_clean_stop(start: Start, web: WebFolder) -> None:
    """Fault 65: over TLS with a client certificate and a password, while passwords are guessed."""
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(10)).decode()
    path = web.serve_mtls("  client_allowed_sans: [prometheus.example]\n", users(bob=hashed))
    running = start("--demo", "--web.config.file", path, "--log.level", "debug")
    assert running.url.startswith("https://127.0.0.1:")
    running.tls = web.trusting("prometheus.example")
    running.headers = {"Authorization": basic("bob", PASSWORD)}
    assert running.samples()["energy_exporter_build_info"] == 1
    for guess in ("one", "two"):
        request = urllib.request.Request(running.url, headers={"Authorization": basic("bob", guess)})
        assert wait_for(partial(_answered, request, running.tls), "an answer") == 401
    status, seconds = running.stop()
    assert (status, seconds < patience(5)) == (0, True)
    running.logged("stopping: SIGTERM")
    log = "".join(running.lines)
    assert "a login was rejected: wrong name or password (from 127.0.0.1)" in log
    for secret in (PASSWORD, hashed, "bob", running.headers["Authorization"], "PRIVATE KEY"):
        assert secret not in log


def _answered(request: urllib.request.Request, tls: ssl.SSLContext | None) -> int | None:
    """The status; None if the request did not arrive in the server's time, which a busy machine can exceed."""
    try:
        with urllib.request.urlopen(request, timeout=patience(), context=tls) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        refused.close()
        return refused.code
    except http.client.RemoteDisconnected:
        return None


def test_a_broken_one_shows_in_the_metric_and_serving_continues(start: Start, web: WebFolder) -> None:
    """Fault 58: a SIGHUP, which reloads the other settings, does not hide it."""
    path = web.serve_tls()
    running = start("--demo", "--web.config.file", path)
    running.tls = web.trusting()
    assert running.samples()["energy_config_last_reload_successful"] == 1
    certificate = (web.folder / "server.crt").read_bytes()
    (web.folder / "server.crt").write_text("")
    assert f"{path}:2: tls_server_config.cert_file: has no PEM block" in running.logged("not reloaded")
    running.wait_for("energy_config_last_reload_successful", lambda value: value == 0)
    running.process.send_signal(signal.SIGHUP)
    running.logged("settings reloaded")
    running.wait_for("energy_samples_total", lambda count: count > 0)
    assert running.samples()["energy_config_last_reload_successful"] == 0
    (web.folder / "server.crt").write_bytes(certificate)
    running.logged("web configuration and certificates reloaded")
    running.wait_for("energy_config_last_reload_successful", lambda value: value == 1)
    assert running.stop()[0] == 0


def test_health_on_a_separate_port(start: Start, web: WebFolder) -> None:
    """Fault 67: a kubelet cannot present a certificate."""
    running = start("--demo", "--web.config.file", web.serve_mtls(), "--web.health-address", "127.0.0.1:0")
    url = running.logged("health is served on").split()[-1]
    wait_for(lambda: fetch(f"{url}/-/ready") == b"ready\n")
    assert fetch(f"{url}/-/healthy") == b"healthy\n"
    assert fetch(f"{url}/metrics") == b"not found\n"
    assert running.stop()[0] == 0


def fetch(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=patience()) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.read()
