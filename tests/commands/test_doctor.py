"""The doctor: honest about what works, what does not and why, whatever the machine does to it."""

from __future__ import annotations

import io
import os
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from exporter.commands import host_checks
from exporter.commands.doctor import examine, report, verdict
from exporter.config.loading import load
from exporter.config.value_types import Address
from exporter.host import Host
from exporter.impact.exchange import PATH
from exporter.records import (
    HOST,
    Device,
    EnergyReading,
    GpuUse,
    GroupKey,
    Model,
    PowerReading,
    Problem,
    Process,
    ProcessKey,
    Reading,
    SourceHealth,
    TokenUse,
    Unavailable,
    Workload,
)
from exporter.service.assembly import make_factors
from exporter.sources.cpu.rapl import RaplSource
from exporter.workloads.metadata.registry import MetadataOptions, metadata_providers
from exporter.workloads.namer import WorkloadNamer
from exporter.workloads.protocol import Namer
from tests.support.fake_kubernetes_api import FakeApiServer, make_pod
from tests.support.feed_server import FeedServer
from tests.support.patience import patience
from tests.support.program import Running


class ScriptedSource:
    """A source whose readings are given: each is a function of now."""

    def __init__(self, name: str, *reads: Callable[[float], Reading]) -> None:
        self.name = name
        self.closed = False
        self._reads = list(reads)

    def read(self, now: float) -> Reading:
        """The next reading of the script; the last one over again."""
        return (self._reads.pop(0) if len(self._reads) > 1 else self._reads[0])(now)

    def close(self) -> None:
        """Note that it was closed."""
        self.closed = True


SERVER = TokenUse(Process(ProcessKey(4711, 1), "vllm"), None, "vllm", ("org/chat",), "counter", True, {})
PACKAGE = Device("package-0", "cpu", "rapl", "measured", "package-0", 8.0)
MODEL = Device("cpu-estimate", "cpu", "estimate", "estimated", "CPU", 8.0)


def energy(joules: float) -> Callable[[float], Reading]:
    """A reading of one package's counter."""
    return lambda now: Reading(meters=(EnergyReading(PACKAGE, now, joules, None),))


def fail(error: Exception) -> Callable[[float], Reading]:
    """A read that raises."""

    def read(now: float) -> Reading:
        raise error

    return read


def written(*sources: ScriptedSource, **flags: object) -> str:
    """The whole report about these sources."""
    out = io.StringIO()
    settings = load({"web.listen-address": ["127.0.0.1:0"], **flags}, {})
    report(settings, sources, Host(), out, pause_seconds=0.0)
    return out.getvalue()


def test_watts_are_the_difference_of_two_readings() -> None:
    out = io.StringIO()
    clock = iter([10.0, 12.0])
    source = ScriptedSource("rapl", energy(100.0), energy(180.0))
    report(load({}, {}), [source], Host(clock=lambda: next(clock)), out, pause_seconds=0.0)
    assert "package-0 (cpu): 40.0 W\n" in out.getvalue()
    assert source.closed


@pytest.mark.parametrize(("gauge", "text"), [(41.0, ""), (90.0, ": implausible, unless its load changed just now")])
def test_counter_and_gauge_are_compared(gauge: float, text: str) -> None:
    """Fault 25."""
    out = io.StringIO()
    clock = iter([10.0, 12.0])

    def read(joules: float) -> Callable[[float], Reading]:
        return lambda now: Reading(meters=(EnergyReading(PACKAGE, now, joules, None, gauge),))

    source = ScriptedSource("rapl", read(100.0), read(180.0))
    report(load({}, {}), [source], Host(clock=lambda: next(clock)), out, pause_seconds=0.0)
    assert f"package-0 (cpu): 40.0 W by its counter, {gauge} W by its power gauge{text}\n" in out.getvalue()


def test_every_way_to_fail_is_told_with_its_fix() -> None:
    page = written(
        ScriptedSource("rapl", fail(Unavailable("permission", "/sys/x: Permission denied", "chmod g+r /sys/x"))),
        ScriptedSource("hwmon", fail(ZeroDivisionError("division by zero"))),
        ScriptedSource("procfs", lambda now: Reading(problems=(Problem("driver", "one zone is broken", "reload it"),))),
        **{"source.rapl": False},
    )
    lines = page.splitlines()
    first = next(number for number, line in enumerate(lines) if "rapl" in line)
    assert lines[first].split(maxsplit=1) == [
        "rapl",
        "no (but switched off) /sys/x: Permission denied (permission)",
    ]
    assert lines[first + 1].strip() == "fix: chmod g+r /sys/x"
    assert "ZeroDivisionError: division by zero (error)" in page
    assert "procfs       partly" in page
    assert "fix: reload it" in page


def test_holders_of_a_card_are_reported_without_its_meter() -> None:
    """AMD and Intel: hwmon has the joules, drm the users."""
    uses = [GpuUse("xe-0000:03:00.0", None, Process(ProcessKey(pid, 1), "python3"), 0.5) for pid in (7, 8)]
    page = written(ScriptedSource("drm", lambda now: Reading(gpu_uses=tuple(uses))))
    assert "drm          works   xe-0000:03:00.0: held by 2 processes\n" in page


def test_each_model_server_is_read_or_has_a_fix() -> None:
    silent = SERVER._replace(read=False, server="llama.cpp")
    problem = Problem("not_found", "llama.cpp of pid 4712: status 501", "start it with --metrics")
    text = written(ScriptedSource("inference", lambda _: Reading(tokens=(SERVER, silent), problems=(problem,))))
    assert "partly  vllm of pid 4711 (org/chat): its tokens or requests are read\n" in text
    assert "llama.cpp of pid 4712: status 501 (not_found)\n" in text
    assert "fix: start it with --metrics\n" in text


def test_text_from_hardware_cannot_forge_a_line() -> None:
    page = written(ScriptedSource("hwmon", fail(Unavailable("driver", "a\n  rapl works\x1b[2J"))))
    assert "a?  rapl works?[2J (driver)\n" in page


def test_a_source_that_hangs_is_left_behind(tmp_path: Path) -> None:
    """Fault 15: a named pipe hangs on open, as a driver in D state does on read."""
    zone = tmp_path / "class/powercap/intel-rapl:0"
    zone.mkdir(parents=True)
    (zone / "name").write_text("package-0\n")
    (zone / "max_energy_range_uj").write_text("262143328850\n")
    os.mkfifo(zone / "energy_uj")
    host = Host(sysfs=str(tmp_path))
    healthy = ScriptedSource("procfs", lambda now: Reading())
    hung, fine = examine([RaplSource(host), healthy], host, pause_seconds=0.0, timeout_seconds=patience(0.3))
    assert (hung.state, fine.state) == ("no", "works")
    assert hung.failure is not None
    assert hung.failure.reason == "timeout"
    writer = os.open(zone / "energy_uj", os.O_RDWR)  # lets the thread go
    os.close(writer)


class ScriptedNamer(Namer):
    """Metadata providers with scripted health; the last value of each repeats."""

    def __init__(self, *healths: SourceHealth | Sequence[SourceHealth]) -> None:
        self.closed = False
        self._healths = [[one] if isinstance(one, SourceHealth) else list(one) for one in healths]

    def workload(self, group: GroupKey) -> Workload:
        return HOST

    def model(self, group: GroupKey | None, process: Process) -> Model | None:
        return None

    def health(self) -> tuple[SourceHealth, ...]:
        return tuple(answers.pop(0) if len(answers) > 1 else answers[0] for answers in self._healths)

    def close(self) -> None:
        self.closed = True


ASKED = SourceHealth("kubernetes", False, None, "", "", {}, 0.0, 0.0)
UP = replace(ASKED, up=True, last_success=1.0)
REFUSED = replace(ASKED, name="docker", reason="permission", message="unix:///d: Permission denied", fix="run as root")


def names_section(namer: Namer, timeout_seconds: float = 20.0) -> list[str]:
    """What the report says under "Names"."""
    out = io.StringIO()
    settings = load({"web.listen-address": ["127.0.0.1:0"]}, {})
    report(settings, [], Host(), out, pause_seconds=0.0, namer=namer, timeout_seconds=timeout_seconds)
    return out.getvalue().partition("\nNames\n")[2].partition("\n\n")[0].splitlines()


class TestNames:
    def test_providers_that_answer_and_that_refuse(self) -> None:
        """Fault 49: the reason with its fix; a provider without an answer yet is waited for."""
        namer = ScriptedNamer([ASKED, ASKED, UP], REFUSED)
        assert names_section(namer) == [
            "  kubernetes   works   provides the names of containers",
            "  docker       no      unix:///d: Permission denied",
            "                       fix: run as root",
        ]
        assert namer.closed

    def test_no_provider(self) -> None:
        assert names_section(ScriptedNamer()) == [
            "  paths        works   no metadata provider on this machine: containers are named by their ids"
        ]

    def test_a_provider_that_hangs_is_not_waited_for_forever(self) -> None:
        """Fault 49: slow."""
        assert names_section(ScriptedNamer(ASKED, UP), timeout_seconds=0.1) == [
            "  kubernetes   no      no answer yet",
            "  kubernetes   works   provides the names of containers",
        ]

    def test_a_server_that_refuses_and_one_that_answers(self, tmp_path: Path) -> None:
        """The real provider, over a real socket."""
        with FakeApiServer() as server:
            server.add(make_pod(1))
            options = MetadataOptions("api", "node-1", server.url, docker_socket="off", podman_socket="off")
            lines = names_section(WorkloadNamer(metadata_providers(options, Host(), {})))
            assert lines == ["  kubernetes   works   provides the names of containers"]
            server.status = 403
            lines = names_section(WorkloadNamer(metadata_providers(options, Host(), {})))
            assert lines[0] == f"  kubernetes   no      {server.url}: status 403: no"
            assert "verbs: [list, watch]" in lines[1]


def factors_section(*flags: tuple[str, str]) -> list[str]:
    """What the report says under "Carbon and cost"."""
    out = io.StringIO()
    settings = load({"web.listen-address": ["127.0.0.1:0"], **dict(flags)}, {})
    report(settings, [], Host(), out, pause_seconds=0.0, factors=make_factors(settings))
    return out.getvalue().partition("\nCarbon and cost\n")[2].partition("\n\n")[0].splitlines()


class TestFactors:
    def test_none_are_known(self) -> None:
        assert factors_section(("impact.zone", "off"))[0].split()[:2] == ["factors", "no"]

    def test_a_table_and_a_constant(self) -> None:
        flags = ("impact.zone", "FR"), ("impact.price", "0.3"), ("impact.currency", "EUR"), ("impact.pue", "1.2")
        intensity, price = factors_section(*flags)
        assert intensity.startswith("  intensity    works   44.18 g/kWh (FR, table, Ember")
        assert price == "  price        works   0.3 EUR per kWh"

    def test_another_exporter_that_is_away_and_one_that_answers(self) -> None:
        with FeedServer({PATH: {"intensity": 302.0, "zone": "DE", "provider": "electricity-maps"}}) as server:
            lines = factors_section(("impact.from", server.url))
        assert lines == [
            "  impact-from  works   answers",
            "  intensity    works   302 g/kWh (DE, electricity-maps)",
        ]
        lines = factors_section(("impact.from", server.url))
        assert [line.split()[0] for line in lines] == ["impact-from", "fix:"]


def test_no_source_at_all_is_reported() -> None:
    """Fault 69."""
    assert written().endswith("No meter works here: the exporter runs and reports that, but shows no joules.\n")


def test_measured_and_estimated_are_never_mixed_up() -> None:
    measured = ScriptedSource("rapl", energy(1.0))
    modelled = ScriptedSource("estimate", lambda now: Reading(meters=(PowerReading(MODEL, now, 9.5),)))
    assert verdict(examine([measured, modelled], Host(), 0.0)) == "Measured here: cpu."
    assert verdict(examine([modelled], Host(), 0.0)).startswith("Only estimated: cpu. No joule on this machine is")
    assert "cpu-estimate (cpu): 9.5 W, estimated\n" in written(modelled)


class TestCheckup:
    def test_a_port_in_use(self) -> None:
        """Fault 68."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            check = host_checks.port(Address(*taken.getsockname()))
        assert "Address already in use" in check.text
        assert "--web.listen-address" in check.fix
        assert host_checks.port(Address("127.0.0.1", 0)).fix == ""

    def test_a_port_in_use_by_the_exporter_that_is_examined(self, start: Callable[..., Running]) -> None:
        """As by ``kubectl exec`` or ``docker exec``."""
        address = start("--demo").url.split("/")[2]
        settings = load({"web.listen-address": [address]}, {})
        (check,) = [each for each in host_checks.run_checks(settings, Host()) if each.what == "address"]
        assert check == ("address", f"{address} is in use by an exporter that runs with these settings", "")

    @pytest.mark.parametrize("listen", ["", "::1"])
    def test_other_families_do_not_raise(self, listen: str) -> None:
        assert host_checks.port(Address(listen, 0)).what == "address"

    @pytest.mark.parametrize("check", [host_checks.state_file, host_checks.history_file])
    def test_files_that_are_written(self, tmp_path: Path, check: Callable[[str], host_checks.HostCheck]) -> None:
        assert check("").fix == ""
        assert check(str(tmp_path / "state")).fix == ""
        assert check(str(tmp_path)).fix != ""
        assert "is not a directory" in check(str(tmp_path / "none/state")).text

    def test_a_container_that_sees_only_its_own_cgroup(self, tmp_path: Path) -> None:
        (tmp_path / "cgroup.controllers").write_text("cpu\n")
        (tmp_path / "cpu.stat").write_text("usage_usec 1\n")
        host = Host(cgroupfs=str(tmp_path))
        assert host_checks.groups(host).text == f"v2 at {tmp_path}, the whole host"
        (tmp_path / "cgroup.events").write_text("populated 1\n")
        assert "--path.cgroupfs" in host_checks.groups(host).fix

    def test_no_cgroups_at_all(self, tmp_path: Path) -> None:
        assert host_checks.groups(Host(cgroupfs=str(tmp_path))).fix != ""

    def test_a_missing_procfs(self, tmp_path: Path) -> None:
        assert "--path.procfs" in host_checks.processes(Host(procfs=str(tmp_path))).fix

    def test_a_procfs_of_another_namespace(self, tmp_path: Path) -> None:
        (tmp_path / "self").symlink_to(str(os.getpid()))
        inner = host_checks.processes(Host(procfs=str(tmp_path)))
        assert "all processes of the host" in inner.text or "hostPID" in inner.fix


def test_nothing_is_left_running() -> None:
    before = threading.active_count()
    examine([ScriptedSource("rapl", energy(1.0))], Host(), 0.0)
    assert threading.active_count() <= before
