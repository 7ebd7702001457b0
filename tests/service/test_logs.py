"""Log lines: both styles have the same fields, and no text can forge a line or a key."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exporter.service import logs

Parse = Callable[[str], dict[str, str]]

FIELD = re.compile(r'([a-z]+)=("(?:[^"\\]|\\.)*"|[^\s"]+)(?: |$)')


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """Restore the root logger: other tests read its records."""
    logger = logging.getLogger()
    before = (logger.handlers[:], logger.level, logging.raiseExceptions)
    yield
    logger.handlers[:], logging.raiseExceptions = before[0], before[2]
    logger.setLevel(before[1])


def fields(line: str) -> dict[str, str]:
    """Parse a logfmt line the way Loki and others do."""
    assert "".join(match[0] for match in FIELD.finditer(line)) == line
    return {key: json.loads(value) if value[0] == '"' else value for key, value in FIELD.findall(line)}


def logged(style: str, level: str = "debug") -> tuple[io.StringIO, logging.Logger]:
    """Return the stream of the log lines, and a logger of one component."""
    stream = io.StringIO()
    logs.configure(level, style, stream)
    return stream, logging.getLogger("exporter.sampling.sampler")


@pytest.mark.parametrize(("style", "parse"), [("logfmt", fields), ("json", json.loads)])
class TestBothStyles:
    def test_fields(self, style: str, parse: Parse) -> None:
        stream, logger = logged(style)
        logger.warning("source %s is down", "rapl")
        line = parse(stream.getvalue().rstrip("\n"))
        assert (line["level"], line["component"], line["msg"]) == ("warn", "sampler", "source rapl is down")
        age = datetime.now(UTC) - datetime.fromisoformat(line["ts"])
        assert 0 <= age.total_seconds() < 10

    def test_a_traceback_stays_on_its_line(self, style: str, parse: Parse) -> None:
        stream, logger = logged(style)
        try:
            raise OSError("a\nlevel=info")
        except OSError:
            logger.exception("failed")
        assert stream.getvalue().count("\n") == 1
        assert "Traceback" in parse(stream.getvalue().rstrip("\n"))["error"]

    def test_lines_below_the_level_are_not_written(self, style: str, parse: Parse) -> None:
        stream, logger = logged(style, "warn")
        logger.info("quiet")
        logger.warning("loud")
        assert [parse(line)["msg"] for line in stream.getvalue().splitlines()] == ["loud"]

    def test_extra_values_become_fields(self, style: str, parse: Parse) -> None:
        stream, logger = logged(style)
        logger.warning("down", extra={"source": "rapl", "fix": 'say "please"\nts=1', "cause": "", "level": "forged"})
        line = parse(stream.getvalue().rstrip("\n"))
        assert {key: line[key] for key in ("source", "fix", "level")} == {
            "source": "rapl",
            "fix": 'say "please"\nts=1',
            "level": "warn",
        }
        assert "cause" not in line

    def test_a_very_long_text_is_cut(self, style: str, parse: Parse) -> None:
        stream, logger = logged(style)
        logger.info("x" * 1_000_000)
        assert 1000 < len(stream.getvalue()) < 10_000


@given(st.text(max_size=80))
@example('x" level=error msg="forged')
@example("a\nts=2026 level=error msg=forged")
@example("\r\x1b[2J\u2028\u202e\x00")
@example("\ud800")
def test_hostile_text_is_one_line_and_parses_to_itself(text: str) -> None:
    for style, parse in (("logfmt", fields), ("json", json.loads)):
        stream, logger = logged(style)
        logger.info("%s", text)
        written = stream.getvalue()
        assert written.endswith("\n")
        assert written[:-1].isprintable()
        assert parse(written[:-1])["msg"] == text
        assert set(parse(written[:-1])) == {"ts", "level", "component", "msg"}


def test_configuring_again_changes_the_style_and_writes_each_line_once() -> None:
    first, logger = logged("logfmt")
    logger.info("one")
    second, logger = logged("json")
    logger.info("two")
    assert first.getvalue().count("\n") == 1
    assert json.loads(second.getvalue())["msg"] == "two"


def test_lines_of_libraries_have_the_same_style() -> None:
    stream, _ = logged("logfmt")
    logging.getLogger("asyncio").error("socket.send() raised exception.")
    assert fields(stream.getvalue().rstrip("\n"))["component"] == "asyncio"


def test_a_closed_stderr_does_not_stop_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    stream, logger = logged("logfmt")
    stream.close()
    logger.info("not read")
    assert capsys.readouterr().err == ""
