"""Dispatch of a request to the handler of its path, after authorization."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping

import h11

from .access import Access
from .clients import Client
from .response import Handler, Response


class Routes:
    """Maps paths to handlers: ``pages`` for authorized clients, ``health`` for all that have passed the TLS checks.

    Without ``access`` every client is authorized. With it, health responses are reduced to the status: their text up
    to the first colon.
    """

    def __init__(self, pages: Mapping[str, Handler], health: Mapping[str, Handler], access: Access | None) -> None:
        self._health = {path.encode(): handler for path, handler in health.items()}
        self._all = {**self._health, **{path.encode(): handler for path, handler in pages.items()}}
        self._access = access

    def answer(self, request: h11.Request, client: Client) -> Response | Awaitable[Response]:
        """Return the response, or why the request is rejected; an awaitable only while bcrypt checks a password."""
        access = self._access
        if access is None:
            return _dispatch(self._all, request, client)
        rejected = access.check_certificate(client)
        if rejected is not None:
            return self._with_headers(rejected)
        if _path(request) in self._health:
            return self._with_headers(_status_only(_dispatch(self._health, request, client)))
        authorization = access.authorize(request, client)
        if authorization is None or isinstance(authorization, Response):
            return self._with_headers(authorization or _dispatch(self._all, request, client))
        return self._answer_authorized(request, client, authorization)

    def answer_health(self, request: h11.Request, client: Client) -> Response:
        """Return the response of a listener that serves health and nothing else."""
        return _status_only(_dispatch(self._health, request, client))

    async def _answer_authorized(
        self, request: h11.Request, client: Client, authorization: Awaitable[Response | None]
    ) -> Response:
        return self._with_headers(await authorization or _dispatch(self._all, request, client))

    def _with_headers(self, response: Response) -> Response:
        """Add the configured headers, which replace ours of the same name."""
        extra = self._access.headers if self._access is not None else ()
        names = {name.lower() for name, _ in extra}
        kept = tuple(header for header in response.headers if header[0].lower() not in names)
        return response._replace(headers=(*kept, *extra))


def _dispatch(handlers: Mapping[bytes, Handler], request: h11.Request, client: Client) -> Response:
    if request.method not in {b"GET", b"HEAD"}:
        return Response(405, b"only GET and HEAD\n", headers=((b"Allow", b"GET, HEAD"),))
    handler = handlers.get(_path(request))
    return Response(404, b"not found\n") if handler is None else handler(request, client.host)


def _path(request: h11.Request) -> bytes:
    return request.target.partition(b"?")[0]


def _status_only(response: Response) -> Response:
    """Drop the details that only authorized clients may read."""
    return response._replace(body=response.body.rstrip().partition(b":")[0] + b"\n")
