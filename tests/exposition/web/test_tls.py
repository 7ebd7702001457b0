"""TLS over real sockets: accepted and rejected clients, and handshakes that must not delay others."""

from __future__ import annotations

import errno
import http.client
import resource
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest
import trustme

from exporter.config.value_types import Address
from exporter.exposition.web.clients import Deadlines
from exporter.exposition.web.server import ServerOptions
from exporter.exposition.web.tls import Tls, TlsPolicy
from exporter.exposition.web.web_config import read
from tests.support.patience import patience, wait_for
from tests.support.program import free_port
from tests.support.served import (
    BIG,
    HASH,
    LOCAL,
    PASSWORD,
    Exporter,
    WebFolder,
    basic,
    big_body,
    fetch,
    is_closed,
    read_all,
    status,
    users,
)

Serve = Callable[..., Exporter]


# --- what honest clients get ---------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_whole_bodies_on_a_kept_connection(serve: Serve, web: WebFolder, version: ssl.TLSVersion) -> None:
    context = web.trusting()
    context.minimum_version = context.maximum_version = version
    exporter = serve(body=big_body, web=web.serve_tls())
    with closing(exporter.client(context)) as client:
        for _ in range(2):
            assert len(fetch(client)[1]) == len(BIG)
        assert fetch(client, "/-/ready")[1] == b"ready\n"


def test_the_server_sends_close_notify(serve: Serve, web: WebFolder) -> None:
    """A client can tell a complete response from a truncated one."""
    exporter = serve(web=web.serve_tls())
    with exporter.connect() as plain, web.trusting().wrap_socket(plain, server_hostname="127.0.0.1") as client:
        client.sendall(b"GET /-/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b""
        while part := client.recv(1024):  # an end without close_notify would raise
            answer += part
        assert status(answer) == 200


def test_a_client_that_sends_close_notify_is_closed(serve: Serve, web: WebFolder) -> None:
    exporter = serve(web=web.serve_tls())
    with exporter.connect() as plain:
        client = web.trusting().wrap_socket(plain, server_hostname="127.0.0.1")
        client.sendall(b"GET /-/ready HTTP/1.1\r\nHost: x\r\n\r\n")
        assert status(client.recv(1024)) == 200
        with client, closing(client.unwrap()) as rest:
            assert is_closed(rest)


def test_http_1_1_is_agreed_on_where_the_client_offers_http_2(serve: Serve, web: WebFolder) -> None:
    context = web.trusting()
    context.set_alpn_protocols(["h2", "http/1.1"])
    exporter = serve(web=web.serve_tls(rest="http_server_config: {http2: true}\n"))
    with exporter.connect() as plain, context.wrap_socket(plain, server_hostname="127.0.0.1") as client:
        assert client.selected_alpn_protocol() == "http/1.1"


def test_plain_http_on_a_tls_port_gets_the_reason(serve: Serve, web: WebFolder) -> None:
    answer = serve(web=web.serve_tls()).raw(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert status(answer) == 400
    assert b"use https" in answer


def test_giant_headers_and_garbage_inside_tls(serve: Serve, web: WebFolder) -> None:
    """Fault 64."""
    exporter = serve(web=web.serve_tls())
    for request, expected in ((b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000, 431), (b"\x00\r\n\r\n", 400)):
        with exporter.connect() as plain, web.trusting().wrap_socket(plain, server_hostname="127.0.0.1") as client:
            client.sendall(request)
            assert status(read_all(client)) == expected
    assert exporter.get(tls=web.trusting())[0].status == 200


# --- versions, ciphers, curves -------------------------------------------------------------------------


def offer(version: ssl.TLSVersion, web: WebFolder) -> ssl.SSLContext:
    context = web.trusting()
    with pytest.warns(DeprecationWarning, match="deprecated"):
        context.minimum_version = context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_versions_are_rejected_whatever_is_configured(
    serve: Serve, web: WebFolder, version: ssl.TLSVersion
) -> None:
    exporter = serve(web=web.serve_tls("  min_version: TLS10\n"))
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        exporter.get(tls=offer(version, web))
    assert exporter.get(tls=web.trusting())[0].status == 200


def test_a_higher_minimum(serve: Serve, web: WebFolder) -> None:
    exporter = serve(web=web.serve_tls("  min_version: TLS13\n"))
    context = web.trusting()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        exporter.get(tls=context)


def test_only_the_listed_cipher_suites(serve: Serve, web: WebFolder) -> None:
    wanted = "  max_version: TLS12\n  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]\n"
    exporter = serve(web=web.serve_tls(wanted))
    with exporter.connect() as plain, web.trusting().wrap_socket(plain, server_hostname="127.0.0.1") as client:
        cipher = client.cipher()
        assert cipher is not None
        assert cipher[0] == "ECDHE-ECDSA-AES256-GCM-SHA384"
    other = web.trusting()
    other.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    with pytest.raises(ssl.SSLError):
        exporter.get(tls=other)


def test_never_a_curve_that_is_not_listed(serve: Serve, web: WebFolder) -> None:
    exporter = serve(web=web.serve_tls("  curve_preferences: [CurveP384]\n"))
    good, other = web.trusting(), web.trusting()
    good.set_ecdh_curve("secp384r1")
    other.set_ecdh_curve("prime256v1")
    assert exporter.get(tls=good)[0].status == 200
    with pytest.raises(ssl.SSLError):
        exporter.get(tls=other)


# --- client certificates -------------------------------------------------------------------------------


def test_only_clients_with_a_certificate(serve: Serve, web: WebFolder, caplog: pytest.LogCaptureFixture) -> None:
    exporter = serve(web=web.serve_mtls())
    assert exporter.get(tls=web.trusting("prometheus.example"))[0].status == 200
    for stranger in (web.trusting(), web.trusting("prometheus.example", authority=trustme.CA())):
        for path in ("/metrics", "/-/healthy"):
            with pytest.raises((ssl.SSLError, http.client.RemoteDisconnected, ConnectionResetError)):
                exporter.get(path, tls=stranger)
    line = "a TLS handshake was rejected: peer did not return a certificate (from 127.0.0.1)"
    wait_for(lambda: line in caplog.text)


def test_an_expired_client_certificate_is_rejected(serve: Serve, web: WebFolder) -> None:
    """Fault 65."""
    exporter = serve(web=web.serve_mtls())
    with pytest.raises((ssl.SSLError, http.client.RemoteDisconnected, ConnectionResetError)):
        exporter.get(tls=web.trusting("prometheus.example", ended=True))


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("prometheus.example", "prometheus.example"),
        ("10.1.2.3", "10.1.2.3"),
        ("::1", "0:0:0:0:0:0:0:1"),
        ("scraper@example.org", "scraper@example.org"),
    ],
)
def test_a_name_of_the_certificate_is_on_the_list(serve: Serve, web: WebFolder, name: str, allowed: str) -> None:
    exporter = serve(web=web.serve_mtls(f"  client_allowed_sans: [other.example, '{allowed}']\n"))
    assert exporter.get(tls=web.trusting(name))[0].status == 200
    answer, body = exporter.get("/-/healthy", tls=web.trusting("prometheus.example.evil", "evil.prometheus.example"))
    assert (answer.status, body) == (403, b"no name of the client certificate is in client_allowed_sans\n")
    assert answer.headers["Connection"] == "close"


def test_a_certificate_that_may_be_left_out_but_not_be_wrong(serve: Serve, web: WebFolder) -> None:
    more = "  client_ca_file: ca.crt\n  client_auth_type: VerifyClientCertIfGiven\n"
    exporter = serve(web=web.serve_tls(more))
    assert exporter.get(tls=web.trusting())[0].status == 200
    with pytest.raises((ssl.SSLError, http.client.RemoteDisconnected, ConnectionResetError)):
        exporter.get(tls=web.trusting("x.example", authority=trustme.CA()))


def test_probes_without_a_certificate_have_their_own_listener(serve: Serve, web: WebFolder) -> None:
    """It serves health and nothing else, reduced to the status."""
    port = free_port()
    exporter = serve(ServerOptions(listen=LOCAL, listen_health=(Address("127.0.0.1", port),)), web=web.serve_mtls())
    exporter.port, tls_port = port, exporter.port
    assert exporter.get("/-/healthy")[1] == b"healthy\n"
    assert exporter.get("/readyz")[1] == b"ready\n"
    assert {exporter.get(path)[0].status for path in ("/", "/metrics", "/-/reload")} == {404}
    exporter.now += 1000
    answer, body = exporter.get("/healthz")
    assert (answer.status, body) == (503, b"unhealthy\n")
    exporter.port = tls_port
    assert status(exporter.raw(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")) == 400


# --- certificates that are replaced --------------------------------------------------------------------


def serial(exporter: Exporter, context: ssl.SSLContext) -> object:
    with exporter.connect() as plain, context.wrap_socket(plain, server_hostname="127.0.0.1") as client:
        certificate = client.getpeercert()
        assert certificate is not None
        return certificate["serialNumber"]


def test_a_rotated_certificate_is_used_without_a_restart(serve: Serve, web: WebFolder) -> None:
    """Fault 65: no scrape is lost, neither on a kept connection nor during a handshake."""
    exporter = serve(web=web.serve_tls())
    context = web.trusting()
    old = serial(exporter, context)
    with closing(exporter.client(context)) as kept, exporter.connect() as plain:
        assert fetch(kept)[0].status == 200
        client = context.wrap_socket(plain, server_hostname="127.0.0.1")
        web.issue()
        wait_for(lambda: serial(exporter, context) != old)
        assert fetch(kept)[0].status == 200
        with client:
            client.sendall(b"GET /-/ready HTTP/1.1\r\nHost: x\r\n\r\n")
            assert status(client.recv(1024)) == 200


def test_an_expired_certificate_is_logged_until_it_is_replaced(
    serve: Serve, web: WebFolder, caplog: pytest.LogCaptureFixture
) -> None:
    """Fault 65: the server keeps running, because stopping would lose joules."""
    path = web.serve_tls()
    web.issue(ended=True)
    exporter = serve(web=path)
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        exporter.get(tls=web.trusting())
    line = "a TLS handshake was rejected: the client reported: certificate expired (from 127.0.0.1)"
    wait_for(lambda: line in caplog.text)
    web.issue()
    wait_for(lambda: works(exporter, web.trusting()))


def works(exporter: Exporter, context: ssl.SSLContext) -> bool:
    try:
        return exporter.get(tls=context)[0].status == 200
    except OSError:
        return False


def test_another_client_authority_closes_connections_made_under_the_old_one(serve: Serve, web: WebFolder) -> None:
    """Fault 65: also kept connections."""
    exporter = serve(web=web.serve_mtls())
    context = web.trusting("prometheus.example")
    with closing(exporter.client(context)) as client:
        assert fetch(client)[0].status == 200
        web.replace("ca.crt", trustme.CA().cert_pem.bytes())
        assert is_closed(client.sock)
        with pytest.raises((ssl.SSLError, http.client.RemoteDisconnected, ConnectionResetError)):
            fetch(client)


# --- slow and hostile clients --------------------------------------------------------------------------


def client_hello() -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1").do_handshake()
    return outgoing.read()


def test_silent_clients_make_room_and_have_a_deadline(serve: Serve, web: WebFolder) -> None:
    """Fault 61: a handshake that never comes delays no other client."""
    options = ServerOptions(listen=LOCAL, max_connections=4, deadlines=Deadlines(request=3600.0))
    exporter = serve(options, web=web.serve_tls())
    with ExitStack() as stack:
        silent = [stack.enter_context(exporter.connect()) for _ in range(8)]
        assert all(is_closed(one) for one in silent[:4])  # to make room, long before their deadline
        assert exporter.get(tls=web.trusting())[0].status == 200
    exporter = serve(ServerOptions(listen=LOCAL, deadlines=Deadlines(request=0.3)), web=web.serve_tls())
    with ExitStack() as stack:
        silent = [stack.enter_context(exporter.connect()) for _ in range(8)]
        assert all(is_closed(one) for one in silent)  # by their deadline: there is room for all


def test_a_handshake_that_stops_half_way_has_a_deadline(serve: Serve, web: WebFolder) -> None:
    """Fault 61: dripped bytes do not prolong it."""
    exporter = serve(ServerOptions(listen=LOCAL, deadlines=Deadlines(request=0.5)), web=web.serve_tls())
    with exporter.connect() as half, exporter.connect() as dripping:
        half.sendall(client_hello())
        assert half.recv(1)  # the server's part
        began = time.monotonic()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):  # noqa: PT012
            while time.monotonic() - began < patience():
                dripping.send(b"\x16")
                time.sleep(0.02)
        read_all(half)


def test_garbage_instead_of_a_handshake(serve: Serve, web: WebFolder) -> None:
    exporter = serve(web=web.serve_tls())
    for garbage in (b"\x00" * 100_000, b"\x16\x03\x01\xff\xff" + b"a" * 70_000, client_hello()[:-1] + b"\xff" * 300):
        with exporter.connect() as client:
            client.sendall(garbage)
            client.shutdown(socket.SHUT_WR)
            read_all(client)
    assert exporter.get(tls=web.trusting())[0].status == 200


def test_thousands_of_half_open_handshakes_do_not_delay_a_scrape(serve: Serve, web: WebFolder) -> None:
    """Fault 61: 2,000 clients that begin to shake hands and stop, from the address of the honest ones and from others.

    A third sends nothing, a third drips, a third stops after its first message.
    """
    wanted, room = 2000, 256
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, wanted + 2000)), hard))
    exporter = serve(ServerOptions(listen=LOCAL, max_connections=room), web=web.serve_mtls(rest=users(bob=HASH)))
    context, hello = web.trusting("prometheus.example"), client_hello()
    login = basic("bob", PASSWORD)
    with ExitStack() as stack:
        kept = stack.enter_context(closing(exporter.client(context)))
        assert fetch(kept, Authorization=login)[0].status == 200
        half_open = []
        for number in range(wanted):
            client = stack.enter_context(exporter.connect(source=f"127.0.0.{1 + number % 3}"))
            client.setblocking(False)
            half_open.append(client)
            if number % 3 == 2:
                send(client, hello)
        dripping = threading.Event()
        dropped: set[socket.socket] = set()

        def drip() -> None:
            while not dripping.wait(0.05):
                for client in half_open:
                    if not send(client, hello[:1]):
                        dropped.add(client)

        dripper = threading.Thread(target=drip)
        dripper.start()
        try:
            for _ in range(5):
                began = time.monotonic()
                assert exporter.get(tls=context, Authorization=login)[0].status == 200
                assert fetch(kept, Authorization=login)[0].status == 200
                assert time.monotonic() - began < patience(2)
            wait_for(lambda: len(dropped) >= wanted - room)
        finally:
            dripping.set()
            dripper.join()


def send(client: socket.socket, data: bytes) -> bool:
    """Whether the connection is still open."""
    try:
        client.send(data)
    except OSError as error:
        assert error.errno in {errno.EPIPE, errno.ECONNRESET, errno.EAGAIN}  # noqa: PT017
        return error.errno == errno.EAGAIN
    return True


def test_a_handshake_costs_little_memory(serve: Serve, web: WebFolder) -> None:
    """asyncio's own TLS allocates 300 KiB per connection, also for one that sends nothing."""
    exporter = serve(web=web.serve_tls())
    exporter.get(tls=web.trusting())
    before = resident_bytes()
    with ExitStack() as stack:
        silent = [stack.enter_context(exporter.connect()) for _ in range(300)]
        wait_for(lambda: len(exporter.server._clients.connections) >= 300)
        assert resident_bytes() - before < 300 * 20_000
        for client in silent:
            client.sendall(client_hello())
            client.recv(1)
        assert resident_bytes() - before < 300 * 120_000


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


# --- the policy itself ---------------------------------------------------------------------------------


def policy_of(path: str) -> TlsPolicy:
    settings = read(path).tls
    assert settings is not None
    return TlsPolicy(settings)


@pytest.mark.parametrize(
    ("allowed", "kind", "value", "admitted"),
    [
        ("spiffe://cluster.local/ns/m/sa/p", "URI", "spiffe://cluster.local/ns/m/sa/p", True),
        ("spiffe://cluster.local/ns/m/sa/p", "URI", "spiffe://cluster.local/ns/m/sa/p2", False),
        ("a.example", "DNS", "A.example", False),  # exact, as in the toolkit
        ("*.example", "DNS", "a.example", False),
        ("fe80::1", "IP Address", "FE80:0:0:0:0:0:0:1", True),
    ],
)
def test_names_are_compared_whole(web: WebFolder, allowed: str, kind: str, value: str, admitted: bool) -> None:
    policy = policy_of(web.serve_mtls(f"  client_allowed_sans: ['{allowed}']\n"))
    certificate = {"notAfter": "Jan  1 00:00:00 2999 GMT", "subjectAltName": ((kind, value),)}
    assert (policy.rejection_reason(certificate, time.time()) == "") is admitted
    assert policy.rejection_reason({"notAfter": certificate["notAfter"]}, time.time())
    assert policy.rejection_reason({}, time.time())


def test_the_session_cache_is_bounded(web: WebFolder) -> None:
    """OpenSSL would cache 20,480 of them for TLS 1.2 clients without tickets, such as Go's."""
    policy = policy_of(web.serve_tls())
    context = web.trusting()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_TICKET
    for _ in range(1001):
        assert b"".join(exchange(policy, context)) == b"hello"
    first = policy.context
    assert first.session_stats()["number"] > 1000
    policy.bound_session_cache()
    assert policy.context is not first
    assert policy.context.session_stats()["number"] == 0
    assert b"".join(exchange(policy, context)) == b"hello"
    second = policy.context
    policy.bound_session_cache()
    assert policy.context is second


def exchange(policy: TlsPolicy, context: ssl.SSLContext) -> list[bytes]:
    """Return what the server reads from a client that sends hello and closes."""
    tls, back, there = Tls(policy), ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(back, there, server_hostname="127.0.0.1")
    for _ in range(2):
        with suppress(ssl.SSLWantReadError):
            client.do_handshake()
        list(tls.receive(there.read()))
        back.write(tls.send(b""))
    client.do_handshake()
    client.write(b"hello")
    with suppress(ssl.SSLWantReadError):
        client.unwrap()
    received = list(tls.receive(there.read()))
    tls.close()
    assert tls.ended
    return received
