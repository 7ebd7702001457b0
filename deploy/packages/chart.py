"""Packs the Helm chart: ``python -m deploy.packages.chart FOLDER``.

`helm package` does the same, but its archive has the times of the machine, so it differs from run to run.
"""

from __future__ import annotations

import gzip
import io
import os
import sys
import tarfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import yaml

CHART = Path(__file__).resolve().parent.parent / "helm/ai-energy-exporter"


def write(folder: Path, epoch: int) -> Path:
    """Write NAME-VERSION.tgz, the same for the same files and ``epoch``. Returns its path."""
    about = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    path = folder / f"{about['name']}-{about['version']}.tgz"
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in files():
            member = tarfile.TarInfo(f"{about['name']}/{name}")
            member.size, member.mtime, member.mode = len(content), epoch, 0o644
            tar.addfile(member, io.BytesIO(content))
    path.write_bytes(gzip.compress(archive.getvalue(), mtime=epoch))
    return path


def files() -> Iterator[tuple[str, bytes]]:
    """Name and content of each file of the chart; what .helmignore names is not one."""
    lines = (CHART / ".helmignore").read_text(encoding="utf-8").splitlines()
    ignored = [line.rstrip("/") for line in lines if line and not line.startswith("#")]
    for here, folders, names in os.walk(CHART, followlinks=True):
        folders[:] = sorted(name for name in folders if name not in ignored)
        for name in sorted(names):
            if not any(fnmatch(name, pattern) for pattern in ignored):
                path = Path(here, name)
                yield str(path.relative_to(CHART)), path.read_bytes()


if __name__ == "__main__":
    print(write(Path(sys.argv[1]), int(os.environ["SOURCE_DATE_EPOCH"])))  # noqa: T201
