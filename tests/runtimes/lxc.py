"""System containers of LXC without systemd: restarts, an unclean end, a directory of their own, an attached command."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from .trial import MARK, ONCE, SPIN, Row, Started, attempt, output, root_file_system, version

_CONFIG = """\
lxc.include = /usr/share/lxc/config/common.conf
lxc.arch = linux64
lxc.rootfs.path = dir:{folder}/{name}/rootfs
lxc.uts.name = {name}
lxc.net.0.type = empty
lxc.apparmor.profile = unconfined
lxc.init.cmd = /bin/sh /spin {mark}
"""
NAMES = ("aee-a", "aee-web-2", "aee-team", "aee-killed", "aee-removed")


@contextlib.contextmanager
def start(folder: Path) -> Iterator[Started]:
    """Containers whose groups are /lxc.payload.NAME and, with ``lxc.cgroup.dir``, DIR/lxc.payload.NAME."""

    def lxc(command: str, name: str, *options: str) -> str:
        return output(f"lxc-{command}", "--lxcpath", str(folder), "--name", name, *options)

    def change() -> None:
        for name in ("aee-web-2", "aee-removed"):
            lxc("stop", name, "--kill")
        lxc("start", "aee-web-2")
        # Its monitor cannot remove the group, so the next one is called lxc.payload.aee-killed-1.
        first = int(lxc("info", "aee-killed", "--pid", "--no-humanize"))
        monitor = int(Path(f"/proc/{first}/stat").read_text().rpartition(")")[2].split()[1])
        for pid in (monitor, first):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        lxc("wait", "aee-killed", "--state", "STOPPED", "--timeout", "10")
        lxc("start", "aee-killed")
        lxc("attach", "aee-a", "--", "/bin/sh", "-c", ONCE)

    try:
        for name in NAMES:
            (folder / name).mkdir()
            root = root_file_system(folder / name)
            (root / "spin").write_text(SPIN + "\n")
            config = _CONFIG.format(folder=folder, name=name, mark=MARK)
            config += "lxc.cgroup.dir = aee-teams/a\n" if name == "aee-team" else ""
            (folder / name / "config").write_text(config)
            lxc("start", name)
        yield Started(f"LXC {version('lxc-start', '--version')}", tuple(Row(name, "systemd") for name in NAMES), change)
    finally:
        for name in NAMES:
            attempt("lxc-stop", "--lxcpath", str(folder), "--name", name, "--kill")
