"""Settings: layers, precedence, and errors of one line each."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exporter.config import reference
from exporter.config.loading import ConfigError, load, reloaded
from exporter.config.settings import SOURCES, Settings
from exporter.config.settings_table import TABLE
from exporter.config.value_types import Address, address, duration, show_duration
from tests.support.patience import patience
from tests.support.repository import REPOSITORY

Write = Callable[[str | bytes], dict[str, object]]


def problems(flags: dict[str, object], environ: dict[str, str] | None = None) -> list[str]:
    """Return every error about these settings."""
    with pytest.raises(ConfigError) as caught:
        load(flags, environ or {})
    for line in caught.value.problems:
        assert line.isprintable(), f"not one printable line: {line!r}"
    return list(caught.value.problems)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write ``c.yml`` into the working folder, as text or bytes, and return the flags that name it."""
    monkeypatch.chdir(tmp_path)

    def write_file(content: str | bytes) -> dict[str, object]:
        Path("c.yml").write_bytes(content if isinstance(content, bytes) else content.encode())
        return {"config.file": "c.yml"}

    return write_file


class TestTable:
    def test_every_setting_has_a_field_of_its_name_and_a_help(self) -> None:
        for name, row in TABLE.items():
            assert row.field == name.replace(".", "_").replace("-", "_")
            assert row.help.endswith("."), name
            assert row.variable == "AI_ENERGY_" + row.field.upper()
        assert [row.field for row in TABLE.values()] == [field.name for field in dataclasses.fields(Settings)]

    def test_every_formatted_default_parses_to_itself(self) -> None:
        for row in TABLE.values():
            shown = "" if row.default is None else row.value_type.format(row.default)
            if shown:
                assert row.value_type.parse(shown) == row.default, row.name

    def test_settings_cannot_be_changed(self) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            load({}, {}).process_top = 3  # type: ignore[misc]

    def test_document_is_the_committed_page(self) -> None:
        committed = (REPOSITORY / "docs/configuration.md").read_text(encoding="utf-8")
        assert reference.document() == committed, "run: make docs"

    def test_document_names_every_setting(self) -> None:
        page = reference.document()
        assert [name for name in TABLE if f"| `{name}` |" not in page] == []

    def test_a_source_has_a_switch(self) -> None:
        assert load({"source.rapl": False}, {}).enabled_sources == dict.fromkeys(SOURCES) | {"rapl": False}


class TestAddress:
    @pytest.mark.parametrize(
        ("text", "parsed"),
        [
            (":9400", Address("", 9400)),
            ("127.0.0.1:0", Address("127.0.0.1", 0)),
            ("[::1]:9400", Address("::1", 9400)),
            ("h:1", Address("h", 1)),
        ],
    )
    def test_parsed_and_written(self, text: str, parsed: Address) -> None:
        assert address().parse(text) == parsed
        assert str(parsed) == text

    @pytest.mark.parametrize("text", ["", "9400", "localhost", "::1:9400", "host:", "host:99999", "host:-1", "host:٣"])
    def test_rejected(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"is not HOST:PORT or \[IPV6\]:PORT|is empty"):
            address().parse(text)


@pytest.mark.parametrize("name", [row.name for row in TABLE.values() if row.value_type.placeholder == "URL"])
@pytest.mark.parametrize(
    "url",
    ["https://user:s3cret@10.0.0.17", "https://user:s3/cr@et@bmc/", "http://host/?token=s3cret", "ftp://s3cret@host"],
)
def test_a_secret_in_a_url_is_in_no_message(name: str, url: str) -> None:
    """It is in the log of every start, until it is corrected."""
    with pytest.raises(ConfigError) as caught:
        load({name: [url]}, {})
    assert "s3" not in str(caught.value)


class TestPrecedence:
    @pytest.mark.parametrize(
        ("file", "environment", "flag", "expected"),
        [
            (None, None, None, 50),
            ("1", None, None, 1),
            ("1", "2", None, 2),
            ("1", "2", "3", 3),
            ("1", None, "3", 3),
            (None, "", None, 50),
            ("1", "", None, 1),
        ],
    )
    def test_flag_over_environment_over_file_over_default(
        self, write: Write, file: str | None, environment: str | None, flag: str | None, expected: int
    ) -> None:
        flags = write(f"process: {{top: {file}}}" if file else "")
        if flag:
            flags["process.top"] = flag
        assert (
            load(flags, {} if environment is None else {"AI_ENERGY_PROCESS_TOP": environment}).process_top == expected
        )

    def test_the_environment_may_name_the_file(self, write: Write) -> None:
        write("log: {level: debug}")
        assert load({}, {"AI_ENERGY_CONFIG_FILE": "c.yml"}).log_level == "debug"

    def test_a_higher_layer_replaces_the_whole_list(self, write: Write) -> None:
        flags = write("web: {listen-address: ['127.0.0.1:1', '[::1]:2']}")
        assert load(flags, {}).web_listen_address == (Address("127.0.0.1", 1), Address("::1", 2))
        flags["web.listen-address"] = [":3"]
        assert load(flags, {}).web_listen_address == (Address("", 3),)

    def test_overridden_values_are_checked(self, write: Write) -> None:
        flags = write("process: {top: many}")
        assert problems({**flags, "process.top": "3"}) == ["c.yml:1: process.top: 'many' is not a whole number"]

    def test_an_empty_file_sets_nothing(self, write: Write) -> None:
        for content in ("", "# nothing\n", "---\n", "{}", b"\xef\xbb\xbf"):
            assert dataclasses.replace(load(write(content), {}), config_file="") == Settings(), content


class TestFile:
    """Fault 58: a malformed file or unknown key names its line."""

    def test_nested_and_dotted_keys_are_equivalent(self, write: Write) -> None:
        nested = load(write("idle: {watts: {package-0: 45, dram-0: '3.5'}}\ndemo: {seed: 7}"), {})
        dotted = load(write("idle.watts: {package-0: 45, dram-0: 3.5}\ndemo.seed: 7"), {})
        assert nested == dotted
        assert nested.idle_watts == {"package-0": 45.0, "dram-0": 3.5}

    def test_a_setting_may_also_be_a_section(self, write: Write) -> None:
        settings = load(write("demo: true\ndemo.seed: 9"), {})
        assert (settings.demo, settings.demo_seed) == (True, 9)

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            (
                "web:\n  listen-adress: [a:1]",
                "c.yml:2: unknown setting: 'web.listen-adress'; did you mean web.listen-address?",
            ),
            ("\nwebb: {}", "c.yml:2: unknown setting: 'webb'; did you mean web?"),
            ("<<: {a: 1}", "c.yml:1: unknown setting: '<<'"),
            ("config: {file: other.yml}", "c.yml:1: unknown setting: 'config'; did you mean web.config?"),
            ("log: {level: info}\nlog: {level: info}", "c.yml:2: log is set twice, first on line 1"),
            ("log:\n  level: info\n  level: info", "c.yml:3: log.level is set twice, first on line 2"),
            ("log.level: info\nlog: {level: info}", "c.yml:2: log.level is set twice, first at c.yml:1"),
            ("log: debug", "c.yml:1: log must be a mapping of settings"),
            ("- log", "c.yml:1: the file must be a mapping of settings"),
            ("log", "c.yml:1: the file must be a mapping of settings"),
            ("log: {level: }", "c.yml:1: log.level has no value"),
            ("log: {level: ''}", "c.yml:1: log.level: is empty"),
            ("log: {level: [info, debug]}", "c.yml:1: log.level: has several values where one is expected"),
            ("log: {level: {info: 1}}", "c.yml:1: log.level must not be a mapping"),
            ("web: {listen-address: [[':1']]}", "c.yml:1: web.listen-address is nested too deeply"),
            ("web: {listen-address: []}", "c.yml:1: web.listen-address: has no item"),
            ("idle: {watts: {a: 1, a: 2}}", "c.yml:1: idle.watts has 'a' twice"),
            ("idle: {watts: {a: warm}}", "c.yml:1: idle.watts: 'a': 'warm' is not a number from 0 to 100000"),
            ("[a]: 1", "c.yml:1: a key must be text"),
            ("log:\n  level: 'x", "c.yml:2: not YAML: found unexpected end of stream"),
            ("log: {level: info", "c.yml:1: not YAML: expected ',' or '}', but got '<stream end>'"),
            ("log: *nothing", "c.yml:1: not YAML: found undefined alias 'nothing'"),
            ("a: 1\n---\nb: 2", "c.yml:2: not YAML: but found another document"),
            ("log:\n\tlevel: info", "c.yml:2: not YAML: found character '\\t' that cannot start any token"),
            (b"log:\n  level: \xff", "c.yml:2: not UTF-8 text"),
            (b"log:\n  level: in\x00fo", "c.yml:2: control character U+0000"),
            ("[" * 20_000, "c.yml:1: nested too deeply"),
            ("#" * (1 << 20) + "\n", "c.yml: larger than 1048576 bytes; this is not a file of settings"),
        ],
    )
    def test_an_error_is_one_line_with_its_location(self, write: Write, content: str | bytes, expected: str) -> None:
        assert problems(write(content)) == [expected]

    def test_all_errors_are_reported_at_once(self, write: Write) -> None:
        flags = write("log:\n  level: loud\nprocess:\n  tip: 3\n")
        assert problems({**flags, "container.max": "0"}, {"AI_ENERGY_DEMO": "perhaps"}) == [
            "c.yml:4: unknown setting: 'process.tip'; did you mean process.top?",
            "c.yml:2: log.level: 'loud' is not one of debug, info, warn, error",
            "AI_ENERGY_DEMO: demo: 'perhaps' is neither true nor false",
            "--container.max: 0 is not between 1 and 1000000",
        ]

    def test_a_file_that_is_missing_or_a_directory(self, tmp_path: Path) -> None:
        assert problems({"config.file": f"{tmp_path}/none.yml"}) == [f"{tmp_path}/none.yml: No such file or directory"]
        assert problems({"config.file": str(tmp_path)}) == [f"{tmp_path}: Is a directory"]

    def test_a_path_that_could_forge_a_log_line(self) -> None:
        assert problems({"config.file": "a\nb"}) == [r"--config.file: 'a\nb' has characters that cannot be printed"]

    def test_recursive_and_multiplying_aliases_terminate(self, write: Write) -> None:
        assert problems(write("web: &a {max-requests: *a}")) == ["c.yml:1: web.max-requests must not be a mapping"]
        bomb = "\n".join(f"k{n}: &k{n} [{', '.join([f'*k{n - 1}'] * 9) if n else 'x'}]" for n in range(30))
        assert len(problems(write(bomb))) == 30

    @given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace"))))
    @example(b"\xff\xfe")
    @example(b"? ? ?")
    @example(b"!!python/object/apply:os.system ['true']")
    def test_no_file_raises_anything_else(self, tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
        path = tmp_path_factory.getbasetemp() / "fuzz.yml"
        path.write_bytes(content)
        lines: tuple[str, ...] = ()
        try:
            load({"config.file": str(path)}, {})
        except ConfigError as error:
            lines = error.problems or ("no message",)
        assert [line for line in lines if not (line.startswith(str(path)) and line.isprintable())] == []


class TestEnvironment:
    def test_every_setting_has_a_variable(self) -> None:
        settings = load(
            {},
            {
                "AI_ENERGY_WEB_LISTEN_ADDRESS": "127.0.0.1:1, [::1]:2",
                "AI_ENERGY_SOURCE_RAPL": "Off",
                "AI_ENERGY_SOURCE_ESTIMATE": "1",
                "AI_ENERGY_IDLE_WATTS": "package-0=45, GPU-1=20.5",
                "AI_ENERGY_SAMPLE_INTERVAL": "500ms",
                "PATH": "/bin",
            },
        )
        assert settings.web_listen_address == (Address("127.0.0.1", 1), Address("::1", 2))
        assert (settings.source_rapl, settings.source_estimate, settings.source_hwmon) == (False, True, None)
        assert settings.idle_watts == {"package-0": 45.0, "GPU-1": 20.5}
        assert settings.sample_interval == 0.5

    def test_a_mistyped_variable_is_an_error(self) -> None:
        assert problems({}, {"AI_ENERGY_LOG_LEVL": "debug"}) == [
            "AI_ENERGY_LOG_LEVL: unknown setting; did you mean AI_ENERGY_LOG_LEVEL?"
        ]

    def test_variables_of_a_kubernetes_service_are_ignored(self) -> None:
        """Kubernetes sets these in every pod beside a Service called ai-energy-exporter."""
        prefix = "AI_ENERGY_EXPORTER"
        names = ["_SERVICE_HOST", "_SERVICE_PORT", "_SERVICE_PORT_METRICS", "_PORT", "_PORT_9400_TCP"]
        names += ["_PORT_9400_TCP_PROTO", "_PORT_9400_TCP_PORT", "_PORT_9400_TCP_ADDR"]
        assert load({}, {prefix + name: "tcp://10.0.0.1:9400" for name in names}) == Settings()


class TestBounds:
    @pytest.mark.parametrize(
        ("name", "good", "bad"),
        [
            (
                "sample.interval",
                ["100ms", "1m", "0.5s"],
                ["99ms", "61s", "0s", "-1s", "1", "1 s", "1S", "", "s", "1e3s", "٣s"],
            ),
            ("source.timeout", ["10ms", "1m"], ["0ms", "2m"]),
            ("neuron.watts", ["0-1", "4.7-37.5"], ["5", "5-", "-5", "9-1", "a-b", "1-10001", "published"]),
            ("tpu.watts", ["0-1", "90-192", "published"], ["", "5", "9-1", "publish", "published-5"]),
            ("workload.linger", ["5m", "1h30m", "1d"], ["4m59s", "25h"]),
            ("state.interval", ["1s", "1h"], ["500ms", "2h"]),
            ("process.top", ["0", "100000"], ["-1", "1.5", "100001", "9" * 5000, "½"]),
            ("container.max", ["1"], ["0"]),
            ("web.max-requests", ["1"], ["0"]),
            (
                "web.telemetry-path",
                ["/metrics", "/a/b"],
                ["/", "metrics", "/a b", "/a?b", "/-/ready", "/healthz", "/a/../", "//", "/é"],
            ),
            (
                "web.listen-address",
                [":0", "h:65535", "[::1]:1"],
                ["9400", "h", "h:", "h:65536", "::1:1", "[::1]", "[x y]:1", ","],
            ),
            ("idle.watts", ["a=0", "a=1,b=2"], ["a", "=1", "a=", "a=-1", "a=nan", "a=inf", "a=1e9", "a=1,a=2"]),
            ("path.procfs", ["/host/proc"], ["", "a\nb", "a\x00b"]),
            ("log.format", ["json"], ["JSON", "text"]),
            ("demo", ["true", "no"], ["2", "maybe"]),
            ("demo.seed", ["0"], ["x"]),
            ("kubernetes.names", ["auto", "api", "kubelet", "off"], ["on", "API"]),
            (
                "kubernetes.url",
                ["https://10.96.0.1", "https://[fd00::1]:6443", "http://localhost:8001/", "https://api.x_y-z:65535"],
                [
                    "10.96.0.1:443",
                    "ftp://x",
                    "https://",
                    "https://x:0",
                    "https://x:65536",
                    "https://x/api",
                    "https://u@x",
                ],
            ),
            (
                "bmc.redfish.url",
                ["https://10.0.0.17", "https://{node}-bmc.example.com:8443", "http://[::1]:8000"],
                ["10.0.0.17", "https://{host}", "https://user:secret@bmc", "https://bmc/redfish/v1"],
            ),
            (
                "bmc.redfish.fingerprint",
                ["ab" * 32, ":".join(["AB"] * 32), "sha256:" + "0" * 64, "SHA256 Fingerprint=" + ":".join(["0f"] * 32)],
                ["ab" * 31, "ab" * 33, "g" * 64],
            ),
            ("bmc.interval", ["10s", "1h"], ["9s", "2h"]),
        ],
    )
    def test_both_sides_of_each_bound(self, name: str, good: list[str], bad: list[str]) -> None:
        for text in good:
            load({name: text}, {})
        for text in bad:
            lines = problems({name: text})
            assert len(lines) == 1
            assert lines[0].startswith(f"--{name}: ")
            assert len(lines[0]) < 200

    def test_settings_that_contradict_each_other(self) -> None:
        low, high = "estimate.min-watts-per-cpu", "estimate.max-watts-per-cpu"
        assert load({low: "1", high: "9.5"}, {}).estimate_max_watts_per_cpu == 9.5
        assert problems({low: "9", high: "1"}) == [f"{low} (9) is above {high} (1)"]
        assert problems({low: "9"}) == [f"{low} and {high} must be set together or not at all"]
        url, login = "bmc.redfish.url", "bmc.redfish.credentials"
        assert problems({login: "/f"}) == [f"{login} needs {url}"]
        assert problems({login: "/f", url: "http://10.0.0.1"}) == [
            f"{url} must be https: a password is sent over http to this machine only"
        ]
        assert load({login: "/f", url: "http://127.0.0.1:8000"}, {}).bmc_redfish_url == "http://127.0.0.1:8000"
        assert load({login: "/f", url: "https://{node}-bmc"}, {}).bmc_redfish_url == "https://{node}-bmc"
        assert problems({"bmc.redfish.ca": "/ca", "bmc.redfish.insecure": "true"}) == [
            "bmc.redfish.ca and bmc.redfish.insecure exclude each other"
        ]
        assert problems({"web.listen-address": [":1", ":1"]}) == ["--web.listen-address: lists the same value twice"]

    @given(st.integers(min_value=0, max_value=10**9))
    def test_a_shown_duration_is_the_same_duration(self, milliseconds: int) -> None:
        seconds = milliseconds / 1000
        assert duration(0.0, 1e7).parse(show_duration(seconds)) == pytest.approx(seconds, abs=1e-6)


class TestReload:
    def test_only_what_may_change_while_running_is_taken(self) -> None:
        old = load({}, {})
        new = load({"log.level": "debug", "process.top": "9", "web.listen-address": [":1"], "demo": True}, {})
        settings, needs_restart = reloaded(old, new)
        assert (settings.log_level, settings.process_top) == ("debug", 9)
        assert (settings.web_listen_address, settings.demo) == (old.web_listen_address, False)
        assert needs_restart == ["web.listen-address", "demo"]

    def test_nothing_changed(self) -> None:
        assert reloaded(load({}, {}), load({}, {})) == (Settings(), [])


def test_the_documentation_is_generated_by_its_command() -> None:
    page = subprocess.run(
        [sys.executable, "-m", "exporter.config.reference"],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
        timeout=patience(30),
    )
    assert page.stdout.decode() == reference.document()
