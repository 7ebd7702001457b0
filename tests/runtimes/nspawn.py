"""Machines of systemd-nspawn: registered with machined, as a unit of their own, from the template, and booted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from .trial import MARK, SPIN, Row, Started, attempt, output, root_file_system, version

_TEMPLATE = """\
[Exec]
Boot=no
ProcessTwo=yes
Parameters=/bin/sh /spin {mark}
PrivateUsers=no
[Network]
VirtualEthernet=no
Private=yes
"""
_UNITS = {
    "default.target": "[Unit]\nDefaultDependencies=no\nWants=one.service two.service\n",
    **{f"{name}.target": "[Unit]\nDefaultDependencies=no\n" for name in ("sysinit", "basic", "shutdown")},
    **{
        f"{name}.service": f"[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=/bin/sh /spin {MARK}\n"
        for name in ("one", "two")
    },
}
_UNIT = ("systemd-run", "--quiet", "--collect", "--property=Delegate=yes")


@contextlib.contextmanager
def start(folder: Path) -> Iterator[Started]:
    """Each machine is one row, by its unit; a booted one includes the units in it."""
    machines = Path("/var/lib/machines")
    roots = {name: root_file_system(_made(machines / name)) for name in ("web-front", "kept")}
    template = root_file_system(_made(folder / "db"))
    for root in (*roots.values(), template):
        (root / "spin").write_text(SPIN + "\n")
    (machines / "db").symlink_to(template)
    settings = _made(Path("/run/systemd/nspawn")) / "db.nspawn"
    settings.write_text(_TEMPLATE.format(mark=MARK))
    process = ("--as-pid2", "--quiet")

    def web() -> None:
        output(*_UNIT, "--unit=aee-nspawn", "systemd-nspawn", *process, "--machine=web-front",
               f"--directory={roots['web-front']}", "/bin/sh", "/spin", MARK)  # fmt: skip

    def change() -> None:
        output("machinectl", "terminate", "kept")
        output("machinectl", "terminate", "web-front")
        output("systemctl", "stop", "aee-nspawn")
        web()

    units = ("aee-nspawn", "aee-kept", "aee-booted", "systemd-nspawn@db")
    try:
        web()
        output(*_UNIT, "--unit=aee-kept", "--slice=machine.slice", "systemd-nspawn", *process, "--keep-unit",
               "--machine=kept", f"--directory={roots['kept']}", "/bin/sh", "/spin", MARK)  # fmt: skip
        output(*_UNIT, "--unit=aee-booted", "systemd-nspawn", "--keep-unit", "--boot", "--quiet", "--machine=booted",
               f"--directory={_bootable(folder / 'booted')}", "--bind-ro=/usr", "--private-network",
               "--setenv=SYSTEMD_UNIT_PATH=/units", "--link-journal=no")  # fmt: skip
        output("systemctl", "start", "systemd-nspawn@db")
        names = ("machine-web-front.scope", "aee-kept.service", "aee-booted.service", "systemd-nspawn@db.service")
        rows = tuple(Row(name, "systemd") for name in names)
        yield Started(version("systemd-nspawn", "--version"), rows, change)
    finally:
        attempt("systemctl", "stop", *units)
        settings.unlink()


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _bootable(root: Path) -> Path:
    """A root that boots this machine's systemd with two services of its own."""
    for name in ("usr", "etc", "proc", "sys", "dev", "run", "tmp", "var", "units"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    for name, text in _UNITS.items():
        (root / "units" / name).write_text(text)
    (root / "spin").write_text(SPIN + "\n")
    (root / "etc/os-release").write_text("ID=check\n")
    return root
