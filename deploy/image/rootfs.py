"""Collects the files that the exporter needs to run, and no others, into the folder that becomes the image.

``/opt/venv/bin/python rootfs.py FOLDER``: run by the Dockerfile, in its build stage, with the interpreter that the
image will have, in the virtual environment that it will have.
"""

from __future__ import annotations

import compileall
import os
import py_compile
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

SOURCE = Path(__file__).resolve().parent
STATE_FOLDER = "var/lib/ai-energy-exporter"
USER = 65532

LEFT_OUT = {
    *("__phello__", "__pycache__", "curses", "dbm", "dist-packages", "distutils", "ensurepip", "idlelib", "lib2to3"),
    *("msilib", "pydoc_data", "site-packages", "test", "tkinter", "turtle.py", "turtledemo", "unittest"),
    *("venv", "xmlrpc"),
}
"""Packages of the standard library that the exporter never imports, and installers of packages."""

LEFT_OUT_PREFIXES = (
    *("config-", "_codecs_", "_curses", "_dbm", "_gdbm", "_test", "_tkinter", "_xxtest"),
    *("nis.", "readline.", "xxlimited"),
)
"""The same for folders and extension modules, some of which need further libraries."""

LOADED_LATER = ("libdl.so.2", "libgcc_s.so.1", "libpthread.so.0", "librt.so.1")
"""Libraries that no file here is linked to: drivers are, and glibc loads the second when a thread ends."""

FACTS = ("/etc/debian_version", "/etc/ld.so.conf", "/etc/ld.so.conf.d/libc.conf", "/etc/os-release")
"""NVIDIA's container runtime finds the library path by these, and scanners the distribution."""

ZONES = "/usr/share/zoneinfo"
"""Of tzdata, for tariffs in local time; python:slim has it."""

PASSWD = f"root:x:0:0:root:/:/sbin/nologin\nnonroot:x:{USER}:{USER}:nonroot:/:/sbin/nologin\n"
GROUP = f"root:x:0:\nnonroot:x:{USER}:\n"

COMMAND = f"""\
#!{sys.prefix}/bin/python
import sys
from exporter.cli import main
sys.exit(main())
"""


class Rootfs:
    """The folder, and the files of this machine that were copied into it, by their real paths."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.taken: set[str] = set()

    def take(self, path: str) -> None:
        """Copy a file to the same place, with every symbolic link on the way to it."""
        parent, name = os.path.split(path)
        self._take_links(Path(parent))
        source = os.path.join(os.path.realpath(parent), name)
        if source in self.taken:
            return
        self.taken.add(source)
        target = self.folder / source.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if os.path.islink(source):
            target.symlink_to(os.readlink(source))
            self.take(os.path.join(os.path.dirname(source), os.readlink(source)))
        else:
            shutil.copy2(source, target)

    def take_tree(self, top: str, left_out: Iterable[str] = (), prefixes: tuple[str, ...] = ()) -> None:
        """Copy all files below a folder except the excluded ones and dangling links."""
        for here, folders, files in os.walk(top):
            folders[:] = [name for name in folders if name not in left_out and not name.startswith(prefixes)]
            for name in files:
                path = os.path.join(here, name)
                if name not in left_out and not name.startswith(prefixes) and os.path.exists(path):
                    self.take(path)

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Make a file."""
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        target.chmod(mode)

    def _take_links(self, folder: Path) -> None:
        """Symbolic links among the parent folders of a file, such as /lib64, which is usr/lib64."""
        for above in [*reversed(folder.parents), folder]:
            link = self.folder / str(above).lstrip("/")
            if above.is_symlink() and not link.is_symlink():
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(os.readlink(above))


def linked(files: Iterable[str]) -> set[str]:
    """Paths of all shared libraries that those of the files which are programs need, directly or not."""
    programs = []
    for path in files:
        with open(path, "rb") as file:
            if file.read(4) == b"\x7fELF":
                programs.append(path)
    listed = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=False).stdout
    if "not found" in listed:
        sys.exit(f"a library is missing:\n{listed}")
    return {word for line in listed.splitlines() for word in line.split() if word.startswith("/") and word[-1] != ":"}


def packages(files: Iterable[str]) -> list[str]:
    """The Debian packages that the files belong to. dpkg may list a file below /usr without that prefix."""
    names = {name for file in files for name in (file, file.removeprefix("/usr"))}
    listed = subprocess.run(["dpkg-query", "--search", *names], capture_output=True, text=True, check=False).stdout
    owners = [line.split(": ")[0] for line in listed.splitlines() if not line.startswith("diversion")]
    return sorted({name for owner in owners for name in owner.split(", ")})


def main(folder: Path) -> None:
    """Fill the folder."""
    root = Rootfs(folder)
    for path in (f"{sys.prefix}/bin/python", f"{sys.prefix}/pyvenv.cfg", *filter(os.path.exists, FACTS)):
        root.take(path)
    root.take_tree(sysconfig.get_path("stdlib"), LEFT_OUT, LEFT_OUT_PREFIXES)
    root.take_tree(sysconfig.get_path("purelib"))
    root.take_tree(ZONES, ("posix", "right"))
    needed = linked(root.taken)
    libc = next(path for path in needed if os.path.basename(path) == "libc.so.6")
    for path in (*needed, *(os.path.join(os.path.dirname(libc), name) for name in LOADED_LATER)):
        root.take(path)

    site = sysconfig.get_path("purelib").lstrip("/")
    shutil.copytree(SOURCE / "exporter", folder / site / "exporter")
    root.write("usr/share/doc/ai-energy-exporter/copyright", (SOURCE / "LICENSE").read_text(encoding="utf-8"))
    root.write(f"{sys.prefix.lstrip('/')}/bin/ai-energy-exporter", COMMAND, 0o755)

    for package in packages(root.taken):
        about = subprocess.run(["dpkg-query", "--status", package], capture_output=True, text=True, check=True).stdout
        name = package.partition(":")[0]
        root.write(f"var/lib/dpkg/status.d/{name}", about)
        if os.path.exists(terms := f"/usr/share/doc/{name}/copyright"):
            root.take(terms)

    root.write("etc/passwd", PASSWD)
    root.write("etc/group", GROUP)
    for name in ("dev", "proc", "sys"):
        (folder / name).mkdir()
    state = folder / STATE_FOLDER
    state.mkdir(parents=True)
    os.chown(state, USER, 0)
    state.chmod(0o770)  # its owner, or root without capabilities: through the group

    # Bytecode is not compared with its source: the image never changes, and its files' times are the builder's.
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    if not compileall.compile_dir(folder, quiet=1, stripdir=folder, prependdir="/", invalidation_mode=unchecked):
        sys.exit(1)
    subprocess.run(["ldconfig", "-X", "-r", str(folder)], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
