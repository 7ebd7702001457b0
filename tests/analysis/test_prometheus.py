"""The client beside servers that refuse, answer something else, or cannot read so much at once."""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import pytest
import trustme

from exporter.analysis import http_config
from exporter.analysis.facts import Grid
from exporter.analysis.growth import Growths
from exporter.analysis.prometheus import Prometheus, QueryError, TooMuchDataError
from exporter.analysis.steps import StepReader
from exporter.analysis.window import Window
from exporter.config.loading import ConfigError

Answer = Callable[[dict[str, str]], tuple[int, str]]


class Server:
    """Answers each query as it is told, and keeps the headers of the last one."""

    def __init__(self, answer: Answer) -> None:
        self.headers: dict[str, str] = {}
        self.queries: list[dict[str, str]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                fields = {name: values[0] for name, values in parse_qs(body).items()}
                server.headers = dict(self.headers)
                server.queries.append(fields)
                status, text = answer(fields)
                self.send_response(status)
                if status in (429, 503):
                    self.send_header("Retry-After", "3600")
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def encrypt(self, certificate: Path) -> None:
        """Speak TLS from now on."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    def close(self) -> None:
        """Stop it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], Server]]:
    """Starts servers."""
    started: list[Server] = []

    def start(answer: Answer) -> Server:
        started.append(Server(answer))
        return started[-1]

    yield start
    for server in started:
        server.close()


Serve = Callable[[Answer], Server]


def error(text: str) -> str:
    """An answer that refuses."""
    return json.dumps({"status": "error", "errorType": "execution", "error": text})


def one(value: float) -> str:
    """An answer with one series without labels."""
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": [_row(value)]}})


def _row(value: float) -> dict[str, object]:
    return {"metric": {}, "value": [0, str(value)]}


@pytest.mark.parametrize(
    ("status", "text", "said"),
    [
        (401, "Unauthorized\n", "HTTP status 401: log in by --prometheus.config"),
        (404, "<html>", "HTTP status 404: there is no /api/v1 below this address"),
        (200, "<html>Sign in</html>", "HTTP status 200: not the answer of a Prometheus"),
        (200, "[]", "not the answer of a Prometheus"),
        (200, '{"status": "success", "data": {}}', "an answer that is not the data of a Prometheus"),
        (200, '{"status": "success", "data": {"result": null}}', "an answer that is not the data of a Prometheus"),
        (200, '{"status": "success", "data": {"result": [0, "1"]}}', "an answer that is not the data of a Prometheus"),
        (200, '{"status": "success", "data": {"result": [{"metric": {}, "value": [0, "x"]}]}}', "not the data of"),
        (400, error("1:9: parse\n error"), "1:9: parse error"),
    ],
)
def test_what_is_wrong_is_one_line(serve: Serve, status: int, text: str, said: str) -> None:
    """It begins with the address."""
    server = serve(lambda _: (status, text))
    with pytest.raises(QueryError) as raised:
        Prometheus(server.url).instant("up", 0.0)
    message = str(raised.value)
    assert message.startswith(server.url)
    assert said in message
    assert "\n" not in message


def test_a_certificate_that_is_not_verified_is_no_warning(serve: Serve, tmp_path: Path) -> None:
    """It was asked for; standard error is for what went wrong."""
    server = serve(lambda _: (200, one(1.0)))
    certificate = tmp_path / "certificate.pem"
    trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
    server.encrypt(certificate)
    config = tmp_path / "config.yml"
    config.write_text("tls_config: {insecure_skip_verify: true}", encoding="utf-8")
    url = server.url.replace("http:", "https:")
    command = [sys.executable, "-m", "exporter", "budgets", "--status", "--prometheus.url", url]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "certificate verify failed" in told.stderr
    told = subprocess.run([*command, "--prometheus.config", config], capture_output=True, text=True, check=False)
    assert told.stderr == ""


class TestBusyServers:
    """Each answer is sent with Retry-After, which would be an hour."""

    def test_a_query_is_sent_again_and_the_answer_counts(self, serve: Serve) -> None:
        answers = [(503, "upstream"), (429, error("too many outstanding requests")), (200, one(2.0))]
        server, slept = serve(lambda _: answers.pop(0)), list[float]()
        found = Prometheus(server.url, sleep=slept.append).instant("up", 0.0)
        assert [sample.value for sample in found] == [2.0]
        assert len(slept) == 2
        assert sum(slept) < 5.0

    @pytest.mark.parametrize(
        ("status", "text", "said"),
        [
            (503, "upstream", "HTTP status 503: it, or a proxy before it, does not answer now; try again later"),
            (429, "", "HTTP status 429: too many requests; try again later"),
            (429, error("too many outstanding requests"), "too many outstanding requests"),
        ],
    )
    def test_one_that_stays_busy_is_one_line(self, serve: Serve, status: int, text: str, said: str) -> None:
        server, slept = serve(lambda _: (status, text)), list[float]()
        with pytest.raises(QueryError, match=said):
            Prometheus(server.url, sleep=slept.append).instant("up", 0.0)
        assert len(server.queries) == 4
        assert sum(slept) < 10.0

    def test_a_query_that_timed_out_is_too_much_and_not_sent_again(self, serve: Serve) -> None:
        server, slept = serve(lambda _: (503, error("query timed out in expression evaluation"))), list[float]()
        with pytest.raises(TooMuchDataError):
            Prometheus(server.url, sleep=slept.append).instant("up", 0.0)
        assert (len(server.queries), slept) == (1, [])


def test_ranges_are_those_that_were_asked_for(serve: Serve) -> None:
    """VictoriaMetrics moves both ends to whole multiples of the step, unless it is told not to cache."""
    server = serve(lambda _: (200, json.dumps({"status": "success", "data": {"resultType": "matrix", "result": []}})))
    assert Prometheus(server.url).times("up", 7.0, 107.0, 50.0) == []
    assert list(Prometheus(server.url).range("up", 7.0, 107.0, 50.0)) == []
    asked = {"query": "up", "start": "7.000", "end": "107.000", "step": "50.000", "nocache": "1"}
    assert server.queries == [asked, asked]


def test_values_that_are_no_numbers_are_left_out(serve: Serve) -> None:
    """0/0 is NaN in PromQL."""
    rows = [_row(float("nan")), _row(float("inf")), _row(2.5)]
    text = json.dumps({"status": "success", "data": {"resultType": "vector", "result": rows}})
    assert [sample.value for sample in Prometheus(serve(lambda _: (200, text)).url).instant("up", 0.0)] == [2.5]


@pytest.mark.parametrize(
    "text",
    [
        "query processing would load too many samples into memory in query execution",
        "cannot select more than -search.maxSamplesPerQuery=1000000 samples",
        "query timed out in expression evaluation",
    ],
)
def test_an_engine_that_cannot_read_a_day_is_asked_for_less(serve: Serve, text: str) -> None:
    """Until it can; later days are asked for in parts of that length at once."""

    def answer(fields: dict[str, str]) -> tuple[int, str]:
        seconds = int(fields["query"].partition("[")[2].partition("s]")[0])
        return (422, error(text)) if seconds > 6 * 3600 else (200, one(seconds))

    server = serve(answer)
    steps: list[int] = []
    window = Window(0.0, 3 * 86_400.0)
    found = Growths(Prometheus(server.url), advance=lambda: steps.append(1)).of("energy_node_joules_total", (), window)
    assert found == {(): 3 * 86_400.0}
    assert (len(server.queries), len(steps)) == (2 + 4 * 3, 3)
    ends = [float(fields["time"]) for fields in server.queries[2:]]
    assert ends == [number * 21_600.0 for number in range(1, 13)]


def test_an_engine_that_cannot_read_a_quarter_of_an_hour_is_not_asked_for_ever(serve: Serve) -> None:
    """Its own words are shown."""
    server = serve(lambda _: (422, error("too many samples")))
    with pytest.raises(TooMuchDataError, match="too many samples"):
        Growths(Prometheus(server.url)).of("energy_node_joules_total", (), Window(0.0, 86_400.0))
    assert len(server.queries) < 10


def test_steps_are_read_in_smaller_parts_where_an_engine_refuses_so_many(serve: Serve) -> None:
    """Until it can; the answers are the same as in one part."""

    def answer(fields: dict[str, str]) -> tuple[int, str]:
        start, end, step = (float(fields[name]) for name in ("start", "end", "step"))
        times = [start + step * number for number in range(round((end - start) / step) + 1)]
        if len(times) > 10:
            return 422, error("query processing would load too many samples into memory in query execution")
        rows = [{"metric": {"a": "b"}, "values": [[at, str(at)] for at in times]}]
        return 200, json.dumps({"status": "success", "data": {"result": rows}})

    reader = StepReader(Prometheus(serve(answer).url), Grid(0.0, 3600.0, 100))
    assert list(reader.read("x", ("a",))[("b",)]) == [3600.0 * (number + 1) for number in range(100)]


def test_a_step_that_an_engine_refuses_alone_is_not_asked_for_ever(serve: Serve) -> None:
    server = serve(lambda _: (422, error("too many samples")))
    with pytest.raises(TooMuchDataError, match="too many samples"):
        StepReader(Prometheus(server.url), Grid(0.0, 3600.0, 100)).read("x", ())
    assert len(server.queries) < 10


class TestHttpConfig:
    @pytest.mark.parametrize(
        ("text", "sent"),
        [
            ("basic_auth: {username: ann, password: x}", "Basic " + base64.b64encode(b"ann:x").decode()),
            ("basic_auth: {username: ann, password_file: secret}", "Basic " + base64.b64encode(b"ann:s3cret").decode()),
            ("authorization: {credentials_file: secret}", "Bearer s3cret"),
            ("authorization: {type: Token, credentials: a}", "Token a"),
            ("bearer_token_file: secret", "Bearer s3cret"),
        ],
    )
    def test_logs_in(self, serve: Serve, tmp_path: Path, text: str, sent: str) -> None:
        (tmp_path / "secret").write_text("s3cret\n", encoding="utf-8")
        (tmp_path / "http.yml").write_text(text, encoding="utf-8")
        server = serve(lambda _: (200, one(1.0)))
        config = http_config.read(str(tmp_path / "http.yml"), ["X-Scope-OrgID: team-a"])
        Prometheus(server.url, config).instant("up", 0.0)
        assert (server.headers["Authorization"], server.headers["X-Scope-OrgID"]) == (sent, "team-a")

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("basic_auht: {}", "http.yml:1: unknown setting: 'basic_auht'"),
            ("basic_auth:\n  username: a\n  password_file: gone", "http.yml:3: basic_auth.password_file"),
            ("tls_config: {insecure_skip_verify: maybe}", "insecure_skip_verify must be true or false"),
            ("proxy_url: [a]", "http.yml:1: proxy_url must be text"),
        ],
    )
    def test_a_mistake_names_file_and_line(self, tmp_path: Path, text: str, said: str) -> None:
        (tmp_path / "http.yml").write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match=r"http\.yml") as raised:
            http_config.read(str(tmp_path / "http.yml"))
        assert said in str(raised.value)
