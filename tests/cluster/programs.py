"""The programs of a Kubernetes node, built from their Go modules, and the images that the check's pods run.

``programs/go.mod`` has the versions and ``go.sum`` their hashes. containerd and runc are Debian's.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from tests.support.image_builder import built

SOURCE = Path(__file__).with_name("programs")

KUBERNETES = "1.37.2"
"""The newest that still runs on cgroup v1, if ``failCgroupV1`` is false, and with the CRI of containerd 1.6."""

PACKAGES: Mapping[str, str] = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kubelet": "k8s.io/kubernetes/cmd/kubelet",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
    "deviceplugin": "./deviceplugin",
    "draplugin": "./draplugin",
    "worker": "./worker",
}
HELM = "helm.sh/helm/v3/cmd/helm@v3.19.0"
"""Installed where this machine has no helm."""

_STATIC = ("worker", "deviceplugin", "draplugin")
"""Always built anew: their source is here. The rest changes with go.sum only."""

PAUSE = "check.example/pause:1"
WORKER = "check.example/worker:1"
EXPORTER = "ai-energy-exporter"


def build(folder: Path) -> None:
    """Build the programs that are not in the folder yet. Raises CalledProcessError."""
    source = folder / "source"
    shutil.copytree(SOURCE, source, dirs_exist_ok=True)
    stamp = sha256((SOURCE / "go.sum").read_bytes()).hexdigest()
    if (folder / "built").exists() and (folder / "built").read_text() != stamp:
        for name in PACKAGES:
            (folder / name).unlink(missing_ok=True)
    # Beside other work it shall not be noticed; a program is some thousand packages, of which most are shared.
    environment = {**os.environ, "GOFLAGS": "-mod=readonly -buildvcs=false -trimpath"}
    # The compiled version, as Kubernetes' own build writes it: a kubelet without one is taken for 0.0.0.
    major, minor, _ = KUBERNETES.split(".")
    variables = {
        f"k8s.io/{package}.{name}": value
        for package in ("component-base/version", "client-go/pkg/version")
        for name, value in (
            ("gitVersion", f"v{KUBERNETES}"),
            ("gitMajor", major),
            ("gitMinor", minor),
        )
    }
    linked = " ".join(["-s -w", *(f"-X {name}={value}" for name, value in variables.items())])
    for name, package in PACKAGES.items():
        if not (folder / name).exists() or name in _STATIC:
            began = time.monotonic()
            command = ["nice", "-n", "10", "go", "build", f"-ldflags={linked}", "-o", str(folder / name), package]
            subprocess.run(command, cwd=source, env=environment, check=True)
            print(f"  {name}: {time.monotonic() - began:.0f} s", flush=True)
    if shutil.which("helm") is None and not (folder / "helm").exists():
        own = {**os.environ, "GOBIN": str(folder), "GOFLAGS": "-mod=mod"}
        subprocess.run(["nice", "-n", "10", "go", "install", HELM], env=own, check=True)
    (folder / "built").write_text(stamp)


def make_images(folder: Path, exporter: Path | None = None) -> None:
    """Archives of all images; the exporter's is built from this tree by its Dockerfile, unless there is one already."""
    write_image(folder / "worker.tar", [WORKER, PAUSE], folder / "worker")
    if exporter is None:
        with built() as image:
            shutil.copy(image.archive, folder / "exporter.tar")
    elif exporter != folder / "exporter.tar":
        shutil.copy(exporter, folder / "exporter.tar")


def write_image(archive: Path, names: Sequence[str], program: Path) -> None:
    """An image of one static program, as ``docker save`` writes it."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        entry = tarfile.TarInfo("worker")
        entry.size, entry.mode = program.stat().st_size, 0o755
        with program.open("rb") as file:
            tar.addfile(entry, file)
    digest = f"sha256:{sha256(layer.getvalue()).hexdigest()}"
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": ["/worker"], "Labels": {"org.opencontainers.image.title": "worker"}},
            "rootfs": {"type": "layers", "diff_ids": [digest]},
        }
    ).encode()
    manifest = [{"Config": "config.json", "RepoTags": list(names), "Layers": ["layer.tar"]}]
    files = {"layer.tar": layer.getvalue(), "config.json": config, "manifest.json": json.dumps(manifest).encode()}
    with tarfile.open(archive, "w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
