"""The real bindings see what was scripted: every function of the fake driver, its errors, delays and hangs."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.nvml import control
from tests.support.nvml.control import FakeDriver, Gpu, Mig, build
from tests.support.patience import patience, wait_for

pynvml = pytest.importorskip("pynvml")

GIB = 1 << 30


@pytest.fixture
def driver(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDriver]:
    """A driver that the bindings of this process have initialised."""
    with FakeDriver(library, tmp_path) as fake:
        fake.load(monkeypatch)
        pynvml.nvmlInit()
        yield fake
        fake.mend("nvmlShutdown")
        pynvml.nvmlShutdown()


@pytest.fixture
def gpu(driver: FakeDriver) -> Gpu:
    return driver.add_gpu()


@pytest.fixture
def handle(gpu: Gpu) -> Any:
    return pynvml.nvmlDeviceGetHandleByIndex(0)


def code_of(call: Callable[..., object], *arguments: object) -> int:
    """Result code of a call that must fail."""
    with pytest.raises(pynvml.NVMLError) as caught:
        call(*arguments)
    return int(caught.value.value)


def field(handle: Any, number: int, scope: int = 0) -> Any:
    return pynvml.nvmlDeviceGetFieldValues(handle, [(number, scope)])[0]


# --- the library -------------------------------------------------------------------------------------------------


def test_every_function_of_the_fake_is_one_that_the_bindings_know(library: Path) -> None:
    """A misspelt symbol would never be called, and its caller would see a driver without it."""
    source = Path(pynvml.__file__).read_text(encoding="utf-8")
    wanted = set(re.findall(r'_nvmlGetFunctionPointer\("(nvml\w+)"\)', source))
    ours = set(re.findall(r"^NVML\((nvml\w+)\)", control.SOURCE.read_text(encoding="utf-8"), re.MULTILINE))
    assert len(ours) > 50
    assert ours - wanted == {"nvmlInit_v2"}
    loaded = ctypes.CDLL(str(library))
    assert [name for name in ours if not hasattr(loaded, name)] == []


def test_a_library_is_built_once(library: Path) -> None:
    before = library.stat().st_mtime_ns
    assert build(library.parent) == library
    assert library.stat().st_mtime_ns == before


def test_without_a_compiler_the_skip_explains_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(pytest.skip.Exception, match=r"cc.* missing: apt-get install gcc"):
        build(tmp_path / "none")


def test_an_older_driver_lacks_symbols(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bindings report it for some functions by an exception that is not an NVMLError."""
    missing = ("nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetCurrentClocksEventReasons")
    with FakeDriver(build(tmp_path / "old", without=missing), tmp_path) as old:
        old.add_gpu()
        old.load(monkeypatch)
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        with pytest.raises((pynvml.NVMLLibraryMismatchError, pynvml.NVMLError)):
            pynvml.nvmlDeviceGetComputeRunningProcesses_v3(handle)
        assert pynvml.nvmlDeviceGetComputeRunningProcesses_v2(handle) == []
        code = code_of(pynvml.nvmlDeviceGetCurrentClocksEventReasons, handle)
        assert code == control.FUNCTION_NOT_FOUND
        assert pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle) == 0
        pynvml.nvmlShutdown()


def test_an_unknown_function_cannot_be_scripted(driver: FakeDriver) -> None:
    with pytest.raises(KeyError):
        driver.fail("nvmlDeviceGetTotalEnergy", code=control.UNKNOWN)


# --- system ------------------------------------------------------------------------------------------------------


def test_versions(driver: FakeDriver) -> None:
    driver.driver_version, driver.nvml_version = "550.54.15", "12.550.54.15"
    driver.state.cuda_version = 12040
    assert pynvml.nvmlSystemGetDriverVersion() == "550.54.15"
    assert pynvml.nvmlSystemGetNVMLVersion() == "12.550.54.15"
    assert pynvml.nvmlSystemGetCudaDriverVersion() == 12040


def test_before_the_start_and_after_the_end_nothing_works(driver: FakeDriver) -> None:
    pynvml.nvmlShutdown()
    assert code_of(pynvml.nvmlDeviceGetCount) == pynvml.NVML_ERROR_UNINITIALIZED
    assert code_of(pynvml.nvmlShutdown) == pynvml.NVML_ERROR_UNINITIALIZED
    pynvml.nvmlInit()
    assert pynvml.nvmlDeviceGetCount() == 0


@pytest.mark.parametrize("code", [control.LIB_RM_VERSION_MISMATCH, control.DRIVER_NOT_LOADED, control.UNKNOWN])
def test_a_broken_driver_fails_everywhere(driver: FakeDriver, handle: Any, code: int) -> None:
    driver.break_all(code)
    assert code_of(pynvml.nvmlInit) == code
    assert code_of(pynvml.nvmlDeviceGetCount) == code
    assert code_of(pynvml.nvmlDeviceGetPowerUsage, handle) == code
    driver.break_all(0)
    assert pynvml.nvmlDeviceGetPowerUsage(handle) == 60_000


@pytest.mark.parametrize(
    ("code", "message"),
    [(15, "GPU is lost"), (18, "Driver/library version mismatch"), (999, "Unknown Error"), (3, "Not Supported")],
)
def test_results_have_words(driver: FakeDriver, code: int, message: str) -> None:
    assert pynvml.nvmlErrorString(code) == message


# --- devices -----------------------------------------------------------------------------------------------------


def test_devices_are_found_by_index_uuid_and_address(driver: FakeDriver) -> None:
    driver.add_gpu("NVIDIA A100-SXM4-80GB", "GPU-aaaa", architecture=control.AMPERE, pci_bus=0x17)
    driver.add_gpu("NVIDIA H200", "GPU-bbbb", pci_bus=0xCA)
    assert pynvml.nvmlDeviceGetCount() == 2
    first, second = (pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(2))
    assert [pynvml.nvmlDeviceGetName(handle) for handle in (first, second)] == ["NVIDIA A100-SXM4-80GB", "NVIDIA H200"]
    assert [pynvml.nvmlDeviceGetUUID(handle) for handle in (first, second)] == ["GPU-aaaa", "GPU-bbbb"]
    assert [pynvml.nvmlDeviceGetIndex(handle) for handle in (first, second)] == [0, 1]
    assert [pynvml.nvmlDeviceGetMinorNumber(handle) for handle in (first, second)] == [0, 1]
    assert [pynvml.nvmlDeviceGetArchitecture(handle) for handle in (first, second)] == [7, 9]
    pci = pynvml.nvmlDeviceGetPciInfo(second)
    assert (pci.busId, pci.busIdLegacy, pci.bus) == ("00000000:CA:00.0", "0000:CA:00.0", 0xCA)
    assert driver.gpus[1].pci == pci.busId
    assert (pci.pciDeviceId, pci.pciSubSystemId, pci.domain, pci.device) == (0x233010DE, 0x16C110DE, 0, 0)
    assert pynvml.nvmlDeviceGetIndex(pynvml.nvmlDeviceGetHandleByUUID(b"GPU-bbbb")) == 1
    assert pynvml.nvmlDeviceGetIndex(pynvml.nvmlDeviceGetHandleByPciBusId(b"0000:CA:00.0")) == 1
    assert code_of(pynvml.nvmlDeviceGetHandleByIndex, 2) == pynvml.NVML_ERROR_INVALID_ARGUMENT
    assert code_of(pynvml.nvmlDeviceGetHandleByUUID, b"GPU-cccc") == control.NOT_FOUND
    assert code_of(pynvml.nvmlDeviceGetHandleByPciBusId, b"0000:00:00.0") == control.NOT_FOUND


def test_an_unplugged_card_lets_the_others_move_up(driver: FakeDriver) -> None:
    first, _ = driver.add_gpu(uuid="GPU-1"), driver.add_gpu(uuid="GPU-2")
    old = pynvml.nvmlDeviceGetHandleByIndex(0)
    first.remove()
    assert pynvml.nvmlDeviceGetCount() == 1
    assert pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(0)) == "GPU-2"
    assert [gpu.uuid for gpu in driver.gpus] == ["GPU-2"]
    assert code_of(pynvml.nvmlDeviceGetPowerUsage, old) == control.GPU_IS_LOST


def test_a_lost_card_fails_until_it_is_back_and_the_others_go_on(driver: FakeDriver, gpu: Gpu, handle: Any) -> None:
    driver.add_gpu()
    gpu.lose()
    assert pynvml.nvmlDeviceGetCount() == 2
    assert code_of(pynvml.nvmlDeviceGetHandleByIndex, 0) == control.GPU_IS_LOST
    assert code_of(pynvml.nvmlDeviceGetTotalEnergyConsumption, handle) == control.GPU_IS_LOST
    assert code_of(pynvml.nvmlDeviceGetFieldValues, handle, [83]) == control.GPU_IS_LOST
    assert pynvml.nvmlDeviceGetTotalEnergyConsumption(pynvml.nvmlDeviceGetHandleByIndex(1)) == 0
    gpu.lose(False)
    assert pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) == 0


def test_a_handle_that_is_none_is_refused(driver: FakeDriver, gpu: Gpu) -> None:
    nonsense = ctypes.cast(ctypes.create_string_buffer(64), pynvml.c_nvmlDevice_t)
    assert code_of(pynvml.nvmlDeviceGetPowerUsage, nonsense) == pynvml.NVML_ERROR_INVALID_ARGUMENT


def test_there_is_room_for_sixteen_cards(driver: FakeDriver) -> None:
    for _ in range(16):
        driver.add_gpu()
    assert pynvml.nvmlDeviceGetCount() == 16
    assert len({pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(n)) for n in range(16)}) == 16
    with pytest.raises(ValueError, match="16"):
        driver.add_gpu()


# --- energy and power --------------------------------------------------------------------------------------------


def test_energy_and_power(gpu: Gpu, handle: Any) -> None:
    gpu.energy_joules += 1234.567
    gpu.energy_joules += 1
    gpu.power_average_watts, gpu.power_instant_watts, gpu.power_limit_watts = 627.4, 626.26, 650
    assert pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) == 1_235_567
    assert pynvml.nvmlDeviceGetPowerUsage(handle) == 627_400
    assert pynvml.nvmlDeviceGetEnforcedPowerLimit(handle) == 650_000
    assert pynvml.nvmlDeviceGetPowerManagementLimit(handle) == 650_000
    energy, average, instant, limit, again = pynvml.nvmlDeviceGetFieldValues(handle, [83, 185, 186, 190, 191])
    assert {value.nvmlReturn for value in (energy, average, instant, limit, again)} == {0}
    assert (energy.valueType, energy.value.ullVal) == (pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG, 1_235_567)
    assert (average.valueType, average.value.uiVal) == (pynvml.NVML_VALUE_TYPE_UNSIGNED_INT, 627_400)
    assert (instant.value.uiVal, limit.value.uiVal, again.value.ullVal) == (626_260, 650_000, 1_235_567)
    assert abs(energy.timestamp / 1e6 - time.time()) < 60
    gpu.energy_joules = 0
    assert pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) == 0


def test_energy_beyond_32_bits(gpu: Gpu, handle: Any) -> None:
    gpu.energy_joules = 3e9
    assert pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) == 3_000_000_000_000


def test_an_unsupported_value_is_an_error_and_not_a_number(gpu: Gpu, handle: Any) -> None:
    gpu.energy_joules = gpu.power_watts = gpu.power_limit_watts = None
    gpu.temperature_celsius = gpu.util_percent = gpu.memory_total_bytes = None
    for call in (
        pynvml.nvmlDeviceGetTotalEnergyConsumption,
        pynvml.nvmlDeviceGetPowerUsage,
        pynvml.nvmlDeviceGetEnforcedPowerLimit,
        pynvml.nvmlDeviceGetUtilizationRates,
        pynvml.nvmlDeviceGetMemoryInfo,
    ):
        assert code_of(call, handle) == control.NOT_SUPPORTED
    assert code_of(pynvml.nvmlDeviceGetTemperature, handle, 0) == control.NOT_SUPPORTED
    assert [v.nvmlReturn for v in pynvml.nvmlDeviceGetFieldValues(handle, [83, 185, 186, 1])] == [3] * 4
    with pytest.raises(ValueError, match="unsupported"):
        _ = gpu.energy_joules


def test_scopes(gpu: Gpu, handle: Any) -> None:
    """On a Grace Hopper the module's power is that of processor, memory and GPU together."""
    assert field(handle, 185, control.SCOPE_MODULE).nvmlReturn == control.NOT_SUPPORTED
    gpu.scope(control.SCOPE_MODULE, power_watts=812.5, energy_joules=9.5)
    module = field(handle, 185, control.SCOPE_MODULE)
    assert (module.scopeId, module.nvmlReturn, module.value.uiVal) == (control.SCOPE_MODULE, 0, 812_500)
    assert field(handle, 83, control.SCOPE_MODULE).value.ullVal == 9_500
    assert field(handle, 185, control.SCOPE_GPU).value.uiVal == 60_000
    assert field(handle, 185, 7).nvmlReturn == control.NOT_SUPPORTED


def test_fields_fail_and_change_their_type_one_by_one(gpu: Gpu, handle: Any) -> None:
    gpu.energy_joules = 5
    gpu.field(185, code=control.NO_PERMISSION)
    gpu.field(83, value_type=pynvml.NVML_VALUE_TYPE_DOUBLE)
    gpu.field(186, value_type=pynvml.NVML_VALUE_TYPE_SIGNED_LONG_LONG, scope=control.SCOPE_GPU)
    power, energy, instant = pynvml.nvmlDeviceGetFieldValues(handle, [185, 83, 186])
    assert power.nvmlReturn == control.NO_PERMISSION
    assert (energy.nvmlReturn, energy.valueType, energy.value.dVal) == (0, 0, 5000.0)
    assert (instant.nvmlReturn, instant.valueType, instant.value.sllVal) == (0, 4, 60_000)
    gpu.field(185)
    assert field(handle, 185).nvmlReturn == 0


# --- use ---------------------------------------------------------------------------------------------------------


def test_utilisation_and_memory(gpu: Gpu, handle: Any) -> None:
    gpu.util_percent, gpu.memory_util_percent, gpu.memory_used_bytes = 97, 41, 70 * GIB
    rates = pynvml.nvmlDeviceGetUtilizationRates(handle)
    assert (rates.gpu, rates.memory) == (97, 41)
    old = pynvml.nvmlDeviceGetMemoryInfo(handle)
    new = pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
    reserved = 512 << 20
    assert (old.total, old.used, old.free) == (80 * GIB, 70 * GIB + reserved, 10 * GIB - reserved)
    assert (new.total, new.used, new.free, new.reserved) == (80 * GIB, 70 * GIB, 10 * GIB - reserved, reserved)
    assert code_of(pynvml.nvmlDeviceGetMemoryInfo, handle, 1) == pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH


def test_running_processes_by_kind(gpu: Gpu, handle: Any) -> None:
    assert pynvml.nvmlDeviceGetComputeRunningProcesses(handle) == []
    gpu.process(10, memory_bytes=4 * GIB)
    gpu.process(11, memory_bytes=None)
    gpu.process(12, memory_bytes=1, kind="graphics")
    gpu.process(13, memory_bytes=2, kind="mps")
    gpu.process(10, memory_bytes=5 * GIB)
    lists = {
        "compute": (pynvml.nvmlDeviceGetComputeRunningProcesses_v2, pynvml.nvmlDeviceGetComputeRunningProcesses_v3),
        "graphics": (pynvml.nvmlDeviceGetGraphicsRunningProcesses_v2, pynvml.nvmlDeviceGetGraphicsRunningProcesses_v3),
        "mps": (
            pynvml.nvmlDeviceGetMPSComputeRunningProcesses_v2,
            pynvml.nvmlDeviceGetMPSComputeRunningProcesses_v3,
        ),
    }
    expected = {"compute": [(10, 5 * GIB), (11, None)], "graphics": [(12, 1)], "mps": [(13, 2)]}
    for kind, calls in lists.items():
        for call in calls:
            assert [(p.pid, p.usedGpuMemory) for p in call(handle)] == expected[kind]
    assert pynvml.nvmlDeviceGetComputeRunningProcesses(handle)[0].gpuInstanceId == 0xFFFFFFFF
    gpu.end(10)
    assert [p.pid for p in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)] == [11]


def test_many_processes(gpu: Gpu, handle: Any) -> None:
    for pid in range(1, 33):
        gpu.process(pid)
    assert [p.pid for p in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)] == list(range(1, 33))
    with pytest.raises(ValueError, match="32"):
        gpu.process(33)


def test_early_r535_drivers_scramble_the_list(driver: FakeDriver, gpu: Gpu, handle: Any) -> None:
    for pid in (10, 11, 12):
        gpu.process(pid, memory_bytes=pid * GIB)
    driver.wide_processes()
    found = [p.pid for p in pynvml.nvmlDeviceGetComputeRunningProcesses_v3(handle)]
    assert found[0] == 10
    assert found != [10, 11, 12]
    assert [p.pid for p in pynvml.nvmlDeviceGetComputeRunningProcesses_v2(handle)] == [10, 11, 12]


def test_an_idle_card_has_no_samples(gpu: Gpu, handle: Any) -> None:
    assert code_of(pynvml.nvmlDeviceGetProcessUtilization, handle, 0) == control.NOT_FOUND
    assert code_of(pynvml.nvmlDeviceGetProcessesUtilizationInfo, handle, 0) == control.NOT_FOUND


@pytest.mark.parametrize("call", ["nvmlDeviceGetProcessUtilization", "nvmlDeviceGetProcessesUtilizationInfo"])
def test_samples_newer_than_the_time_handed_in(gpu: Gpu, handle: Any, call: str) -> None:
    """With 0 it is the mean of the whole buffer and reports processes long gone."""

    def read(since: int) -> list[tuple[int, int, int, int]]:
        found = getattr(pynvml, call)(handle, since)
        return [(sample.pid, sample.smUtil, sample.memUtil, sample.timeStamp) for sample in found]

    gpu.sample(7, 20, memory_util=10, timestamp_us=1000)
    gpu.sample(7, 40, memory_util=30, timestamp_us=2000)
    gpu.sample(8, 99, timestamp_us=1500)
    assert read(0) == [(7, 30, 20, 2000), (8, 99, 0, 1500)]
    assert read(1000) == [(7, 40, 30, 2000), (8, 99, 0, 1500)]
    assert read(1500) == [(7, 40, 30, 2000)]
    assert code_of(getattr(pynvml, call), handle, 2000) == control.NOT_FOUND
    gpu.every_sample()
    assert read(0) == [(7, 20, 10, 1000), (7, 40, 30, 2000), (8, 99, 0, 1500)]
    gpu.clear_samples()
    assert code_of(getattr(pynvml, call), handle, 0) == control.NOT_FOUND


def test_samples_of_all_engines_and_garbage(gpu: Gpu, handle: Any) -> None:
    gpu.sample(7, 0xFFFFFFF0, encoder_util=3, decoder_util=4)
    old = pynvml.nvmlDeviceGetProcessUtilization(handle, 0)[0]
    new = pynvml.nvmlDeviceGetProcessesUtilizationInfo(handle, 0)[0]
    for sample in (old, new):
        assert (sample.smUtil, sample.encUtil, sample.decUtil) == (0xFFFFFFF0, 3, 4)


def test_a_process_with_use_is_sampled_now_and_later_each_time(gpu: Gpu, handle: Any) -> None:
    gpu.process(7, sm_util=50, memory_bytes=GIB)
    first = pynvml.nvmlDeviceGetProcessUtilization(handle, 0)[0]
    assert (first.pid, first.smUtil) == (7, 50)
    assert abs(first.timeStamp / 1e6 - time.time()) < 60
    gpu.process(7, sm_util=60, memory_bytes=GIB)
    (second,) = pynvml.nvmlDeviceGetProcessUtilization(handle, first.timeStamp)
    assert (second.smUtil, second.timeStamp > first.timeStamp) == (60, True)


def test_the_buffer_forgets_the_oldest_samples(gpu: Gpu, handle: Any) -> None:
    for at in range(1, 301):
        gpu.sample(at, 1, timestamp_us=at)
    found = [sample.pid for sample in pynvml.nvmlDeviceGetProcessUtilization(handle, 0)]
    assert found == list(range(45, 301))


# --- clocks and heat ---------------------------------------------------------------------------------------------


def test_clocks_and_temperature(gpu: Gpu, handle: Any) -> None:
    gpu.temperature_celsius, gpu.performance_state = 64, 2
    gpu.sm_clock_hertz, gpu.memory_clock_hertz = 1.98e9, 2.619e9
    assert pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU) == 64
    assert pynvml.nvmlDeviceGetTemperatureV(handle, pynvml.NVML_TEMPERATURE_GPU) == 64
    assert pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM) == 1980
    assert pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM) == 2619
    assert gpu.sm_clock_hertz == pytest.approx(1.98e9)
    assert code_of(pynvml.nvmlDeviceGetClockInfo, handle, 4) == pynvml.NVML_ERROR_INVALID_ARGUMENT
    assert pynvml.nvmlDeviceGetPerformanceState(handle) == 2


def test_reasons_for_lowered_clocks(gpu: Gpu, handle: Any) -> None:
    gpu.throttle(["sw_power_cap", "hw_power_brake"], sw_power_cap=1.5, hw_thermal=2)
    gpu.throttle(["sw_power_cap", "hw_power_brake"], sw_power_cap=1, sw_thermal=0.25, hw_power_brake=4)
    assert pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle) == 0x84
    assert pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle) == 0x84
    values = pynvml.nvmlDeviceGetFieldValues(handle, [74, 269, 270, 271])
    assert [value.value.ullVal for value in values] == [2_500_000_000, 250_000_000, 2_000_000_000, 4_000_000_000]
    gpu.throttle()
    assert pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle) == 0
    with pytest.raises(ValueError, match="heat"):
        gpu.throttle(heat=1)


# --- slices ------------------------------------------------------------------------------------------------------


def test_a_card_without_slices(gpu: Gpu, handle: Any) -> None:
    assert pynvml.nvmlDeviceGetMigMode(handle) == [0, 0]
    assert pynvml.nvmlDeviceGetMaxMigDeviceCount(handle) == 7
    assert not pynvml.nvmlDeviceIsMigDeviceHandle(handle).value
    assert code_of(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, 0) == control.NOT_SUPPORTED
    for call in (
        pynvml.nvmlDeviceGetGpuInstanceId,
        pynvml.nvmlDeviceGetComputeInstanceId,
        pynvml.nvmlDeviceGetAttributes,
    ):
        assert code_of(call, handle) == control.NOT_SUPPORTED
    assert code_of(pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle, handle) == pynvml.NVML_ERROR_INVALID_ARGUMENT


def test_a_card_that_cannot_be_cut(driver: FakeDriver) -> None:
    driver.add_gpu("Tesla V100", architecture=control.VOLTA)
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    assert code_of(pynvml.nvmlDeviceGetMigMode, handle) == control.NOT_SUPPORTED
    assert pynvml.nvmlDeviceGetMaxMigDeviceCount(handle) == 0


def test_slices(driver: FakeDriver) -> None:
    gpu = driver.add_gpu("NVIDIA H100", mig=["3g.40gb", Mig("1g.10gb", uuid="MIG-mine", gpu_instance=9, sm_count=14)])
    large, small = gpu.mig
    gpu.energy_joules, gpu.util_percent = 7, 80
    large.process(70, memory_bytes=GIB)
    small.process(71, memory_bytes=2 * GIB, kind="mps")
    small.process(70, memory_bytes=3 * GIB)
    small.memory_used_bytes = 5 * GIB
    parent = pynvml.nvmlDeviceGetHandleByIndex(0)
    assert pynvml.nvmlDeviceGetMigMode(parent) == [1, 1]
    first, second = (pynvml.nvmlDeviceGetMigDeviceHandleByIndex(parent, index) for index in range(2))
    assert code_of(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, parent, 2) == control.NOT_FOUND
    assert code_of(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, parent, 7) == pynvml.NVML_ERROR_INVALID_ARGUMENT
    assert pynvml.nvmlDeviceIsMigDeviceHandle(second).value
    assert pynvml.nvmlDeviceGetName(first) == "NVIDIA H100 MIG 3g.40gb"
    assert pynvml.nvmlDeviceGetUUID(first) == large.uuid
    assert pynvml.nvmlDeviceGetUUID(second) == small.uuid == "MIG-mine"
    assert pynvml.nvmlDeviceGetIndex(pynvml.nvmlDeviceGetHandleByUUID(b"MIG-mine")) == 1
    assert pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(second)) == gpu.uuid
    assert pynvml.nvmlDeviceGetGpuInstanceId(second) == small.gpu_instance == 9
    assert pynvml.nvmlDeviceGetComputeInstanceId(second) == 0
    large_is, small_is = (pynvml.nvmlDeviceGetAttributes(handle) for handle in (first, second))
    assert (large_is.multiprocessorCount, large_is.gpuInstanceSliceCount, large_is.memorySizeMB) == (48, 3, 40 << 10)
    assert (small_is.multiprocessorCount, small_is.computeInstanceSliceCount) == (14, 1)
    memory = pynvml.nvmlDeviceGetMemoryInfo(second)
    assert (memory.total, memory.used) == (10 * GIB, 5 * GIB)

    running = pynvml.nvmlDeviceGetComputeRunningProcesses
    assert [(p.pid, p.usedGpuMemory) for p in running(second)] == [(70, 3 * GIB)]
    assert [(p.pid, p.gpuInstanceId, p.computeInstanceId) for p in running(parent)] == [(70, 1, 0), (70, 9, 0)]
    assert [p.pid for p in pynvml.nvmlDeviceGetMPSComputeRunningProcesses(second)] == [71]
    assert [p.pid for p in running(first)] == [70]

    assert pynvml.nvmlDeviceGetTotalEnergyConsumption(parent) == 7000
    for call in (
        pynvml.nvmlDeviceGetTotalEnergyConsumption,
        pynvml.nvmlDeviceGetPowerUsage,
        pynvml.nvmlDeviceGetUtilizationRates,
    ):
        assert code_of(call, first) == control.NOT_SUPPORTED
    gpu.sample(70, 50)
    assert code_of(pynvml.nvmlDeviceGetUtilizationRates, parent) == control.NOT_SUPPORTED
    assert code_of(pynvml.nvmlDeviceGetProcessUtilization, parent, 0) == control.NOT_SUPPORTED
    assert code_of(pynvml.nvmlDeviceGetProcessesUtilizationInfo, parent, 0) == control.NOT_SUPPORTED

    small.remove()
    assert code_of(pynvml.nvmlDeviceGetUUID, second) == pynvml.NVML_ERROR_INVALID_ARGUMENT
    assert [p.pid for p in running(parent)] == [70]
    gpu.set_mig([])
    assert pynvml.nvmlDeviceGetMigMode(parent) == [0, 0]
    assert running(parent) == []


def test_seven_slices_of_thirty_two_processes(driver: FakeDriver) -> None:
    gpu = driver.add_gpu(mig=["1g.10gb"] * 7)
    for place, mig in enumerate(gpu.mig):
        for n in range(32):
            mig.process(1000 * place + n + 1)
    parent = pynvml.nvmlDeviceGetHandleByIndex(0)
    assert len(pynvml.nvmlDeviceGetComputeRunningProcesses(parent)) == 224
    last = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(parent, 6)
    assert {p.pid for p in pynvml.nvmlDeviceGetComputeRunningProcesses(last)} == {6001 + n for n in range(32)}
    with pytest.raises(ValueError, match="7"):
        gpu.set_mig(["1g.10gb"] * 8)


# --- performance metrics -----------------------------------------------------------------------------------------


def metrics(first: Any, second: Any, *ids: int) -> list[tuple[int, float]]:
    asked = pynvml.c_nvmlGpmMetricsGet_t()
    asked.version, asked.numMetrics = pynvml.NVML_GPM_METRICS_GET_VERSION, len(ids)
    asked.sample1, asked.sample2 = first, second
    for place, metric in enumerate(ids):
        asked.metrics[place].metricId = metric
    asked.metrics[len(ids)].nvmlReturn = 4711
    pynvml.nvmlGpmMetricsGet(asked)
    assert asked.metrics[len(ids)].nvmlReturn == 4711
    return [(asked.metrics[place].nvmlReturn, asked.metrics[place].value) for place in range(len(ids))]


def test_metrics_of_a_card(gpu: Gpu, handle: Any) -> None:
    assert pynvml.nvmlGpmQueryDeviceSupport(handle).isSupportedDevice == 1
    gpu.gpm(control.GPM_SM_UTIL, 61.5)
    gpu.gpm(control.GPM_DRAM_BW_UTIL, 33.25)
    gpu.gpm(control.GPM_ANY_TENSOR_UTIL, None)
    first, second = pynvml.nvmlGpmSampleAlloc(), pynvml.nvmlGpmSampleAlloc()
    pynvml.nvmlGpmSampleGet(handle, first)
    assert code_of(metrics, first, second, 2) == pynvml.NVML_ERROR_INVALID_ARGUMENT
    pynvml.nvmlGpmSampleGet(handle, second)
    assert code_of(metrics, second, first, 2) == pynvml.NVML_ERROR_INVALID_ARGUMENT
    assert metrics(first, second, 2, 5, 10) == [(0, 61.5), (control.NOT_SUPPORTED, 0.0), (0, 33.25)]
    gpu.gpm(control.GPM_SM_UTIL, 5)
    pynvml.nvmlGpmSampleGet(handle, first)
    assert metrics(second, first, 2) == [(0, 5.0)]
    pynvml.nvmlGpmSampleFree(first)
    pynvml.nvmlGpmSampleFree(second)


def test_metrics_of_a_slice(driver: FakeDriver) -> None:
    gpu = driver.add_gpu(mig=["3g.40gb", "1g.10gb"])
    for mig, percent in zip(gpu.mig, (80, 25), strict=True):
        mig.gpm(control.GPM_SM_UTIL, percent)
    parent = pynvml.nvmlDeviceGetHandleByIndex(0)
    samples = [pynvml.nvmlGpmSampleAlloc() for _ in range(4)]
    for place, sample in enumerate(samples):
        pynvml.nvmlGpmMigSampleGet(parent, gpu.mig[place // 2].gpu_instance, sample)
    assert metrics(samples[0], samples[1], 2) == [(0, 80.0)]
    assert metrics(samples[2], samples[3], 2) == [(0, 25.0)]
    assert code_of(metrics, samples[1], samples[2], 2) == pynvml.NVML_ERROR_INVALID_ARGUMENT
    assert code_of(pynvml.nvmlGpmMigSampleGet, parent, 6, samples[0]) == control.NOT_FOUND
    for sample in samples:
        pynvml.nvmlGpmSampleFree(sample)


def test_before_hopper_there_are_no_metrics(driver: FakeDriver) -> None:
    driver.add_gpu(architecture=control.AMPERE)
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    assert pynvml.nvmlGpmQueryDeviceSupport(handle).isSupportedDevice == 0
    sample = pynvml.nvmlGpmSampleAlloc()
    assert code_of(pynvml.nvmlGpmSampleGet, handle, sample) == control.NOT_SUPPORTED
    pynvml.nvmlGpmSampleFree(sample)


def test_one_process_may_go_from_driver_to_driver(
    driver: FakeDriver, library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when a reader forgot to shut down."""
    driver.add_gpu(uuid="GPU-old")
    with FakeDriver(library, tmp_path) as other:
        other.load(monkeypatch)
        other.add_gpu(uuid="GPU-new")
        pynvml.nvmlInit()
        assert pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(0)) == "GPU-new"
        assert other.calls("nvmlDeviceGetUUID") == 1
        assert driver.calls("nvmlDeviceGetUUID") == 0


def test_waiting_for_events_times_out(handle: Any) -> None:
    events = pynvml.nvmlEventSetCreate()
    pynvml.nvmlDeviceRegisterEvents(handle, pynvml.nvmlEventTypeXidCriticalError, events)
    before = time.monotonic()
    assert code_of(pynvml.nvmlEventSetWait_v2, events, 20) == control.TIMEOUT
    assert time.monotonic() - before >= 0.02
    pynvml.nvmlEventSetFree(events)


# --- scripts -----------------------------------------------------------------------------------------------------


def test_a_function_fails_for_all_or_for_one_card(driver: FakeDriver, gpu: Gpu, handle: Any) -> None:
    other = driver.add_gpu()
    second = pynvml.nvmlDeviceGetHandleByIndex(1)
    driver.fail("nvmlDeviceGetPowerUsage", code=control.UNKNOWN, gpu=other)
    assert pynvml.nvmlDeviceGetPowerUsage(handle) == 60_000
    assert code_of(pynvml.nvmlDeviceGetPowerUsage, second) == control.UNKNOWN
    driver.fail("nvmlDeviceGetPowerUsage", code=control.NO_PERMISSION)
    assert code_of(pynvml.nvmlDeviceGetPowerUsage, handle) == control.NO_PERMISSION
    assert code_of(pynvml.nvmlDeviceGetPowerUsage, second) == control.UNKNOWN
    driver.mend("nvmlDeviceGetPowerUsage")
    driver.mend("nvmlDeviceGetPowerUsage", gpu=other)
    assert [pynvml.nvmlDeviceGetPowerUsage(h) for h in (handle, second)] == [60_000, 60_000]
    driver.fail("nvmlDeviceGetHandleByIndex_v2", code=control.UNKNOWN, gpu=other)
    assert code_of(pynvml.nvmlDeviceGetHandleByIndex, 1) == control.UNKNOWN


def test_a_function_fails_a_number_of_times(driver: FakeDriver, handle: Any) -> None:
    driver.fail("nvmlDeviceGetTotalEnergyConsumption", code=control.TIMEOUT, times=2)
    for _ in range(2):
        assert code_of(pynvml.nvmlDeviceGetTotalEnergyConsumption, handle) == control.TIMEOUT
    assert pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) == 0


def test_calls_are_counted(driver: FakeDriver, gpu: Gpu, handle: Any) -> None:
    other = driver.add_gpu()
    driver.reset_calls()
    for _ in range(3):
        pynvml.nvmlDeviceGetPowerUsage(handle)
    gpu.process(5)
    pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
    assert driver.calls("nvmlDeviceGetPowerUsage") == driver.calls("nvmlDeviceGetPowerUsage", gpu) == 3
    assert driver.calls("nvmlDeviceGetPowerUsage", other) == 0
    assert driver.all_calls() == {"nvmlDeviceGetPowerUsage": 3, "nvmlDeviceGetComputeRunningProcesses_v3": 2}


def test_a_delay_is_taken_in_the_driver(driver: FakeDriver, handle: Any) -> None:
    driver.delay("nvmlDeviceGetPowerUsage", seconds=0.03)
    before = time.monotonic()
    pynvml.nvmlDeviceGetPowerUsage(handle)
    assert time.monotonic() - before >= 0.03
    driver.delay("nvmlDeviceGetPowerUsage", seconds=3600)
    driver.mend("nvmlDeviceGetPowerUsage")
    pynvml.nvmlDeviceGetPowerUsage(handle)  # returns at all


def test_a_hanging_call_leaves_other_threads_alone_and_ends_on_release(
    driver: FakeDriver, gpu: Gpu, handle: Any
) -> None:
    answers: list[int] = []
    driver.hang("nvmlDeviceGetTotalEnergyConsumption", gpu)
    thread = threading.Thread(target=lambda: answers.append(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)))
    thread.start()
    wait_for(lambda: driver.hanging("nvmlDeviceGetTotalEnergyConsumption") == 1)
    assert pynvml.nvmlDeviceGetPowerUsage(handle) == 60_000
    assert answers == []
    gpu.energy_joules = 3
    driver.release("nvmlDeviceGetTotalEnergyConsumption")
    thread.join(patience())
    assert answers == [3000]
    assert driver.hanging("nvmlDeviceGetTotalEnergyConsumption") == 0


# --- another process ---------------------------------------------------------------------------------------------

READER = """
import sys, pynvml
pynvml.nvmlInit()
handle = pynvml.nvmlDeviceGetHandleByIndex(0)
for line in sys.stdin:
    try:
        print(getattr(pynvml, line.strip())(handle), flush=True)
    except pynvml.NVMLError as error:
        print(type(error).__name__, flush=True)
"""


@pytest.fixture
def reader(library: Path, tmp_path: Path) -> Iterator[tuple[FakeDriver, subprocess.Popen[str]]]:
    with FakeDriver(library, tmp_path) as fake:
        fake.add_gpu()
        with subprocess.Popen(
            [sys.executable, "-c", READER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | fake.environment(),
        ) as process:
            yield fake, process
            process.kill()
    assert not fake.path.exists()


def ask(process: subprocess.Popen[str], function: str) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{function}\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def test_a_running_process_sees_every_change(reader: tuple[FakeDriver, subprocess.Popen[str]]) -> None:
    """The environment alone makes the bindings of any process load the fake."""
    driver, process = reader
    (gpu,) = driver.gpus
    assert ask(process, "nvmlDeviceGetTotalEnergyConsumption") == "0"
    gpu.energy_joules += 2.5
    assert ask(process, "nvmlDeviceGetTotalEnergyConsumption") == "2500"
    driver.fail("nvmlDeviceGetTotalEnergyConsumption", code=control.NOT_SUPPORTED)
    assert ask(process, "nvmlDeviceGetTotalEnergyConsumption") == "NVMLError_NotSupported"
    gpu.lose()
    assert ask(process, "nvmlDeviceGetPowerUsage") == "NVMLError_GpuIsLost"
    assert driver.calls("nvmlDeviceGetTotalEnergyConsumption") == 3
    driver.close()
    gpu.lose(False)
    assert ask(process, "nvmlDeviceGetPowerUsage") == "60000"


def test_a_hanging_process_can_be_killed(reader: tuple[FakeDriver, subprocess.Popen[str]]) -> None:
    driver, process = reader
    assert process.stdin is not None
    driver.hang("nvmlDeviceGetPowerUsage")
    process.stdin.write("nvmlDeviceGetPowerUsage\n")
    process.stdin.flush()
    wait_for(lambda: driver.hanging("nvmlDeviceGetPowerUsage") == 1)
    process.kill()
    assert process.wait(patience()) == -9


def test_without_a_state_file_there_is_no_driver(library: Path) -> None:
    environment = os.environ | {"LD_LIBRARY_PATH": str(library.parent), control.STATE_VARIABLE: "/nonexistent"}
    code = "import pynvml\ntry: pynvml.nvmlInit()\nexcept pynvml.NVMLError as e: print(e.value)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=patience()
    )
    assert done.stdout.strip() == str(control.DRIVER_NOT_LOADED)
    assert "/nonexistent" in done.stderr
