"""``ai-energy-exporter run -- COMMAND``: energy of one command and its children; exits with the command's status."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

from ..config.command_line import parse
from ..config.loading import load
from ..config.settings import Settings
from ..records import Unavailable
from ..runs.launcher import Link, launch
from ..runs.own_cgroup import OWN_PROC, OwnCgroup
from ..service.assembly import make_host

_PROGRAM = "ai-energy-exporter run"
_USAGE = f"{_PROGRAM} [--json FILE] [--csv FILE] [--wait-all] [--SETTING VALUE]... -- COMMAND [ARGUMENT]..."
_DEFAULT_EXPORTER = "http://127.0.0.1:9400"
_EPILOG = """\
Every setting of the exporter is a flag here too (ai-energy-exporter --help), such as --sample.interval, --impact.price
or --idle.watts. See docs/run.md.

examples:
  ai-energy-exporter run -- python train.py
  ai-energy-exporter run --csv runs.csv --name nightly -- make -j8
  ai-energy-exporter run --json - -- true

exit status: that of the command, 128 + n if signal n ended it, 127 if it does not exist, 126 if it cannot be executed;
2 for a usage or configuration error: then the command was not started
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\nTry '{self.prog} --help'.\n")


def parser() -> argparse.ArgumentParser:
    """Its own flags; the others are settings."""
    made = _Parser(
        prog=_PROGRAM,
        usage=_USAGE,
        description="Run a command, and print the energy, CO2e and cost of it and of all its children.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = made.add_argument
    add("--json", metavar="FILE", default="", help="write everything as JSON; - is standard output")
    add("--csv", metavar="FILE", default="", help="append a row; a new file gets a header")
    add("--name", metavar="NAME", default="", help="name of the run (default: the command's, without its folder)")
    add("--wait-all", action="store_true", help="wait for processes that the command leaves behind, too")
    add("--quiet", action="store_true", help="print no line")
    add(
        "--exporter.url",
        metavar="URL",
        help="exporter of this machine, for meters that this user may not read, idle power, and factors of CO2e and "
        f'cost (default: {_DEFAULT_EXPORTER}, if there is one; "": none)',
    )
    return made


def run(words: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the command. Returns its exit status, or 2 before it is started. Raises `ConfigError`."""
    end = words.index("--") if "--" in words else len(words)
    try:
        known, rest = parser().parse_known_args(list(words[:end]))
    except SystemExit as leave:
        return int(leave.code or 0)
    given, command = vars(known), list(words[end + 1 :])
    arguments = parse(rest)
    if arguments.command or arguments.once or arguments.check:
        return _refuse("takes flags before --, and the command after it")
    settings = load(arguments.flags, environ)
    from ..impact.build import build  # noqa: PLC0415 - as little as possible in the process that waits

    build(settings)  # it raises ConfigError before anything is started
    if problem := _problem(settings, given, command):
        return _refuse(problem)
    given["name"] = given["name"] or os.path.basename(command[0]) or "command"
    group = _own_cgroup(settings, given["name"])

    def attach(pid: int) -> None:
        nonlocal group
        if group is None:
            return
        try:
            group.attach(pid)
        except Unavailable:
            group.remove()
            group = None

    def measure(link: Link) -> None:
        from .run_measuring import measure_and_print  # noqa: PLC0415 - the same

        measure_and_print(link, settings, given, command, group)

    try:
        return launch(command, attach, measure, wait_for_all=given["wait_all"], fail=_say)
    finally:
        if group is not None:
            group.remove()


def _own_cgroup(settings: Settings, name: str) -> OwnCgroup | None:
    """A cgroup for the command, None where this user may not make one: then processes are followed."""
    try:
        return OwnCgroup(replace(make_host(settings), procfs=OWN_PROC), name)
    except Unavailable:
        return None


def _problem(settings: Settings, given: Mapping[str, Any], command: Sequence[str]) -> str:
    """Why the command is not started, "" if it is."""
    if not command:
        return "needs a command after --"
    if not hasattr(signal, "sigtimedwait"):
        return "needs Linux: nothing else returns the CPU time of orphans"
    if settings.demo:
        return "--demo has no meter that a command could be measured with"
    return _check_files(given)


def _check_files(given: Mapping[str, Any]) -> str:
    """What would keep the results from being written, before the command has run for hours; "" if nothing."""
    from ..runs.summary import header  # noqa: PLC0415

    for path in (given["json"], given["csv"]):
        if path in ("", "-"):
            continue
        try:
            with open(path, "a+", encoding="utf-8") as file:
                file.seek(0)
                first = file.readline() if path == given["csv"] else ""
        except (OSError, UnicodeDecodeError) as error:
            return f"{path}: {getattr(error, 'strerror', '') or error}"
        if first not in ("", header()):
            return f"{path}: its first line is not the header of this version's runs: name another file"
    return ""


def _refuse(reason: str) -> int:
    sys.stderr.write(f"{_PROGRAM}: {reason}\nTry '{_PROGRAM} --help'.\n")
    return 2


def _say(text: str) -> None:
    sys.stderr.write(f"{_PROGRAM}: {text}\n")
    sys.stderr.flush()
