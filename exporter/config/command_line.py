"""The command line, made from the table of settings."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, NoReturn

from .. import __version__
from .settings import TABLE, Setting
from .value_types import did_you_mean, quoted

COMMANDS = {
    "doctor": "say of every source whether it works here, and how to mend it",
    "healthcheck": "ask the exporter that runs with these settings whether it is healthy; exit status 0 if it is",
    "budgets": "check a file of energy budgets and write their rules; goes first, and has flags of its own",
}
TITLES = {
    "config": "Configuration",
    "web": "Web server",
    "path": "Where the host is",
    "sample": "Sampling",
    "state": "Checkpoint",
    "source": "Sources",
    "estimate": "Estimate, where there is no meter",
    "idle": "Idle power",
    "attribution": "Attribution",
    "process": "Processes",
    "container": "Containers",
    "workload": "Workloads",
    "kubernetes": "Names of pods",
    "docker": "Names of Docker's containers",
    "podman": "Names of Podman's containers",
    "models": "Models",
    "demo": "Demonstration",
    "log": "Logs",
}

_EPILOG = """\
Every setting may also be given as environment variable (in brackets) or in the file of
--config.file; a flag wins over the environment, the environment over the file, the file over the
default. SIGHUP reads them again and retries what is down; SIGTERM stops.

Exit status: 0 fine, 2 bad usage or configuration, 1 anything else.
"""


class Arguments(NamedTuple):
    """What the command line asks for; ``command`` is "" to serve, ``flags`` maps setting names to what was given."""

    flags: dict[str, object]
    command: str
    once: bool
    check: bool


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\nTry '{self.prog} --help'.\n")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=8, width=100)


def parse(argv: Sequence[str] | None = None) -> Arguments:
    """Read the command line. Raises SystemExit: 0 after --help or --version, 2 on a usage error."""
    parser = _parser()
    words = list(sys.argv[1:] if argv is None else argv)
    if words and not words[0].startswith("-"):
        _check_command(parser, words[0])  # first, or a flag of the command that was meant would be complained about
    _refuse_unknown(parser, words)
    parsed, rest = parser.parse_known_args(words)
    given: dict[str, Any] = vars(parsed)
    if given["command"] is not None:
        _check_command(parser, given["command"])
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    command, once, check = given.pop("command"), given.pop("once"), given.pop("config.check")
    return Arguments(flags=given, command=command or "", once=once, check=check)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="ai-energy-exporter",
        usage="%(prog)s [doctor | healthcheck] [--once] [--demo] [--config.file FILE]\n"
        "                          [--SETTING VALUE]...\n"
        "       %(prog)s budgets FILE [--output FILE] [--format rules|prometheusrule]",
        description="Prometheus exporter that says which model, container or process uses how many joules, and why.",
        epilog=_EPILOG,
        formatter_class=_Formatter,
        allow_abbrev=False,
        add_help=False,
    )
    modes = parser.add_argument_group("Modes (without one: serve until told to stop)")
    modes.add_argument(
        "command", nargs="?", metavar="COMMAND", help="; ".join(f"{name}: {what}" for name, what in COMMANDS.items())
    )
    modes.add_argument("--once", action="store_true", help="print one scrape after two ticks and exit")
    modes.add_argument("--config.check", action="store_true", help="check the settings and exit")
    modes.add_argument("--version", action="version", version=f"%(prog)s {__version__}", help="print the version")
    modes.add_argument("-h", "--help", action="help", help="print this help")
    groups: dict[str, argparse._ArgumentGroup] = {}
    for row in TABLE.values():
        prefix = row.name.partition(".")[0]
        if prefix not in groups:
            groups[prefix] = parser.add_argument_group(TITLES[prefix])
        _add(groups[prefix], row)
    return parser


def _add(group: argparse._ArgumentGroup, row: Setting) -> None:
    options: dict[str, Any] = {"dest": row.name, "default": argparse.SUPPRESS, "help": _help(row)}
    if row.kind.shape == "flag":
        options["action"] = argparse.BooleanOptionalAction
    else:
        options["action"] = "store" if row.kind.shape == "one" else "append"
        options["metavar"] = row.kind.what.replace("%", "%%")
    group.add_argument(f"--{row.name}", **options)


def _help(row: Setting) -> str:
    shown = show_default(row)
    repeatable = " Repeatable." if row.kind.shape in ("list", "mapping", "records") else ""
    default = f" Default: {shown}." if shown else ""
    return f"{row.help}{repeatable}{default} [{row.variable}]".replace("%", "%%")


def show_default(row: Setting) -> str:
    """The default as it would be given; "" where there is none."""
    if row.default is None:
        return "automatic" if row.kind.shape == "flag" else ""
    return row.kind.show(row.default)


def _check_command(parser: argparse.ArgumentParser, word: str) -> None:
    if word == "budgets":
        parser.error(f"budgets goes before all flags: {parser.prog} budgets FILE")
    if word not in COMMANDS:
        parser.error(f"no such command: {quoted(word)}{did_you_mean(word, COMMANDS)} (there are {', '.join(COMMANDS)})")


def _refuse_unknown(parser: argparse.ArgumentParser, words: Iterable[str]) -> None:
    # argparse would take the value of a mistyped flag for the command, and complain about that
    known = ["--help", "--version", "--once", "--config.check", *(f"--{name}" for name in TABLE)]
    known += [f"--no-{row.name}" for row in TABLE.values() if row.kind.shape == "flag"]
    for word in words:
        if word == "--":
            return
        option = word.partition("=")[0]
        if option.startswith("--") and option not in known:
            parser.error(f"no such flag: {option}{did_you_mean(option, known)}")
