"""`benchmarks.gpu_check` on a scripted card: its sums, its tables, and that all of it runs where there is no card."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path

import psutil
import pytest

from benchmarks.gpu_check import Bill, main, paired, ratio, read_bill
from benchmarks.gpu_load import PTX, TARGETS
from benchmarks.gpu_sensors import Sample, cadence, counted, integral, watch
from exporter.sources.nvml.driver import Driver
from tests.support.nvml import control
from tests.support.nvml.control import FakeDriver, Gpu
from tests.support.nvml.node import fresh_bindings
from tests.support.patience import patience


def steps(count: int = 1000, every: int = 20, watts: float = 250.0) -> list[Sample]:
    """A read every millisecond of a counter that moves every ``every`` ms, 7 ms after the start."""
    return [
        Sample(n / 1000, watts * ((n - 7) // every * every) / 1000, watts * (1.1 if n % 50 < 25 else 0.9), watts)
        for n in range(count)
    ]


class TestSums:
    def test_cadence(self) -> None:
        found = cadence(steps(), attrgetter("joules"))
        assert found is not None
        assert found.moves == 50
        assert found.median_seconds == found.long_seconds == pytest.approx(0.02)
        power = cadence(steps(), attrgetter("watts"))
        assert power is not None
        assert power.median_seconds == pytest.approx(0.025)

    def test_a_sensor_that_stands_still_has_none(self) -> None:
        assert cadence(steps(), attrgetter("average_watts")) is None
        assert cadence([Sample(0.0, None, None, None)] * 9, attrgetter("joules")) is None

    def test_the_counter_and_the_gauges_of_a_steady_card_agree(self) -> None:
        """Whatever part of a step the samples begin and end with."""
        for count in (983, 991, 1000, 1009):
            samples = steps(count)
            energy = 250.0 * samples[-1].at
            assert counted(samples) == pytest.approx(energy, rel=1e-9)
            assert integral(samples, attrgetter("average_watts")) == pytest.approx(energy, rel=1e-9)
            assert integral(samples, attrgetter("watts")) == pytest.approx(energy, rel=0.01)

    def test_what_is_not_known_is_not_summed(self) -> None:
        gap = [*steps(50), Sample(0.05, None, None, None)]
        assert integral(gap, attrgetter("watts")) is None
        assert counted([Sample(n / 10, 5.0, 1.0, 1.0) for n in range(9)]) is None
        assert (ratio(None, 1.0), ratio(1.0, 0.0), ratio(1.0, 4.0)) == ("-", "-", "0.250")

    def test_paired(self) -> None:
        slower, margin = paired([98.0, 99.0, 97.0, 98.0], [100.0] * 4)
        assert slower == pytest.approx(0.02)
        assert 0.005 < margin < 0.01
        assert paired([1.0], [1.0])[1] == float("inf")

    def test_bill(self) -> None:
        scrape = """# TYPE energy_device_joules_total counter
energy_device_joules_total{component="gpu",device="GPU-1",source="nvml"} 500
energy_device_joules_total{component="gpu",device="GPU-2",source="nvml"} 900
# TYPE energy_process_joules_total counter
energy_process_joules_total{pid="7",comm="python",component="gpu",mode="active"} 300
energy_process_joules_total{pid="7",comm="python",component="gpu",mode="idle"} 40
energy_process_joules_total{pid="7",comm="python",component="cpu",mode="active"} 5
# TYPE energy_conservation_error_ratio gauge
energy_conservation_error_ratio 1e-15
"""
        assert read_bill(scrape, "GPU-1") == Bill(500.0, {(7, "active"): 300.0, (7, "idle"): 40.0}, 1e-15)


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the fake libnvidia-ml.so.1 and libcuda.so.1; skips without a C compiler."""
    folder = tmp_path_factory.mktemp("nvidia")
    control.build(folder)
    compiler = os.environ.get("CC", "cc")
    source = Path(control.__file__).with_name("fake_cuda.c")
    flags = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared"]
    subprocess.run([compiler, *flags, "-o", str(folder / "libcuda.so.1"), str(source)], check=True)
    return folder


@pytest.fixture
def gpu(libraries: Path, tmp_path: Path) -> Iterator[Gpu]:
    with FakeDriver(libraries / control.LIBRARY, tmp_path) as driver:
        yield driver.add_gpu()


def test_sensors_are_read_in_si_units(libraries: Path, gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(control.STATE_VARIABLE, str(gpu.driver.path))
    driver = Driver(fresh_bindings(libraries / control.LIBRARY))
    driver.open()
    gpu.energy_joules, gpu.power_instant_watts, gpu.power_average_watts = 1234.5, 310.25, 300
    samples = watch(driver, driver.handle(0), 0.01)
    gpu.energy_joules = gpu.power_instant_watts = None
    samples += watch(driver, driver.handle(0), 0.0)
    driver.close()
    assert samples[0][1:] == (1234.5, 310.25, 300)
    assert samples[-1][1:] == (None, None, 300)
    assert samples[-1].at > samples[0].at


def burn(gpu: Gpu, stop: threading.Event) -> None:
    """Let the card draw 300 W, and the processes that compute products use it."""
    while not stop.wait(0.02):
        gpu.energy_joules += 6
        for process in psutil.Process().children(recursive=True):
            try:
                if {"benchmarks.gpu_load", "benchmarks.gpu_regions"} & set(process.cmdline()):
                    gpu.process(process.pid, sm_util=45)
            except psutil.Error:
                continue


def test_all_of_it(libraries: Path, gpu: Gpu, tmp_path: Path) -> None:
    """Every table has numbers, and the recorded machine is one that the golden tests could read."""
    stop = threading.Event()
    card = threading.Thread(target=burn, args=(gpu, stop))
    card.start()
    seconds = min(patience(0.2), 5.0)  # a busy machine reads a sensor less often
    quick = [
        f"--seconds={seconds:g}",
        "--settle=0.05",
        "--region-seconds=2",
        "--rounds=1",
        "--round-seconds=0.1",
        "--out",
        str(tmp_path / "out"),
    ]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.gpu_check", *quick],
            env=os.environ | gpu.driver.environment(),
            capture_output=True,
            text=True,
            timeout=patience(100),
            check=False,
        )
    finally:
        stop.set()
        card.join()
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in done.stdout.splitlines() if line[:1] == "|"}
    assert [cell.strip() for cell in rows["idle"]][-1] != "-"
    assert "nvmlDeviceGetProcessUtilization" in rows
    assert float(rows["both"][3]) > 0, "A made products"
    assert float(rows["few"][0]) > 0, "it drew power alone"
    assert "Slowdown" in done.stdout
    document = json.loads((tmp_path / "out/nvidia-h100-80gb-hbm3/gpus.json").read_text())
    (recorded,) = document["gpus"]
    assert recorded["name"] == gpu.name
    assert len(recorded["instants"]) == 3


def test_without_a_card_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("this machine has an NVIDIA driver")
    assert main([]) == 1
    assert "no NVIDIA GPU to measure" in capsys.readouterr().err


def test_without_cuda_the_load_says_so() -> None:
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("this machine has an NVIDIA driver")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_load"], capture_output=True, text=True, check=False, timeout=patience(30)
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "no CUDA driver" in done.stderr


@pytest.mark.parametrize(("version", "target"), TARGETS)
def test_ptx_is_plain_ascii_without_placeholders(version: str, target: str) -> None:
    text = PTX.format(version=version, target=target)
    assert text.isascii()
    assert text.count("{") == text.count("}") == 1
