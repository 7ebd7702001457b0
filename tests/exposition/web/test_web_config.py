"""The web configuration: files written for the toolkit are accepted, and every error names key and line."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from exporter.exposition.web.tls import TlsPolicy
from exporter.exposition.web.web_config import RateLimit, read
from exporter.exposition.web.web_config_file import WebConfigError
from tests.support.served import HASH, WebFolder

SECRET = "correct horse battery staple"


def problems(web: WebFolder, text: str) -> list[str]:
    """Every error about this file, without the folder."""
    path = web.write(text)
    with pytest.raises(WebConfigError) as caught:
        read(path)
    for line in caught.value.problems:
        assert line.isprintable(), f"not one printable line: {line!r}"
    return [line.removeprefix(f"{web.folder}/") for line in caught.value.problems]


def tls(web: WebFolder, more: str) -> str:
    """A file with a certificate and these further lines of its section."""
    web.serve_tls()
    return f"tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n{more}"


class TestAccepted:
    def test_an_empty_file_changes_nothing(self, web: WebFolder) -> None:
        config = read(web.write("# nothing yet\n"))
        assert (config.tls, config.headers, config.users, config.rate) == (None, (), {}, None)

    def test_every_key_of_the_toolkit(self, web: WebFolder) -> None:
        """The file of its documentation, with every key there is."""
        web.serve_tls()
        path = web.write(
            f"""
tls_server_config:
  cert_file: server.crt
  key_file: server.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ca.crt
  client_allowed_sans:
    - prometheus.example
    - spiffe://cluster.local/ns/monitoring/sa/prometheus,1
  min_version: TLS12
  max_version: TLS13
  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA]
  prefer_server_cipher_suites: false
  curve_preferences: [CurveP256]
http_server_config:
  http2: true
  headers:
    Content-Security-Policy: default-src 'self'
    X-Frame-Options: deny
    X-Content-Type-Options: nosniff
    X-XSS-Protection: ""
    Strict-Transport-Security: max-age=31536000
basic_auth_users:
  alice: {HASH}
  bob: {HASH.replace("$2b$", "$2y$")}
rate_limit:
  interval: 100ms
  burst: 20
"""
        )
        config = read(path)
        assert config.tls is not None
        assert config.tls.allowed_sans == ("prometheus.example", "spiffe://cluster.local/ns/monitoring/sa/prometheus,1")
        assert config.tls.client_auth is ssl.CERT_REQUIRED
        assert config.tls.ciphers == ("ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-SHA")
        assert config.tls.min_version is ssl.TLSVersion.TLSv1_2
        assert config.tls.curves == ("prime256v1",)
        assert not config.tls.server_chooses_cipher
        assert dict(config.headers) == {
            b"Content-Security-Policy": b"default-src 'self'",
            b"X-Frame-Options": b"deny",
            b"Strict-Transport-Security": b"max-age=31536000",
        }
        assert set(config.users) == {b"alice", b"bob"}
        assert config.rate == RateLimit(0.1, 20)
        assert [Path(file).name for file in config.files] == ["web.yml", "server.crt", "server.key", "ca.crt"]
        assert config.warnings == (
            f"{path}:16: http_server_config.http2: HTTP/2 is not supported, clients get HTTP/1.1",
        )
        assert TlsPolicy(config.tls).certificate_problem == ""

    def test_certificates_in_place(self, web: WebFolder) -> None:
        web.serve_tls()
        texts = {name: (web.folder / name).read_text() for name in ("server.crt", "server.key", "ca.crt")}
        written = {name: "".join(f"    {line}\n" for line in text.splitlines()) for name, text in texts.items()}
        config = read(
            web.write(
                f"tls_server_config:\n  cert: |\n{written['server.crt']}  key: |\n{written['server.key']}"
                f"  client_ca: |\n{written['ca.crt']}  client_auth_type: VerifyClientCertIfGiven\n"
            )
        )
        assert config.tls is not None
        assert config.tls.key.strip() == texts["server.key"].strip()
        assert config.files == (str(web.path),)
        assert TlsPolicy(config.tls).certificate_problem == ""

    def test_paths_are_relative_to_the_file(self, web: WebFolder) -> None:
        (web.folder / "pki").mkdir()
        web.issue(name="pki/node")
        text = f"tls_server_config: {{cert_file: pki/node.crt, key_file: {web.folder}/pki/node.key}}\n"
        assert read(web.write(text)).tls is not None

    @pytest.mark.parametrize("version", ["TLS10", "TLS11"])
    def test_an_unsupported_minimum_is_raised_with_a_warning(self, web: WebFolder, version: str) -> None:
        path = web.write(tls(web, f"  min_version: {version}\n"))
        config = read(path)
        assert config.tls is not None
        assert config.tls.min_version is ssl.TLSVersion.TLSv1_2
        assert config.warnings == (
            f"{path}:4: tls_server_config.min_version: {version} is not supported; the minimum is TLS12 instead",
        )

    def test_suites_of_tls_1_3_alone_leave_only_tls_1_3(self, web: WebFolder) -> None:
        config = read(web.write(tls(web, "  cipher_suites: [TLS_AES_256_GCM_SHA384]\n")))
        assert config.tls is not None
        assert (config.tls.min_version, config.tls.ciphers) == (ssl.TLSVersion.TLSv1_3, ())

    def test_no_rate_limit_by_an_interval_of_nothing(self, web: WebFolder) -> None:
        assert read(web.write("rate_limit: {interval: 0}")).rate is None
        assert read(web.write("rate_limit: {interval: 0s, burst: 5}")).rate is None


class TestErrors:
    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            (
                "tls_server_confg: {}",
                "web.yml:1: unknown setting: 'tls_server_confg'; did you mean tls_server_config?",
            ),
            (
                "\nhttp_server_config:\n  headers:\n    X-Frame-Option: deny",
                "web.yml:4: http_server_config.headers: 'X-Frame-Option' cannot be set; did you mean X-Frame-Options?",
            ),
            (
                "http_server_config: {headers: {X-Frame-Options: allow}}",
                "web.yml:1: http_server_config.headers: X-Frame-Options must be deny or sameorigin",
            ),
            (
                'http_server_config: {headers: {X-XSS-Protection: "1\\r\\nSet-Cookie: a=b"}}',
                "web.yml:1: http_server_config.headers: X-XSS-Protection has characters not allowed in a header",
            ),
            ("http_server_config: {headers: deny}", "web.yml:1: http_server_config.headers: must be a mapping"),
            (
                "http_server_config: {http2: maybe}",
                "web.yml:1: http_server_config.http2: 'maybe' is neither true nor false",
            ),
            ("rate_limit: {interval: 1s}", "web.yml:1: rate_limit.burst: must be at least 1"),
            ("rate_limit: {interval: 1, burst: 1}", "web.yml:1: rate_limit.interval: '1' is not a duration such as"),
            ("basic_auth_users:", "web.yml:1: basic_auth_users has no value"),
            ("basic_auth_users: [alice]", "web.yml:1: basic_auth_users must be a list of mappings"),
            (f"basic_auth_users: {{'': {HASH}}}", "web.yml:1: basic_auth_users: a name has at least one character"),
            (f"basic_auth_users: {{'a:b': {HASH}}}", "web.yml:1: basic_auth_users: a name has at least one character"),
            ("tls_server_config: {min_version: TLS13}", "web.yml:1: tls_server_config.cert_file: is missing"),
        ],
    )
    def test_an_error_is_one_line(self, web: WebFolder, text: str, problem: str) -> None:
        """Fault 58."""
        assert problems(web, text)[0].startswith(problem)

    @pytest.mark.parametrize(
        ("more", "problem"),
        [
            ("  min_version: TLS14\n", "web.yml:4: tls_server_config.min_version: 'TLS14' is not one of TLS10, TLS11"),
            (
                "  max_version: TLS11\n",
                "web.yml:4: tls_server_config.max_version: TLS11 is not supported, the lowest is",
            ),
            ("  min_version: TLS13\n  max_version: TLS12\n", "web.yml:5: tls_server_config.max_version: is below"),
            ("  cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]\n", "web.yml:4: tls_server_config.cipher_suites: 'TLS_RSA"),
            ("  curve_preferences: [CurveP224]\n", "web.yml:4: tls_server_config.curve_preferences: 'CurveP224' is"),
            ("  cert: x\n", "web.yml:2: tls_server_config.cert_file: cannot be combined with cert"),
            ("  client_ca_file: gone.crt\n", "web.yml:4: tls_server_config.client_ca_file: "),
            ("  client_ca_file: ca.crt\n", "web.yml:4: tls_server_config.client_ca_file: has no effect without"),
            (
                "  client_auth_type: RequireAndVerifyClientCert\n",
                "web.yml:4: tls_server_config.client_auth_type: needs client_ca_file",
            ),
            ("  client_auth_type: Always\n", "web.yml:4: tls_server_config.client_auth_type: 'Always' is not one of"),
            (
                "  client_allowed_sans: [a.example]\n",
                "web.yml:4: tls_server_config.client_allowed_sans: needs client_auth_type: RequireAndVerifyClientCert",
            ),
            ("  client_allowed_sans: []\n", "web.yml:4: tls_server_config.client_allowed_sans: lists no name"),
        ],
    )
    def test_of_tls(self, web: WebFolder, more: str, problem: str) -> None:
        assert problems(web, tls(web, more))[0].startswith(problem)

    @pytest.mark.skipif(hasattr(ssl.SSLContext, "set_groups"), reason="this Python offers several curves")
    def test_a_curve_that_this_python_cannot_offer(self, web: WebFolder, monkeypatch: pytest.MonkeyPatch) -> None:
        """Python 3.11.2 of Debian 12 refuses X25519; the next one is offered, or the key is named."""

        def only_nist(_: ssl.SSLContext, name: str) -> None:
            if name == "X25519":
                raise ssl.SSLError(129, "[EC: UNKNOWN_GROUP] unknown group")

        monkeypatch.setattr(ssl.SSLContext, "set_ecdh_curve", only_nist)
        config = read(web.write(tls(web, "  curve_preferences: [X25519, CurveP384]\n")))
        assert config.tls is not None
        assert config.tls.curves == ("secp384r1",)
        assert any("only CurveP384 is offered" in warning for warning in config.warnings)
        (found,) = problems(web, tls(web, "  curve_preferences: [X25519]\n"))
        assert found.startswith(
            "web.yml:4: tls_server_config.curve_preferences: the ssl module of this Python offers none"
        )

    @pytest.mark.parametrize("word", ["RequestClientCert", "RequireAnyClientCert", "RequireClientCert"])
    def test_unverified_certificates_are_rejected(self, web: WebFolder, word: str) -> None:
        found = problems(web, tls(web, f"  client_ca_file: ca.crt\n  client_auth_type: {word}\n"))
        assert found == [
            f"web.yml:5: tls_server_config.client_auth_type: {word} verifies no certificate; "
            "use RequireAndVerifyClientCert or NoClientCert"
        ]

    def test_all_errors_are_reported_at_once(self, web: WebFolder) -> None:
        found = problems(web, "tls_server_config: {cert_file: a, key_file: b}\nbasic_auth_users: {x: y}\nz: 1\n")
        assert [line.partition(": ")[0] for line in sorted(found)] == [
            "web.yml:1",
            "web.yml:1",
            "web.yml:2",
            "web.yml:3",
        ]

    def test_a_file_that_is_gone(self, web: WebFolder) -> None:
        with pytest.raises(WebConfigError, match=r"gone.yml: No such file or directory"):
            read(str(web.folder / "gone.yml"))

    @pytest.mark.parametrize(
        "value",
        [SECRET, f"{HASH}x", HASH[:-1], HASH.replace("$2b$", "$1$"), "$2y$31$" + HASH[7:], "$2y$03$" + HASH[7:]],
        ids=["password", "too-long", "too-short", "md5", "too-slow", "too-fast"],
    )
    def test_an_invalid_hash_is_never_quoted(self, web: WebFolder, value: str) -> None:
        """No message contains a secret: the value may be the password itself."""
        (found,) = problems(web, f"basic_auth_users:\n  alice: {HASH}\n  {SECRET}: '{value}'\n")
        assert found.startswith("web.yml:3: basic_auth_users: ")
        assert SECRET not in found
        assert HASH[10:30] not in found


class TestFiles:
    def test_not_what_they_should_be(self, web: WebFolder) -> None:
        web.serve_tls()
        for name, content, problem in (
            ("server.key", (web.folder / "server.crt").read_bytes(), "key_file: has no PEM block PRIVATE KEY"),
            ("server.key", b"\xff\xfe", "server.key: not PEM text"),
            ("server.key", b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n", "key_file: is encrypted"),
            ("server.crt", b"", "cert_file: has no PEM block CERTIFICATE"),
        ):
            web.serve_tls()
            web.replace(name, content)
            assert problem in problems(web, tls_of(web))[0]

    @pytest.mark.parametrize(
        ("name", "reason"),
        [("server.key", "the key does not match the certificate"), ("server.crt", "")],
    )
    def test_that_do_not_go_together(self, web: WebFolder, name: str, reason: str) -> None:
        path = web.serve_tls()
        content = (web.folder / name).read_bytes()
        web.issue()
        web.replace(name, content)
        settings = read(path).tls
        assert settings is not None
        with pytest.raises(ValueError, match=reason or "match the certificate"):
            TlsPolicy(settings)

    def test_broken_inside(self, web: WebFolder) -> None:
        path = web.serve_tls()
        for name in ("server.crt", "server.key"):
            web.issue()
            lines = (web.folder / name).read_text().splitlines()
            web.replace(name, "\n".join([lines[0], "AAAA" + lines[1][4:], *lines[2:]]).encode())
            settings = read(path).tls
            assert settings is not None
            with pytest.raises(ValueError, match=r"."):
                TlsPolicy(settings)

    def test_a_key_that_fits_no_cipher_suite(self, web: WebFolder) -> None:
        """Detected at startup, not by the first client."""
        wanted = "  max_version: TLS12\n  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]\n"
        settings = read(web.write(tls(web, wanted))).tls
        assert settings is not None
        with pytest.raises(ValueError, match="no shared cipher"):
            TlsPolicy(settings)

    def test_an_expired_certificate_is_used_with_a_warning(self, web: WebFolder) -> None:
        path = web.serve_tls()
        web.issue(ended=True)
        settings = read(path).tls
        assert settings is not None
        assert "expired" in TlsPolicy(settings).certificate_problem

    def test_the_key_stays_off_the_disk(self, web: WebFolder, monkeypatch: pytest.MonkeyPatch) -> None:
        """A key written in place is loaded where no temporary file can be made."""
        settings = read(web.serve_tls()).tls
        assert settings is not None
        monkeypatch.setenv("TMPDIR", "/nowhere")
        monkeypatch.setattr("tempfile.tempdir", None)
        assert TlsPolicy(settings).expires_at is not None


def tls_of(web: WebFolder) -> str:
    return web.path.read_text()
