"""The section ``tls_server_config`` of the web configuration: certificates, protocol versions, cipher suites."""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ...config.value_types import choice, flag, listing
from .web_config_file import WebFile

_SECTION = "tls_server_config."
TLS_NAMES = tuple(
    f"{_SECTION}{key}"
    for key in (
        *("cert", "cert_file", "key", "key_file", "client_ca", "client_ca_file", "client_auth_type"),
        *("client_allowed_sans", "min_version", "max_version", "cipher_suites", "prefer_server_cipher_suites"),
        "curve_preferences",
    )
)

_VERSIONS = {
    "TLS10": ssl.TLSVersion.TLSv1_2,  # a warning, no error: the effective minimum is stricter
    "TLS11": ssl.TLSVersion.TLSv1_2,
    "TLS12": ssl.TLSVersion.TLSv1_2,
    "TLS13": ssl.TLSVersion.TLSv1_3,
}
_CURVES = {"X25519": "X25519", "CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1"}
_SUITES = {
    f"TLS_ECDHE_{key}_WITH_{ours}": f"ECDHE-{key}-{theirs}"
    for key in ("ECDSA", "RSA")
    for ours, theirs in (
        ("AES_128_GCM_SHA256", "AES128-GCM-SHA256"),
        ("AES_256_GCM_SHA384", "AES256-GCM-SHA384"),
        ("CHACHA20_POLY1305_SHA256", "CHACHA20-POLY1305"),
        ("AES_128_CBC_SHA", "AES128-SHA"),
        ("AES_256_CBC_SHA", "AES256-SHA"),
    )
}
"""TLS 1.2 suites of Go's ``tls.CipherSuites()``: Go's name → OpenSSL's name."""

_TLS13_SUITES = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
"""Go and OpenSSL always offer all of these in TLS 1.3, whatever is configured."""

_CLIENT_AUTH = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_UNVERIFIED = ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert")


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """The parsed section. Certificates and key are PEM text; ``ciphers`` and ``curves`` are OpenSSL's names.

    Empty ``ciphers`` or ``curves`` mean OpenSSL's defaults. ``where`` is the ``file:line`` of the certificate.
    """

    where: str = field(compare=False)
    certificate: str
    key: str
    client_ca: str = ""
    client_auth: ssl.VerifyMode = ssl.CERT_NONE
    allowed_sans: tuple[str, ...] = ()
    min_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    max_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    ciphers: tuple[str, ...] = ()
    curves: tuple[str, ...] = ()
    server_chooses_cipher: bool = True

    def compatible_with(self, other: TlsSettings) -> bool:
        """Whether the settings differ in nothing but the server's own certificate and key."""
        return replace(self, certificate=other.certificate, key=other.key) == other


def read_tls(file: WebFile) -> TlsSettings | None:
    """Read the section and the certificates it names, None if it is absent; errors go to ``file.problems``."""
    if not any(name in file for name in TLS_NAMES):
        return None
    certificate, key = _pem(file, "cert", "CERTIFICATE"), _pem(file, "key", "PRIVATE KEY")
    authority = _pem(file, "client_ca", "CERTIFICATE", needed=False)
    auth, sans = _client_auth(file)
    low, high = _versions(file)
    none: tuple[str, ...] = ()
    suites = file.take(f"{_SECTION}cipher_suites", listing(choice(*_SUITES, *_TLS13_SUITES)).parse, none)
    ciphers = tuple(_SUITES[name] for name in suites if name in _SUITES)
    if suites and not ciphers:  # no suite for TLS 1.2 disables TLS 1.2
        low = ssl.TLSVersion.TLSv1_3
    if low > high:
        file.error(f"{_SECTION}max_version", "is below min_version, or no cipher suite is left for it")
    curves = _offered(file, file.take(f"{_SECTION}curve_preferences", listing(choice(*_CURVES)).parse, none))
    return TlsSettings(
        where=file.where(f"{_SECTION}cert_file", f"{_SECTION}cert"),
        certificate=certificate,
        key=key,
        client_ca=authority,
        client_auth=auth,
        allowed_sans=sans,
        min_version=low,
        max_version=high,
        ciphers=ciphers,
        curves=tuple(_CURVES[name] for name in curves),
        server_chooses_cipher=file.take(f"{_SECTION}prefer_server_cipher_suites", flag().parse, True),
    )


def _offered(file: WebFile, curves: Sequence[str]) -> Sequence[str]:
    """The curves that this Python can offer: all from 3.15 on, else the first one that its ssl module accepts."""
    if not curves or hasattr(ssl.SSLContext, "set_groups"):
        return curves
    key = f"{_SECTION}curve_preferences"
    for name in curves:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ecdh_curve(_CURVES[name])
        except (ssl.SSLError, ValueError):  # X25519 in Python 3.11.2
            continue
        if name != curves[0] or len(curves) > 1:
            file.warn(key, f"only {name} is offered; more than one needs Python 3.15")
        return (name,)
    file.error(key, f"the ssl module of this Python offers none of {', '.join(curves)}; add CurveP256")
    return ()


def _pem(file: WebFile, key: str, marker: str, *, needed: bool = True) -> str:
    """Return inline PEM text, or that of the file which ``<key>_file`` names; "" if neither is set."""
    inline, named = f"{_SECTION}{key}", f"{_SECTION}{key}_file"
    if inline in file and named in file:
        file.error(named, f"cannot be combined with {key}")
    elif inline in file:
        return file.take(inline, lambda value: _checked(_one(value), marker), "")
    elif named in file:
        return file.take(named, lambda value: _checked(file.load(_one(value)), marker), "")
    elif needed:
        file.problems.append(f"{file.where(_SECTION)}: {named}: is missing")
    return ""


def _checked(pem: str, marker: str) -> str:
    if "-----BEGIN ENCRYPTED PRIVATE KEY-----" in pem or "Proc-Type: 4,ENCRYPTED" in pem:
        raise ValueError("is encrypted; the exporter cannot ask for a passphrase")
    if not re.search(rf"-----BEGIN (?:[A-Z0-9]+ )?{marker}-----", pem):
        raise ValueError(f"has no PEM block {marker}")
    return pem


def _client_auth(file: WebFile) -> tuple[ssl.VerifyMode, tuple[str, ...]]:
    """Return whether clients must present a certificate, and the names that it may have."""
    auth_type, allowed = f"{_SECTION}client_auth_type", f"{_SECTION}client_allowed_sans"
    given = f"{_SECTION}client_ca" if f"{_SECTION}client_ca" in file else f"{_SECTION}client_ca_file"
    auth: ssl.VerifyMode = file.take(auth_type, _auth_type, ssl.CERT_NONE)
    sans: tuple[str, ...] = file.take(allowed, _sans, ())
    if auth is not ssl.CERT_NONE and given not in file:
        file.error(auth_type, "needs client_ca_file, the authorities whose certificates are accepted")
    if given in file and auth is ssl.CERT_NONE and auth_type not in file:
        file.error(given, "has no effect without client_auth_type: RequireAndVerifyClientCert")
    if sans and auth is not ssl.CERT_REQUIRED:
        file.error(allowed, "needs client_auth_type: RequireAndVerifyClientCert")
    return auth, sans


def _auth_type(value: object) -> ssl.VerifyMode:
    word = _one(value)
    if word in _UNVERIFIED:
        raise ValueError(f"{word} verifies no certificate; use RequireAndVerifyClientCert or NoClientCert")
    return _CLIENT_AUTH[str(choice(*_CLIENT_AUTH).parse(word))]


def _sans(value: object) -> tuple[str, ...]:
    names = value if isinstance(value, list) else [value]
    if not names:
        raise ValueError("lists no name, so every client would be rejected")
    return tuple(map(_one, names))


def _versions(file: WebFile) -> tuple[ssl.TLSVersion, ssl.TLSVersion]:
    low, high = f"{_SECTION}min_version", f"{_SECTION}max_version"
    least = file.take(low, choice(*_VERSIONS).parse, "TLS12")
    most = file.take(high, choice(*_VERSIONS).parse, "TLS13")
    if least < "TLS12":
        file.warn(low, f"{least} is not supported; the minimum is TLS12 instead")
    if most < "TLS12":
        file.error(high, f"{most} is not supported, the lowest is TLS12")
    return _VERSIONS[least], _VERSIONS[most]


def _one(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("must be a single string")
    return value
