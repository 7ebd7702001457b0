"""Writes the man page from the table of settings: ``python -m deploy.packages.manual``."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Iterator

from exporter import __version__
from exporter.config.command_line import COMMANDS, OPERANDS, TITLES, show_default
from exporter.config.settings_table import TABLE, Setting

NAME = "ai-energy-exporter"


def document() -> str:
    """The page, ai-energy-exporter(1), in roff."""
    return "\n".join([*_head(), *_settings(), *_tail()]) + "\n"


def _head() -> Iterator[str]:
    yield f'.TH {NAME.upper()} 1 "" "{NAME} {__version__}" "User Commands"\n.ad l\n.nh'
    yield from _section("NAME", f"{_plain(NAME)} \\- attribute energy in joules to models, containers and processes")
    yield ".SH SYNOPSIS"
    yield f".B {_plain(NAME)}\n[\\fICOMMAND\\fR] [\\fB\\-\\-SETTING\\fR \\fIVALUE\\fR]..."
    yield from _section(
        "DESCRIPTION",
        _plain(
            "Reads the node's energy meters, attributes every joule to the container, process and AI model that caused "
            "it, and serves the result to Prometheus at http://127.0.0.1:9400/metrics. Without a command it serves "
            "until SIGTERM."
        ),
    )
    yield ".SH COMMANDS"
    for name, about in COMMANDS.items():
        operand = f" \\fI{_plain(OPERANDS[name])}\\fR" if name in OPERANDS else ""
        yield f".TP\n.B {_plain(name)}{operand}\n{_plain(about)}."
    yield ".SH OPTIONS"
    for flag, about in {
        "once": "Print one scrape after two ticks and exit.",
        "config.check": "Check the settings and exit.",
        "version": "Print the version.",
        "help": "Print a summary of all flags.",
    }.items():
        yield f".TP\n.B {_plain(f'--{flag}')}\n{about}"
    yield ".SH SETTINGS"
    yield _plain(
        "Each is a flag, the environment variable in brackets, and a key of the YAML file that --config.file names. "
        "Flags override the environment, the environment overrides the file. Durations have units: 500ms, 5m, 1h30m."
    )


def _settings() -> Iterator[str]:
    for prefix, rows in itertools.groupby(TABLE.values(), lambda row: row.name.partition(".")[0]):
        yield f".SS {_plain(TITLES[prefix])}"
        yield from map(_setting, rows)


def _setting(row: Setting) -> str:
    if row.value_type.shape == "flag":
        head = f"\\fB{_plain(f'--{row.name}')}\\fR, \\fB{_plain(f'--no-{row.name}')}\\fR"
    else:
        head = f"\\fB{_plain(f'--{row.name}')}\\fR \\fI{_plain(row.value_type.placeholder)}\\fR"
    notes = [row.help]
    notes += ["Repeatable."] if row.value_type.shape in ("list", "mapping", "records") else []
    notes += [f"Default: {show_default(row)}."] if show_default(row) else []
    notes += ["A reload applies it."] if row.reloadable else []
    return f".TP\n{head}\n{_plain(' '.join(notes))} [{_plain(row.variable)}]"


def _tail() -> Iterator[str]:
    yield ".SH EXIT STATUS\n0 success, 2 usage or configuration error, 1 any other error."
    yield from _section("SIGNALS", "SIGHUP reloads the settings and retries what is down. SIGTERM stops within 5 s.")
    yield ".SH FILES"
    for path, about in {
        "/etc/ai-energy-exporter/environment": "Settings of the systemd unit, as environment variables.",
        "/var/lib/ai-energy-exporter/state": "Counters that continue after a restart of the unit.",
        "/var/lib/ai-energy-exporter/history.db": "The unit's own history, which report reads.",
        "/usr/share/ai-energy-exporter": "Drop-ins of the unit, and the udev rule for RAPL without root.",
        f"/usr/share/doc/{NAME}": "Documents.",
    }.items():
        yield f".TP\n.I {_plain(path)}\n{about}"
    yield ".SH SEE ALSO\n.BR systemd.exec (5),\n.BR udev (7)"


def _section(title: str, text: str) -> Iterator[str]:
    yield f".SH {title}"
    yield text


def _plain(text: str) -> str:
    """Text as roff prints it literally: hyphens that can be copied, lists that can be broken, no control line."""
    escaped = re.sub(r",(?=\S)", r",\\:", text.replace("\\", "\\e").replace("-", "\\-"))
    return re.sub(r"^([.'])", r"\\&\1", escaped)


if __name__ == "__main__":
    sys.stdout.write(document())
