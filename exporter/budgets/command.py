"""``ai-energy-exporter budgets FILE``: checks energy budgets and writes their recording and alerting rules."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from ..config.loading import ConfigError
from .reader import read
from .rules import groups
from .writer import FORMATS, render, write


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\nTry '{self.prog} --help'.\n")


def run(words: Sequence[str]) -> int:
    """Run the command. Returns the exit status: 0 on success, 2 for invalid usage or budgets, 1 if writing fails.

    Raises OSError if standard output cannot be written.
    """
    parser = _Parser(
        prog="ai-energy-exporter budgets",
        description="Check a file of energy budgets and write its recording and alerting rules. See docs/rules.md.",
        epilog="How much of each is used: ai-energy-exporter budgets --status [--help]. "
        "Exit status: 0 fine, 2 bad usage or budgets, 1 anything else.",
        allow_abbrev=False,
    )
    parser.add_argument("file", metavar="FILE", help="the budgets, such as budgets.yaml")
    parser.add_argument("--output", metavar="FILE", default="-", help="where to write; - is standard output (default)")
    parser.add_argument("--format", choices=FORMATS, default=FORMATS[0], help="a rule file (default), or an object")
    try:
        arguments = parser.parse_args(words)
    except SystemExit as leave:
        return int(leave.code or 0)
    try:
        text = render(groups(read(arguments.file)), arguments.format, os.path.basename(arguments.file))
    except ConfigError as error:
        sys.stderr.writelines(f"{problem}\n" for problem in error.problems)
        return 2
    try:
        if arguments.output == "-":
            sys.stdout.write(text)
            sys.stdout.flush()
        else:
            write(text, arguments.output)
    except OSError as error:
        if arguments.output == "-":
            raise  # the program ends as all its commands do
        sys.stderr.write(f"{arguments.output}: {error.strerror}\n")
        return 1
    return 0
