"""``ai-energy-exporter trace FILE``: joules of the ranges, kernels and layers of a profiler's trace."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..analysis.traces import meters, nsight, page, pytorch, table
from ..analysis.traces.pricing import Point
from ..analysis.traces.table import price_trace
from ..analysis.traces.trace import Device, Trace, TraceError
from . import read_back

_FORMATS = ("text", "markdown", "csv", "json", "html")
_EXAMPLES = """\
examples:
  ai-energy-exporter trace trace.json.gz --by layer
  nsys export --type sqlite --output run.sqlite run.nsys-rep && ai-energy-exporter trace run.sqlite --by kernel
  ai-energy-exporter trace trace.json --power samples.csv --format html --output trace.html

exit status: 0 success, 2 usage error, 1 anything else, such as no meter for any device
"""


def parser() -> read_back.Parser:
    """Its flags."""
    made = read_back.parser(
        "trace",
        "Print the joules of the ranges, kernels, layers or streams in a trace of PyTorch's profiler or of Nsight "
        "Systems. See docs/trace.md.",
        _EXAMPLES,
    )
    add = made.add_argument
    add("file", metavar="FILE", help="a .json or .json.gz of PyTorch's profiler, or nsys export --type sqlite")
    add("--by", choices=tuple(table.BY), default="range", help="what has a line (default: range)")
    add(
        "--meter",
        metavar="DEVICE=WHICH",
        action="append",
        default=[],
        help="the meter of a device of the file, where it is not found: a UUID, an index of the exporter (gpu), or a "
        "whole selector of a counter of joules; repeatable",
    )
    add(
        "--power",
        metavar="FILE",
        default="",
        help="power samples in place of Prometheus, as nvidia-smi writes them: "
        "--query-gpu=timestamp,uuid,power.draw.instant --format=csv",
    )
    read_back.add_top(made)
    add("--format", choices=_FORMATS, default="text", help="text (default); html has a picture")
    read_back.add_output(made)
    return made


def run(words: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Run the command. Returns the exit status: 0 on success, 2 for invalid usage, 1 if nothing can be priced."""
    return read_back.run(parser(), words, environ, _answer)


def _answer(given: read_back.Given) -> tuple[str, int]:
    path, by, count = Path(given["file"]), given["by"], given["top"]
    chosen = dict(_meter(word) for word in given["meter"])
    try:
        trace = nsight.read(path) if nsight.is_sqlite(path) else pytorch.read(path)
        if unknown := chosen.keys() - {device.key for device in trace.devices}:
            raise ValueError(f"--meter: no device {', '.join(sorted(unknown))} in {path}")
        found = price_trace(trace, _points(given, trace, chosen))
    except OSError as error:
        raise read_back.CommandError(f"{error.filename}: {error.strerror}") from None
    except TraceError as error:
        raise read_back.CommandError(str(error)) from None
    render = {
        "text": lambda: table.text(found, by, count),
        "markdown": lambda: table.markdown(found, by, count),
        "csv": lambda: table.comma_separated(found, by),
        "json": lambda: table.as_json(found, by),
        "html": lambda: page.page(found, by, f"Energy of {path.name}"),
    }
    return render[given["format"]](), 0


def _points(given: read_back.Given, trace: Trace, chosen: Mapping[str, str]) -> Callable[[Device], list[Point]]:
    """Finds the meter of a device: in the file of samples if there is one, else in Prometheus."""
    if given["power"]:
        samples = meters.from_samples(Path(given["power"]))
        return lambda device: meters.sampled(samples, device, chosen)
    prometheus, matchers = read_back.connect(given), read_back.matchers(given)
    return lambda device: meters.counted(prometheus, device, trace, chosen, matchers)


def _meter(word: str) -> tuple[str, str]:
    device, separator, which = word.partition("=")
    if not separator or not which:
        raise ValueError(f"--meter: {word!r} is not DEVICE=WHICH")
    return device, which
