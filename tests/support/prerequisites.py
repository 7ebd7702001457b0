"""The programs that the test suite needs beside Python, and their Debian packages.

``python3 -m tests.support.prerequisites install TARGET...`` installs the missing packages, as root or with ``sudo -n``;
no package starts a service. Without apt or without the rights it installs nothing: the tests concerned are skipped and
`lacking` is their reason. Under CI a program that is still missing is an error (status 1). ``... run COMMAND...`` runs
a command, or says how to get it and returns 0.

It runs before there is a virtual environment: standard library only.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple


class Prerequisite(NamedTuple):
    """A command, a file (an absolute path) or a Python module (``import NAME``); the first package that has it."""

    name: str
    package: str
    purpose: str
    targets: tuple[str, ...] = ("test",)


_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_INTER = "/usr/share/fonts/opentype/inter"

_PROMETHEUS = ("test", "grafana-check", "scale-check", "advise-check", "regions-check")

_ROOTS = ("image-test", "bare-test", "release-check", "cluster-check")

TABLE = (
    Prerequisite("import ensurepip", "python3-venv", "the virtual environment"),
    Prerequisite("make", "make", "the targets of the Makefile"),
    Prerequisite("cc", "gcc", "compiles the fake NVIDIA driver", ("test", "cluster-check")),
    Prerequisite("/usr/include/stdio.h", "libc6-dev", "compiles the fake NVIDIA driver", ("test", "cluster-check")),
    Prerequisite("promtool", "prometheus", "checks rules and scrapes", _PROMETHEUS),
    Prerequisite("prometheus", "prometheus", "scrapes the exporter and evaluates the rules", _PROMETHEUS),
    Prerequisite("victoria-metrics", "victoria-metrics", "answers the same queries", ("scale-check",)),
    Prerequisite("vmagent", "victoria-metrics", "checks its flags and scrape configuration", ("scale-check",)),
    Prerequisite("vmalert", "victoria-metrics", "checks its flags and rules", ("scale-check",)),
    Prerequisite("amtool", "prometheus-alertmanager", "checks the alert routes"),
    Prerequisite("prometheus-alertmanager", "prometheus-alertmanager", "receives the alerts"),
    Prerequisite("kubectl", "kubernetes-client", "renders the Kubernetes manifests"),
    Prerequisite("systemd-analyze", "systemd", "checks the systemd unit"),
    Prerequisite("systemctl", "systemd", "runs the systemd unit"),
    Prerequisite("systemd-sysusers", "systemd", "makes the user of the systemd unit"),
    Prerequisite("/lib/systemd/systemd", "systemd", "runs the systemd unit"),
    Prerequisite("/bin/kill", "procps", "reloads the systemd unit"),
    Prerequisite("ipmi_sim", "openipmi", "is a BMC that speaks IPMI"),
    Prerequisite("ipmitool", "ipmitool", "sends it commands"),
    Prerequisite("udevadm", "udev", "runs the udev rule for RAPL"),
    Prerequisite("groff", "groff-base", "formats the man page"),
    Prerequisite("dpkg-deb", "dpkg", "builds the Debian package", ("test", "release", "release-check")),
    Prerequisite("rpmbuild", "rpm", "builds the RPM package", ("release", "release-check")),
    Prerequisite("buildah", "buildah", "builds the container image", ("image-test", "cluster-check")),
    Prerequisite("mmdebstrap", "mmdebstrap", "makes a Debian root from packages", _ROOTS),
    Prerequisite(_KEYRING, "debian-archive-keyring", "verifies those packages", _ROOTS),
    Prerequisite("containerd", "containerd", "runs the pods", ("cluster-check",)),
    Prerequisite("runc", "runc", "runs their containers", ("cluster-check",)),
    Prerequisite("dockerd", "docker.io", "runs model servers in containers", ("serving-check",)),
    Prerequisite("busybox", "busybox-static", "is what those containers have besides", ("serving-check",)),
    Prerequisite("ip", "iproute2", "is the network of the pods", ("cluster-check",)),
    Prerequisite("node", "nodejs", "bundles and drives what runs in the browser", ("grafana-check", "status-check")),
    Prerequisite("npm", "npm", "installs packages of JavaScript", ("grafana-check", "status-check")),
    Prerequisite("chromium", "chromium", "renders dashboards and the status page", ("grafana-check", "status-check")),
    Prerequisite(_INTER, "fonts-inter", "is Grafana's font", ("grafana-check",)),
    Prerequisite("git", "git", "clones the commit that is tested", ("bare-test",)),
)
POLICY = Path("/usr/sbin/policy-rc.d")
"""Debian's packages ask it before they start a service; 101 is "no"."""

_OVERRIDES = {"cc": "CC", "kubectl": "KUBECTL"}


def is_there(name: str) -> bool:
    """Whether this machine has the command, file or module."""
    if name.startswith("/"):
        return Path(name).exists()
    if name.startswith("import "):
        return importlib.util.find_spec(name.removeprefix("import ")) is not None
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    return shutil.which(os.environ.get(_OVERRIDES.get(name, ""), name), path=path) is not None


def missing(*targets: str) -> list[Prerequisite]:
    """What these targets of the Makefile need and this machine does not have."""
    return [each for each in TABLE if {*targets} & {*each.targets} and not is_there(each.name)]


def lacking(*names: str) -> str:
    """Why a test that needs these is skipped, with the way to get them; "" if all are there. They are in `TABLE`."""
    package = {each.name: each.package for each in TABLE}
    absent = [name for name in names if not is_there(name)]
    packages = " ".join(dict.fromkeys(package[name] for name in absent))
    verb = "is" if len(absent) == 1 else "are"
    return f"{', '.join(absent)} {verb} missing: apt-get install {packages}" if absent else ""


def install(*targets: str) -> int:
    """Install what is missing where that is possible. Returns an exit status: 1 under CI if something is missing."""
    wanted: dict[str, list[str]] = {}
    for each in missing(*targets):
        wanted.setdefault(each.package, []).append(f"{each.name} {each.purpose}")
    if wanted and (reason := _refused()):
        print(f"cannot install {' '.join(wanted)}: {reason}", file=sys.stderr)
    elif wanted:
        print("installing Debian packages; none of them starts a service:")
        for package, purposes in wanted.items():
            print(f"  {package}: {'; '.join(purposes)}", flush=True)
        _apt_install(list(wanted))
    left = missing(*targets)
    for each in left:
        print(f"missing: {each.name}, which {each.purpose} (Debian package {each.package})", file=sys.stderr)
    return 1 if left and "CI" in os.environ else 0


def run(command: Sequence[str]) -> int:
    """Run a command of the table and return its exit status; where it is missing, say so and return 0."""
    if reason := lacking(command[0]):
        print(f"not checked, {reason}", file=sys.stderr)
        return 0
    return subprocess.run(command, check=False).returncode


def _as_root(*command: str) -> list[str]:
    return [*command] if os.geteuid() == 0 else ["sudo", "-n", *command]


def _refused() -> str:
    """What keeps this user from installing packages; "" if nothing does."""
    if shutil.which("apt-get") is None:
        return "there is no apt-get here"
    if os.geteuid() == 0:
        return ""
    if shutil.which("sudo") is None:
        return "that takes root, and there is no sudo here"
    allowed = subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode == 0
    return "" if allowed else "that takes root, and sudo asks for a password"


def _apt_install(packages: list[str]) -> None:
    """Install them. A failure is reported by apt itself; what is missing afterwards is looked at by the caller."""
    get = _as_root("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq")
    with _no_service_starts():
        subprocess.run([*get, "update"], check=False)
        command = [*get, "install", "--yes", "--no-install-recommends", *packages]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=False)


@contextmanager
def _no_service_starts() -> Iterator[None]:
    """Forbid packages to start services. A rule that is there already stays as it is."""
    if POLICY.exists():
        yield
        return
    subprocess.run(_as_root("tee", str(POLICY)), input=b"#!/bin/sh\nexit 101\n", stdout=subprocess.DEVNULL, check=True)
    try:
        subprocess.run(_as_root("chmod", "755", str(POLICY)), check=True)
        yield
    finally:
        subprocess.run(_as_root("rm", "-f", str(POLICY)), check=True)


def main(arguments: list[str]) -> int:
    """Run the command line. Returns the exit status."""
    match arguments:
        case ["install", *targets] if targets and {*targets} <= {name for each in TABLE for name in each.targets}:
            return install(*targets)
        case ["run", *command] if command:
            return run(command)
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
