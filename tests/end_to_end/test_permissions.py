"""What an unprivileged exporter may read: real permission bits, real processes, and the kernel's own word on each."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import installed
from tests.support.live import Meter
from tests.support.patience import patience, wait_for
from tests.support.repository import REPOSITORY

SYSFS = "/opt/host/sys"
GROUP, OTHER_GROUP = 42_424, 42_425
DOCUMENT = REPOSITORY / "docs" / "permissions.md"

_NO_CAPABILITY = "--bounding-set=-all --inh-caps=-all --no-new-privs"
ROOT = f"setpriv {_NO_CAPABILITY}"
NOBODY = f"setpriv --reuid 65534 --regid 65534 --clear-groups {_NO_CAPABILITY}"

REFUSED = installed.impossible()

pytestmark = pytest.mark.skipif(bool(REFUSED), reason=REFUSED)


def member(group: int) -> str:
    """A user without privileges, with this one supplementary group, as systemd and containers give it."""
    return f"setpriv --reuid 65534 --regid 65534 --groups {group} {_NO_CAPABILITY}"


def with_capabilities(*names: str, user: int = 0) -> str:
    """A user with these capabilities and no other."""
    added = ",".join(f"+{name}" for name in names)
    return (
        f"setpriv --reuid {user} --regid {user} --clear-groups --bounding-set=-all,{added} "
        f"--inh-caps=-all,{added} --ambient-caps=-all,{added} --no-new-privs"
    )


@pytest.fixture
def meter() -> Iterator[Meter]:
    """A package at 150 W whose counter is root's alone, as the kernel makes it."""
    with tempfile.TemporaryDirectory(prefix="aee-") as folder:
        os.chmod(folder, 0o755)
        made = Meter(Path(folder) / "sys", 150.0)
        made.path.chmod(0o400)
        yield made
        made.stop()


def inside(meter: Meter, *lines: str) -> subprocess.CompletedProcess[str]:
    """Run lines of shell where the exporter is installed and the meter is the host's."""
    sysfs = next(folder for folder in meter.path.parents if folder.name == "sys")
    return subprocess.run(
        [*installed.unshare(), installed.script(*lines, binds={sysfs: SYSFS})],
        env=installed.environment() | {"AI_ENERGY_PATH_SYSFS": SYSFS, "AI_ENERGY_SAMPLE_INTERVAL": "100ms"},
        capture_output=True,
        text=True,
        timeout=patience(60),
        check=False,
    )


def once(meter: Meter, who: str) -> subprocess.CompletedProcess[str]:
    """One scrape, as a user."""
    done = inside(meter, f"exec {who} {installed.PROGRAM} --once")
    assert done.returncode == 0, done.stderr
    return done


def value(page: str, series: str) -> float:
    """The value of the one series that begins like this."""
    (line,) = [line for line in page.splitlines() if line.startswith(series)]
    return float(line.rsplit(" ", 1)[1])


@pytest.mark.parametrize(
    ("who", "owner", "mode"),
    [
        pytest.param(ROOT, 0, 0o400, id="uid 0 without capabilities"),
        pytest.param(member(GROUP), GROUP, 0o440, id="the group of the udev rule"),
        pytest.param(with_capabilities("dac_read_search", user=65534), 0, 0o400, id="CAP_DAC_READ_SEARCH"),
    ],
)
def test_who_may_read_the_energy_reads_it(meter: Meter, who: str, owner: int, mode: int) -> None:
    """Fault 11: no capability is needed, and no uid 0 where a group was given the files."""
    os.chown(meter.path, 0, owner)
    meter.path.chmod(mode)
    page = once(meter, who).stdout
    assert value(page, 'energy_source_up{source="rapl"}') == 1
    assert 5 < value(page, 'energy_device_joules_total{component="cpu",device="package-0",source="rapl"}') < 500
    assert 'device="package-0",source="rapl",quality="measured"' in page


def test_run_by_a_user_without_rights_gives_the_reason_and_the_fix(meter: Meter) -> None:
    done = inside(meter, f"exec {NOBODY} {installed.PROGRAM} run --exporter.url= -- true")
    assert done.returncode == 0, done.stderr
    assert f"{SYSFS}/class/powercap/intel-rapl:0/energy_uj: Permission denied" in done.stderr
    assert "chgrp GROUP" in done.stderr
    assert "CPU time of its descendants (wait4)" in done.stderr


@pytest.mark.parametrize(
    ("who", "mode"),
    [pytest.param(NOBODY, 0o400, id="nobody"), pytest.param(member(OTHER_GROUP), 0o440, id="another group")],
)
def test_who_may_not_runs_anyway_and_says_why(meter: Meter, who: str, mode: int) -> None:
    """Fault 11: a metric with the reason, one log line with the fix, and the model in the meter's place."""
    os.chown(meter.path, 0, GROUP)
    meter.path.chmod(mode)
    done = once(meter, who)
    assert value(done.stdout, 'energy_source_up{source="rapl"}') == 0
    assert value(done.stdout, 'energy_source_failures_total{source="rapl",reason="permission"}') >= 1
    assert 'source="estimate",quality="estimated"' in done.stdout
    assert 'source="rapl",quality' not in done.stdout
    (line,) = [line for line in done.stderr.splitlines() if "source=rapl" in line]
    assert "reason=permission" in line
    assert "CVE-2020-8694" in line
    assert f"chgrp GROUP {SYSFS}/class/powercap/intel-rapl*:*/energy_uj" in line


def test_the_fix_that_doctor_prints_is_all_it_takes(meter: Meter) -> None:
    """Done as it is written, as root, with a group of that user for GROUP."""
    report = inside(meter, f"exec {member(GROUP)} {installed.PROGRAM} doctor").stdout
    assert re.search(r"rapl +no .*energy_uj: Permission denied.*\(permission\)", report)
    assert re.search(r"rights +!! +uid 65534: cannot read files of root", report)
    (fix,) = re.findall(r"fix: .*let a group of this user read it: sudo (sh -c '.*?')", report)
    fixed = inside(meter, fix.replace("GROUP", str(GROUP)))
    assert (fixed.returncode, fixed.stderr) == (0, "")
    assert meter.path.stat().st_mode & 0o777 == 0o440
    assert value(once(meter, member(GROUP)).stdout, 'energy_source_up{source="rapl"}') == 1
    assert value(once(meter, NOBODY).stdout, 'energy_source_up{source="rapl"}') == 0


def test_root_of_a_user_namespace_is_told_that_it_is_not_the_hosts(meter: Meter) -> None:
    """As in a rootless engine: "run as root" does not help a user that already appears to be root."""
    look = "import exporter.commands.host_checks as c, exporter.host as h; print(*c.rights(h.Host()))"
    done = inside(meter, f'exec {NOBODY} unshare --user --map-root-user {installed.PYTHON} -c "{look}"')
    if "unshare failed" in done.stderr or "Operation not permitted" in done.stderr:
        pytest.skip(f"no user namespaces for users here: {done.stderr.strip()}")
    assert "uid 0 of a user namespace, which is uid 65534 outside" in done.stdout, done.stderr
    assert "--userns=host" in done.stdout


# --- /proc of other users' processes, row by row as in docs/permissions.md -------------------------------------

_LOOK = """
import json, os, sys
from exporter.host import Host
from exporter.sources.usage.process_clock import ProcessTable
from exporter.workloads.models.process_root import ProcessRootFs
from exporter.workloads.proc import command_line, container_marks, environment

host = Host()

def seconds(pid):
    table = ProcessTable(host)
    return table.native and table.used(table.follow(pid, 0.0)) is not None

def open_files(pid):
    fds = os.listdir(f"/proc/{pid}/fd")
    return all([os.readlink(f"/proc/{pid}/fd/{fd}") and open(f"/proc/{pid}/fdinfo/{fd}").read() for fd in fds])

looks = {
    "CPU seconds": seconds,
    "command line": lambda pid: command_line(host, pid) != b"",
    "cgroup": lambda pid: container_marks(host, pid) is not None,
    "variables": lambda pid: environment(host, pid, ["MODEL"]) == {"MODEL": "a"},
    "files": lambda pid: ProcessRootFs("/proc", pid).entries("/", 1) != [],
    "open GPU files": open_files,
}

def can(look, pid):
    try:
        return bool(look(pid))
    except OSError:
        return False

print(json.dumps({row: [can(look, int(pid)) for pid in sys.argv[1:]] for row, look in looks.items()}))
"""

COLUMNS = {
    "uid 0": ROOT,
    "uid 0, `SYS_PTRACE`": with_capabilities("sys_ptrace"),
    "uid 0, `SYS_PTRACE` and `DAC_READ_SEARCH`": with_capabilities("sys_ptrace", "dac_read_search"),
    "another user": NOBODY,
    "another user, both": with_capabilities("sys_ptrace", "dac_read_search", user=65534),
}
WORDS = {(True, True): "yes", (True, False): "root's", (False, False): "no"}


def documented() -> dict[str, dict[str, str]]:
    """The table of docs/permissions.md: row → column → word."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in DOCUMENT.read_text(encoding="utf-8").splitlines()
        if line.startswith("|")
    ]
    head = next(number for number, cells in enumerate(rows) if cells[1:-1] == list(COLUMNS))
    table = {}
    for cells in rows[head + 2 :]:
        if len(cells) != len(rows[head]):
            break
        table[cells[0]] = dict(zip(COLUMNS, cells[1:-1], strict=True))
    return table


@pytest.fixture
def strangers() -> Iterator[list[int]]:
    """A process of root with all its capabilities, and one of another user."""
    sleep = ["sleep", "600"]
    environ = {"MODEL": "a", "PATH": os.defpath}
    started = [
        subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL)
        for command in (sleep, ["setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups", *sleep])
    ]
    for one in started:
        commands = Path(f"/proc/{one.pid}/cmdline")
        wait_for(lambda at=commands: at.read_bytes().startswith(b"sleep"), "the change of user")  # type: ignore[misc]
    yield [one.pid for one in started]
    for one in started:
        one.kill()
        one.wait()


@pytest.mark.parametrize("column", COLUMNS)
def test_processes_of_others(column: str, strangers: list[int]) -> None:
    """Fault 48: the document lists which user may read each kind of evidence; the kernel decides."""
    words = f"exec {COLUMNS[column]} {installed.PYTHON} - {' '.join(map(str, strangers))}"
    done = subprocess.run(
        [*installed.unshare(), installed.script(words)],
        env=installed.environment(),
        input=_LOOK,
        capture_output=True,
        text=True,
        timeout=patience(60),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = {row: WORDS[of_root, of_other] for row, (of_root, of_other) in json.loads(done.stdout).items()}
    assert seen == {row: words[column] for row, words in documented().items()}
