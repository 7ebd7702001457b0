"""A login to one BMC: a session of Redfish, or basic authentication where it has none."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from ... import __version__
from ...network.kept_connection import KeptConnection, Response, Trust
from ...network.secret import Login, private_login
from ...records import Unavailable
from .values import link, quoted

ROOT = "/redfish/v1/"

_MAX_HOPS = 3

_MAX_BYTES = 512 << 10
"""Resources have up to 100 KiB. The interpreter parses one at a time, and no tick meanwhile: 10 ms for this."""

REFUSED_SECONDS = 900.0
"""A refused login is tried again after this time, or as soon as the file of the credentials has changed: several
refusals in a row lock the user, or all logins from this address, on the BMCs of most vendors."""

_NO_SESSIONS = (404, 405, 501)
_REDIRECTS = (301, 302, 307, 308)

_LIMIT = re.compile(rb"SessionLimit|CreateLimitReached|RAC0218")
"""Messages of a BMC all of whose sessions are in use (DMTF's Base registry, Dell), which some answer with 400."""


class RedfishSession:
    """Reads resources of one BMC; used by one thread, except `interrupt`.

    ``credentials`` is a file with USER:PASSWORD, read for each login, "" for a BMC that wants none.
    """

    def __init__(self, url: str, trust: Trust, credentials: str = "", seconds: float = 20.0) -> None:
        self.url = url
        self._credentials = credentials
        self._seconds = seconds
        self._connection = KeptConnection(
            url,
            trust,
            _FIXES,
            seconds=seconds,
            max_bytes=_MAX_BYTES,
            user_agent=f"ai-energy-exporter/{__version__}",
        )
        self._sessions: str | None = None  # where they are created; "" where the service root names no such place
        self._token = ""
        self._session = ""  # its path, to end it
        self._basic = ""
        self._crowded = False  # basic authentication because all sessions were in use
        self._refused: tuple[Login, float] | None = None

    def get(self, path: str) -> Mapping[str, Any]:
        """A resource. Logs in if need be, and once more if the session has ended. Raises `Unavailable`."""
        known = bool(self._token or self._basic)
        if not known and path != ROOT:
            self._log_in()
        response = self._get(path)
        if response.status == 401 and path != ROOT:
            refused = self._basic
            self._end_session()
            if refused:
                raise self._refuse()
            self._log_in()
            response = self._get(path)
            if response.status == 401 and self._credentials:  # each login would leave a session behind
                self._end_session()
                raise self._refuse()
        if response.status != 200:
            raise self._status_error(path, response)
        found = self._object(path, response)
        if path == ROOT:
            self._sessions = link(found, "Links", "Sessions")
            if self._crowded:
                self._forget()  # there may be one now
        return found

    def log_out(self) -> None:
        """End the session at the BMC, which has few of them; a BMC that does not answer ends it by itself."""
        self._end_session()
        self._connection.close()

    def close(self) -> None:
        """Close the connection; the session stays."""
        self._connection.close()

    def interrupt(self) -> None:
        """End the current request; called from another thread."""
        self._connection.interrupt()

    def _get(self, path: str) -> Response:
        headers = {"OData-Version": "4.0"}
        if self._token:
            headers["X-Auth-Token"] = self._token
        elif self._basic:
            headers["Authorization"] = self._basic
        for _ in range(_MAX_HOPS):
            response = self._connection.exchange("GET", path, headers)
            if response.status not in _REDIRECTS:
                return response
            # Some BMCs want a slash at the end. What is sent here is a secret, so it follows to no other server.
            target = urlsplit(response.headers.get("location", ""))
            if not target.path or (target.netloc and f"{target.scheme}://{target.netloc}" != self.url):
                what = f"{self.url}{path}: it redirects to another address"
                raise Unavailable("implausible", what, "set --bmc.redfish.url to the address of the BMC itself")
            path = quoted(target.path)
        raise Unavailable("implausible", f"{self.url}{path}: more than {_MAX_HOPS} redirects")

    def _log_in(self) -> None:
        if not self._credentials:
            return
        login = private_login(self._credentials)
        if self._refused is not None and self._refused[0] == login and time.monotonic() < self._refused[1]:
            raise self._refuse(again=False)
        if self._sessions is None:
            self.get(ROOT)
        if not self._sessions:
            self._use_basic(login)
            return
        body = json.dumps({"UserName": login.user, "Password": login.password}).encode()
        response = self._connection.exchange("POST", self._sessions, {"OData-Version": "4.0"}, body)
        token = response.headers.get("x-auth-token", "")
        token = token if token.isascii() and token.isprintable() else ""  # else it cannot be sent
        if response.status in (200, 201, 204) and token:
            self._token = token
            self._session = urlsplit(response.headers.get("location", "")).path or _session_of(response)
        elif response.status in (400, 401, 403) and not _LIMIT.search(response.body):
            self._refused = login, time.monotonic() + REFUSED_SECONDS
            raise self._refuse()
        elif response.status in (*_NO_SESSIONS, 200, 201, 204, 400, 403, 503):
            self._use_basic(login)  # no session service, one that gives no token, or all sessions are in use
            self._crowded = response.status in (400, 403, 503)
        else:
            raise self._status_error(self._sessions, response)
        self._refused = None

    def _end_session(self) -> None:
        session, token = self._session, self._token
        self._forget()
        if session:
            with contextlib.suppress(Unavailable):
                self._connection.exchange("DELETE", quoted(session), {"X-Auth-Token": token})

    def _use_basic(self, login: Login) -> None:
        self._basic = "Basic " + base64.b64encode(f"{login.user}:{login.password}".encode()).decode()

    def _refuse(self, *, again: bool = True) -> Unavailable:
        if again and self._refused is None:
            self._refused = private_login(self._credentials), time.monotonic() + REFUSED_SECONDS
        fix = f"write USER:PASSWORD of a BMC user who may log in into {self._credentials}"
        return Unavailable("permission", f"{self.url}: it refuses the login", f"{fix}; role ReadOnly is enough")

    def _forget(self) -> None:
        self._token = self._session = self._basic = ""
        self._crowded = False

    def _status_error(self, path: str, response: Response) -> Unavailable:
        what = f"{self.url}{path}: status {response.status}"
        if response.status in (401, 403):
            fix = "give its user the privilege Login (role ReadOnly)"
            if not self._credentials:
                fix = "name a file with USER:PASSWORD in --bmc.redfish.credentials"
            return Unavailable("permission", what, fix)
        if response.status == 404:
            return Unavailable("not_found", what)
        if response.status in (408, 429, 503, 504):
            return Unavailable("timeout", f"{what}: it is busy, or restarts")
        return Unavailable("error", what)

    def _object(self, path: str, response: Response) -> Mapping[str, Any]:
        try:
            found = json.loads(response.body)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            fix = "set --bmc.redfish.url to the address of a BMC"
            raise Unavailable("implausible", f"{self.url}{path}: not an object of JSON", fix)
        return found


def _session_of(response: Response) -> str:
    """Where a new session is, as its own resource says."""
    try:
        return link(json.loads(response.body))
    except (ValueError, RecursionError):
        return ""


_FIXES: Mapping[str, str] = {
    "not_found": "check --bmc.redfish.url, and that this machine reaches the BMC's network",
    "timeout": "see whether the BMC hangs: its own web page; a cold reset of the BMC does not restart the machine",
    "ca": "name a file with the CA's certificate, as PEM, in --bmc.redfish.ca",
    "tls": "name its CA in --bmc.redfish.ca, or pin the certificate in --bmc.redfish.fingerprint: openssl s_client "
    "-connect BMC:443 </dev/null | openssl x509 -noout -fingerprint -sha256",
    "fingerprint": "if the BMC's certificate was renewed, compare it on the BMC itself, and set "
    "--bmc.redfish.fingerprint to it",
}
