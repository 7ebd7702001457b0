"""The life of the NVML source: missing, upgraded and lost drivers and cards, suspended cards, closing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from exporter.records import (
    EnergyReading,
    Unavailable,
)
from exporter.sources.nvml.source import RESCAN_SECONDS, NvmlSource
from tests.support.nvml import control
from tests.support.nvml.control import FakeDriver
from tests.support.nvml.node import Node, fresh_bindings
from tests.support.nvml.readings import by_pid, energy, only_state


class TestLifecycle:
    @pytest.mark.parametrize("preload", ["", "import sys; sys.modules['pynvml'] = None; "])
    def test_without_driver_or_bindings(self, preload: str) -> None:
        """Fault 19: no library, or no module, is a reason with a fix; a process of its own has loaded neither."""
        script = (
            f"{preload}from exporter.host import Host; from exporter.sources.nvml.source import NvmlSource\n"
            "from exporter.records import Unavailable\n"
            "try: NvmlSource(Host()).read(1.0); print('driver')\n"
            "except Unavailable as error: print(error.reason, bool(error.fix))"
        )
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("LD_", "FAKE_"))}
        done = subprocess.run(
            [sys.executable, "-c", script], check=False, capture_output=True, text=True, env=environment
        )
        if done.stdout.strip() == "driver":
            pytest.skip("this machine has an NVIDIA driver")
        assert done.stdout.strip() == "not_found True", done.stderr

    def test_no_card(self, node: Node, source: NvmlSource) -> None:
        with pytest.raises(Unavailable, match="no GPU") as caught:
            source.read(node.now)
        assert caught.value.reason == "not_found"

    def test_upgraded_driver(self, node: Node, source: NvmlSource) -> None:
        """Fault 20: the mismatch is reported with its fix, and reading continues as soon as it can."""
        node.driver.add_gpu()
        source.read(node.now)
        node.driver.break_all(control.LIB_RM_VERSION_MISMATCH)
        for _ in range(2):
            with pytest.raises(Unavailable) as caught:
                source.read(node.now)
            assert caught.value.reason == "driver"
            assert "reload the module" in caught.value.fix
        node.driver.break_all(0)
        node.sleep(1)
        assert source.read(node.now).meters

    def test_older_library_lacks_versioned_functions(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Fault 20: NVMLLibraryMismatchError is no NVMLError; the lists are unknown, the rest is read."""
        missing = [f"nvmlDeviceGet{sort}RunningProcesses_v3" for sort in ("Compute", "Graphics", "MPSCompute")]
        old = control.build(tmp_path / "old", without=missing)
        with FakeDriver(old, tmp_path) as driver:
            monkeypatch.setenv(control.STATE_VARIABLE, str(driver.path))
            node = Node(tmp_path, driver, fresh_bindings(old))
            gpu = driver.add_gpu()
            node.process(1)
            source = NvmlSource(node.host, node.bindings)
            source.read(node.now)
            for _ in range(2):
                node.step({gpu: {1: 50}})
                reading = source.read(node.now)
            assert reading.meters
            assert by_pid(reading)[1].seconds == pytest.approx(0.5, rel=0.01)
            assert by_pid(reading)[1].hold == 1.0
            source.close()

    def test_container_that_lost_its_devices(self, node: Node, source: NvmlSource) -> None:
        """Fault 24: Unknown Error from everything ends the session; the next read opens another."""
        node.driver.add_gpu()
        source.read(node.now)
        node.driver.break_all(control.UNKNOWN)
        with pytest.raises(Unavailable):
            source.read(node.now)
        node.driver.break_all(0)
        assert source.read(node.now).meters

    def test_lost_card(self, node: Node, source: NvmlSource) -> None:
        """Fault 22: its series are absent, the other card goes on, and a reset brings it back."""
        first, second = node.driver.add_gpu(), node.driver.add_gpu()
        source.read(node.now)
        first.lose()
        for _ in range(2):
            node.step({second: {}})
            reading = source.read(node.now)
            assert set(energy(reading)) == {second.uuid}
            assert {state.uuid for state in reading.gpus} == {second.uuid}
            (problem,) = reading.problems
            assert (problem.reason, first.uuid in problem.message) == ("driver", True)
        first.lose(False)
        node.step({first: {}, second: {}}, seconds=RESCAN_SECONDS)
        assert set(energy(source.read(node.now))) == {first.uuid, second.uuid}

    def test_last_card_lost(self, node: Node, source: NvmlSource) -> None:
        """Fault 22: with no card left the source is down, until it can open a session again."""
        gpu = node.driver.add_gpu()
        source.read(node.now)
        gpu.lose()
        for _ in range(2):
            with pytest.raises(Unavailable) as caught:
                source.read(node.now)
            assert caught.value.reason == "driver"
        gpu.lose(False)
        assert source.read(node.now).meters

    def test_plugged_and_unplugged(self, node: Node, source: NvmlSource) -> None:
        """Faults 31 and 32: a new card appears; when one is removed, the others move up and keep their identity."""
        first = node.driver.add_gpu()
        first.energy_joules = 1
        source.read(node.now)
        second = node.driver.add_gpu()
        second.energy_joules = 2
        assert energy(source.read(node.now)) == {first.uuid: 1, second.uuid: 2}
        first.remove()
        reading = source.read(node.now)
        assert energy(reading) == {second.uuid: 2}
        assert only_state(reading).index == "0"

    def test_card_that_the_library_does_not_know_yet(self, node: Node, source: NvmlSource) -> None:
        """Fault 32: the library knows the cards of its start; more of them in /proc need a new session."""
        node.driver.add_gpu()
        source.read(node.now)
        for address in ("0000:01:00.0", "0000:02:00.0"):
            node.write(f"proc/driver/nvidia/gpus/{address}/information", "")
        node.driver.reset_calls()
        for _ in range(3):
            node.sleep(RESCAN_SECONDS)
            source.read(node.now)
        assert node.driver.calls("nvmlInitWithFlags") == 1, "once: a container may see fewer than there are for good"

    def test_sleeping_card_is_not_touched(self, node: Node, source: NvmlSource) -> None:
        gpu = node.driver.add_gpu(pci_bus=0x41)
        source.read(node.now)
        status = node.write("sys/bus/pci/devices/0000:41:00.0/power/runtime_status", "suspended\n")
        node.sleep(1)
        calls = node.driver.calls("nvmlDeviceGetFieldValues", gpu)
        reading = source.read(node.now)
        assert (reading.meters, reading.gpus, reading.problems) == ((), (), ())
        assert node.driver.calls("nvmlDeviceGetFieldValues", gpu) == calls
        other = node.driver.add_gpu(pci_bus=0x42)
        other.lose()
        node.write("sys/bus/pci/drivers/nvidia/0000:42:00.0", "")
        node.sleep(60)
        assert source.read(node.now).problems, "the session goes on for the one that sleeps"
        other.remove()
        (node.root / "sys/bus/pci/drivers/nvidia/0000:42:00.0").unlink()
        status.write_text("active\n")
        node.sleep(60)
        assert isinstance(source.read(node.now).meters[0], EnergyReading), "sleep is not a frozen counter"

    def test_close_frees_everything(self, node: Node, source: NvmlSource) -> None:
        """Fault 33: a clean stop leaves no sample and no session in the driver."""
        node.driver.add_gpu()
        source.read(node.now)
        source.close()
        source.close()
        assert node.driver.calls("nvmlGpmSampleFree") == node.driver.calls("nvmlGpmSampleAlloc") == 2
        assert node.driver.calls("nvmlShutdown") == 1
