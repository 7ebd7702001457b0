"""A Kubernetes node: an API server over TLS, and pods that run in cgroups with the layout of the kubelet."""

from __future__ import annotations

import hashlib
import itertools
import ssl
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import trustme

from tests.support.fake_kubernetes_api import FakeApiServer, Pod, make_pod
from tests.support.live import Auditor, Exporter, Meter, Tree

NODE = "node-1"
NAMESPACE = "team-nlp"
TOKEN = "eyJhbGciOi.first"
IDLE_WATTS = 10.0

Layout = Callable[[str, str], str]


def _slice(uid: str, quality: str = "") -> str:
    parts = ["kubepods", *([quality] if quality else []), f"pod{uid.replace('-', '_')}"]
    return "/".join(f"{'-'.join(parts[: index + 1])}.slice" for index in range(len(parts)))


LAYOUTS: Mapping[str, Layout] = {
    "containerd-systemd": lambda uid, cid: f"{_slice(uid, 'burstable')}/cri-containerd-{cid}.scope",
    "containerd-cgroupfs": lambda uid, cid: f"kubepods/burstable/pod{uid}/{cid}",
    "crio-systemd": lambda uid, cid: f"{_slice(uid, 'besteffort')}/crio-{cid}.scope/container",  # with crun
    "crio-cgroupfs": lambda uid, cid: f"kubepods/besteffort/pod{uid}/crio-{cid}",
    "guaranteed": lambda uid, cid: f"{_slice(uid)}/cri-containerd-{cid}.scope",
}
"""Group of a container by pod uid and container id: kubernetes pkg/kubelet/cm, containerd internal/cri, cri-o cgmgr."""


def container_id(*words: object) -> str:
    """64 hex digits like the id of a container, the same for the same words."""
    return hashlib.sha256("/".join(map(str, words)).encode()).hexdigest()


class Node:
    """``flags`` point the exporter at it. `pod` creates a pod, the ``add`` of ``server`` adds it to the API server."""

    def __init__(self, folder: Path, tree: Tree) -> None:
        authority = trustme.CA()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(self._context)
        self.folder = folder
        self.tree = tree
        self.server = FakeApiServer(self._context, {TOKEN})
        self._port = self.server.port
        self._numbers = itertools.count(1)
        authority.cert_pem.write_to_path(str(folder / "ca.crt"))
        self.use_token(TOKEN)
        (folder / "sys/devices/system/cpu").mkdir(parents=True)
        (folder / "sys/devices/system/cpu/online").write_text("0-1\n")
        self.meters = [
            Meter(folder / "sys"),
            Meter(folder / "sys", 6.0, zone="intel-rapl:0:0", name="dram"),
        ]
        self._exporters: list[Exporter] = []
        self._auditors: list[Auditor] = []

    @property
    def flags(self) -> list[str]:
        """Command line of an exporter of this node."""
        return [
            f"--path.sysfs={self.folder / 'sys'}",
            f"--path.cgroupfs={self.tree.root}",
            "--attribution.cpu-scope=machine",
            f"--idle.watts=package-0={IDLE_WATTS}",
            "--kubernetes.names=api",
            f"--kubernetes.url={self.server.url}",
            f"--kubernetes.credentials={self.folder}",
            f"--kubernetes.node-name={NODE}",
            "--docker.socket=off",
            "--podman.socket=off",
        ]

    def watch(self, *flags: str) -> tuple[Exporter, Auditor]:
        """Start an exporter, and the auditor of all its scrapes."""
        exporter = Exporter(*self.flags, *flags)
        self._exporters.append(exporter)
        auditor = Auditor(exporter)
        self._auditors.append(auditor)
        return exporter, auditor

    def pod(
        self,
        name: str,
        *containers: str,
        owner: tuple[str, str] = ("", ""),
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        runtime: str = "containerd",
        attempt: int = 0,
    ) -> Pod:
        """A running pod; the containers of another ``attempt`` have other ids."""

        def change(pod: Pod) -> None:
            pod["metadata"]["labels"] |= labels or {}
            pod["metadata"]["annotations"] |= annotations or {}
            if owner[0]:
                pod["metadata"]["ownerReferences"] = [{"kind": owner[0], "name": owner[1], "controller": True}]
            pod["metadata"]["uid"] = uid
            for status in pod["status"]["containerStatuses"]:
                status["containerID"] = status["containerID"].replace("containerd", runtime)
                status["restartCount"] = attempt

        digits = container_id("uid", name)
        uid = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:32]))
        ids = {each: container_id(name, each, attempt) for each in containers or ("main",)}
        return make_pod(next(self._numbers), name, namespace=NAMESPACE, node=NODE, containers=ids, change=change)

    def group(self, pod: Pod, container: str = "main", layout: str = "containerd-systemd") -> str:
        """Path of the cgroup of one of its containers, or of its sandbox ("pause"), which is not in its status."""
        ids = {status["name"]: status["containerID"] for status in pod["status"]["containerStatuses"]}
        uid = str(pod["metadata"]["uid"])
        return LAYOUTS[layout](uid, ids.get(container, container_id(uid, container)).rpartition("/")[2])

    def run(
        self, pod: Pod, container: str = "main", layout: str = "containerd-systemd", command: Sequence[str] = ()
    ) -> str:
        """Start one of its containers; returns its group."""
        group = self.group(pod, container, layout)
        self.tree.start(group, command)
        return group

    def use_token(self, token: str) -> None:
        """Replace the token as the kubelet does."""
        (self.folder / "token.new").write_text(token)
        (self.folder / "token.new").rename(self.folder / "token")

    def server_down(self) -> None:
        """Close the API server's port."""
        self.server.close()

    def server_back(self, *pods: Pod) -> None:
        """Another server on the same port, with these pods."""
        self.server = FakeApiServer(self._context, {TOKEN}, self._port)
        for pod in pods:
            self.server.add(pod)

    def close(self) -> None:
        """Stop everything but the tree."""
        for auditor in self._auditors:
            auditor.stop()
        for exporter in self._exporters:
            exporter.end()
        for meter in self.meters:
            meter.stop()
        self.server.close()
