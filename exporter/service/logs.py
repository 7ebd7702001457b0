"""Log formatting: logfmt or JSON on stderr, one line per event, whatever the text contains."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from typing import TextIO

_PACKAGE = "exporter"

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}
_NAMES = {value: name for name, value in _LEVELS.items()} | {logging.CRITICAL: "error"}
_BARE = re.compile(r"[A-Za-z0-9_./:@%+,-]+", re.ASCII)
_MAX_TEXT = 8192


class LogfmtFormatter(logging.Formatter):
    """``ts=… level=info component=… msg="…"``; values are quoted and escaped, so they cannot forge a line or key."""

    def format(self, record: logging.LogRecord) -> str:
        """Format the record as one line, without the line break."""
        return " ".join(f"{key}={_logfmt_value(value)}" for key, value in _fields(self, record).items())


class JsonFormatter(logging.Formatter):
    """The same fields as one JSON object, ASCII only."""

    def format(self, record: logging.LogRecord) -> str:
        """Format the record as one line, without the line break."""
        return json.dumps(_fields(self, record))


def configure(level: str, style: str, stream: TextIO | None = None) -> None:
    """Send all log lines, including those of libraries, to ``stream`` (stderr if None); may be called again.

    ``level`` is debug, info, warn or error; ``style`` is logfmt or json.
    """
    root = logging.getLogger()
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else LogfmtFormatter())
    ours = [old for old in root.handlers if isinstance(old.formatter, JsonFormatter | LogfmtFormatter)]
    root.addHandler(handler)
    for old in ours:
        root.removeHandler(old)
    root.setLevel(_LEVELS[level])
    logging.raiseExceptions = False  # a closed stderr must not stop the process


def _fields(formatter: logging.Formatter, record: logging.LogRecord) -> dict[str, str]:
    second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    fields = {
        "ts": f"{second}.{int(record.msecs):03d}Z",
        "level": _NAMES.get(record.levelno, "info"),
        "component": record.name.rpartition(".")[2] if record.name.startswith(f"{_PACKAGE}.") else record.name,
        "msg": record.getMessage()[:_MAX_TEXT],
    }
    # values passed as extra={…} become fields of the line
    own = vars(logging.makeLogRecord({})).keys() | {"message", "asctime", "taskName"}
    extra = {key: value for key, value in vars(record).items() if key not in own and value not in (None, "")}
    fields |= {key: str(value)[:_MAX_TEXT] for key, value in extra.items() if key not in fields}
    if record.exc_info:
        fields["error"] = formatter.formatException(record.exc_info)[-_MAX_TEXT:]
    return fields


def _logfmt_value(value: str) -> str:
    if _BARE.fullmatch(value):
        return value
    return json.dumps(value, ensure_ascii=False) if value.isprintable() else json.dumps(value)
