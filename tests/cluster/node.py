"""One Kubernetes node: etcd, API server, controllers, scheduler, containerd, kubelet and a device plugin."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import trustme

from tests.support.patience import patience

from .machine import ADDRESS, API_SERVICE, NODE, SERVICES, lose_run, program
from .programs import EXPORTER, PAUSE

KUBELET_FOLDER = Path("/var/lib/kubelet")
DEVICES = KUBELET_FOLDER / "device-plugins"
SOCKET = KUBELET_FOLDER / "pod-resources/kubelet.sock"
CONTAINERD = "/run/containerd/containerd.sock"
AUDITED = "system:serviceaccounts:ai-energy-exporter"
START_SECONDS = 120.0

_USERS = {
    "admin": ("check", "system:masters"),
    "kubelet": (f"system:node:{NODE}", "system:nodes"),
    "controllers": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
}

_CONTAINERD = """version = 2
root = "{folder}/containerd"
state = "/run/containerd"
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{folder}/cni"
    conf_dir = "{folder}/cni"
"""

T = TypeVar("T")


class Node:
    """The programs of a node, each of which can be stopped and started again."""

    def __init__(self, programs: Path, scratch: Path) -> None:
        self.programs, self.scratch = programs, scratch
        self.audit_log = scratch / "audit.log"
        self.kubeconfig = scratch / "admin.kubeconfig"
        self._running: dict[str, contextlib.ExitStack] = {}
        self.authority = trustme.CA()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._commands: dict[str, tuple[Sequence[str], Mapping[str, str]]] = {}
        self._write()

    # --- programs -------------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Start one that does not run."""
        command, environ = self._commands[name]
        stack = contextlib.ExitStack()
        self.processes[name] = stack.enter_context(program(command, self.scratch / f"{name}.log", **environ))
        self._running[name] = stack

    def stop(self, name: str) -> None:
        """End one, and wait for its end."""
        self._running.pop(name).close()

    def close(self) -> None:
        """End all, what was started last first."""
        while self._running:
            self.stop(next(reversed(self._running)))

    def boot(self, devices: Mapping[str, Sequence[str]]) -> None:
        """Start all; ``devices``: resource and names that the plugin offers. Returns when the node is ready."""
        offered = [f"{resource}={','.join(names)}" for resource, names in devices.items()]
        self._commands["deviceplugin"] = ((str(self.programs / "deviceplugin"), str(DEVICES), *offered), {})
        self._start_servers()
        for archive in ("worker.tar", "exporter.tar"):
            self.containerd("images", "import", str(self.programs / archive))
        self.containerd("images", "tag", f"localhost/{EXPORTER}:latest", f"docker.io/library/{EXPORTER}:0.1.0")
        self._start_kubelet(devices)

    def go_down(self) -> None:
        """End all, containers too, and lose what a restart of the machine loses: /run, and mounts of pods."""
        self.stop("kubelet")
        self.end_containers()
        self.close()
        lose_run()

    def go_up(self, devices: Mapping[str, Sequence[str]]) -> None:
        """Start all after `go_down`."""
        self._start_servers()
        self._start_kubelet(devices)

    def _start_servers(self) -> None:
        self.start("etcd")
        self.start("containerd")
        self.start("kube-apiserver")
        wait_for(lambda: os.path.exists(CONTAINERD), "containerd", START_SECONDS)
        self.wait_for_api()

    def _start_kubelet(self, devices: Mapping[str, Sequence[str]]) -> None:
        for name in ("kube-controller-manager", "kube-scheduler", "kubelet", "deviceplugin"):
            self.start(name)
        wait_for(self.is_ready, "the node", START_SECONDS)
        wait_for(lambda: self.offers(devices), "its devices", START_SECONDS)

    def configure_kubelet(self, **changed: Any) -> None:
        """Start it again with other fields of its configuration."""
        self.stop("kubelet")
        (self.scratch / "kubelet.json").write_text(json.dumps(self._kubelet() | changed))
        self.start("kubelet")
        wait_for(self.is_ready, "the node", START_SECONDS)

    def end_containers(self) -> None:
        """End the containers, so that their cgroups can be removed."""
        for task in self.containerd("tasks", "list", "--quiet").split():
            with contextlib.suppress(subprocess.CalledProcessError):
                self.containerd("tasks", "delete", "--force", task)

    def start_driver(self, name: str) -> None:
        """Start a driver of dynamic resource allocation; returns when the kubelet knows it."""
        folder = KUBELET_FOLDER / "plugins" / name
        server = (f"https://{ADDRESS}:443", f"{self.scratch}/ca.crt", "admin-token")
        command = (str(self.programs / "draplugin"), name, str(KUBELET_FOLDER / "plugins_registry"), str(folder))
        self._commands["draplugin"] = ((*command, *server), {})
        self.start("draplugin")
        log = self.scratch / "draplugin.log"
        wait_for(lambda: "registered: true" in log.read_text(), "the driver's registration")

    def containerd(self, *arguments: str) -> str:
        """Ask containerd by its own client."""
        command = ["ctr", "--address", CONTAINERD, "--namespace", "k8s.io", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    # --- the API --------------------------------------------------------------------------------------

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """What kubectl prints. Raises AssertionError with what it complains of."""
        command = [str(self.programs / "kubectl"), f"--kubeconfig={self.kubeconfig}", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, input=stdin, timeout=patience(60), check=False)
        assert done.returncode == 0 or not check, f"kubectl {' '.join(arguments)}: {done.stderr.strip()[-2000:]}"
        return done.stdout

    def get(self, *arguments: str) -> Any:
        """An object or list, ``kubectl get … -o json``."""
        return json.loads(self.kubectl("get", *arguments, "--output=json"))

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Apply objects."""
        self.kubectl("apply", "--filename=-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def wait_for_api(self) -> None:
        """Until the API server is ready."""
        wait_for(lambda: self._ask("/readyz") == "ok", "the API server", START_SECONDS, every_seconds=0.2)

    def is_ready(self) -> bool:
        """Whether the node is."""
        with contextlib.suppress(AssertionError):
            conditions = self.get("node", NODE)["status"].get("conditions", ())
            return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
        return False

    def offers(self, devices: Mapping[str, Sequence[str]]) -> bool:
        """Whether the scheduler knows these devices."""
        allocatable = self.get("node", NODE)["status"]["allocatable"]
        return all(allocatable.get(resource) == str(len(names)) for resource, names in devices.items())

    def _ask(self, path: str) -> str:
        return self.kubectl("get", "--raw", path, check=False)

    # --- files ----------------------------------------------------------------------------------------

    def _write(self) -> None:
        folder, programs = self.scratch, self.programs
        authority = self.authority
        certificate = authority.issue_cert(
            API_SERVICE, ADDRESS, "127.0.0.1", NODE, "kubernetes", "kubernetes.default.svc", common_name="node"
        )
        client = authority.issue_cert("apiserver", common_name="apiserver", organization_name="system:masters")
        authority.cert_pem.write_to_path(str(folder / "ca.crt"))
        for name, pair in (("node", certificate), ("client", client)):
            pair.private_key_pem.write_to_path(str(folder / f"{name}.key"))
            pair.cert_chain_pems[0].write_to_path(str(folder / f"{name}.crt"))
        tokens = [f'{name}-token,{user},{name},"{groups}"' for name, (user, groups) in _USERS.items()]
        (folder / "tokens.csv").write_text("\n".join(tokens) + "\n")
        for name in _USERS:
            (folder / f"{name}.kubeconfig").write_text(json.dumps(self._kubeconfig(name)))
        audited = [{"level": "Metadata", "userGroups": [AUDITED], "omitStages": ["RequestReceived"]}, {"level": "None"}]
        policy = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": audited}
        (folder / "audit.json").write_text(json.dumps(policy))
        (folder / "kubelet.json").write_text(json.dumps(self._kubelet()))
        cni = folder / "cni"
        cni.mkdir()
        for name in ("pods", "loopback"):
            shutil.copy(Path(__file__).with_name("cni.sh"), cni / name)
        network = {"cniVersion": "0.4.0", "name": "pods", "type": "pods"}
        (cni / "10-pods.conf").write_text(json.dumps(network))
        settings = _CONTAINERD.format(folder=folder, socket=CONTAINERD, pause=PAUSE)
        (folder / "containerd.toml").write_text(settings)

        def command(name: str, *flags: str) -> tuple[Sequence[str], Mapping[str, str]]:
            return (str(programs / name), *flags), {}

        controllers = f"--kubeconfig={folder}/controllers.kubeconfig"
        self._commands |= {
            "etcd": command("etcd", f"--data-dir={folder}/etcd", "--unsafe-no-fsync", "--log-level=warn"),
            "containerd": (
                ("containerd", f"--config={folder}/containerd.toml"),
                {"CNI_STATE": str(cni)},
            ),
            "kube-apiserver": command(
                "kube-apiserver",
                "--etcd-servers=http://127.0.0.1:2379",
                f"--service-cluster-ip-range={SERVICES}",
                f"--advertise-address={ADDRESS}",
                "--bind-address=0.0.0.0",
                "--secure-port=443",  # nobody here translates the Service's address to another port
                "--allow-privileged",
                "--authorization-mode=Node,RBAC",
                "--enable-admission-plugins=NodeRestriction",
                f"--token-auth-file={folder}/tokens.csv",
                f"--client-ca-file={folder}/ca.crt",
                f"--tls-cert-file={folder}/node.crt",
                f"--tls-private-key-file={folder}/node.key",
                f"--kubelet-certificate-authority={folder}/ca.crt",
                "--kubelet-preferred-address-types=InternalIP",
                f"--kubelet-client-certificate={folder}/client.crt",
                f"--kubelet-client-key={folder}/client.key",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-key-file={folder}/node.key",
                f"--service-account-signing-key-file={folder}/node.key",
                f"--audit-policy-file={folder}/audit.json",
                f"--audit-log-path={self.audit_log}",
            ),
            "kube-controller-manager": command(
                "kube-controller-manager",
                controllers,
                "--use-service-account-credentials",
                f"--root-ca-file={folder}/ca.crt",
                f"--service-account-private-key-file={folder}/node.key",
                "--leader-elect=false",
                "--secure-port=0",
            ),
            "kube-scheduler": command(
                "kube-scheduler",
                f"--kubeconfig={folder}/scheduler.kubeconfig",
                "--leader-elect=false",
                "--secure-port=0",
            ),
            "kubelet": command(
                "kubelet",
                f"--config={folder}/kubelet.json",
                f"--kubeconfig={folder}/kubelet.kubeconfig",
                f"--hostname-override={NODE}",
                f"--node-ip={ADDRESS}",
                "--node-labels=topology.kubernetes.io/region=eu-west-3",
            ),
        }

    def _kubelet(self) -> dict[str, Any]:
        """Its configuration: cgroup v1, no pressure of a disk that others fill, everything else as it comes."""
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "failCgroupV1": False,
            "cgroupDriver": "cgroupfs",
            "containerRuntimeEndpoint": f"unix://{CONTAINERD}",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": f"{self.scratch}/ca.crt"},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": f"{self.scratch}/node.crt",
            "tlsPrivateKeyFile": f"{self.scratch}/node.key",
            "makeIPTablesUtilChains": False,
            "resolvConf": "",
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "staticPodPath": f"{self.scratch}/static",
        }

    def _kubeconfig(self, user: str) -> dict[str, Any]:
        cluster = {"server": f"https://{ADDRESS}:443", "certificate-authority": f"{self.scratch}/ca.crt"}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "check", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": f"{user}-token"}}],
            "contexts": [{"name": "check", "context": {"cluster": "check", "user": user}}],
            "current-context": "check",
        }


def fetch(url: str, seconds: float = 10.0) -> str:
    """The body of an answer. Raises OSError."""
    with urllib.request.urlopen(url, timeout=seconds) as answer:
        return str(answer.read().decode())


def limit(seconds: float) -> float:
    """Seconds to wait for what takes so many: more on a busy machine, but never so long that a failure stays unseen."""
    return min(patience(seconds), 4 * seconds)


def wait_for(condition: Callable[[], T], what: str, seconds: float = 60.0, *, every_seconds: float = 0.5) -> T:
    """Wait until the condition holds and return what it returned. Raises AssertionError after `limit`."""
    seconds = limit(seconds)
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not come in {seconds:.0f} s"
        time.sleep(every_seconds)
    return found
