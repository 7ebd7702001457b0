"""``ai-energy-exporter compare A B``: whether one of two uses less energy for the same work, read from Prometheus."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence

from ..analysis import arms, comparison, comparison_formats
from ..analysis.paired import LEVEL
from ..analysis.prometheus import QueryError
from ..analysis.window import Window, parse
from . import read_back
from .progress import progress

_EXAMPLES = """\
A and B are models (model=NAME[,variant=...][,namespace=...]), images (image=...), pod labels (label:team=red), or
matchers in braces; with --before and --after B may be left out: it is A.

examples:
  ai-energy-exporter compare model=org/chat,variant=fp16 model=org/chat,variant=awq --since 2d
  ai-energy-exporter compare model=org/chat --before 2026-11-01/2026-11-08 --after 2026-11-08/2026-11-15
  ai-energy-exporter compare image=registry/vllm:0.11 image=registry/vllm:0.12 --since 7d --format markdown

exit status: 0 B saves, 3 no difference seen, 4 B costs more, 5 not enough data, 2 usage error, 1 anything else
"""
STATUS = {"saves": 0, "no difference seen": 3, "costs more": 4, "not enough data": 5}
_BLOCK = re.compile(r"(\d{1,4})m")


def parser() -> read_back.Parser:
    """Its flags."""
    made = read_back.parser(
        "compare",
        "Say whether B uses less energy than A for the same work: blocks of minutes paired by load, with an interval. "
        "See docs/compare.md.",
        _EXAMPLES,
    )
    add = made.add_argument
    add("arms", nargs="+", metavar="ARM", help="A, and B")
    read_back.add_window(made, since="1d")
    add("--before", metavar="START/END", default="", help="window of A, instead of --since and --until")
    add("--after", metavar="START/END", default="", help="window of B")
    add("--block", metavar="MINUTES", default="5m", help="length of a block (default: 5m)")
    add(
        "--boundary",
        choices=("gpu", "gpu+cpu+dram", "node"),
        default="gpu+cpu+dram",
        help="whose energy counts (default: gpu+cpu+dram)",
    )
    add("--active-only", action="store_true", help="leave out idle power, as of cards that several models share")
    add(
        "--load",
        choices=("server", "total"),
        default="",
        help="pair by the load of a server (default if both run at once), or by that of all of them (default else)",
    )
    add("--level", type=float, default=LEVEL, metavar="SHARE", help=f"of the interval (default: {LEVEL})")
    add("--format", choices=("text", "markdown", "json", "html"), default="text", help="text (default)")
    read_back.add_output(made)
    return made


def run(words: Sequence[str], environ: Mapping[str, str] = os.environ, now: Callable[[], float] = time.time) -> int:
    """Run the command. Returns the exit status: see its help."""
    return read_back.run(parser(), words, environ, lambda given: _answer(given, now()))


def _answer(given: read_back.Given, now: float) -> tuple[str, int]:
    chosen, windows = _selectors(given), _windows(given, now)
    if chosen[0] == chosen[1] and windows[0] == windows[1]:
        raise ValueError("A and B are the same; give another B, or --before and --after")
    at_once = windows[0] == windows[1]
    options = comparison.Options(
        _block_seconds(given["block"]),
        given["boundary"],
        given["active_only"],
        (given["load"] or ("server" if at_once else "total")) == "server",
        _level(given["level"]),
    )
    prometheus, matchers = read_back.connect(given), read_back.matchers(given)
    with progress(sum(map(arms.steps, windows))) as advance:
        found = [
            arms.read(prometheus, one, window, options.block_seconds, options.boundary, matchers, advance)
            for one, window in zip(chosen, windows, strict=True)
        ]
    for name, arm in zip("AB", found, strict=True):
        if not arm.blocks and not arm.dropped:
            raise QueryError(f"{prometheus.url}: no energy of {name}, {arm.selector.text}, in its window")
    outcome = comparison.outcome(found[0], found[1], options)
    render = {
        "text": comparison_formats.text,
        "markdown": comparison_formats.markdown,
        "json": comparison_formats.as_json,
        "html": comparison_formats.page,
    }
    return render[given["format"]](outcome), STATUS[outcome.found.verdict]


def _selectors(given: read_back.Given) -> tuple[arms.Selector, arms.Selector]:
    words = given["arms"]
    if len(words) > 2 or (len(words) == 1 and not (given["before"] and given["after"])):
        raise ValueError("give A and B, or A with --before and --after")
    return arms.selector(words[0]), arms.selector(words[-1])


def _windows(given: read_back.Given, now: float) -> tuple[Window, Window]:
    if bool(given["before"]) != bool(given["after"]):
        raise ValueError("--before and --after go together")
    if not given["before"]:
        window = read_back.window(given, now)
        return window, window
    zone = read_back.zone(given)
    found = []
    for flag in ("before", "after"):
        start, slash, end = given[flag].partition("/")
        if not slash or not start:
            raise ValueError(f"--{flag} {given[flag]}: not START/END, such as 2026-11-01/2026-11-08")
        found.append(parse(start, end, now, zone))
    if found[0].end > found[1].start:
        raise ValueError("--before must end before --after begins")
    return found[0], found[1]


def _block_seconds(text: str) -> float:
    match = _BLOCK.fullmatch(text)
    if match is None or not 1 <= int(match[1]) <= 60:
        raise ValueError(f"--block {text}: not 1m to 60m")
    return int(match[1]) * 60.0


def _level(value: float) -> float:
    if not 0.5 <= value < 1:
        raise ValueError(f"--level {value}: not from 0.5 to below 1")
    return value
