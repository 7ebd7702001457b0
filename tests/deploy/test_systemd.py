"""The unit under a real systemd, with all its confinement, and what its files say for themselves."""

from __future__ import annotations

import re
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from exporter.config.loading import ConfigError, load
from tests.deploy.conftest import FOLDER, OUT, UNIT, Boot, Machine
from tests.support import installed
from tests.support.live import Meter
from tests.support.needs import needs
from tests.support.nvml.control import FakeDriver, build
from tests.support.patience import patience, wait_for
from tests.support.repository import REPOSITORY

RULE = "60-ai-energy-exporter.rules"
DOCUMENT = REPOSITORY / "docs" / "permissions.md"
FLAVOURS: dict[str, tuple[str, ...]] = {
    "uid 0, no capability": (),
    "`non-root.conf`": ("non-root.conf",),
    "`see-processes.conf`": ("see-processes.conf",),
    "both": ("non-root.conf", "see-processes.conf"),
}
SETTINGS = {
    "AI_ENERGY_PATH_SYSFS": f"{OUT}/sys",
    "AI_ENERGY_PATH_CGROUPFS": "/sys/fs/cgroup",
    "AI_ENERGY_WEB_LISTEN_ADDRESS": "127.0.0.1:0",
    "AI_ENERGY_SAMPLE_INTERVAL": "100ms",
}


@pytest.fixture
def meter(scratch: Path) -> Iterator[Meter]:
    """A package at 150 W whose counter is root's alone."""
    made = Meter(scratch / "sys", 150.0)
    made.path.chmod(0o400)
    yield made
    made.stop()


def scrape(machine: Machine) -> str:
    """What the exporter shows now."""
    url = re.findall(r"listens on (http://\S+/metrics)", machine.console())[-1]
    with urllib.request.urlopen(url, timeout=patience()) as answer:
        return str(answer.read().decode())


def value(page: str, series: str) -> float:
    """Sum of the series that begin like this; -1 if there are none."""
    found = [float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith(series)]
    return sum(found) if found else -1.0


def status(machine: Machine) -> dict[str, str]:
    """/proc/PID/status of the exporter."""
    pid = machine.show("MainPID")["MainPID"]
    lines = machine.inside("cat", f"/proc/{pid}/status").stdout.splitlines()
    return {name: rest.strip() for name, _, rest in (line.partition(":") for line in lines)}


STATE = "/var/lib/ai-energy-exporter/state"
RAPL = 'energy_device_joules_total{component="cpu",device="package-0",source="rapl"}'


def test_uid_0_without_capabilities_reads_and_keeps_its_books(boot: Boot, meter: Meter) -> None:
    """Fault 11. The counters go on after a restart by systemctl; "active" means that a scrape is answered."""
    machine = boot(settings=SETTINGS)
    machine.wait_until("active")
    found = status(machine)
    assert found["Uid"].split() == ["0"] * 4
    assert {found[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
    wait_for(lambda: value(scrape(machine), RAPL) > 10, "10 J")
    stopped = machine.inside("systemctl", "restart", UNIT)
    assert stopped.returncode == 0, machine.console()
    assert value(scrape(machine), RAPL) > 10
    assert machine.inside("stat", "-c", "%a %U", STATE).stdout == "600 root\n"
    assert machine.inside("systemctl", "stop", UNIT).returncode == 0
    assert machine.show("Result", "ExecMainStatus", "ActiveState") == {
        "Result": "success",
        "ExecMainStatus": "0",
        "ActiveState": "inactive",
    }
    assert "permission" not in machine.console().lower()


@needs("udevadm")
def test_a_user_of_its_own_reads_with_the_rule_and_says_what_is_missing_without(boot: Boot, meter: Meter) -> None:
    """Fault 11: the rule's own commands are run on the counter."""
    machine = boot("non-root.conf", settings=SETTINGS)
    machine.wait_until("active")
    user = machine.inside("id", "-u", "ai-energy-exporter").stdout.strip()
    assert user != "0"
    assert status(machine)["Uid"].split() == [user] * 4
    denied = 'energy_source_failures_total{source="rapl",reason="permission"}'
    wait_for(lambda: value(scrape(machine), denied) >= 1, "the refusal")  # a tick that is late has no reason yet
    assert value(scrape(machine), 'energy_source_up{source="rapl"}') == 0
    wait_for(lambda: "chgrp GROUP" in machine.console(), "the way out")
    for command in commands_of_the_rule(machine):
        done = machine.inside(
            *command.replace("/sys/devices/virtual/net/lo", str(Path(OUT, "sys", zone(meter)))).split()
        )
        assert (done.returncode, done.stderr) == (0, "")
    assert meter.path.stat().st_mode & 0o777 == 0o440
    assert machine.inside("systemctl", "reload", UNIT).returncode == 0  # not to wait for the end of its backoff
    wait_for(lambda: value(scrape(machine), RAPL) > 1, "the meter, without a restart")
    assert machine.inside("stat", "-c", "%U", STATE).stdout == "ai-energy-exporter\n"
    (machine.folder / "units" / f"{UNIT}.d" / "non-root.conf").unlink()
    assert machine.inside("systemctl", "daemon-reload").returncode == 0
    assert machine.inside("systemctl", "restart", UNIT).returncode == 0
    assert value(scrape(machine), RAPL) > 1, "root goes on with the books of the other user"
    assert machine.inside("stat", "-c", "%U", STATE).stdout == "root\n"


def zone(meter: Meter) -> Path:
    """Its folder below sysfs."""
    return meter.path.parent.relative_to(meter.path.parents[3])


def commands_of_the_rule(machine: Machine) -> list[str]:
    """What udev would run for a zone, asked of udev itself: of the loopback device, since there is no zone here."""
    rule = (FOLDER / RULE).read_text(encoding="utf-8")
    assert 'SUBSYSTEM=="powercap"' in rule
    (machine.folder / "rule").write_text(
        rule.replace('SUBSYSTEM=="powercap"', 'SUBSYSTEM=="net"').replace('KERNEL=="intel-rapl*:*"', 'KERNEL=="lo"')
    )
    place = "mkdir -p /run/udev/rules.d && cp /opt/out/rule /run/udev/rules.d/60-ai-energy-exporter.rules"
    assert machine.inside("sh", "-c", place).returncode == 0
    done = machine.inside("udevadm", "test", "--action=add", "/sys/class/net/lo")
    assert not re.search(r"^(?!lo: ).*ai-energy-exporter\.rules:\d", done.stderr, re.MULTILINE), done.stderr
    said = done.stdout + done.stderr
    # systemd 252 says the first, later ones the second.
    commands = [old or new for old, new in re.findall(r"run: '(.*)'|RUN\{program\} : (.*)", said)]
    ours = [command for command in commands if "energy_uj" in command]
    assert [command.split()[0] for command in ours] == ["/bin/chgrp", "/bin/chmod"], said
    return ours


def test_see_processes_adds_two_capabilities_and_no_more(boot: Boot, meter: Meter) -> None:
    machine = boot("non-root.conf", "see-processes.conf", settings=SETTINGS)
    machine.wait_until("active")
    assert int(status(machine)["CapEff"], 16) == int(status(machine)["CapBnd"], 16) == 1 << 19 | 1 << 2
    wait_for(lambda: value(scrape(machine), RAPL) >= 0, "the meter")  # CAP_DAC_READ_SEARCH: no rule is needed then


def test_nvml_works_in_it_and_of_all_devices_only_nvidias(
    boot: Boot, scratch: Path, meter: Meter, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """ctypes and a driver's library under MemoryDenyWriteExecute, in a child process; NVML's nodes have major 195."""
    library = build(scratch / "driver")
    with FakeDriver(library, scratch) as driver:
        driver.path.chmod(0o666)
        gpu = driver.add_gpu()
        gpu.power_watts = 200
        places = {name: value.replace(str(scratch), OUT) for name, value in driver.environment().items()}
        machine = boot(settings=SETTINGS | places, then=f"ReadWritePaths={OUT}")
        machine.wait_until("active")
        wait_for(lambda: value(scrape(machine), 'energy_source_up{source="nvml"}') == 1, "the driver")
        assert value(scrape(machine), "energy_gpu_power_limit_watts") == 700
        nodes = {"nvidiactl": ("c", "195", "255"), "disk": ("b", "7", "0"), "mem": ("c", "1", "1")}
        for name, numbers in nodes.items():
            assert machine.inside("mknod", f"/opt/{name}", *numbers).returncode == 0
        enter = f"echo 0 > /sys/fs/cgroup/system.slice/{UNIT}/cgroup.procs; "
        said = {
            name: machine.inside("sh", "-c", f"{enter} exec head -c 1 /opt/{name}").stderr.rpartition(": ")[2].strip()
            for name in nodes
        }
        # no driver here, but allowed; not even root with all capabilities, which this shell has
        assert said["nvidiactl"] == "No such device or address"
        assert said["disk"] == said["mem"] == "Operation not permitted"
        assert machine.inside("systemctl", "stop", UNIT).returncode == 0
        assert machine.show("Result") == {"Result": "success"}


def test_one_whose_ticks_stop_is_started_again(boot: Boot, meter: Meter) -> None:
    """Fault 53: by the watchdog, which has it killed; its books go on."""
    machine = boot(settings=SETTINGS, then="WatchdogSec=3\nTimeoutAbortSec=1\nRestartSec=0")
    machine.wait_until("active")
    wait_for(lambda: value(scrape(machine), RAPL) > 10, "10 J")
    before = machine.show("MainPID")["MainPID"]
    missed = meter.joules() - value(scrape(machine), RAPL)
    assert machine.inside("sh", "-c", f"kill -STOP {before}").returncode == 0
    wait_for(lambda: machine.show("NRestarts").get("NRestarts", "0") != "0", "a restart")
    machine.wait_until("active")
    assert machine.show("MainPID")["MainPID"] != before
    # All that it slept through, 3 s at least, is in the books but for what the meter counted since the last tick.
    wait_for(lambda: meter.joules() - value(scrape(machine), RAPL) < missed + 300, "the joules of before")


def test_bad_settings_are_not_tried_again(boot: Boot, meter: Meter) -> None:
    machine = boot(settings=SETTINGS | {"AI_ENERGY_SAMPLE_INTERVAL": "soon"})
    machine.wait_until("failed")
    assert machine.show("ExecMainStatus", "NRestarts") == {"ExecMainStatus": "2", "NRestarts": "0"}
    assert "AI_ENERGY_SAMPLE_INTERVAL" in machine.console()


# --- files ------------------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path) -> Callable[[tuple[str, ...]], Path]:
    """Lays out the unit with drop-ins."""

    def make(drop_ins: tuple[str, ...]) -> Path:
        unit = tmp_path / UNIT
        unit.write_bytes((FOLDER / UNIT).read_bytes())
        folder = tmp_path / f"{UNIT}.d"
        folder.mkdir()
        for name in drop_ins:
            (folder / name).write_bytes((FOLDER / name).read_bytes())
        return unit

    return make


def documented(name: str) -> float:
    """The exposure that docs/permissions.md states."""
    (score,) = re.findall(rf"^\| {re.escape(name)} \| ([\d.]+) \|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    return float(score)


@needs("systemd-analyze")
@pytest.mark.parametrize("name", FLAVOURS)
def test_exposure_is_no_more_than_documented(name: str, place: Callable[[tuple[str, ...]], Path]) -> None:
    """`systemd-analyze security`: from 0 (none) to 10."""
    limit = round(10 * documented(name))
    done = subprocess.run(
        [
            "systemd-analyze",
            "security",
            "--offline=true",
            f"--threshold={limit}",
            "--no-pager",
            str(place(FLAVOURS[name])),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout.splitlines()[-1:] + done.stderr.splitlines()
    assert "exposure level" in done.stdout


@needs("systemd-analyze", "/bin/kill")
@pytest.mark.skipif(bool(installed.impossible()), reason=installed.impossible())
def test_systemd_understands_every_line(place: Callable[[tuple[str, ...]], Path]) -> None:
    """Where the program is installed, `systemd-analyze verify` finds nothing to say."""
    unit = place(FLAVOURS["both"])
    look = f"exec systemd-analyze verify --man=no --recursive-errors=one {OUT}/{UNIT}"
    done = subprocess.run(
        [*installed.unshare(), installed.script(look, binds={unit.parent: OUT})],
        env=installed.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_example_settings_are_settings() -> None:
    lines = (FOLDER / "environment").read_text(encoding="utf-8").splitlines()
    named = dict(line.lstrip("#").split("=", 1) for line in lines if re.match(r"#AI_ENERGY_", line))
    assert len(named) >= 4
    config = named.pop("AI_ENERGY_CONFIG_FILE")
    assert config.endswith(".yaml")
    load({}, named)


def test_the_watchdog_outlasts_two_of_the_longest_ticks() -> None:
    (seconds,) = re.findall(r"^WatchdogSec=(\d+)$", (FOLDER / UNIT).read_text(encoding="utf-8"), re.MULTILINE)
    with pytest.raises(ConfigError, match=r"sample\.interval|SAMPLE_INTERVAL"):
        load({}, {"AI_ENERGY_SAMPLE_INTERVAL": f"{int(seconds) // 2}s"})


def headings(document: Path) -> set[str]:
    """What its headings are called in a link."""
    found = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("document", ["install.md", "permissions.md", "sizing.md", "troubleshooting.md", "upgrade.md"])
def test_files_that_documents_name_exist(document: str) -> None:
    text = (REPOSITORY / "docs" / document).read_text(encoding="utf-8")
    for path in re.findall(r"deploy/[\w./-]+\w", text):
        assert (REPOSITORY / path).exists(), path
    for target, heading in re.findall(r"\]\(([^)#:]*)#?([^):]*)\)", text):
        named = REPOSITORY / "docs" / (target or document)
        assert named.exists(), target
        assert not heading or heading in headings(named), f"{target}#{heading}"
    for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL):
        yaml.safe_load(block)
