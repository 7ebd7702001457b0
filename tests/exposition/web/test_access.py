"""Authorization over real sockets, and a web configuration that changes or becomes invalid."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import bcrypt
import pytest

from exporter.exposition.web.access import Access, RejectionLog
from exporter.exposition.web.basic_auth import FAILURE_SECONDS, FAILURES
from exporter.exposition.web.clients import Client
from exporter.exposition.web.server import ServerOptions
from exporter.exposition.web.web_config_file import WebConfigError
from tests.support.patience import wait_for
from tests.support.served import (
    HASH,
    LOCAL,
    PASSWORD,
    Exporter,
    WebFolder,
    basic,
    fetch,
    is_closed,
    status,
    users,
)

Serve = Callable[..., Exporter]
BOB = basic("bob", PASSWORD)
AGES_SECONDS = 1000 * 366 * 86_400.0


# --- logins --------------------------------------------------------------------------------------------


def test_everything_but_health_needs_a_login(serve: Serve, web: WebFolder) -> None:
    """Also unknown paths, so that their existence is not disclosed."""
    exporter = serve(web=web.write(users(bob=HASH)))
    for path in ("/", "/metrics", "/nothing", "/-/reload"):
        answer, body = exporter.get(path)
        assert (answer.status, body) == (401, b"log in\n")
        assert answer.headers["WWW-Authenticate"] == 'Basic realm="ai-energy-exporter", charset="UTF-8"'
    assert exporter.get(method="POST")[0].status == 401
    assert exporter.get(Authorization=BOB)[0].status == 200
    assert exporter.get("/nothing", Authorization=BOB)[0].status == 404
    assert exporter.get(method="POST", Authorization=BOB)[0].status == 405


def test_health_needs_no_login_and_is_reduced_to_the_status(serve: Serve, web: WebFolder) -> None:
    """A kubelet cannot log in."""
    exporter = serve(web=web.write(users(bob=HASH)))
    assert [exporter.get(path)[1] for path in ("/-/healthy", "/healthz", "/-/ready", "/readyz")] == [
        *([b"healthy\n"] * 2),
        *([b"ready\n"] * 2),
    ]
    exporter.now += 1000
    assert exporter.get("/-/healthy")[1] == b"unhealthy\n"
    assert exporter.get("/-/healthy?x=1")[0].status == 503
    assert exporter.get("/-/healthy/")[0].status == 401


@pytest.mark.parametrize(
    "header",
    [
        basic("bob", "wrong"),
        basic("bob", ""),
        basic("nobody", PASSWORD),
        basic("", ""),
        "Basic",
        "Basic ====",
        "Bearer x",
        "Digest username=bob",
    ],
)
def test_a_wrong_login(serve: Serve, web: WebFolder, header: str) -> None:
    """Fault 65."""
    exporter = serve(web=web.write(users(bob=HASH)))
    with closing(exporter.client()) as client:
        for _ in range(2):  # the second one is cached
            assert fetch(client, Authorization=header)[0].status == 401
        assert fetch(client, Authorization=BOB)[0].status == 200


def test_only_the_first_of_two_logins_counts(serve: Serve, web: WebFolder) -> None:
    exporter = serve(web=web.write(users(bob=HASH)))
    both = f"Authorization: {basic('bob', 'x')}\r\nAuthorization: {BOB}\r\n"
    assert status(exporter.raw(f"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{both}\r\n".encode())) == 401


def test_pipelined_requests_wait_for_the_login_of_the_first(serve: Serve, web: WebFolder) -> None:
    exporter = serve(web=web.write(users(bob=HASH)))
    request = "GET {} HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\n{}\r\n"
    answer = exporter.raw(
        (
            request.format("/-/ready", "none", "")
            + request.format("/nothing", BOB, "")
            + request.format("/", basic("bob", "x"), "")
            + request.format("/metrics", BOB, "Connection: close\r\n")
        ).encode()
    )
    found = [int(line.split()[1]) for line in answer.splitlines() if line.startswith(b"HTTP/1.1 ")]
    assert found == [200, 404, 401, 200]


def test_a_client_that_leaves_while_its_password_is_checked(serve: Serve, web: WebFolder) -> None:
    """Fault 63: other clients that wait for the same check still get a response."""
    slow = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(11)).decode()
    exporter = serve(web=web.write(users(bob=slow)))
    with ExitStack() as stack:
        leaving = [stack.enter_context(exporter.connect()) for _ in range(3)]
        for client in leaving:
            client.sendall(f"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: {BOB}\r\n\r\n".encode())
        leaving[0].close()
        assert exporter.get(Authorization=BOB)[0].status == 200
        assert {status(client.recv(100)) for client in leaving[1:]} == {200}


def test_wrong_passwords_in_bulk(
    serve: Serve, web: WebFolder, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fault 65: guesses are throttled, known clients are not, and the log neither fills up nor contains a secret."""
    costly = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(6)).decode()
    exporter = serve(ServerOptions(listen=LOCAL), web=web.write(users(bob=costly)))
    caplog.set_level(logging.DEBUG)
    kept = exporter.client()
    assert fetch(kept, Authorization=BOB)[0].status == 200  # cached from now on

    def guess(number: int) -> int:
        header = basic("bob" if number % 2 else f"user{number}", f"guess {number}")
        return exporter.get(source=f"127.0.0.{2 + number % 4}", Authorization=header)[0].status

    slowest, first = 0.0, time.monotonic()
    with closing(kept), ThreadPoolExecutor(8) as pool:
        guesses = [pool.submit(guess, number) for number in range(120)]
        while not all(one.done() for one in guesses):
            began = time.monotonic()
            assert fetch(kept, Authorization=BOB)[0].status == 200
            slowest = max(slowest, time.monotonic() - began)
    found = [one.result() for one in guesses]
    assert set(found) == {401, 429}
    tries = FAILURES + (time.monotonic() - first) / FAILURE_SECONDS
    assert found.count(401) <= 4 * tries  # the rest was not checked
    assert slowest < 1.0
    lines = [record.getMessage() for record in caplog.records if "a login was rejected" in record.getMessage()]
    assert 1 <= len(lines) <= 2
    for secret in ("guess", "user1", "bob", PASSWORD, costly, BOB):
        assert secret not in caplog.text
    assert capsys.readouterr() == ("", "")


def test_too_many_failures_are_a_429(serve: Serve, web: WebFolder) -> None:
    exporter = serve(web=web.write(users(bob=HASH)))
    for number in range(FAILURES):
        assert exporter.get(Authorization=basic("bob", str(number)))[0].status == 401
    answer, body = exporter.get(Authorization=basic("bob", "again"))
    assert (answer.status, answer.headers["Retry-After"], body) == (429, "10", b"too many failed logins\n")
    assert exporter.get(source="127.0.0.9", Authorization=BOB)[0].status == 200
    assert exporter.get(Authorization=BOB)[0].status == 200


# --- headers and rate ----------------------------------------------------------------------------------


def test_headers_are_added_to_every_response_and_replace_ours(serve: Serve, web: WebFolder) -> None:
    wanted = "http_server_config:\n  headers:\n    X-Frame-Options: deny\n    Content-Security-Policy: sandbox\n"
    exporter = serve(web=web.write(wanted + users(bob=HASH)))
    for path, login in (("/", BOB), ("/metrics", BOB), ("/nothing", BOB), ("/", ""), ("/-/ready", "")):
        answer, _ = exporter.get(path, Authorization=login)
        assert answer.headers.get_all("X-Frame-Options") == ["deny"], path
        assert answer.headers.get_all("Content-Security-Policy") == ["sandbox"], path
        assert answer.headers.get_all("X-Content-Type-Options") == ["nosniff"], path


def test_nosniff_is_not_sent_twice(serve: Serve, web: WebFolder) -> None:
    exporter = serve(web=web.write("http_server_config: {headers: {X-Content-Type-Options: nosniff}}"))
    assert exporter.get()[0].headers.get_all("X-Content-Type-Options") == ["nosniff"]


def test_a_rate_limit_spares_health(serve: Serve, web: WebFolder) -> None:
    exporter = serve(web=web.write("rate_limit: {interval: 1h, burst: 2}"))
    assert [exporter.get()[0].status for _ in range(4)] == [200, 200, 429, 429]
    assert exporter.get("/-/ready")[0].status == 200


# --- changes -------------------------------------------------------------------------------------------


class Clocks:
    """Seconds since the start, and since 1970."""

    def __init__(self) -> None:
        self.now = 0.0
        self.wall = time.time()

    def access(self, path: str) -> Access:
        return Access(path, lambda: self.now, lambda: self.wall)


def is_ok(access: Access) -> bool:
    return access.ok


def test_a_removed_user_is_rejected_within_seconds(serve: Serve, web: WebFolder) -> None:
    """Fault 65: also on a kept connection."""
    exporter = serve(web=web.write(users(bob=HASH, eve=HASH)))
    with closing(exporter.client()) as client:
        assert fetch(client, Authorization=BOB)[0].status == 200
        web.write(users(eve=HASH))
        wait_for(lambda: fetch(client, Authorization=BOB)[0].status == 401)
    assert exporter.get(Authorization=basic("eve", PASSWORD))[0].status == 200


def test_an_invalid_file_leaves_the_previous_one_in_force(
    serve: Serve, web: WebFolder, caplog: pytest.LogCaptureFixture
) -> None:
    """Fault 58: logged once, until the file is fixed."""
    access = Clocks().access(web.write(users(bob=HASH)))
    web.write("basic_auth_users: {bob: plain}\n")
    for _ in range(5):
        assert not access.refresh()
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        f"web configuration not reloaded: {web.path}:1: basic_auth_users: not a bcrypt hash; "
        "make one with: htpasswd -nBC 10 NAME"
    ]
    assert not is_ok(access)
    web.write("no_such_key: 1\n")
    for _ in range(3):
        access.refresh()
    assert not is_ok(access)
    assert len(caplog.records) == 2
    caplog.set_level(logging.INFO)
    web.write(users(bob=HASH) + "\n")
    access.refresh()
    assert is_ok(access)
    assert caplog.records[-1].getMessage() == f"{web.path}: web configuration and certificates reloaded"
    web.path.unlink()
    for _ in range(3):
        access.refresh()
    assert "web.yml: No such file or directory" in caplog.records[-1].getMessage()


def test_a_certificate_and_its_key_may_be_replaced_one_after_the_other(
    web: WebFolder, caplog: pytest.LogCaptureFixture
) -> None:
    """Fault 65: a mismatch for less than a second is no error."""
    access = Clocks().access(web.serve_tls())
    old, old_key = access.tls, (web.folder / "server.key").read_bytes()
    web.issue()
    new_key = (web.folder / "server.key").read_bytes()
    web.replace("server.key", old_key)
    assert not access.refresh()
    assert access.tls is old
    web.replace("server.key", new_key)
    assert not access.refresh()  # existing connections may continue
    assert access.tls is not old
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


def test_nothing_is_read_again_while_nothing_changes(web: WebFolder, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    access = Clocks().access(web.serve_tls(rest=users(bob=HASH)))
    policy = access.tls
    for _ in range(5):
        assert not access.refresh()
    assert caplog.records == []
    web.write("# a comment\n" + web.path.read_text())
    assert not access.refresh()  # other lines, the same settings: connections stay
    assert access.tls is policy
    assert len(caplog.records) == 1


def test_files_that_were_named_later_are_watched_too(web: WebFolder) -> None:
    access = Clocks().access(web.serve_tls())
    web.issue(name="other")
    web.write("tls_server_config: {cert_file: other.crt, key_file: other.key}\n")
    access.refresh()
    access.refresh()
    policy = access.tls
    web.issue(name="other")
    access.refresh()
    assert access.tls is not policy


@pytest.mark.parametrize(
    ("left", "problem"),
    [
        ("", "tls_server_config: was removed; to serve without TLS, restart"),
        ("", "basic_auth_users: lists no user any more; to serve without logins, restart"),
    ],
)
def test_a_reload_never_removes_protection(
    web: WebFolder, caplog: pytest.LogCaptureFixture, left: str, problem: str
) -> None:
    """For example, a file that is being written."""
    access = Clocks().access(web.serve_tls(rest=users(bob=HASH)))
    policy = access.tls
    web.write(left)
    for _ in range(3):
        assert not access.refresh()
    assert access.tls is policy
    assert problem in caplog.text


def test_tls_and_logins_may_come_while_it_runs(serve: Serve, web: WebFolder) -> None:
    exporter = serve(web=web.write(""))
    assert exporter.get()[0].status == 200
    with closing(exporter.client()) as client:
        assert fetch(client)[0].status == 200
        web.serve_tls(rest=users(bob=HASH))
        assert is_closed(client.sock)
    assert exporter.get(tls=web.trusting())[0].status == 401
    assert exporter.get(tls=web.trusting(), Authorization=BOB)[0].status == 200


def test_a_certificate_that_expires_at_runtime_is_logged_once(web: WebFolder, caplog: pytest.LogCaptureFixture) -> None:
    """Fault 65."""
    clocks = Clocks()
    access = clocks.access(web.serve_tls())
    access.refresh()
    assert caplog.records == []
    clocks.wall += AGES_SECONDS
    for _ in range(3):
        access.refresh()
    assert [record.getMessage() for record in caplog.records] == [
        f"{web.path}:2: this certificate has expired: clients will reject it"
    ]


def test_a_certificate_that_clients_will_reject_is_logged_at_startup(
    web: WebFolder, caplog: pytest.LogCaptureFixture
) -> None:
    """Fault 65."""
    path = web.serve_tls()
    web.issue(ended=True)
    Clocks().access(path).log_warnings()
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}:2: clients may reject this certificate: certificate has expired"
    ]


@pytest.mark.parametrize("version", ["TLS10", "TLS11"])
def test_an_unsupported_version_is_a_warning_at_startup_and_at_a_reload(
    web: WebFolder, caplog: pytest.LogCaptureFixture, version: str
) -> None:
    path = web.serve_tls()
    plain = web.path.read_text()
    access = Clocks().access(path)
    access.log_warnings()
    assert caplog.records == []
    web.write(plain.replace("tls_server_config:", f"tls_server_config:\n  min_version: {version}"))
    warning = (
        "WARNING",
        f"{path}:2: tls_server_config.min_version: {version} is not supported; the minimum is TLS12 instead",
    )
    Clocks().access(path).log_warnings()
    access.refresh()
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [warning, warning]


def test_a_client_certificate_that_ended_since_the_handshake(serve: Serve, web: WebFolder) -> None:
    """Fault 65: a kept connection does not outlive it."""
    clocks = Clocks()
    exporter = serve(web=clocks.access(web.serve_mtls()))
    with closing(exporter.client(web.trusting("prometheus.example"))) as client:
        assert fetch(client)[0].status == 200
        clocks.wall += AGES_SECONDS
        answer, body = fetch(client)
        assert (answer.status, body) == (403, b"the client certificate has expired\n")


def test_without_bcrypt_the_error_has_the_fix(web: WebFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "bcrypt", None)
    with pytest.raises(WebConfigError) as caught:
        Access(web.write(users(bob=HASH)))
    fix = "basic_auth_users: needs the package bcrypt: pip install bcrypt"
    assert caught.value.problems == (f"{web.path}: {fix}",)
    assert Access(web.write("")).tls is None


def test_rejections_are_counted_and_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    rejections = RejectionLog(lambda: now[0])
    for _ in range(1000):
        rejections.record("a login", "10.0.0.1", "wrong")
    rejections.record("a TLS handshake", "10.0.0.2", "bad")
    now[0] = 61.0
    rejections.record("a login", "10.0.0.3", "wrong")
    assert [record.getMessage() for record in caplog.records] == [
        "a login was rejected: wrong (from 10.0.0.1)",
        "a TLS handshake was rejected: bad (from 10.0.0.2)",
        "a login was rejected: wrong (from 10.0.0.3, and 999 more since the last such line)",
    ]


@pytest.mark.parametrize(
    ("more", "reconnect"),
    [
        ("", False),
        ("  min_version: TLS13\n", True),
        ("  client_ca_file: ca.crt\n  client_auth_type: VerifyClientCertIfGiven\n", True),
    ],
)
def test_other_tls_settings_apply_to_existing_connections(web: WebFolder, more: str, reconnect: bool) -> None:
    """Clients must reconnect; a new server certificate alone changes nothing."""
    access = Clocks().access(web.serve_tls())
    client = Client("127.0.0.1", "127.0.0.1", access.tls, None)
    assert access.check_certificate(client) is None
    web.serve_tls(more)
    assert access.refresh() is reconnect
    rejected = access.check_certificate(client)
    assert (rejected is not None and rejected.status == 503 and rejected.close) is reconnect
    assert access.check_certificate(Client("127.0.0.1", "127.0.0.1", access.tls, None)) is None
