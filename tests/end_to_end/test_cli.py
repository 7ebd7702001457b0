"""The program as operators meet it: a real process, its exit status, its signals, its port and its log."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from exporter import __version__
from exporter.config.settings import SOURCES
from exporter.host import Host
from exporter.sources.registry import build
from tests.support.patience import patience, wait_for
from tests.support.program import COMMAND, ENVIRONMENT, FAST, Running, run
from tests.support.repository import REPOSITORY


@pytest.fixture
def bare_host(tmp_path: Path) -> list[str]:
    """Flags of a machine that has nothing to read."""
    for name in ("proc", "sys"):
        (tmp_path / name).mkdir()
    (tmp_path / "proc/stat").touch()
    return ["--path.procfs", f"{tmp_path}/proc", "--path.sysfs", f"{tmp_path}/sys"]


class TestToTheEnd:
    def test_version(self) -> None:
        done = run("--version")
        assert (done.returncode, done.stdout, done.stderr) == (0, f"ai-energy-exporter {__version__}\n", "")

    @pytest.mark.parametrize("words", [["--version"], ["budgets", str(REPOSITORY / "prometheus/demo/budgets.yaml")]])
    def test_a_disk_that_is_full(self, words: list[str]) -> None:
        with open("/dev/full", "w", encoding="utf-8") as full:
            done = subprocess.run(
                [sys.executable, "-m", "exporter", *words],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        assert (done.returncode, done.stderr) == (1, "standard output: No space left on device\n")

    def test_usage_error_is_2(self) -> None:
        done = run("--web.listen-adress", ":1")
        assert done.returncode == 2
        assert "did you mean --web.listen-address?" in done.stderr

    def test_check_of_good_settings(self, tmp_path: Path) -> None:
        (tmp_path / "c.yml").write_text("sample: {interval: 2s}\n")
        done = run("--config.check", environ={"AI_ENERGY_CONFIG_FILE": f"{tmp_path}/c.yml"})
        assert (done.returncode, done.stdout, done.stderr) == (0, "OK\n", "")

    @pytest.mark.parametrize("mode", [["--config.check"], ["--once"], ["doctor"], []])
    def test_bad_settings_are_2_and_one_line_each_in_every_mode(self, tmp_path: Path, mode: list[str]) -> None:
        """Fault 58."""
        (tmp_path / "c.yml").write_text("sample:\n  intervall: 2s\n  interval: soon\n")
        done = run("--config.file", f"{tmp_path}/c.yml", *mode)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.splitlines() == [
            f"{tmp_path}/c.yml:2: unknown setting: 'sample.intervall'; did you mean sample.interval?",
            f"{tmp_path}/c.yml:3: sample.interval: 'soon' is not a duration such as 500ms, 1s, 5m or 1h30m",
        ]

    @pytest.mark.parametrize("mode", [["--config.check"], ["--once"], []])
    def test_an_unknown_zone_or_a_wrong_tariff_is_2(self, tmp_path: Path, mode: list[str]) -> None:
        (tmp_path / "t.yml").write_text("price:\n  periods:\n    - {value: 0.3}\n")
        done = run("--impact.zone=XX", "--impact.file", f"{tmp_path}/t.yml", *mode)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.splitlines() == [
            f"{tmp_path}/t.yml:2: price: the key currency is missing, such as EUR",
            "impact.zone: 'XX' is not the two-letter code of a country in the table",
        ]

    def test_once_prints_one_scrape_and_leaves_the_state_file_alone(self, tmp_path: Path) -> None:
        state = tmp_path / "state"
        done = run("--once", "--demo", "--sample.interval", "100ms", "--state.file", str(state))
        assert done.returncode == 0, done.stderr
        values = {
            (sample.name, sample.labels.get("component")): sample.value
            for family in text_string_to_metric_families(done.stdout)
            for sample in family.samples
        }
        assert values["energy_samples_total", None] == 2
        assert values["energy_node_joules_total", "gpu"] > 0
        assert not state.exists()

    def test_once_into_a_pipe_that_closes_early(self) -> None:
        command = [*COMMAND, "--once", "--demo", "--sample.interval", "100ms"]
        with subprocess.Popen(
            command, cwd=REPOSITORY, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            assert process.wait(patience()) == 1
            assert "Traceback" not in process.stderr.read()

    def test_once_on_a_machine_with_nothing_to_read(self, bare_host: list[str]) -> None:
        """Fault 69."""
        done = run("--once", "--sample.interval", "100ms", *bare_host)
        assert done.returncode == 0
        families = {family.name for family in text_string_to_metric_families(done.stdout)}
        assert "energy_source_up" in families
        assert "energy_device_joules" not in families

    def test_doctor_on_a_machine_with_nothing_to_read(self, bare_host: list[str]) -> None:
        """Fault 69."""
        done = run("doctor", "--web.listen-address", "127.0.0.1:0", *bare_host)
        assert (done.returncode, done.stderr) == (0, "")
        assert "No meter works here" in done.stdout
        for name in ("rapl", "hwmon", "estimate", "procfs", "cgroups"):
            assert f"\n  {name:<12} no " in done.stdout

    def test_port_in_use_is_one_line_and_1(self) -> None:
        """Fault 68."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            done = run("--demo", "--web.listen-address", address)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert f"cannot listen on {address}" in done.stderr


def test_every_source_has_a_switch_of_its_name(tmp_path: Path) -> None:
    every, none = dict.fromkeys(SOURCES, True), dict.fromkeys(SOURCES, False)
    build_all = partial(build, Host(), regions_socket=str(tmp_path / "regions.sock"))
    names = {source.name for linux in (True, False) for source in build_all(every, linux=linux)}
    assert names == set(SOURCES) - {"custom"}  # which is only there with a meter of one's own
    assert build_all(none, linux=True) == build_all(none, linux=False) == []


class TestServing:
    def test_a_scrape_then_a_clean_stop(self, start: Callable[..., Running], tmp_path: Path) -> None:
        running = start("--demo", "--state.file", f"{tmp_path}/state")
        assert running.samples()["energy_exporter_build_info"] == 1
        status, seconds = running.stop()
        assert (status, seconds < 5) == (0, True)
        assert (tmp_path / "state").exists()
        with pytest.raises(OSError, match="refused"):
            urllib.request.urlopen(running.url, timeout=patience())

    def test_a_signal_that_another_thread_takes_is_not_lost(
        self, start: Callable[..., Running], tmp_path: Path
    ) -> None:
        """The kernel may hand one to a thread that just starts another: the main thread sleeps on, unless woken."""
        running = start("--path.sysfs", str(tmp_path))
        running.samples()
        threads = {int(name) for name in os.listdir(f"/proc/{running.process.pid}/task")}
        os.kill(min(threads - {running.process.pid}), signal.SIGTERM)
        assert running.process.wait(patience()) == 0

    def test_ctrl_c_stops_as_cleanly(self, start: Callable[..., Running]) -> None:
        running = start("--demo")
        assert running.stop(signal.SIGINT)[0] == 0
        running.logged("stopping: SIGINT")
        assert "Traceback" not in "".join(running.lines)

    def test_the_demonstration_says_so(self, start: Callable[..., Running]) -> None:
        running = start("--demo")
        assert "SIMULATED" in running.lines[-1]

    def test_no_sources_at_all_and_still_up(self, start: Callable[..., Running]) -> None:
        """Fault 69."""
        names = ("rapl", "hwmon", "estimate", "procfs", "cgroups")
        running = start(*(f"--no-source.{name}" for name in names))
        running.wait_for("energy_samples_total", lambda count: count >= 2)
        assert "energy_node_joules_total" not in running.samples()
        assert running.stop()[0] == 0

    def test_a_second_instance_on_the_same_state_file(self, start: Callable[..., Running], tmp_path: Path) -> None:
        """Fault 57."""
        running = start("--demo", "--state.file", f"{tmp_path}/state")
        running.samples()
        second = run("--demo", *FAST, "--state.file", f"{tmp_path}/state")
        assert second.returncode == 1
        assert second.stderr.count("\n") == 1
        assert f"{tmp_path}/state" in second.stderr
        assert running.stop()[0] == 0

    @pytest.mark.parametrize(("first", "then", "whose"), [("--demo", "--no-demo", "simulated"), ("", "--demo", "real")])
    def test_simulated_and_real_checkpoints_are_not_mixed(
        self, first: str, then: str, whose: str, start: Callable[..., Running], tmp_path: Path
    ) -> None:
        running = start(*filter(None, [first]), "--state.file", f"{tmp_path}/state")
        running.samples()
        assert running.stop()[0] == 0
        checkpoint = (tmp_path / "state").read_bytes()
        refused = run(then, *FAST, "--state.file", f"{tmp_path}/state")
        assert refused.returncode == 1
        assert f"{tmp_path}/state: the state of a {whose} node" in refused.stderr
        assert (tmp_path / "state").read_bytes() == checkpoint

    def test_a_state_file_that_cannot_be_written(self, start: Callable[..., Running], tmp_path: Path) -> None:
        """Fault 55."""
        running = start("--demo", "--state.file", f"{tmp_path}/none/state")
        assert any("no checkpoints" in line and "No such file" in line for line in running.lines)
        running.wait_for("energy_samples_total", lambda count: count >= 2)
        assert running.stop()[0] == 0

    def test_it_stops_in_time_although_a_meter_hangs(
        self, start: Callable[..., Running], tmp_path: Path, bare_host: list[str]
    ) -> None:
        """Faults 15 and 33: a named pipe hangs on open, as a driver in D state does on read."""
        zone = tmp_path / "sys/class/powercap/intel-rapl:0"
        zone.mkdir(parents=True)
        (zone / "name").write_text("package-0\n")
        (zone / "max_energy_range_uj").write_text("262143328850\n")
        os.mkfifo(zone / "energy_uj")
        running = start(*bare_host)
        running.wait_for("energy_source_failures_total", lambda failures: failures >= 1)
        status, seconds = running.stop()
        assert (status, seconds < patience(5)) == (0, True)

    def test_it_stops_in_time_although_the_disk_hangs(self, start: Callable[..., Running], tmp_path: Path) -> None:
        """Faults 33 and 55: a named pipe without a reader hangs on open, as a dead network file system does."""
        os.mkfifo(tmp_path / "state.new")
        running = start("--demo", "--state.file", f"{tmp_path}/state")
        running.wait_for("energy_samples_total", lambda count: count >= 3)
        _, seconds = running.stop()
        assert seconds < patience(5)

    def test_it_stops_in_time_although_the_last_checkpoint_hangs(
        self, start: Callable[..., Running], tmp_path: Path
    ) -> None:
        """Fault 33: a disk that does not respond keeps nothing from the journal, and the log says so."""
        running = start("--demo", "--state.file", f"{tmp_path}/state")
        running.wait_for("energy_samples_total", lambda count: count >= 3)
        wait_for((tmp_path / "state").exists, "a checkpoint")
        os.mkfifo(tmp_path / "state.new")
        status, seconds = running.stop()
        assert (status, seconds < patience(5)) == (0, True)
        running.logged("the last checkpoint is not synced")
        last = (tmp_path / "state").read_bytes().splitlines()[-1]
        assert b'"version":' in last, "a whole checkpoint ends the journal"

    def test_the_watchdog_ends_what_takes_too_long_to_stop(self, start: Callable[..., Running], tmp_path: Path) -> None:
        """Fault 33: the log and the exit status report it, and the counters are written before."""
        for number in range(4):
            os.mkfifo(tmp_path / f"meter-{number}")  # a read of it hangs
        entries = [f"- {{name: m{number}, file: {tmp_path}/meter-{number}, unit: W}}\n" for number in range(4)]
        (tmp_path / "meters.yaml").write_text("".join(entries))
        running = start("--state.file", f"{tmp_path}/state", "--meters.file", f"{tmp_path}/meters.yaml")
        running.wait_for("energy_samples_total", lambda count: count >= 3)
        status, seconds = running.stop()
        assert (status, seconds < 5) == (1, True)
        running.logged("a thread hangs")
        assert b'"version":' in (tmp_path / "state").read_bytes().splitlines()[-1]


class TestOwnMetrics:
    def test_requests_durations_and_the_state_file(self, start: Callable[..., Running], tmp_path: Path) -> None:
        running = start("--demo", "--state.file", f"{tmp_path}/state")
        before = time.time()
        running.wait_for("energy_state_last_write_timestamp_seconds", lambda at: abs(at - before) < patience())
        # A body that was rendered before the first response was counted is sent until the next sample.
        running.wait_for("energy_http_requests_total", lambda count: count > 0)
        first = running.samples()
        running.wait_for("energy_samples_total", lambda count: count > first["energy_samples_total"] + 2)
        samples = running.samples()
        # The next sample may end while the body of this one is rendered.
        assert samples["energy_samples_total"] - 1 <= samples["energy_sample_duration_seconds_count"]
        assert samples["energy_sample_seconds_total"] - 1e-6 <= samples["energy_sample_duration_seconds_sum"]
        assert samples["energy_http_requests_total"] > first["energy_http_requests_total"] > 0
        assert samples["energy_scrape_duration_seconds_count"] > first["energy_scrape_duration_seconds_count"]
        assert (
            samples["energy_state_last_write_timestamp_seconds"] >= first["energy_state_last_write_timestamp_seconds"]
        )

    def test_without_a_state_file_there_is_no_time_of_its_last_write(self, start: Callable[..., Running]) -> None:
        running = start("--demo")
        running.wait_for("energy_samples_total", lambda count: count >= 2)
        assert "energy_state_last_write_timestamp_seconds" not in running.samples()


class TestReload:
    def test_what_may_change_is_taken_and_the_rest_is_told(self, start: Callable[..., Running], tmp_path: Path) -> None:
        config = tmp_path / "c.yml"
        config.write_text("idle: {watts: {package-0: 1000}}\n")
        running = start("--demo", "--config.file", str(config))
        running.wait_for("energy_device_idle_watts", lambda watts: 1000 < watts < 9000)
        config.write_text("idle: {watts: {package-0: 9000}}\nweb: {max-requests: 7}\nlog: {level: debug}\n")
        running.process.send_signal(signal.SIGHUP)
        assert "restart" in running.logged("web.max-requests")
        running.logged("settings reloaded")
        assert running.samples()["energy_config_last_reload_successful"] == 1
        running.wait_for("energy_device_idle_watts", lambda watts: watts > 9000)
        assert running.stop()[0] == 0

    def test_a_source_that_is_down_is_tried_again_at_once(
        self, start: Callable[..., Running], tmp_path: Path, bare_host: list[str]
    ) -> None:
        """By itself the twelfth try would come six minutes after the first; once all is well, joules come."""
        running = start(*bare_host, *(f"--no-source.{name}" for name in SOURCES if name != "rapl"))

        def enough(failures: float) -> bool:
            running.process.send_signal(signal.SIGHUP)
            return failures >= 12

        running.wait_for("energy_source_failures_total", enough)
        zone = tmp_path / "sys/class/powercap/intel-rapl:0"
        zone.mkdir(parents=True)
        (zone / "name").write_text("package-0\n")
        (zone / "max_energy_range_uj").write_text("262143328850\n")
        (zone / "energy_uj").write_text("1000\n")
        running.process.send_signal(signal.SIGHUP)
        running.wait_for("energy_source_up", lambda up: up == 1)
        assert running.stop()[0] == 0

    def test_whoever_asks_for_it_again_and_again_does_not_keep_the_exporter_alive(
        self, start: Callable[..., Running], tmp_path: Path
    ) -> None:
        """To reload takes longer than to ask for it. The pipe makes one last as long as the test likes."""
        config = tmp_path / "c.yml"
        config.write_text("")
        running = start("--demo", "--config.file", str(config))
        config.unlink()
        os.mkfifo(config)
        running.process.send_signal(signal.SIGHUP)
        with config.open("w"):
            running.process.send_signal(signal.SIGHUP)
            status = Path(f"/proc/{running.process.pid}/status")
            while "ShdPnd:\t0000000000000000" not in status.read_text():
                time.sleep(0.01)
            running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(patience()) == 0

    def test_bad_settings_leave_everything_as_it_was(self, start: Callable[..., Running], tmp_path: Path) -> None:
        """Fault 58."""
        config = tmp_path / "c.yml"
        config.write_text("")
        running = start("--demo", "--config.file", str(config))
        config.write_text("log: {level: loud}\n")
        running.process.send_signal(signal.SIGHUP)
        assert f"{config}:1: log.level: 'loud'" in running.logged("settings not reloaded")
        running.wait_for("energy_config_last_reload_successful", lambda value: value == 0)
        config.write_text("log: {level: error}\n")
        running.process.send_signal(signal.SIGHUP)
        running.wait_for("energy_config_last_reload_successful", lambda value: value == 1)
        assert running.stop()[0] == 0
