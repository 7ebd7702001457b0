"""The command line: parse it, load the settings, and hand over to the service or to one command."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from . import __version__

if TYPE_CHECKING:
    from .config.command_line import Arguments
    from .config.settings import Settings

# Imports inside functions: each command loads only what it needs.

_READ_BACK = ("report", "compare", "trace", "advise")
"""Commands that read Prometheus back, each a module of that name in `exporter.commands`."""


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run one command. Returns the exit status: 0 fine, 2 bad usage or configuration, 1 anything else."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words == ["--version"]:
        return _version()
    return _command(words, environ)


def _version() -> int:
    """Print it without loading the settings."""
    try:
        sys.stdout.write(f"ai-energy-exporter {__version__}\n")
        sys.stdout.flush()
    except OSError as error:
        return _output_lost(error)
    return 0


def _output_lost(error: OSError) -> int:
    """Say why standard output cannot be written, unless its reader has gone. Returns the exit status."""
    from .commands.standard_output import discard_output

    discard_output()
    if not isinstance(error, BrokenPipeError):
        sys.stderr.write(f"standard output: {error.strerror}\n")
    return 1


def _command(words: Sequence[str], environ: Mapping[str, str]) -> int:
    from .config.command_line import parse
    from .config.loading import ConfigError

    try:
        if words[:1] == ["budgets"]:
            return _budgets(words[1:], environ)
        if words and words[0] in _READ_BACK:
            return _read_back(words[0], words[1:], environ)
        return _run_apart(words, environ) if words[:1] in (["explain"], ["run"]) else _run(parse(words), environ)
    except SystemExit as leave:
        return int(leave.code or 0)
    except ConfigError as error:
        return _print_problems(error.problems)
    except (BrokenPipeError, KeyboardInterrupt) as error:
        return _output_lost(error) if isinstance(error, BrokenPipeError) else 1


def _run_apart(words: Sequence[str], environ: Mapping[str, str]) -> int:
    """A command whose words are not only settings."""
    if words[0] == "run":
        from .commands import run

        return run.run(words[1:], environ)
    from .commands import explain

    return explain.run(words[1:], environ)


def _budgets(words: Sequence[str], environ: Mapping[str, str]) -> int:
    if "--status" in words:
        return _read_back("budget_status", [word for word in words if word != "--status"], environ)
    from .budgets import command as budgets

    try:
        return budgets.run(words)
    except OSError as error:  # of standard output
        return _output_lost(error)


def _read_back(name: str, words: Sequence[str], environ: Mapping[str, str]) -> int:
    try:
        command = import_module(f".commands.{name}", __package__)
    except ModuleNotFoundError as missing:
        if (missing.name or "").startswith("exporter"):
            raise
        sys.stderr.write(f"{missing.name} is not installed: pip install urllib3\n")
        return 1
    status: int = command.run(words, environ)
    return status


def _run(arguments: Arguments, environ: Mapping[str, str]) -> int:
    if arguments.command == "healthcheck":
        from .commands import healthcheck

        return healthcheck.run(arguments.flags, environ)
    from .config.loading import load

    settings = load(arguments.flags, environ)
    from .impact.build import build

    build(settings)  # it raises ConfigError before anything is started
    if arguments.command == "doctor" or arguments.once:
        return _print_ok() if arguments.check else _inspect(arguments, settings)
    return _serve(arguments, settings, environ)


def _inspect(arguments: Arguments, settings: Settings) -> int:
    from .commands import doctor, once
    from .service import logs

    logs.configure(settings.log_level, settings.log_format)
    return once.run(settings) if arguments.once else doctor.run(settings)


def _serve(arguments: Arguments, settings: Settings, environ: Mapping[str, str]) -> int:
    from .config.loading import load
    from .exposition.web.access import Access
    from .exposition.web.web_config_file import WebConfigError

    try:
        access = Access(settings.web_config_file) if settings.web_config_file else None
    except WebConfigError as error:
        return _print_problems(error.problems)
    if arguments.check:
        return _print_ok()
    gc.disable()  # what is imported stays: a twentieth of the time to start is looking for garbage in it
    from .service import logs
    from .service.service import serve

    gc.freeze()
    gc.enable()
    logs.configure(settings.log_level, settings.log_format)
    return serve(settings, access, lambda: load(arguments.flags, environ))


def _print_problems(problems: Sequence[str]) -> int:
    sys.stderr.writelines(f"{problem}\n" for problem in problems)
    return 2


def _print_ok() -> int:
    sys.stdout.write("OK\n")
    return 0
