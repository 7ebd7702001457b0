"""The HTTP server over real sockets: regular clients, and slow or hostile ones that must not affect them."""

from __future__ import annotations

import errno
import gzip
import http.client
import re
import resource
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from exporter.config.value_types import Address
from exporter.exposition.metrics.render import OPENMETRICS, TEXT
from exporter.exposition.web.clients import Deadlines
from exporter.exposition.web.server import ListenError, ServerOptions
from exporter.snapshot import Snapshot
from tests.support.patience import patience, wait_for
from tests.support.served import BIG, LOCAL, Exporter, big_body, fetch, is_closed, read_all, status

# --- regular clients -----------------------------------------------------------------------------------


def test_plain_text_is_the_default(serve: Callable[..., Exporter]) -> None:
    answer, body = serve().get(Accept="*/*")
    assert (answer.status, answer.headers["Content-Type"]) == (200, TEXT)
    assert answer.headers["Content-Length"] == str(len(body))
    assert answer.headers["Content-Encoding"] is None
    assert b"# TYPE energy_node_joules_total counter" in body


def test_openmetrics_by_negotiation(serve: Callable[..., Exporter]) -> None:
    answer, body = serve().get(Accept="application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5")
    assert answer.headers["Content-Type"] == OPENMETRICS
    families: list[Metric] = list(parse_openmetrics(body.decode()))  # type: ignore[no-untyped-call]
    assert len(families) > 40


def test_gzip_only_where_it_is_accepted(serve: Callable[..., Exporter]) -> None:
    exporter = serve()
    _, plain = exporter.get()
    answer, packed = exporter.get(Accept_Encoding="gzip")
    assert answer.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed) == plain
    assert exporter.get(Accept_Encoding="gzip;q=0, identity")[1] == plain


def test_head_is_get_without_the_body(serve: Callable[..., Exporter]) -> None:
    exporter = serve()
    answer, body = exporter.get(method="HEAD")
    assert (answer.status, body) == (200, b"")
    assert answer.headers["Content-Length"] == str(len(exporter.get()[1]))


def test_parallel_scrapers_get_the_same_bytes(serve: Callable[..., Exporter]) -> None:
    """Fault 62: eight scrapers, one snapshot."""
    exporter = serve()
    with ThreadPoolExecutor(8) as pool:
        bodies = {exporter_body for _, exporter_body in pool.map(lambda _: exporter.get(), range(32))}
    assert len(bodies) == 1


def test_a_connection_is_kept_between_scrapes(
    serve: Callable[..., Exporter], busy_node: Callable[..., Snapshot]
) -> None:
    exporter = serve()
    client = http.client.HTTPConnection("127.0.0.1", exporter.port, timeout=patience())
    with closing(client):
        bodies = []
        for sequence in range(3):
            exporter.snapshot = busy_node(sequence)
            client.request("GET", "/metrics")
            used = client.sock
            bodies.append(client.getresponse().read())
            assert client.sock is used
        assert len(set(bodies)) == 3


def test_every_answer_is_counted_by_its_status(serve: Callable[..., Exporter]) -> None:
    exporter = serve(ServerOptions(listen=LOCAL, listen_health=LOCAL))
    for _ in range(3):
        exporter.get()
    exporter.get("/nothing")
    exporter.get(method="POST")
    exporter.raw(b"nonsense\r\n\r\n")
    host, port = exporter.server.health_addresses[0]
    with closing(http.client.HTTPConnection(host, port, timeout=patience(5))) as client:
        assert fetch(client, "/-/ready")[0].status == 200
    (metric,) = exporter.instruments.http_requests.collect()
    counted = {s.labels["code"]: s.value for s in metric.samples if s.name == "energy_http_requests_total"}
    assert counted == {"200": 4, "400": 1, "404": 1, "405": 1}


def test_pipelined_requests_are_answered_in_order(serve: Callable[..., Exporter]) -> None:
    exporter = serve()
    paths = ("/-/ready", "/nothing", "/healthz")
    requests = [f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n" for path in paths]
    answer = exporter.raw(("".join(requests) + "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").encode())
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"404", b"200", b"200"]


def test_http_1_0_works(serve: Callable[..., Exporter]) -> None:
    assert status(serve().raw(b"GET /metrics HTTP/1.0\r\n\r\n")) == 200


def test_a_half_closed_client_gets_its_answer(serve: Callable[..., Exporter]) -> None:
    with serve().connect() as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        assert status(read_all(client)) == 200


def test_the_end_of_a_long_response_is_no_failure(
    serve: Callable[..., Exporter], caplog: pytest.LogCaptureFixture
) -> None:
    """A response that ends while asyncio writes: it shuts the socket down once more, and the client is gone by then."""
    exporter = serve(body=lambda snapshot, *, openmetrics, gzipped: BIG[:200_000])
    for sock in exporter.server._listeners:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    for _ in range(5):
        with exporter.connect() as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            client.shutdown(socket.SHUT_WR)
            assert len(read_all(client)) > 200_000
    wait_for(lambda: not exporter.server._clients.connections, "the end of the connections")
    assert caplog.messages == []


def test_the_status_page_has_its_policy(serve: Callable[..., Exporter]) -> None:
    answer, body = serve(telemetry_path="/energy").get("/")
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert b'href="/energy"' in body


def test_the_meaning_of_the_metrics_is_linked_and_served(serve: Callable[..., Exporter]) -> None:
    exporter = serve()
    (link,) = re.findall(r'href="(\S+)">What they mean<', exporter.get("/")[1].decode())
    answer, body = exporter.get(link)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert b"<code>energy_node_joules_total</code>" in body


def test_the_telemetry_path_can_be_chosen(serve: Callable[..., Exporter]) -> None:
    exporter = serve(telemetry_path="/energy")
    assert exporter.get("/energy?collect[]=x")[0].status == 200
    assert exporter.get("/metrics")[0].status == 404


# --- health --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/-/healthy", "/healthz"])
def test_health_fails_when_the_data_is_old(serve: Callable[..., Exporter], path: str) -> None:
    """Fault 67: HTTP responds, but sampling has stopped."""
    exporter = serve()
    assert exporter.snapshot is not None
    exporter.now = exporter.snapshot.monotonic_at + 9.9
    assert exporter.get(path)[0].status == 200
    exporter.now = exporter.snapshot.monotonic_at + 10.5
    answer, body = exporter.get(path)
    assert answer.status == 503
    assert b"10.5 s old" in body


def test_nothing_is_ready_before_the_first_sample(serve: Callable[..., Exporter]) -> None:
    exporter = serve()
    exporter.snapshot = None
    exporter.now = 1001.0
    found = [exporter.get(path)[0].status for path in ("/-/ready", "/readyz", "/metrics", "/-/healthy", "/")]
    assert found == [503, 503, 503, 200, 200]
    exporter.now = 1011.0
    assert exporter.get("/-/healthy")[0].status == 503


# --- bad requests --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/metrics/", "/../metrics", "/metrics/..", "/..%2fmetrics", "/etc/passwd", "*"])
def test_unknown_paths_are_not_found(serve: Callable[..., Exporter], path: str) -> None:
    """Fault 64."""
    assert status(serve().raw(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())) == 404


@pytest.mark.parametrize("verb", ["POST", "PUT", "DELETE", "BREW"])
def test_other_methods_are_rejected(serve: Callable[..., Exporter], verb: str) -> None:
    """Fault 64."""
    answer, _ = serve().get(method=verb)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    ("request_bytes", "expected"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),  # TLS spoken to a plain port
        (b"GET /metrics HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: \x00\x01\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000 + b"\r\n\r\n", 431),  # whole
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000, 431),  # never ends
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n" + b"a" * 100_000, 413),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: \xff\xfe\xfd;q=\xff\r\nConnection: close\r\n\r\n", 200),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc", 200),
    ],
)
def test_malformed_requests_get_a_response(serve: Callable[..., Exporter], request_bytes: bytes, expected: int) -> None:
    """Fault 64: giant heads, garbage, binary headers; each leaves the server working."""
    exporter = serve()
    assert status(exporter.raw(request_bytes)) == expected
    assert exporter.get()[0].status == 200


def test_a_rejection_arrives_although_the_client_keeps_sending(serve: Callable[..., Exporter]) -> None:
    """Fault 64: closing with unread input would reset the connection, and the response might be lost."""
    with serve().connect() as client:
        client.sendall(b"BREW /" + b"a" * 20_000)
        for _ in range(5):
            time.sleep(0.05)
            client.sendall(b"a" * 10_000)
        answer = b""
        while part := client.recv(65536):  # a reset would raise
            answer += part
    assert status(answer) == 431


def test_an_error_while_answering_is_a_500(serve: Callable[..., Exporter], caplog: pytest.LogCaptureFixture) -> None:
    def broken(snapshot: Snapshot, *, openmetrics: bool, gzipped: bool) -> bytes:
        raise KeyError("bug")

    exporter = serve(body=broken)
    assert exporter.get()[0].status == 500
    assert "KeyError" in caplog.text
    assert exporter.get("/-/healthy")[0].status == 200


# --- slow and stuck clients ----------------------------------------------------------------------------


def test_thousands_of_slow_clients_do_not_delay_a_scrape(serve: Callable[..., Exporter]) -> None:
    """Fault 61: each drips its head byte by byte; the limit leaves room for a client that sends its request at once."""
    wanted = 2000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, wanted + 2000)), hard))
    exporter = serve(ServerOptions(listen=LOCAL, max_connections=256))
    with ExitStack() as stack:
        slow = [stack.enter_context(exporter.connect()) for _ in range(wanted)]
        for client in slow:
            client.setblocking(False)
        dripping = threading.Event()
        dropped: set[socket.socket] = set()

        def drip() -> None:
            while not dripping.wait(0.02):
                for client in slow:
                    try:
                        client.send(b"G")
                    except OSError as error:
                        assert error.errno in {errno.EPIPE, errno.ECONNRESET, errno.EAGAIN}  # noqa: PT017
                        dropped.add(client)

        dripper = threading.Thread(target=drip)
        dripper.start()
        try:
            for _ in range(5):
                began = time.monotonic()
                assert exporter.get()[0].status == 200
                assert time.monotonic() - began < patience(2)
            wait_for(lambda: len(dropped) >= wanted - 256)
        finally:
            dripping.set()
            dripper.join()


def test_a_dripped_head_has_a_deadline(serve: Callable[..., Exporter]) -> None:
    """Fault 61: bytes that keep coming do not prolong it."""
    exporter = serve(ServerOptions(listen=LOCAL, deadlines=Deadlines(request=0.3)))
    with exporter.connect() as client:
        began = time.monotonic()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):  # noqa: PT012
            while time.monotonic() - began < patience():
                client.send(b"a")
                time.sleep(0.02)
        assert time.monotonic() - began > 0.2


def test_a_silent_client_is_closed(serve: Callable[..., Exporter]) -> None:
    exporter = serve(ServerOptions(listen=LOCAL, deadlines=Deadlines(request=0.2)))
    with exporter.connect() as client:
        assert is_closed(client)


def test_an_idle_client_may_stay_longer_than_a_silent_one(serve: Callable[..., Exporter]) -> None:
    seconds = patience(0.2)
    exporter = serve(ServerOptions(listen=LOCAL, deadlines=Deadlines(request=seconds, idle=8 * seconds)))
    client = http.client.HTTPConnection("127.0.0.1", exporter.port, timeout=patience())
    with closing(client):
        client.request("GET", "/-/ready")
        client.getresponse().read()
        used = client.sock
        time.sleep(1.5 * seconds)
        client.request("GET", "/-/ready")
        assert client.getresponse().read() == b"ready\n"
        assert client.sock is used
        assert is_closed(used)


def test_a_stuck_reader_has_a_deadline_and_delays_no_other_client(serve: Callable[..., Exporter]) -> None:
    """Fault 61: a client that requests a big body and never reads it."""
    exporter = serve(ServerOptions(listen=LOCAL, deadlines=Deadlines(write=0.4)), body=big_body)
    with exporter.connect() as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.05)
        assert exporter.get("/-/ready")[0].status == 200
        time.sleep(0.6)
        assert len(read_all(client)) < len(BIG)


def test_a_stuck_reader_costs_no_copy_of_the_body(serve: Callable[..., Exporter]) -> None:
    """Fault 61: what the kernel does not take is not buffered here a second time."""
    exporter = serve(body=big_body)
    assert len(exporter.get()[1]) == len(BIG)
    before = resident_bytes()
    with ExitStack() as stack:
        for _ in range(4):
            client = stack.enter_context(exporter.connect())
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            client.recv(1)
        assert resident_bytes() - before < len(BIG) / 2


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_more_requests_than_allowed_get_a_503(serve: Callable[..., Exporter]) -> None:
    """Fault 62."""
    exporter = serve(ServerOptions(listen=LOCAL, max_requests=2), body=big_body)
    with ExitStack() as stack:
        stuck = [stack.enter_context(exporter.connect()) for _ in range(2)]
        for client in stuck:
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            client.recv(1)
        answer, _ = exporter.get("/-/ready")
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        # A response that has stalled is aborted in favour of a new one.
        wait_for(lambda: exporter.get("/-/ready")[0].status == 200)


def test_a_client_that_disconnects_during_a_response_is_removed(serve: Callable[..., Exporter]) -> None:
    """Fault 63."""
    exporter = serve(ServerOptions(listen=LOCAL, max_requests=1), body=big_body)
    for _ in range(3):
        with exporter.connect() as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            client.recv(1000)
        wait_for(lambda: not exporter.server._clients.connections, "the end of the connection")
        assert exporter.get("/-/ready")[0].status == 200


# --- listening -----------------------------------------------------------------------------------------


def test_several_addresses(serve: Callable[..., Exporter]) -> None:
    listen = (*LOCAL, Address("localhost", 0), *((Address("::1", 0),) if has_ipv6() else ()))
    exporter = serve(ServerOptions(listen=listen))
    assert len(exporter.addresses) >= len(listen)
    for host, port in exporter.addresses:
        with socket.create_connection((host, port), 5) as client:
            client.sendall(b"GET /-/ready HTTP/1.0\r\n\r\n")
            assert status(read_all(client)) == 200


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def test_a_port_in_use_is_one_clear_line(serve: Callable[..., Exporter]) -> None:
    """Fault 68."""
    taken = Address("127.0.0.1", serve().port)
    with pytest.raises(ListenError) as raised:
        Exporter(ServerOptions(listen=(*LOCAL, taken)))
    assert str(raised.value) == f"cannot listen on {taken}: the port is in use"


def test_stop_is_quick_and_frees_the_port(serve: Callable[..., Exporter]) -> None:
    exporter = serve(body=big_body)
    with exporter.connect() as silent, exporter.connect() as stuck:
        stuck.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        stuck.recv(1)
        began = time.monotonic()
        exporter.server.stop()
        exporter.server.stop()
        assert time.monotonic() - began < patience(2)
        assert is_closed(silent)
    with socket.create_server(("127.0.0.1", exporter.port)):
        pass


def test_every_descriptor_is_closed(serve: Callable[..., Exporter]) -> None:
    """Fault 60."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    exporter = serve()
    for _ in range(50):
        exporter.get()
        exporter.connect().close()
    exporter.server.stop()
    wait_for(lambda: len(list(Path("/proc/self/fd").iterdir())) <= before)
