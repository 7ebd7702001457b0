"""What the commands that read back have in common: where from, the window, errors, output, exit status."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, tzinfo
from typing import Any, NoReturn
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ..analysis import http_config
from ..analysis.growth import Growths, Source
from ..analysis.history import History
from ..analysis.prometheus import Prometheus, QueryError
from ..analysis.window import Window, parse
from ..config.loading import ConfigError
from .standard_output import discard_output

_ENVIRONMENT = {
    "AI_ENERGY_PROMETHEUS_URL": "prometheus.url",
    "AI_ENERGY_PROMETHEUS_CONFIG": "prometheus.config",
}
_STRING = r"""(?:"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`[^`]*`)"""
_MATCHER = rf"\s*[a-zA-Z_]\w*\s*(?:=~|!~|!=|=)\s*{_STRING}\s*"
_MATCHERS = re.compile(rf"{_MATCHER}(?:,{_MATCHER})*,?\s*")
DEFAULT_URL = "http://localhost:9090"

Given = Mapping[str, Any]
"""Flag without its dashes → its value."""


class CommandError(Exception):
    """A command cannot do what was asked; the text is one line for the user."""


class Parser(argparse.ArgumentParser):
    """Its usage errors are one line and a hint, as those of the other commands."""

    def error(self, message: str) -> NoReturn:
        """Print ``message`` and leave with status 2."""
        self.exit(2, f"{self.prog}: {message}\nTry '{self.prog} --help'.\n")


def parser(name: str, description: str, epilog: str) -> Parser:
    """The parser of a command, with the flags of the server."""
    made = Parser(
        prog=f"ai-energy-exporter {name}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = made.add_argument
    add(
        "--prometheus.url",
        metavar="URL",
        default="",
        help="Prometheus, VictoriaMetrics, Thanos or "
        "Mimir, the address below which /api/v1 is (default: http://localhost:9090) [AI_ENERGY_PROMETHEUS_URL]",
    )
    add(
        "--prometheus.config",
        metavar="FILE",
        default="",
        help="how to log in: a file as promtool --http.config.file reads [AI_ENERGY_PROMETHEUS_CONFIG]",
    )
    add(
        "--prometheus.header",
        metavar="NAME: VALUE",
        action="append",
        default=[],
        help="send a header, such as X-Scope-OrgID; repeatable",
    )
    add(
        "--prometheus.matchers",
        metavar="MATCHERS",
        default="",
        help='count only series with these labels, such as cluster="eu",job="energy"',
    )
    return made


def add_history(made: Parser) -> None:
    """Add the flag of the history, for commands that take a `source`."""
    made.add_argument(
        "--history.file",
        metavar="FILE",
        default="",
        help="the history of an exporter instead (its --history.file); without either flag that of this machine, if "
        "there is one [AI_ENERGY_HISTORY_FILE]",
    )


def add_window(made: Parser, since: str) -> None:
    """Add the flags of a window that begins ``since`` by default."""
    made.add_argument(
        "--since",
        default=since,
        metavar="TIME",
        help=f"how long ago (7d), a date, a time, month or last-month (default: {since})",
    )
    made.add_argument("--until", default="", metavar="TIME", help="the end, in the same forms (default: now)")
    made.add_argument("--timezone", default="UTC", metavar="ZONE", help="of dates, months and days (default: UTC)")


def add_output(made: Parser) -> None:
    """Add ``--output``."""
    made.add_argument("--output", metavar="FILE", default="-", help="where to write; - is standard output (default)")


def add_top(made: Parser) -> None:
    """Add ``--top``."""
    made.add_argument(
        "--top",
        type=_count,
        default=30,
        metavar="COUNT",
        help="lines before the others become one (default: 30; 0: all)",
    )


def zone(given: Given) -> tzinfo:
    """The time zone that was asked for. Raises `ZoneInfoNotFoundError`."""
    return UTC if given["timezone"] == "UTC" else ZoneInfo(given["timezone"])


def window(given: Given, now: float) -> Window:
    """The window that was asked for. Raises ValueError, `ZoneInfoNotFoundError`."""
    return parse(given["since"], given["until"], now, zone(given))


def matchers(given: Given) -> str:
    """Matchers of every query, without braces. Raises ValueError if they are none."""
    text = str(given["prometheus.matchers"]).strip()
    inner = text[1:-1] if text[:1] == "{" and text[-1:] == "}" else text
    if inner and not _MATCHERS.fullmatch(inner):
        raise ValueError(f'--prometheus.matchers {text}: not matchers such as cluster="eu",job=~"energy.*"')
    return inner


def _count(word: str) -> int:
    value = int(word)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{word} is less than 0")
    return value


def connect(given: Given) -> Prometheus:
    """The server that was asked for. Raises `QueryError`, `ConfigError`."""
    url = given["prometheus.url"] or DEFAULT_URL
    return Prometheus(url, http_config.read(given["prometheus.config"], given["prometheus.header"]))


def source(given: Given, environ: Mapping[str, str]) -> Source:
    """The history that was asked for, else the server, else the history of this machine, if it has one.

    Raises `QueryError`, `ConfigError`.
    """
    file = given["history.file"]
    if not file and not given["prometheus.url"]:
        file = environ.get("AI_ENERGY_HISTORY_FILE") or next(filter(os.path.isfile, history_files(environ)), "")
    return History(file, matchers(given)) if file else Growths(connect(given), matchers(given))


def history_files(environ: Mapping[str, str]) -> list[str]:
    """Where exporters of this machine keep their history: ``make run`` in the first place, systemd in the second."""
    home = environ.get("XDG_STATE_HOME") or os.path.join(environ.get("HOME", "/root"), ".local/state")
    return [os.path.join(folder, "ai-energy-exporter/history.db") for folder in (home, "/var/lib")]


def run(
    made: Parser,
    words: Sequence[str],
    environ: Mapping[str, str],
    answer: Callable[[Given], tuple[str, int]],
) -> int:
    """Parse ``words``, and write what ``answer`` makes of them: a text and the exit status.

    Returns it, 2 for invalid usage or configuration, 1 if Prometheus or the file of ``--output`` fails.
    """
    made.set_defaults(**{name: environ[key] for key, name in _ENVIRONMENT.items() if environ.get(key)})
    try:
        given = vars(made.parse_args(words))
    except SystemExit as leave:
        return int(leave.code or 0)
    try:
        text, status = answer(given)
        _write(text, given.get("output", "-"))
    except (ValueError, ZoneInfoNotFoundError) as error:
        return _fail(made.prog, str(error.args[0]), 2)
    except ConfigError as error:
        sys.stderr.writelines(f"{problem}\n" for problem in error.problems)
        return 2
    except (QueryError, CommandError) as error:
        return _fail(made.prog, str(error), 1)
    return status


def _write(text: str, output: str) -> None:
    try:
        if output == "-":
            sys.stdout.write(text)
            sys.stdout.flush()
            return
        with open(output, "w", encoding="utf-8") as file:
            file.write(text)
    except BrokenPipeError:
        raise
    except OSError as error:
        if output == "-":
            discard_output()
        raise CommandError(f"{'standard output' if output == '-' else output}: {error.strerror}") from None


def _fail(program: str, reason: str, status: int) -> int:
    sys.stderr.write(f"{program}: {reason}\n")
    return status
