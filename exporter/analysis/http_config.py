"""How to log in at Prometheus: a file as ``promtool --http.config.file`` reads."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable
from dataclasses import dataclass

from ..config.loading import ConfigError
from ..config.value_types import quoted
from ..config.yaml_file import Layer
from ..config.yaml_file import read as read_yaml

_FILES = (
    "authorization.credentials_file",
    "basic_auth.password_file",
    "bearer_token_file",
    "tls_config.ca_file",
    "tls_config.cert_file",
    "tls_config.key_file",
)
_TEXTS = (
    "authorization.credentials",
    "authorization.type",
    "basic_auth.password",
    "basic_auth.username",
    "bearer_token",
    "proxy_url",
    "tls_config.insecure_skip_verify",
)


@dataclass(frozen=True, slots=True)
class HttpConfig:
    """Headers of every request, paths of the files of TLS ("" without one), and whether the server's is verified."""

    headers: tuple[tuple[str, str], ...] = ()
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    verify: bool = True
    proxy_url: str = ""


def read(path: str, headers: Iterable[str] = ()) -> HttpConfig:
    """The configuration of ``path``, "" for none, and further ``headers`` such as ``X-Scope-OrgID: team``.

    Paths in the file are relative to it, as in Prometheus. Raises `ConfigError`, which names file and line.
    """
    layer: Layer = {}
    problems: list[str] = []
    if path:
        layer, problems = read_yaml(path, (*_FILES, *_TEXTS), ())
    texts = {name: value for name, (_, value) in layer.items() if isinstance(value, str)}
    problems += [f"{where}: {name} must be text" for name, (where, _) in layer.items() if name not in texts]
    for name in _FILES:
        if name in texts:
            texts[name] = os.path.join(os.path.dirname(path), texts[name])
    sent = [*_authorization(layer, texts, problems)]
    for header in headers:
        name, colon, value = header.partition(":")
        if not colon or not name.strip():
            problems.append(f"a header is NAME: VALUE, not {quoted(header)}")
        sent.append((name.strip(), value.strip()))
    insecure = texts.get("tls_config.insecure_skip_verify", "false")
    if insecure not in ("true", "false"):
        where = layer["tls_config.insecure_skip_verify"][0]
        problems.append(f"{where}: tls_config.insecure_skip_verify must be true or false")
    if problems:
        raise ConfigError(problems)
    return HttpConfig(
        tuple(sent),
        texts.get("tls_config.ca_file", ""),
        texts.get("tls_config.cert_file", ""),
        texts.get("tls_config.key_file", ""),
        insecure == "false",
        texts.get("proxy_url", ""),
    )


def _authorization(layer: Layer, texts: dict[str, str], problems: list[str]) -> list[tuple[str, str]]:
    def secret(name: str, file: str) -> str | None:
        if file in texts and name not in texts:
            try:
                with open(texts[file], encoding="utf-8") as opened:
                    return opened.read().strip()
            except (OSError, UnicodeDecodeError) as error:
                problems.append(f"{layer[file][0]}: {file} {texts[file]}: {getattr(error, 'strerror', 'not text')}")
                return ""
        return texts.get(name)

    if "basic_auth.username" in texts:
        password = secret("basic_auth.password", "basic_auth.password_file") or ""
        pair = base64.b64encode(f"{texts['basic_auth.username']}:{password}".encode()).decode("ascii")
        return [("Authorization", f"Basic {pair}")]
    credentials = secret("authorization.credentials", "authorization.credentials_file")
    if credentials is not None:
        return [("Authorization", f"{texts.get('authorization.type', 'Bearer')} {credentials}")]
    token = secret("bearer_token", "bearer_token_file")
    return [] if token is None else [("Authorization", f"Bearer {token}")]
