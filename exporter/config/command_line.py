"""The command line parser, generated from the table of settings."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, NoReturn

from .. import __version__
from .settings_table import TABLE, Setting
from .value_types import did_you_mean, quoted

COMMANDS = {
    "doctor": "check every source on this machine and print how to fix what does not work",
    "healthcheck": "query the running exporter's health; exit status 0 if it is healthy",
    "explain": "print how a process, container or pod is named, and from which evidence",
    "run": "run a command and print its energy, CO2e and cost",
    "report": "print what models, teams or runs used: energy, CO2e, money, tokens",
    "advise": "print what to change and what it saves, with evidence",
    "compare": "say whether one of two uses less energy for the same work",
    "trace": "print the joules of ranges, layers and kernels in a profiler's trace",
    "budgets": "write the rules of a file of energy budgets; --status: how much of each is used",
}
"""Name → what it does. All but the first two come first on the command line and have flags of their own."""
OPERANDS = {"explain": "PID|CONTAINER|POD", "run": "-- COMMAND", "compare": "A B", "trace": "FILE", "budgets": "FILE"}
TITLES = {
    "config": "Configuration",
    "web": "Web server",
    "path": "Host paths",
    "sample": "Sampling",
    "state": "Checkpoint",
    "history": "History",
    "source": "Sources",
    "bmc": "BMC of this machine",
    "hwmon": "Sensors of boards",
    "regions": "Regions of programs",
    "estimate": "Estimate without a meter",
    "idle": "Idle power",
    "attribution": "Attribution",
    "process": "Processes",
    "container": "Containers",
    "workload": "Workloads",
    "workloads": "Names of workloads",
    "kubernetes": "Kubernetes metadata",
    "docker": "Docker metadata",
    "podman": "Podman metadata",
    "neuron": "AWS Neuron devices",
    "tpu": "Google TPUs",
    "meters": "Meters of one's own",
    "models": "Models",
    "impact": "Carbon and cost",
    "demo": "Demonstration",
    "log": "Logs",
}

_DESCRIPTION = "\n".join(
    (
        "Prometheus exporter that attributes energy in joules to models, containers and processes",
        "",
        "Commands (COMMAND --help: the flags of one):",
        *(f"  {name:<13}{about}" for name, about in COMMANDS.items()),
    )
)
_EPILOG = """\
Every setting can also be an environment variable (in brackets) or a key of the file named by
--config.file. Flags override the environment, the environment overrides the file, the file
overrides the defaults. SIGHUP reloads the settings and retries what is down; SIGTERM stops.

Exit status: 0 success, 2 usage or configuration error, 1 any other error.
"""


class Arguments(NamedTuple):
    """The parsed command line; ``command`` is "" to serve, ``flags`` maps setting names to the given values."""

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
    """Parse the command line. Raises SystemExit: 0 after --help or --version, 2 on a usage error."""
    parser = _parser()
    words = list(sys.argv[1:] if argv is None else argv)
    if words and not words[0].startswith("-"):
        _check_command(parser, words[0])  # first, or the error would be about one of its flags
    _reject_unknown(parser, words)
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
        "       %(prog)s COMMAND [ARGUMENT]...",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=_Formatter,
        allow_abbrev=False,
        add_help=False,
    )
    modes = parser.add_argument_group("Modes (default: serve until SIGTERM)")
    modes.add_argument("command", nargs="?", metavar="COMMAND", help="doctor or healthcheck; all others come first")
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
    if row.value_type.shape == "flag":
        options["action"] = argparse.BooleanOptionalAction
    else:
        options["action"] = "store" if row.value_type.shape == "one" else "append"
        options["metavar"] = row.value_type.placeholder.replace("%", "%%")
    group.add_argument(f"--{row.name}", **options)


def _help(row: Setting) -> str:
    shown = show_default(row)
    repeatable = " Repeatable." if row.value_type.shape in ("list", "mapping", "records") else ""
    default = f" Default: {shown}." if shown else ""
    return f"{row.help}{repeatable}{default} [{row.variable}]".replace("%", "%%")


def show_default(row: Setting) -> str:
    """Format the default as it would be written in the file; "" if there is none."""
    if row.default is None:
        return "automatic" if row.value_type.shape == "flag" else ""
    return row.value_type.format(row.default)


def _check_command(parser: argparse.ArgumentParser, word: str) -> None:
    if word in OPERANDS:
        parser.error(f"{word} must come before all flags: {parser.prog} {word} {OPERANDS[word]}")
    if word not in COMMANDS:
        parser.error(f"unknown command: {quoted(word)}{did_you_mean(word, COMMANDS)} (commands: {', '.join(COMMANDS)})")


def _reject_unknown(parser: argparse.ArgumentParser, words: Iterable[str]) -> None:
    # argparse would parse the value of a mistyped flag as the command and report that instead
    known = ["--help", "--version", "--once", "--config.check", *(f"--{name}" for name in TABLE)]
    known += [f"--no-{row.name}" for row in TABLE.values() if row.value_type.shape == "flag"]
    for word in words:
        if word == "--":
            return
        option = word.partition("=")[0]
        if option.startswith("--") and option not in known:
            parser.error(f"unknown flag: {option}{did_you_mean(option, known)}")
