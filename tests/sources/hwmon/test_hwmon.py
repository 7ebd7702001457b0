"""hwmon chips read from written sysfs trees: what each kind measures, what includes it, and how it fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.accounting.attribution import platform_choices
from exporter.host import FdBudget, Host
from exporter.records import Device, EnergyReading, PowerReading, Reading, Unavailable
from exporter.sources.hwmon.source import RESCAN_SECONDS, HwmonSource
from tests.support import machine as machines
from tests.support.privileges import drop_privileges, public_folder


class Tree:
    """A sysfs tree with hwmon chips: class links to hwmonN, whose ``device`` links to the device behind it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("sys/devices/system/cpu/online", "0-3\n")
        for cpu in range(4):
            self.write(f"sys/devices/system/cpu/cpu{cpu}/topology/physical_package_id", f"{cpu // 2}\n")

    def write(self, path: str, text: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def chip(self, number: int, name: str, address: str, files: dict[str, object], *, legacy: bool = False) -> Path:
        """Write a chip; ``legacy`` puts its attributes into the device's folder, as old drivers do."""
        device = self.root / f"sys/devices/bus/{address}"
        own = device / f"hwmon/hwmon{number}"
        (own / "power").mkdir(parents=True)
        (own / "device").symlink_to(f"../../../{address}")
        for file, value in {"name": name, **files}.items():
            home = device if legacy or file.startswith("device/") else own
            path = home / file.removeprefix("device/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{value}\n")
        link = self.root / f"sys/class/hwmon/hwmon{number}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(f"../../devices/bus/{address}/hwmon/hwmon{number}")
        return device if legacy else own

    def powercap(self, *names: str) -> None:
        for number, name in enumerate(names):
            self.write(f"sys/class/powercap/intel-rapl:{number}/name", f"{name}\n")

    def host(self, descriptors: int = 64) -> Host:
        return Host(str(self.root / "proc"), str(self.root / "sys"), clock=lambda: 100.0, fds=FdBudget(descriptors))

    def read(self) -> Reading:
        return HwmonSource(self.host()).read(0.0)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def devices(reading: Reading) -> dict[str, Device]:
    found = {meter.device.id: meter.device for meter in reading.meters}
    assert len(found) == len(reading.meters), "device ids are unique"
    return found


def values(reading: Reading) -> dict[str, float]:
    """Joules or watts by device."""
    return {m.device.id: m.joules if isinstance(m, EnergyReading) else m.watts for m in reading.meters}


# --- recorded machines -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["arm-grace", "amd-epyc", "intel-hybrid-laptop"])
def test_recorded_machine_shows_the_joules_it_used(name: str, tmp_path: Path) -> None:
    """Energy by difference, power by trapezoid: both give the machine's true use."""
    machine = machines.load(name, tmp_path / "machine")
    source = HwmonSource(machine.host())
    before = {meter.device.id: meter for meter in source.read(machine.now).meters}
    machine.advance()
    used = {}
    for after in source.read(machine.now).meters:
        earlier = before[after.device.id]
        if isinstance(after, EnergyReading):
            assert isinstance(earlier, EnergyReading)
            used[after.device.id] = after.joules - earlier.joules
        else:
            assert isinstance(earlier, PowerReading)
            used[after.device.id] = (after.watts + earlier.watts) / 2 * (after.at - earlier.at)
    known = {id_: joules for id_, joules in used.items() if id_ in machine.joules}
    assert known
    assert set(used) - set(known) <= {"BAT0-1"}
    assert known == pytest.approx({id_: machine.joules[id_] for id_ in known})


def test_grace_meters_nest(tmp_path: Path) -> None:
    """Module ⊃ Grace ⊃ CPU and SysIO rails: the module includes GPU and HBM, so nothing below it is added to it."""
    machine = machines.load("arm-grace", tmp_path / "machine")
    found = devices(HwmonSource(machine.host()).read(machine.now))
    assert {id_: (d.component, d.within, d.socket, d.capacity) for id_, d in found.items()} == {
        "module-0": ("platform", None, 0, 72.0),
        "grace-0": ("cpu", "module-0", 0, 72.0),
        "grace-cpu-0": ("cpu", "grace-0", 0, 72.0),
        "grace-sysio-0": ("cpu", "grace-0", 0, 72.0),
    }
    assert all(d.method == "power_integrated" and d.name.endswith("Power Socket 0") for d in found.values())


# --- ACPI power meters -----------------------------------------------------------------------------------


def test_acpi_meter_without_label_is_the_platform(tree: Tree) -> None:
    """Servers leave power1_oem_info empty; old kernels keep the attributes in device/."""
    tree.chip(0, "power_meter", "ACPI000D:00", {"power1_average": 312_000_000, "power1_oem_info": ""}, legacy=True)
    reading = tree.read()
    assert values(reading) == {"platform": 312.0}
    device = devices(reading)["platform"]
    assert (device.component, device.within, device.capacity) == ("platform", None, 4.0)


def test_second_platform_meter_is_within_the_first(tree: Tree) -> None:
    """Fault 16: two meters that both claim the platform may overlap, so only one counts."""
    for number in (0, 1):
        tree.chip(number, "power_meter", f"ACPI000D:0{number}", {"power1_average": 300_000_000})
    assert {id_: d.within for id_, d in devices(tree.read()).items()} == {
        "platform@ACPI000D:00": None,
        "platform@ACPI000D:01": "platform@ACPI000D:00",
    }


def test_modules_of_two_sockets_stand_beside_each_other(tree: Tree) -> None:
    """Unlike two meters of the whole platform: each has a socket of its own, so both count."""
    for number in range(2):
        label = f"Module Power Socket {number}"
        files: dict[str, object] = {"power1_average": 500_000_000, "power1_oem_info": label}
        tree.chip(number, "power_meter", f"ACPI000D:0{number}", files)
    found = devices(tree.read())
    assert {id_: (d.component, d.within, d.socket) for id_, d in found.items()} == {
        "module-0": ("platform", None, 0),
        "module-1": ("platform", None, 1),
    }
    assert [{device.id for device in choice} for choice in platform_choices(found.values())] == [set(found)]


def test_grace_without_module_meter_stands_alone(tree: Tree) -> None:
    """Grace CPU superchips have no module meter; sockets map to package numbers in order."""
    for number in (0, 1):
        label = f"Grace Power Socket {number}"
        files: dict[str, object] = {"power1_average": 1_000_000 * (number + 1), "power1_oem_info": label}
        tree.chip(number, "power_meter", f"ACPI000D:0{number}", files)
    found = devices(tree.read())
    assert {id_: (d.within, d.socket, d.capacity) for id_, d in found.items()} == {
        "grace-0": (None, 0, 2.0),
        "grace-1": (None, 1, 2.0),
    }


def test_sockets_are_counted_in_order_of_package_ids(tree: Tree) -> None:
    """Arm firmware may number packages 36 and 3180; socket 1 is then the second of them."""
    for cpu, package in enumerate([36, 36, 36, 3180]):
        tree.write(f"sys/devices/system/cpu/cpu{cpu}/topology/physical_package_id", f"{package}\n")
    tree.chip(0, "power_meter", "ACPI000D:00", {"power1_average": 1, "power1_oem_info": "Grace Power Socket 1"})
    device = devices(tree.read())["grace-1"]
    assert (device.socket, device.capacity) == (3180, 1.0)


def test_acpi_meter_with_unknown_power_is_no_reading(tree: Tree) -> None:
    """Fault 13: _PMM's 0xFFFFFFFF milliwatts means unknown, not 4.3 MW."""
    tree.chip(0, "power_meter", "ACPI000D:00", {"power1_average": 4_294_967_295_000})
    with pytest.raises(Unavailable) as caught:
        tree.read()
    assert caught.value.reason == "implausible"


# --- GPUs ------------------------------------------------------------------------------------------------

AMDGPU: dict[str, object] = {
    "power1_average": 205_000_000,
    "power1_input": 999_000_000,
    "power1_cap": 300_000_000,
    "temp1_input": 64_000,
    "freq1_input": 1_700_000_000,
    "device/gpu_busy_percent": 87,
    "device/mem_info_vram_used": 17_179_869_184,
    "device/mem_info_vram_total": 68_702_699_520,
    "device/product_name": "AMD Instinct MI210",
    "device/power/runtime_status": "active",
}


def test_amdgpu_power_and_state(tree: Tree) -> None:
    """The average is preferred to the momentary value; the state is in SI base units."""
    tree.chip(3, "amdgpu", "0000:03:00.0", AMDGPU)
    reading = tree.read()
    assert values(reading) == {"amdgpu-0000:03:00.0": 205.0}
    device = devices(reading)["amdgpu-0000:03:00.0"]
    assert (device.component, device.within, device.capacity, device.name) == ("gpu", None, 1.0, "AMD Instinct MI210")
    (gpu,) = reading.gpus
    assert (gpu.uuid, gpu.index, gpu.pci_bus_id) == ("amdgpu-0000:03:00.0", "0", "0000:03:00.0")
    assert gpu.power_limit_watts == 300.0
    assert gpu.temperature_celsius == 64.0
    assert gpu.utilization_ratio == 0.87
    assert (gpu.memory_used_bytes, gpu.memory_total_bytes) == (17_179_869_184, 68_702_699_520)
    assert gpu.clock_hertz == (("graphics", 1_700_000_000),)


def test_amdgpu_momentary_power_where_there_is_no_average(tree: Tree) -> None:
    tree.chip(0, "amdgpu", "0000:03:00.0", {"power1_input": 150_000_000})
    reading = tree.read()
    assert values(reading) == {"amdgpu-0000:03:00.0": 150.0}
    assert reading.gpus[0].utilization_ratio is None
    assert reading.gpus[0].clock_hertz == ()


@pytest.mark.parametrize("driver", ["xe", "i915"])
@pytest.mark.parametrize("first", [0, 7_000_000], ids=["from the first reading", "before it was first read"])
def test_package_stands_for_a_card_whose_own_counter_stays_at_zero(tree: Tree, driver: str, first: int) -> None:
    """Syllo/nvtop#347: the meter is there and measures nothing; what the processes use is the card's."""
    chip = tree.chip(0, driver, "0000:03:00.0", {"energy1_input": 0})
    source = HwmonSource(tree.host())
    found: list[EnergyReading | PowerReading] = []
    for second in range(6):
        (chip / "energy2_input").write_text(f"{first + second * 150_000_000}\n")
        found += source.read(float(second)).meters
    assert {(meter.device.id, meter.device.within) for meter in found} == {(f"{driver}-0000:03:00.0", None)}
    joules = [meter.joules for meter in found if isinstance(meter, EnergyReading)]
    assert joules[-1] - joules[0] == 150.0 * (len(joules) - 1)
    assert len(joules) >= 3


def test_tiles_are_read_where_the_card_measures_nothing(tree: Tree) -> None:
    tree.chip(0, "i915", "0000:03:00.0", {"energy1_input": 0})
    tree.chip(1, "i915_gt0", "0000:03:00.0", {"energy1_input": 5_000_000})
    assert values(tree.read()) == {"i915_gt0-0000:03:00.0": 5.0}


def test_second_die_of_a_card_is_absent_until_it_reads_more_than_zero(tree: Tree) -> None:
    """An MI250's odd die always reads 0 W; a card that once read more may read 0 later."""
    tree.chip(0, "amdgpu", "0000:29:00.0", {"power1_average": 412_000_000})
    odd = tree.chip(1, "amdgpu", "0000:2c:00.0", {"power1_average": 0})
    source = HwmonSource(tree.host())
    assert values(source.read(0.0)) == {"amdgpu-0000:29:00.0": 412.0}
    (odd / "power1_average").write_text("90000000\n")
    assert values(source.read(1.0))["amdgpu-0000:2c:00.0"] == 90.0
    (odd / "power1_average").write_text("0\n")
    assert values(source.read(2.0))["amdgpu-0000:2c:00.0"] == 0.0
    assert values(source.read(RESCAN_SECONDS + 3))["amdgpu-0000:2c:00.0"] == 0.0


@pytest.mark.parametrize(("zones", "within"), [(("package-0",), "package-0"), ((), "node")])
def test_apu_is_within_the_package(tree: Tree, zones: tuple[str, ...], within: str) -> None:
    """Fault 16: an APU's power includes the CPU (kernel: "On APUs this includes the CPU")."""
    tree.powercap(*zones)
    tree.chip(0, "amdgpu", "0000:c4:00.0", {"power1_input": 15_000_000, "in1_label": "vddnb"})
    assert devices(tree.read())["amdgpu-0000:c4:00.0"].within == within


@pytest.mark.parametrize("status", ["suspended", "suspending"])
def test_sleeping_gpu_is_left_asleep(tree: Tree, status: str) -> None:
    """Reading it would wake it: no reading, no problem, no state; it is back when it is awake."""
    chip = tree.chip(0, "amdgpu", "0000:03:00.0", {**AMDGPU, "device/power/runtime_status": status})
    source = HwmonSource(tree.host())
    assert source.read(0.0) == Reading(asleep=("amdgpu-0000:03:00.0",))
    (chip / "device/power/runtime_status").write_text("active\n")
    reading = source.read(1.0)
    assert values(reading) == {"amdgpu-0000:03:00.0": 205.0}
    assert len(reading.gpus) == 1


def test_i915_card_is_one_counter_that_never_wraps(tree: Tree) -> None:
    """The driver accumulates the 32-bit register in 63 bits; a limit of 0 means that none is set."""
    tree.chip(0, "i915", "0000:03:00.0", {"energy1_input": 5_000_000_000_000, "power1_max": 0})
    (meter,) = tree.read().meters
    assert isinstance(meter, EnergyReading)
    assert (meter.device.id, meter.joules, meter.wraps_at) == ("i915-0000:03:00.0", 5_000_000.0, None)
    assert tree.read().gpus[0].power_limit_watts is None


def test_i915_tiles_are_within_the_card(tree: Tree) -> None:
    """Name "i915" is the whole card, "i915_gtN" a tile of it (kernel ABI)."""
    for number, name in enumerate(["i915", "i915_gt0", "i915_gt1"]):
        tree.chip(number, name, "0000:4d:00.0", {"energy1_input": 1_000_000})
        # the three chips share one device, so each overwrites nothing but its own hwmonN
    found = devices(tree.read())
    assert {id_: d.within for id_, d in found.items()} == {
        "i915-0000:4d:00.0": None,
        "i915_gt0-0000:4d:00.0": "i915-0000:4d:00.0",
        "i915_gt1-0000:4d:00.0": "i915-0000:4d:00.0",
    }
    assert len(tree.read().gpus) == 1


def test_xe_package_is_within_its_card(tree: Tree) -> None:
    """xe: energy1 is the card, energy2 the package on it, temp2 the package's temperature."""
    files: dict[str, object] = {
        "energy1_input": 9_000_000,
        "energy2_input": 6_000_000,
        "power1_max": 190_000_000,
        "temp2_input": 51_000,
    }
    tree.chip(0, "xe", "0000:03:00.0", files)
    reading = tree.read()
    assert values(reading) == {"xe-0000:03:00.0": 9.0, "xe-0000:03:00.0-pkg": 6.0}
    assert devices(reading)["xe-0000:03:00.0-pkg"].within == "xe-0000:03:00.0"
    (gpu,) = reading.gpus
    assert (gpu.power_limit_watts, gpu.temperature_celsius) == (190.0, 51.0)


def test_xe_with_only_a_package_counts_it(tree: Tree) -> None:
    """It has the card's id then: the process that uses the card is charged."""
    tree.chip(0, "xe", "0000:03:00.0", {"energy2_input": 6_000_000, "device/device": "0xe20b"})
    device = devices(tree.read())["xe-0000:03:00.0"]
    assert (device.within, device.name) == (None, "Intel GPU 0xe20b")


# --- boards and sockets ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("zones", "within"), [((), None), (("package-0", "package-1"), "package-1")])
def test_amd_energy_counts_sockets_unless_rapl_does(tree: Tree, zones: tuple[str, ...], within: str | None) -> None:
    """Fault 16: the same registers as RAPL's package zones; cores are left out."""
    tree.powercap(*zones)
    files: dict[str, object] = {}
    for number, label in enumerate(["Ecore000", "Ecore001", "Esocket0", "Esocket1"], start=1):
        files |= {f"energy{number}_input": number * 1_000_000, f"energy{number}_label": label}
    tree.chip(0, "amd_energy", "amd_energy.0", files)
    reading = tree.read()
    assert values(reading) == {"socket-0": 3.0, "socket-1": 4.0}
    device = devices(reading)["socket-1"]
    assert (device.component, device.within, device.socket, device.capacity) == ("cpu", within, 1, 2.0)


def _rails(*rails: tuple[str, int, int]) -> dict[str, object]:
    files: dict[str, object] = {}
    for number, (label, millivolts, milliamperes) in enumerate(rails, start=1):
        files |= {f"in{number}_label": label, f"in{number}_input": millivolts, f"curr{number}_input": milliamperes}
    return files


def test_jetson_orin_nx_rails_are_within_vdd_in(tree: Tree) -> None:
    """Volts times amperes; the mixed CPU/GPU rail is shown only."""
    rails = _rails(("VDD_IN", 5000, 1600), ("VDD_CPU_GPU_CV", 5000, 700), ("VDD_SOC", 5000, 300))
    tree.chip(0, "ina3221", "1-0040", {**rails, "in4_input": 3, "in7_label": "sum of shunt voltages"})
    reading = tree.read()
    assert values(reading) == {"ina3221-VDD_IN": 8.0, "ina3221-VDD_CPU_GPU_CV": 3.5, "ina3221-VDD_SOC": 1.5}
    found = devices(reading)
    assert {id_: (d.component, d.within) for id_, d in found.items()} == {
        "ina3221-VDD_IN": ("platform", None),
        "ina3221-VDD_CPU_GPU_CV": ("platform", "ina3221-VDD_IN"),
        "ina3221-VDD_SOC": ("platform", "ina3221-VDD_IN"),
    }


def test_jetson_agx_orin_has_component_rails_and_no_total(tree: Tree) -> None:
    """AGX boards measure no total: component rails count, the rest is only shown; "NC" is not connected."""
    rails = _rails(("VDD_GPU_SOC", 19000, 400), ("VDD_CPU_CV", 19000, 100), ("VIN_SYS_5V0", 5000, 900))
    tree.chip(0, "ina3221", "1-0040", rails)
    tree.chip(1, "ina3221", "1-0041", _rails(("NC", 0, 0), ("VDDQ_VDD2_1V8AO", 5000, 100), ("NC", 0, 0)))
    found = devices(tree.read())
    assert {id_: (d.component, d.within) for id_, d in found.items()} == {
        "ina3221-VDD_GPU_SOC": ("gpu", None),
        "ina3221-VDD_CPU_CV": ("cpu", None),
        "ina3221-VIN_SYS_5V0": ("platform", "node"),
        "ina3221-VDDQ_VDD2_1V8AO": ("platform", "node"),
    }


def test_idle_rail_a_little_below_zero_draws_nothing(tree: Tree) -> None:
    """A shunt amplifier's offset reads as −4 mA: energy must never fall."""
    tree.chip(0, "ina3221", "1-0040", _rails(("VDD_CPU_CV", 5000, -4)))
    assert values(tree.read()) == {"ina3221-VDD_CPU_CV": 0.0}


def test_unknown_chip_is_shown_within_the_node(tree: Tree) -> None:
    """A power supply's or a battery's scope is unknown: never summed; an energy counter beats its gauge."""
    psu: dict[str, object] = {
        "power1_input": 244_000_000,
        "power1_label": "power total",
        "power2_input": 90_000_000,
        "temp1_input": 1,
    }
    tree.chip(0, "corsairpsu", "0003:1B1C:1C08.0001", psu)
    tree.chip(1, "meterchip", "1-0010", {"power1_average": 5_000_000, "power1_input": 6_000_000, "energy2_input": 7})
    reading = tree.read()
    assert values(reading) == {
        "corsairpsu-power_total": 244.0,
        "corsairpsu-2": 90.0,
        "meterchip-1": 5.0,
        "meterchip-2": 7e-6,
    }
    assert {(d.component, d.within) for d in devices(reading).values()} == {("platform", "node")}


def test_identical_chips_are_distinguished_by_their_address(tree: Tree) -> None:
    """Fault 9: hwmonN changes with every boot, the bus address does not."""
    tree.chip(7, "ucd9000", "2-0050", {"power1_input": 1_000_000})
    tree.chip(2, "ucd9000", "2-0051", {"power1_input": 2_000_000})
    assert values(tree.read()) == {"ucd9000-1@2-0050": 1.0, "ucd9000-1@2-0051": 2.0}


# --- what can go wrong -----------------------------------------------------------------------------------


@pytest.mark.parametrize("with_chips", [True, False])
def test_machine_without_power_sensors(tree: Tree, with_chips: bool) -> None:
    """Fault 17: chips for heat and fans only, or none at all."""
    if with_chips:
        tree.chip(0, "coretemp", "coretemp.0", {"temp1_input": 50_000, "in0_input": 900, "fan1_input": 1200})
    with pytest.raises(Unavailable) as caught:
        tree.read()
    assert caught.value.reason == "not_found"
    assert "acpi_power_meter.force_cap_on=y" in caught.value.fix


def test_dangling_link_is_skipped(tree: Tree) -> None:
    """Fault 10."""
    tree.chip(0, "amdgpu", "0000:03:00.0", AMDGPU)
    (tree.root / "sys/class/hwmon/hwmon1").symlink_to("../../devices/bus/nothing/hwmon/hwmon1")
    reading = tree.read()
    assert len(reading.meters) == 1
    assert reading.problems == ()


def test_error_of_one_tick_is_retried(tree: Tree) -> None:
    """Fault 12: firmware that is busy costs one tick of one sensor."""
    tree.chip(0, "amdgpu", "0000:03:00.0", {"power1_average": 1_000_000})
    chip = tree.chip(1, "amdgpu", "0000:04:00.0", {"power1_average": 2_000_000})
    source = HwmonSource(tree.host(descriptors=0))
    source.read(0.0)
    power = chip / "power1_average"
    power.unlink()
    power.symlink_to("/proc/self/mem")
    reading = source.read(1.0)
    assert values(reading) == {"amdgpu-0000:03:00.0": 1.0}
    assert [problem.reason for problem in reading.problems] == ["driver"]
    power.unlink()
    power.write_text("3000000\n")
    assert values(source.read(2.0))["amdgpu-0000:04:00.0"] == 3.0


@pytest.mark.parametrize("text", ["", "N/A\n", "-1\n", "18446744073709551615\n", "1\0\n"])
def test_garbage_is_rejected(tree: Tree, text: str) -> None:
    """Fault 13: no number is invented; the other sensor is not lost."""
    (tree.chip(0, "i915", "0000:03:00.0", {"energy1_input": 0}) / "energy1_input").write_text(text)
    with pytest.raises(Unavailable) as caught:
        tree.read()
    assert caught.value.reason == "implausible"
    tree.chip(1, "i915", "0000:04:00.0", {"energy1_input": 1_000_000})
    reading = tree.read()
    assert values(reading) == {"i915-0000:04:00.0": 1.0}
    assert [problem.reason for problem in reading.problems] == ["implausible"]


def test_garbage_in_a_gpus_state_is_unknown_not_zero(tree: Tree) -> None:
    """Fault 13: a field that cannot be read stays empty and is no problem."""
    tree.chip(0, "amdgpu", "0000:03:00.0", {**AMDGPU, "temp1_input": "N/A", "device/gpu_busy_percent": ""})
    reading = tree.read()
    (gpu,) = reading.gpus
    assert (gpu.temperature_celsius, gpu.utilization_ratio) == (None, None)
    assert gpu.power_limit_watts == 300.0
    assert reading.problems == ()


def test_unreadable_sensor_names_the_reason() -> None:
    """Fault 11: amd_energy's files are root's only (CVE-2020-12912)."""
    with public_folder() as folder:
        tree = Tree(folder)
        chip = tree.chip(0, "amd_energy", "amd_energy.0", {"energy1_input": 1, "energy1_label": "Esocket0"})
        (chip / "energy1_input").chmod(0o000)
        drop_privileges()
        with pytest.raises(Unavailable) as caught:
            tree.read()
    assert caught.value.reason == "permission"
    assert "chmod g+r" in caught.value.fix


def test_card_that_vanishes_and_returns(tree: Tree) -> None:
    """Faults 8 and 9: an unbound card is a problem once; bound again, as another hwmonN, it is the same device."""
    tree.chip(0, "i915", "0000:03:00.0", {"energy1_input": 1_000_000})
    chip = tree.chip(1, "i915", "0000:04:00.0", {"energy1_input": 2_000_000})
    source = HwmonSource(tree.host(descriptors=0))
    assert len(source.read(0.0).meters) == 2
    (chip / "energy1_input").unlink()
    (tree.root / "sys/class/hwmon/hwmon1").unlink()
    assert [problem.reason for problem in source.read(1.0).problems] == ["not_found"]
    assert source.read(2.0).problems == ()
    tree.chip(5, "i915", "0000:04:00.0", {"energy1_input": 4_000_000})
    assert values(source.read(2.0 + RESCAN_SECONDS))["i915-0000:04:00.0"] == 4.0


def test_descriptors_are_given_back(tree: Tree) -> None:
    """Fault 60: neither looking again nor closing leaks a descriptor."""
    tree.chip(0, "amdgpu", "0000:03:00.0", AMDGPU)
    host = tree.host(descriptors=40)
    source = HwmonSource(host)
    source.read(0.0)
    kept = host.fds.left
    for look in range(1, 5):
        source.read(look * RESCAN_SECONDS)
        assert host.fds.left == kept < 40
    source.close()
    assert host.fds.left == 40
