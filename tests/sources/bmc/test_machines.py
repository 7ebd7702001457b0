"""Servers of several makers over ten minutes of varied load: ``other`` is what the machine uses beyond its parts."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from exporter.snapshot import Snapshot
from tests.sources.bmc import boards
from tests.sources.bmc.boards import ENVIRONMENT, ROOT
from tests.sources.bmc.stepped import SteppedBmc
from tests.support.mock_bmc import MockBmc, Resources, login_file
from tests.support.written_node import WrittenNode

SECONDS = 5.0
WARM_UP, MEASURED = 60, 120
"""Ticks: five minutes, then ten."""


class Truth:
    """What the machine really used: CPU and memory, cards, and the rest (fans, disks, loss of the supplies)."""

    def __init__(self) -> None:
        self.now = 0.0
        self.watts = 300.0
        self.joules = self.rest = 0.0

    def step(self, seconds: float, parts: float) -> None:
        rest = 150.0 + 0.1 * parts
        self.now += seconds
        self.watts = parts + rest
        self.joules += self.watts * seconds
        self.rest += rest * seconds


class Board(NamedTuple):
    """A BMC, what it shows of the truth, and which of its meters is the node's."""

    make: Callable[[], Resources]
    show: Callable[[Resources, Truth], None]
    node: str


def _environment(watts: bool = True, joules: str = "") -> Callable[[Resources, Truth], None]:
    def show(resources: Resources, truth: Truth) -> None:
        resource = resources[ENVIRONMENT]
        if watts:
            resource["PowerWatts"] = {"Reading": truth.watts}
        if joules == "EnergykWh":
            resource[joules] = {"Reading": round(4000.001 + truth.joules / 3.6e6, 3)}
        elif joules:
            resource[joules] = {"Reading": round(truth.joules, 1)}

    return show


def _dell(resources: Resources, truth: Truth) -> None:
    at = f"{ROOT}/Chassis/System.Embedded.1"
    resources[f"{at}/EnvironmentMetrics"]["PowerWatts"]["Reading"] = round(truth.watts)
    resources[f"{at}/EnvironmentMetrics"]["EnergykWh"]["LifetimeReading"] = 6491 + int(truth.joules / 3.6e6)
    resources[f"{at}/Power"]["PowerControl"][0]["PowerConsumedWatts"] = round(truth.watts)


def _power_control(resources: Resources, truth: Truth) -> None:
    value: Any = resources[f"{ROOT}/Chassis/1/Power"]["PowerControl"][0]
    value["PowerConsumedWatts"] = str(round(truth.watts))


def _supplies(chassis: str, count: int) -> Callable[[Resources, Truth], None]:
    def show(resources: Resources, truth: Truth) -> None:
        at = f"{ROOT}/Chassis/{chassis}/PowerSubsystem/PowerSupplies/"
        metrics = [path for path in resources if path.startswith(at) and path.endswith("/Metrics")][:count]
        for path in metrics:
            kwh = round(52_000.001 + truth.joules / count / 3.6e6, 3)
            resources[path] = {"InputPowerWatts": {"Reading": truth.watts / count}, "EnergykWh": {"Reading": kwh}}

    return show


def _hgx(resources: Resources, truth: Truth) -> None:
    _supplies("DGX", 6)(resources, truth)
    for path, resource in resources.items():
        if path.endswith("/EnvironmentMetrics") and "HGX" in path:
            resource["PowerWatts"] = {"Reading": truth.watts / 10}
            resource["EnergyJoules"] = {"Reading": 9e8 + truth.joules / 10}
    resources[f"{ROOT}/Chassis/DGX/EnvironmentMetrics"]["PowerWatts"] = {"Reading": truth.watts}


def _dgx(resources: Resources, truth: Truth) -> None:
    _hgx(resources, truth)
    resources[f"{ROOT}/Chassis/DGX/EnvironmentMetrics"]["EnergyJoules"] = {"Reading": round(truth.joules, 1)}


BOARDS = {
    "joules of the chassis": Board(lambda: boards.energy(joules=0.0), _environment(joules="EnergyJoules"), "bmc-1"),
    "kWh with three decimals": Board(lambda: boards.energy(kwh=1.001), _environment(joules="EnergykWh"), "bmc-1"),
    "supplies with energy": Board(boards.supplies_only, _supplies("1", 2), "bmc-supplies"),
    "dell": Board(boards.dell, _dell, "bmc-System.Embedded.1"),
    "hpe": Board(boards.hpe, _power_control, "bmc-power-control"),
    "supermicro": Board(boards.supermicro, _power_control, "bmc-power-control"),
    "hgx": Board(lambda: boards.hgx(4), _hgx, "bmc-supplies"),
    "hgx with joules of the chassis": Board(lambda: boards.hgx(4), _dgx, "bmc-DGX"),
}


@pytest.mark.parametrize("name", BOARDS)
def test_ten_minutes(name: str, tmp_path: Path) -> None:
    """Conservation at each tick (`WrittenNode.play`), ``other`` never falls, and it is the truth within 1 %."""
    board = BOARDS[name]
    credentials = login_file(tmp_path)
    node = WrittenNode(tmp_path / "machine", cpus=16, sockets=2)
    node.zone("intel-rapl:0", "package-0")
    node.zone("intel-rapl:1", "package-1")
    cards = [node.chip(n, "xe", energy1_input=1) for n in range(4 if name.startswith("hgx") else 0)]
    for n, card in enumerate(cards):
        node.text(f"{card}/device/device", f"0x0bd{n}")
        node.joules[f"{card}/energy1_input"] = 1000.0
    truth, resources, began = Truth(), board.make(), []
    others: list[float] = []

    def step(seconds: float) -> None:
        busy = int(truth.now * 7) % 11 > 6
        power = 400.0 if busy else 80.0
        node.uses(seconds, zone0=power, zone1=power / 2)
        for card in cards:
            node.joules[f"{card}/energy1_input"] += (350.0 if busy else 60.0) * seconds
        truth.step(seconds, 1.5 * power + len(cards) * (350.0 if busy else 60.0))
        board.show(resources, truth)

    def watch(snapshot: Snapshot) -> None:
        others.append({row.component: row.joules for row in snapshot.energy.nodes}.get("other", 0.0))
        began.append(truth.rest)

    board.show(resources, truth)
    with MockBmc(resources) as bmc:
        bmc.resources = resources
        source = SteppedBmc(bmc, str(credentials), lambda: node.now, 10.0)
        played = node.play(step, WARM_UP + MEASURED, SECONDS, more=[source], watch=watch)
    assert all(after >= before for before, after in pairwise(others))
    counted = others[-1] - others[WARM_UP]
    print(f"other is off by {counted / (began[-1] - began[WARM_UP]) - 1:+.2%}")
    assert counted == pytest.approx(began[-1] - began[WARM_UP], rel=0.01)
    assert played.problem("bmc") == (None, "")
    assert played.device(board.node).device.within is None
    parts = [row.device for row in played.snapshot.energy.devices if row.device.scope == "part"]
    assert all(device.within == board.node for device in parts)
    components = {row.component for row in played.snapshot.energy.nodes}
    assert components == {"cpu", "other", *(("gpu",) if cards else ())}
