"""How large the container image is, how long its build takes, and how much memory the exporter in it.

``python -m benchmarks.image``: takes root, buildah and mmdebstrap. The base is made from Debian's packages, as in the
tests of the image.
"""

from __future__ import annotations

import gzip
import sys
import time
from pathlib import Path

from tests.support.image_builder import Image, built, missing
from tests.support.image_container import Container

from .table import show

MEASURE_SECONDS = 60.0
SCRAPE_SECONDS = 5.0
MIB = 2**20


def resident_mib(image: Image, *flags: str) -> float:
    """Resident memory after a minute of scrapes, MiB."""
    one = Container(image, ("--log.level=error", *flags), image.config["User"])
    try:
        one.metrics()
        end = time.monotonic() + MEASURE_SECONDS
        while time.monotonic() < end:
            one.metrics()
            time.sleep(SCRAPE_SECONDS)
        return int(one.status()["VmRSS"].split()[0]) / 1024
    finally:
        one.end()


def start_seconds(image: Image) -> float:
    """From the start of the process to the first scrape; the best of three."""
    found = []
    for _ in range(3):
        began = time.monotonic()
        one = Container(image, ("--log.level=error",), image.config["User"])
        try:
            one.metrics()
            found.append(time.monotonic() - began)
        finally:
            one.end()
    return min(found)


def size(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def main() -> int:
    """Print the table. Returns the exit status."""
    if reason := missing():
        sys.stderr.write(f"not measured: {reason}\n")
        return 1
    with built() as image:
        compressed = len(gzip.compress(image.archive.read_bytes(), 6))
        rows = [
            ("image, compressed", f"{compressed / MIB:.1f} MiB"),
            ("image, unpacked", f"{size(image.root) / MIB:.1f} MiB"),
            ("of it the exporter and its packages", f"{size(image.root / 'opt') / MIB:.1f} MiB"),
            ("build, base at hand", f"{image.build_seconds:.0f} s"),
            ("making the base", f"{image.base_seconds:.0f} s"),
            ("start to first scrape", f"{start_seconds(image):.1f} s"),
            ("resident, this machine", f"{resident_mib(image):.1f} MiB"),
            ("resident, --demo", f"{resident_mib(image, '--demo'):.1f} MiB"),
        ]
    show("Image", ("", "measured"), rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
