"""``make cluster-check``: one Kubernetes node on loopback, and the exporter deployed on it as the docs say.

Outside the suite; takes root, Go and Debian's containerd, runc and buildah. Builds Kubernetes and etcd from their
modules (``--folder`` keeps them, else all is temporary) and the image from this tree, then runs the steps in namespaces
of their own; see `machine`. ``--record`` writes what was observed for tests/cluster. Words name the last step to run.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from . import machine
from .cluster import OURS, Cluster, cluster
from .programs import KUBERNETES, build, make_images
from .steps import STEPS
from .variants import VARIANTS

PROGRAMS = ("go", "containerd", "ctr", "runc", "buildah", "mmdebstrap", "ip", "nsenter", "unshare")
"""Of Debian's, or of go.dev."""


def run(programs: Path, until: str, record: Path | None) -> list[str]:
    """All steps; what failed. What was observed up to the first failure is recorded."""
    with tempfile.TemporaryDirectory(prefix="cluster-") as folder:
        scratch = Path(folder)
        machine.prepare(scratch)
        began = time.monotonic()
        try:
            with cluster(programs, scratch) as made:
                print(f"node ready after {time.monotonic() - began:.0f} s", flush=True)
                made.recorded |= _versions(made)
                return _steps(made, until, record)
        finally:
            machine.unmount(scratch)


def _steps(made: Cluster, until: str, record: Path | None) -> list[str]:
    failed = []
    for step in (*STEPS, *VARIANTS):
        began = time.monotonic()
        try:
            step(made)
        except Exception:  # noqa: BLE001 - told, and the cluster is ended as it should be
            traceback.print_exc()
            _explain(made)
            failed.append(step.__name__)
            if step is STEPS[0]:
                break
        if record and not failed:
            text = json.dumps(made.recorded, indent=1, sort_keys=True)
            record.write_text(text.replace(str(made.node.scratch), "/scratch") + "\n")
        print(f"{step.__name__:16} {time.monotonic() - began:5.0f} s   {(step.__doc__ or '').strip()}", flush=True)
        if step.__name__ == until:
            break
    print(f"{made.scrapes} scrapes were held against the promises, {made.unanswered} were not answered")
    return failed


def _explain(made: Cluster) -> None:
    """What an operator would look at."""
    ours = f"-n {OURS}"
    for command in ("get pods -A -o wide", f"{ours} get events", f"{ours} describe pods", f"{ours} logs ds/{OURS}"):
        print(made.node.kubectl(*command.split(), check=False)[-3000:], flush=True)


def _versions(made: Cluster) -> dict[str, Any]:
    node = made.node.get("node", machine.NODE)["status"]["nodeInfo"]
    for name in ("bootID", "machineID", "systemUUID"):
        del node[name]
    runc = subprocess.run(["runc", "--version"], capture_output=True, text=True, check=False).stdout
    return {"node_info": node, "runc": runc.splitlines()[0].split()[-1], "kubernetes": KUBERNETES}


def main() -> int:
    """Build, enter the namespaces, run. Returns an exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.check", description=__doc__)
    parser.add_argument("--folder", type=Path, help="folder in which the programs are kept")
    parser.add_argument("--image", type=Path, help="archive of an exporter's image, which is not built then")
    parser.add_argument("--record", type=Path, help="write what was observed")
    parser.add_argument(machine.INSIDE, action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("until", nargs="?", default="", help="the last step to run")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # everything that was started ends with the contexts
    if options.inside:
        failed = run(options.folder, options.until, options.record)
        print("failed: " + ", ".join(failed) if failed else "all steps passed", flush=True)
        return 1 if failed else 0
    reason = machine.impossible()
    missing = [
        name
        for name in ("go", "containerd", "ctr", "runc", "buildah", "mmdebstrap", "ip", "nsenter")
        if not shutil.which(name)
    ]
    if reason or missing:
        print(reason or f"missing: {', '.join(missing)}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="cluster-programs-") as scratch:
        folder = (options.folder or Path(scratch)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        build(folder)
        print(f"programs after {time.monotonic() - began:.0f} s", flush=True)
        make_images(folder, options.image)
        print(f"images after {time.monotonic() - began:.0f} s", flush=True)
        if reason := machine.impossible():  # two kubelets end each other's pods: another check began meanwhile
            print(reason, file=sys.stderr)
            return 1
        arguments = ["--folder", str(folder), *(["--record", str(options.record.resolve())] if options.record else [])]
        status = machine.enter("tests.cluster.check", [*arguments, *([options.until] if options.until else [])])
        print(f"{time.monotonic() - began:.0f} s altogether")
    return status


if __name__ == "__main__":
    sys.exit(main())
