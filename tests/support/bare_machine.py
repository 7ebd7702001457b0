"""A command in a clean clone of HEAD on a bare Debian, so that nothing it needs is there by chance.

``python3 -m tests.support.bare_machine COMMAND...``, as root: Debian's required packages, Python with venv, git, make
and certificates, in a root folder with mounts and processes of its own. It has the network of this machine, and its
ways to apt, pip and certificates; nothing else. Returns the command's status. mmdebstrap makes the root once; it is
kept below ``$XDG_CACHE_HOME`` (``~/.cache``).

It runs before there is a virtual environment: standard library only.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

PACKAGES = ("python3", "python3-venv", "git", "make", "ca-certificates")
FALLBACK_RELEASE = "bookworm"
HOME = "/root"
CLONE = f"{HOME}/ai-energy-exporter"

_PASSED_ON = re.compile(r"PIP_|SSL_CERT_|REQUESTS_CA_BUNDLE$|CURL_CA_BUNDLE$|(https?|no|all)_proxy$", re.IGNORECASE)
_SOURCES = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))
_COPIED = (
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/pip.conf",
    "/etc/ssl/certs",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
)
_ENTER = """set -eu
mount --bind "$1" "$1"
cd "$1"; shift
for name in dev sys; do mount --rbind /$name $name; done
mount -t proc proc proc
pivot_root . .
umount --lazy .
cd /
exec /usr/bin/env -i "$@"
"""


def main(command: list[str]) -> int:
    """Run the command. Returns its exit status, 2 where it cannot be run."""
    if not command or os.geteuid() != 0:
        print("takes root and a command" if command else __doc__, file=sys.stderr)
        return 2
    with made() as machine:
        _clone(machine.root)
        return machine.run(*command, folder=CLONE).returncode


class Machine(NamedTuple):
    """A bare root folder, and the variables of what runs in it."""

    root: Path
    variables: dict[str, str]

    def run(self, *command: str, folder: str = HOME, capture: bool = False) -> subprocess.CompletedProcess[str]:
        """Run a command in namespaces that end with it: no process and no mount is left."""
        variables = (f"{name}={value}" for name, value in self.variables.items())
        enter = ["sh", "-c", _ENTER, "sh", str(self.root), *variables]
        into = ["sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", folder, *command]
        namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        return subprocess.run(
            [*namespaces, *enter, *into], stdin=subprocess.DEVNULL, capture_output=capture, text=True, check=False
        )


@contextmanager
def made() -> Iterator[Machine]:
    """A new one, which is gone afterwards."""
    base = _base()
    with tempfile.TemporaryDirectory(prefix="bare-machine-") as folder:
        root = Path(folder)
        root.chmod(0o755)
        subprocess.run(["tar", "--extract", f"--file={base}", f"--directory={root}"], check=True)
        own = {"HOME": HOME, "LANG": "C.UTF-8", "CI": "1"}
        own["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        yield Machine(root, _connect(root) | own)


def _base() -> Path:
    """The archive of the bare root, made now if this machine has none yet.

    It is this machine's release, from this machine's mirror, if this is a Debian; else `FALLBACK_RELEASE`.
    """
    system = platform.freedesktop_os_release()
    sources = [str(path) for path in _SOURCES if path.exists() and path.stat().st_size][:1]
    if system["ID"] == "debian" and sources and "VERSION_CODENAME" in system:
        release = system["VERSION_CODENAME"]
    else:
        release, sources = FALLBACK_RELEASE, []
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "ai-energy-exporter")
    made = cache / f"bare-{release}.tar"
    if not made.exists():
        cache.mkdir(parents=True, exist_ok=True)
        new = made.with_suffix(f".{os.getpid()}.tar")
        command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
        try:
            subprocess.run([*command, release, str(new), *sources], check=True)
            new.rename(made)
        finally:
            new.unlink(missing_ok=True)
    return made


def _connect(root: Path) -> dict[str, str]:
    """Give it this machine's ways to the network. Returns the variables for it."""
    passed = {name: value for name, value in os.environ.items() if _PASSED_ON.match(name)}
    local = {name: value for name, value in passed.items() if value.startswith("/")}
    for path in map(Path, (*_COPIED, *local.values())):
        into = root / path.relative_to("/")
        if path.is_dir():
            into.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "--archive", f"{path}/.", str(into)], check=True)
        elif path.exists():
            into.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, into)
    settings = subprocess.run(["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=True).stdout
    (root / "etc/apt/apt.conf.d/80network").write_text(settings, encoding="utf-8")
    return {name: value for name, value in passed.items() if name not in local or Path(value).exists()}


def _clone(root: Path) -> None:
    """Clone HEAD of this checkout, whoever owns that."""
    trust = root / "tmp/gitconfig"
    trust.write_text("[safe]\n\tdirectory = *\n", encoding="utf-8")
    here = subprocess.run(
        ["git", "rev-parse", "--show-toplevel"],
        env=os.environ | {"GIT_CONFIG_GLOBAL": str(trust)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    command = ["git", "clone", "--quiet", here, str(root / CLONE.lstrip("/"))]
    subprocess.run(command, env=os.environ | {"GIT_CONFIG_GLOBAL": str(trust)}, check=True)
    trust.unlink()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
