"""TLS without I/O: takes bytes from the client, returns plain text and bytes for the client.

asyncio's own TLS allocates 300 KiB per connection, also for one that sends nothing; this allocates 2 KiB for a silent
connection and 50 KiB during a handshake, and lets the server schedule handshakes fairly (docs/web-security.md).
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import ssl
from collections.abc import Iterator, Mapping
from typing import Any

from .tls_config import TlsSettings

_PIECE_BYTES = 16 * 1024
"""Bytes passed to OpenSSL at a time, one record: its memory buffers never shrink."""

_MAX_SESSIONS = 1000
_VERIFY_FLAGS = ssl.VerifyFlags.VERIFY_X509_TRUSTED_FIRST | ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN

_FAILURES = {
    "KEY_VALUES_MISMATCH": "the key does not match the certificate",
    "EE_KEY_TOO_SMALL": "the key is too short: RSA needs 2048 bits",
    "CA_MD_TOO_WEAK": "the signature algorithm of the certificate is too weak",
}

Certificate = Mapping[str, Any]


class TlsPolicy:
    """The TLS policy of one version of the web configuration.

    ``expires_at`` is the end of the certificate's validity (Unix seconds); ``certificate_problem`` is the reason for
    which a client that trusts its issuer would reject it, "" if there is none.
    """

    def __init__(self, settings: TlsSettings) -> None:
        """Raises ValueError if OpenSSL rejects the settings."""
        self.settings = settings
        self._names = frozenset(map(_canonical_name, settings.allowed_sans))
        try:
            self.context = _make_context(settings)
            self.certificate_problem, self.expires_at = _self_test(self.context, settings)
            _configure_client_auth(self.context, settings)
        except ssl.SSLError as error:
            raise ValueError(_FAILURES.get(error.reason or "", failure_reason(error))) from None

    def rejection_reason(self, certificate: Certificate | None, now: float) -> str:
        """Return why a client with this verified certificate is rejected at ``now`` (Unix seconds), "" if it is not."""
        if not certificate:
            return "a client certificate is needed" if self.settings.client_auth is ssl.CERT_REQUIRED else ""
        if ssl.cert_time_to_seconds(certificate["notAfter"]) < now:
            return "the client certificate has expired"  # since the handshake, which may be long ago
        if self._names and self._names.isdisjoint(_sans(certificate)):
            return "no name of the client certificate is in client_allowed_sans"
        return ""

    def bound_session_cache(self) -> None:
        """Drop the cached sessions that TLS 1.2 clients without tickets may resume, if they are many.

        OpenSSL caches 20,480 of them, 11 KiB each with a client certificate, and Python has no option to limit that.
        """
        if self.context.session_stats()["number"] > _MAX_SESSIONS:
            self.context = _make_context(self.settings)
            _configure_client_auth(self.context, self.settings)


class Tls:
    """The TLS state of one connection. Its methods raise `ssl.SSLError` for protocol errors."""

    def __init__(self, policy: TlsPolicy) -> None:
        self.policy = policy
        self.established = False
        self.ended = False
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object: ssl.SSLObject | None = None

    def receive(self, data: bytes) -> Iterator[bytes]:
        """Decrypt what the client sent; sets ``established`` after the handshake, ``ended`` after a close_notify."""
        if self._object is None:
            self._object = self.policy.context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        for start in range(0, len(data), _PIECE_BYTES):
            self._incoming.write(data[start : start + _PIECE_BYTES])
            try:
                if not self.established:
                    self._object.do_handshake()
                    self.established = True
                while plain := self._object.read(_PIECE_BYTES):
                    yield plain
                self.ended = True
            except ssl.SSLZeroReturnError:
                self.ended = True
            except ssl.SSLWantReadError:
                pass

    def send(self, data: bytes | memoryview) -> bytes:
        """Encrypt ``data``; returns the bytes to send, including pending handshake messages and alerts."""
        parts = [self._outgoing.read()]
        view = memoryview(data)
        while view and self._object is not None:
            written = self._object.write(view[:_PIECE_BYTES])
            parts.append(self._outgoing.read())
            view = view[written:]
        return b"".join(parts)

    def close(self) -> bytes:
        """Return the close_notify to send last, so that the client can distinguish the end from a truncation."""
        if self._object is not None and self.established:
            with contextlib.suppress(ssl.SSLError):  # raised because the client's own close_notify is still missing
                self._object.unwrap()
        return self._outgoing.read()

    def certificate(self) -> Certificate | None:
        """Return the client's verified certificate, None if it sent none."""
        return self._object.getpeercert() if self._object is not None else None


def failure_reason(error: ssl.SSLError) -> str:
    """Describe why TLS failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    words = (error.reason or str(error)).replace("_", " ").lower()
    return re.sub(r"^(?:ssl|tls)v\d+ alert ", "the client reported: ", words)


def _make_context(settings: TlsSettings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version, context.maximum_version = settings.min_version, settings.max_version
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    if not settings.server_chooses_cipher:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    context.num_tickets = 0  # Prometheus keeps its connection and resumes no session
    context.set_alpn_protocols(["http/1.1"])
    if settings.ciphers:
        context.set_ciphers(":".join(settings.ciphers))
    if settings.curves:
        if hasattr(context, "set_groups"):
            context.set_groups(":".join(settings.curves))
        else:
            context.set_ecdh_curve(settings.curves[0])
    # OpenSSL loads keys from files only, and an inline key must not be written to disk.
    file = os.memfd_create("certificate")
    try:
        os.write(file, f"{settings.certificate}\n{settings.key}\n".encode())
        context.load_cert_chain(f"/proc/self/fd/{file}", password="")
    finally:
        os.close(file)
    return context


def _configure_client_auth(context: ssl.SSLContext, settings: TlsSettings) -> None:
    context.verify_mode = settings.client_auth
    context.verify_flags |= _VERIFY_FLAGS  # like Go, which trusts every certificate of the file as a root
    if settings.client_ca:
        context.load_verify_locations(cadata=settings.client_ca)


def _self_test(context: ssl.SSLContext, settings: TlsSettings) -> tuple[str, float | None]:
    """Run a handshake in memory; returns the problem a client finds with the certificate, and when it expires.

    Raises `ssl.SSLError` where every client's handshake would fail, for example if no cipher suite fits the key.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.set_ciphers("ALL:@SECLEVEL=0")
    client.verify_flags |= _VERIFY_FLAGS
    client.load_verify_locations(cadata=settings.certificate)
    try:
        certificate: Certificate = _handshake(context, client).getpeercert() or {}
        return "", ssl.cert_time_to_seconds(certificate["notAfter"])
    except ssl.SSLCertVerificationError as error:
        client.verify_mode = ssl.CERT_NONE
        _handshake(context, client)
        return error.verify_message, None


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> ssl.SSLObject:
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking, answering = client.wrap_bio(back, there), server.wrap_bio(there, back, server_side=True)
    for _ in range(3):
        for side in (asking, answering):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    return asking


def _sans(certificate: Certificate) -> set[str]:
    return {_canonical_name(str(value)) for _, value in certificate.get("subjectAltName", ())}


def _canonical_name(name: str) -> str:
    """Normalize an IP address; other names stay as they are."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name
