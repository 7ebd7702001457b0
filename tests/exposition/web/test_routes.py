"""Dispatch: any handlers can be served, and a health listener serves nothing but health."""

from __future__ import annotations

import h11
import pytest

from exporter.exposition.web.clients import Client
from exporter.exposition.web.response import Response, request_header
from exporter.exposition.web.routes import Routes

CLIENT = Client("127.0.0.1", "127.0.0.1", None, None)


def request(target: str, method: str = "GET", **headers: str) -> h11.Request:
    given = [("Host", "x"), *((name.replace("_", "-"), value) for name, value in headers.items())]
    return h11.Request(method=method, target=target, headers=given)


def echo(request: h11.Request, client: str) -> Response:
    return Response(200, f"{request_header(request, b'x-name')} from {client}".encode())


def unwell(_: h11.Request, __: str) -> Response:
    return Response(503, b"unwell: the details\n")


ROUTES = Routes({"/": echo}, {"/health": unwell}, None)


@pytest.mark.parametrize(
    ("target", "method", "expected"),
    [
        ("/", "GET", (200, b"a from 127.0.0.1")),
        ("/?query=1", "HEAD", (200, b"a from 127.0.0.1")),
        ("/", "PUT", (405, b"only GET and HEAD\n")),
        ("/none", "GET", (404, b"not found\n")),
        ("/health", "GET", (503, b"unwell: the details\n")),
    ],
)
def test_pages_and_health_in_full_where_no_login_is_configured(
    target: str, method: str, expected: tuple[int, bytes]
) -> None:
    response = ROUTES.answer(request(target, method, X_Name="a"), CLIENT)
    assert isinstance(response, Response)
    assert (response.status, response.body) == expected


@pytest.mark.parametrize(
    ("target", "expected"),
    [("/health", (503, b"unwell\n")), ("/health?x", (503, b"unwell\n")), ("/", (404, b"not found\n"))],
)
def test_a_health_listener_serves_the_status_of_health_alone(target: str, expected: tuple[int, bytes]) -> None:
    response = ROUTES.answer_health(request(target), CLIENT)
    assert (response.status, response.body) == expected


def test_a_header_that_was_sent_twice_is_joined() -> None:
    twice = h11.Request(method="GET", target="/", headers=[("Host", "x"), ("X-Name", "a"), ("x-name", "b")])
    assert request_header(twice, b"x-name") == "a,b"
    assert request_header(twice, b"x-other") == ""
