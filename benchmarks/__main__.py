"""``python -m benchmarks [PART...]``: measure what the exporter costs, and print one table per part."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable

from . import (
    against,
    bmc,
    bytecodes,
    comparisons,
    features,
    footprint,
    gpus,
    history,
    impact,
    inference,
    memory,
    region_costs,
    regions,
    rendering,
    report,
    rules,
    run_agreement,
    runs,
    security,
    serving,
    ticks,
)
from .native import CannotMeasure

PARTS: dict[str, Callable[[], None]] = {
    "ticks": ticks.main,
    "bytecodes": bytecodes.main,
    "features": features.main,
    "impact": impact.main,
    "gpus": gpus.main,
    "rendering": rendering.main,
    "serving": serving.main,
    "footprint": footprint.main,
    "memory": memory.main,
    "rules": rules.main,
    "rules-victoria-metrics": rules.victoria_metrics,
    "security": security.main,
    "inference": inference.main,
    "bmc": bmc.main,
    "regions": regions.main,
    "region-costs": region_costs.main,
    "region-joules": region_costs.joules,
    "compare": comparisons.main,
    "history": history.main,
    "report": report.main,
    "runs": runs.main,
    "run-agreement": run_agreement.main,
}


def main() -> int:
    """Run the parts. Returns the exit status: 1 if one of them cannot be measured here."""
    if sys.argv[1:2] == ["against"]:
        return against.main(sys.argv[2:])
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all of them without one")
    wanted = parser.parse_args().parts or list(PARTS)
    if unknown := set(wanted) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    implementation, version = platform.python_implementation(), platform.python_version()
    print(f"{implementation} {version}, {os.cpu_count()} CPUs, Linux {platform.release().partition('-')[0]}")
    status = 0
    for part in wanted:
        try:
            PARTS[part]()
        except CannotMeasure as reason:
            print(f"\n{part}: not measured: {reason}")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
