"""``python -m benchmarks.soak [SECONDS]``: soak the exporter, for an hour by default; exit 1 if it is not flat."""

from __future__ import annotations

import argparse
import signal
import sys

import pytest

from ..table import show, verdict
from .figures import Figures
from .run import Outcome, Pace, soak

REPORT_EVERY_SECONDS = 180.0
COMPRESSED_SECONDS = 900.0
"""Below this a soak is compressed: series would not be dropped before its half is over."""

_HEAD = ("seconds", "faults", "resident MiB", "child MiB", "descriptors", "threads", "series", "missed ticks")


def main() -> int:
    """Run it. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("seconds", nargs="?", type=float, default=3600.0, help="how long, after the start")
    seconds = parser.parse_args().seconds
    pace = Pace(seconds) if seconds >= COMPRESSED_SECONDS else Pace.compressed(seconds)
    lines: list[tuple[str, ...]] = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that nothing stays behind

    def hear(row: Figures, outcome: Outcome) -> None:
        if row.at >= min(REPORT_EVERY_SECONDS, seconds / 6) * (len(lines) + 1):
            lines.append(_line(row, outcome.faults))
            print("  ".join(f"{cell} {head}" for cell, head in zip(lines[-1], _HEAD, strict=True)), flush=True)

    try:
        outcome = soak(pace, hear)
    except pytest.skip.Exception as reason:
        print(f"not measured: {reason}")
        return 1
    _tell(outcome, lines)
    return 0 if outcome.good else 1


def _line(row: Figures, faults: int) -> tuple[str, ...]:
    return (
        f"{row.at:.0f}",
        f"{faults}",
        f"{row.resident_mib:.1f}",
        f"{row.child_mib:.1f}",
        f"{row.descriptors:.0f}",
        f"{row.threads:.0f}",
        f"{row.series:.0f}",
        f"{row.missed_ticks:.0f}",
    )


def _tell(outcome: Outcome, lines: list[tuple[str, ...]]) -> None:
    show(
        f"Soak: {outcome.rows[-1].at:.0f} s, {outcome.faults} faults, {outcome.workloads} workloads, {outcome.scrapes} "
        f"checked scrapes, {outcome.ends} times SIGTERM (the slowest took {outcome.slowest_end_seconds:.1f} s)",
        _HEAD,
        lines,
    )
    show(
        "Growth over the second half, by the median slope",
        ("", "median", "growth", "allowed", ""),
        [
            (each.name, f"{each.typical:.1f}", f"{each.growth:+.2f}", f"{each.allowed:.2f}", verdict(each.flat))
            for each in outcome.trends
        ],
    )
    print(f"devices told and true differ by at most {outcome.worst_error_joules:.1f} J")
    for problem in outcome.problems[:20]:
        print(f"NOT kept: {problem}")
    if not outcome.good:
        print("the end of the log:\n" + "".join(outcome.log[-50:]))
    print(f"the soak: {verdict(outcome.good)}")


if __name__ == "__main__":
    sys.exit(main())
