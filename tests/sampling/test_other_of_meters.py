"""Ten minutes of varied load on a written truth: ``other`` is the node less its parts, right to one percent.

The meters of a machine are of different kinds and read at different times; the sampler and the sources are the real
ones.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from exporter.config.loading import load
from exporter.sources.custom.meter import Meter
from tests.support.written_node import AMD, INTEL, Played, WrittenNode

SECONDS = 600


class Load:
    """Watts of each part at a second: jobs that start and stop, and fans that follow them."""

    def __init__(self, seed: int) -> None:
        chance = random.Random(seed)
        self._steps = [(chance.uniform(0, 1), chance.uniform(0, 1)) for _ in range(SECONDS // 7 + 2)]

    def __call__(self, second: int) -> dict[str, float]:
        cpu, gpu = self._steps[0 if second > SECONDS - 60 else second // 7]  # alike at both ends
        parts = {"cpu": 60 + 200 * cpu, "dram": 15 + 25 * cpu, "gpu": 90 + 900 * gpu}
        return parts | {"other": 80 + 0.12 * sum(parts.values()) + 10 * math.sin(second / 40)}


def play(
    node: WrittenNode, load: Load, show: Callable[[dict[str, float], float], None]
) -> tuple[Played, dict[str, float]]:
    """What was published, and the true joules of each part."""
    truth = dict.fromkeys(load(0), 0.0)
    second = [0]

    def step(seconds: float) -> None:
        watts = load(second[0])
        for part, drawn in watts.items():
            truth[part] += drawn * seconds
        show(watts, seconds)
        second[0] += 1

    return node.play(step, SECONDS), truth


@pytest.mark.parametrize("seed", [1, 2])
def test_cray(tmp_path: Path, seed: int) -> None:
    """pm_counters before the regulators, RAPL and the card behind them: their loss is in other, and nothing twice."""
    node = WrittenNode(tmp_path, cpus=16, cpuinfo=AMD)
    node.zone("intel-rapl:0", "package-0")
    base = node.chip(0, "amdgpu", power1_cap=560_000_000)
    node.text(f"{base}/device/unique_id", "00000000000000b0")
    counted = dict.fromkeys(("", "cpu_", "memory_", "accel0_"), 1e6)
    stamp = [0]

    def show(watts: dict[str, float], seconds: float) -> None:
        drawn = {"cpu_": watts["cpu"] * 1.09, "memory_": watts["dram"], "accel0_": watts["gpu"] * 1.07}
        drawn[""] = sum(watts.values()) + 0.09 * watts["cpu"] + 0.07 * watts["gpu"]
        stamp[0] += 1
        for name, value in drawn.items():
            counted[name] += value * seconds
            node.text(f"sys/cray/pm_counters/{name}energy", f"{int(counted[name])} J {stamp[0]} us")
        node.text("sys/cray/pm_counters/freshness", stamp[0])
        node.uses(seconds, zone0=watts["cpu"])
        node.watts[f"{base}/power1_average"] = watts["gpu"]

    show(dict.fromkeys(("cpu", "dram", "gpu", "other"), 0.0), 0.0)
    node.watts[f"{base}/power1_average"] = Load(seed)(0)["gpu"]
    played, truth = play(node, Load(seed), show)
    lost = 0.09 * truth["cpu"] + 0.07 * truth["gpu"]
    joules = played.node_joules
    assert joules["cpu"] == pytest.approx(truth["cpu"], rel=1e-6)
    assert joules["dram"] == pytest.approx(truth["dram"], rel=1e-4)
    assert joules["gpu"] == pytest.approx(truth["gpu"], rel=0.01)
    assert joules["other"] == pytest.approx(truth["other"] + lost, rel=0.01)
    assert sum(joules.values()) == pytest.approx(sum(truth.values()) + lost, rel=1e-4)


def declared(text: str) -> Meter:
    """A meter as the configuration has it."""
    (setting,) = load({"meters": [text]}, {}).meters
    return Meter(**setting._asdict())


@pytest.mark.parametrize("counter", [True, False])
def test_a_plug_of_ones_own(tmp_path: Path, counter: bool) -> None:
    """A counter, or a gauge, at the outlet, read once a second, beside RAPL and a card of one's own."""
    node = WrittenNode(tmp_path, cpus=8, cpuinfo=INTEL.format(""))
    node.zone("intel-rapl:0", "package-0")
    node.zone("intel-rapl:0:0", "dram")
    unit = "J" if counter else "W"
    plug = declared(f"{{name: plug, file: {tmp_path}/plug, unit: {unit}, scope: outlet}}")
    card = declared(f"{{name: card, file: {tmp_path}/card, unit: J, component: gpu}}")
    node.meters = [plug, card]
    joules = {"plug": 1e6, "card": 1e6}

    def show(watts: dict[str, float], seconds: float) -> None:
        joules["plug"] += sum(watts.values()) * seconds
        joules["card"] += watts["gpu"] * seconds
        node.text("plug", repr(joules["plug"] if counter else sum(watts.values())))
        node.text("card", repr(joules["card"]))
        node.uses(seconds, zone0=watts["cpu"], zone0_0=watts["dram"])

    show(Load(3)(0), 0.0)
    played, truth = play(node, Load(3), show)
    published = played.node_joules
    assert published["gpu"] == pytest.approx(truth["gpu"], rel=1e-6)
    assert published["other"] == pytest.approx(truth["other"], rel=0.01)
    assert sum(published.values()) <= sum(truth.values()) * 1.001


def test_an_arm_server(tmp_path: Path) -> None:
    """Altra: gauges of CPU (hwmon) and server (ACPI), an SCMI zone of the same CPU that is only shown."""
    node = WrittenNode(tmp_path, cpus=80, cpuinfo="processor\t: 0\nCPU implementer\t: 0x41\n\n")
    cpu = node.chip(0, "apm_xgene", power1_label="CPU power")
    server = node.chip(1, "power_meter", power1_average_interval=1000)
    node.text("sys/class/powercap/arm-scmi:0/name", "CPU power")

    def show(watts: dict[str, float], seconds: float) -> None:
        node.watts[f"{cpu}/power1_input"] = watts["cpu"]
        node.watts["sys/class/powercap/arm-scmi:0/power_uw"] = watts["cpu"] * 1.08
        node.watts[f"{server}/power1_average"] = sum(watts.values())

    show(Load(4)(0), 0.0)
    played, truth = play(node, Load(4), show)
    rest = truth["dram"] + truth["gpu"] + truth["other"]
    assert played.node_joules["cpu"] == pytest.approx(truth["cpu"], rel=0.01)
    assert played.node_joules["other"] == pytest.approx(rest, rel=0.01)
