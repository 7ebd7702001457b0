"""A GPU that was never seen idle is expected to need what its product needs, never 0 and never what it draws now."""

from __future__ import annotations

import pytest

from exporter.accounting.baseline import Baseline
from exporter.accounting.gpu_idle import expect_idle
from exporter.records import Device, GpuState

H100 = "NVIDIA H100 80GB HBM3"


def card(number: int, name: str = H100, source: str = "nvml") -> Device:
    return Device(f"GPU-{number}", "gpu", source, "measured", name, 1.0)


def seen(*samples: tuple[float, float]) -> Baseline:
    """A baseline that has observed each sample (utilisation, watts) five times."""
    baseline = Baseline()
    for utilization_ratio, watts in samples:
        for _ in range(5):
            baseline.observe(utilization_ratio, watts)
    return baseline


def expected(devices: dict[Device, Baseline], limit_watts: float | None = 700.0) -> dict[str, tuple[float | None, str]]:
    gpus = [GpuState(device.id, str(at), power_limit_watts=limit_watts) for at, device in enumerate(devices)]
    known = {device.id: device for device in devices}
    expect_idle(known, {device.id: baseline for device, baseline in devices.items()}, gpus)
    return {device.id: tuple(baseline.idle) for device, baseline in devices.items()}  # type: ignore[misc]


def test_the_median_of_its_siblings() -> None:
    """A guess 2.7 times too high beside seven cards of the same product whose idle power was learned."""
    devices = {card(number): seen((0.0, 60.0 + number)) for number in range(1, 8)}
    devices[card(0)] = seen((0.7, 500.0))
    assert expected(devices)["GPU-0"] == (64.0, "prior")


def test_its_own_as_soon_as_it_is_learned() -> None:
    own = seen((0.7, 500.0))
    devices = {card(0): own, card(1): seen((0.0, 70.0))}
    assert expected(devices)["GPU-0"] == (70.0, "prior")
    for _ in range(5):
        own.observe(0.0, 62.0)
    assert expected(devices)["GPU-0"] == (62.0, "learned")


@pytest.mark.parametrize("sibling", [card(1, "NVIDIA L4"), card(1, H100, "hwmon"), card(1, "")])
def test_another_product_is_no_sibling(sibling: Device) -> None:
    own = card(0, sibling.name if not sibling.name else H100)
    assert expected({own: seen((1.0, 690.0)), sibling: seen((0.0, 16.0))})["GPU-0"] == (70.0, "prior")


@pytest.mark.parametrize(
    ("name", "watts"),
    [
        ("NVIDIA A100-SXM4-80GB", 50.0),
        ("NVIDIA L40S", 33.0),
        ("NVIDIA B200", 137.0),
        ("AMD Instinct MI355X", 238.0),
        ("NVIDIA A40", 30.0),
        ("NVIDIA RTX A4000", 70.0),
        ("NVIDIA GB200", 70.0),
        ("NVIDIA GeForce RTX 3090", 24.0),
        ("Unheard-of", 70.0),
    ],
)
def test_the_published_power_of_a_product_else_a_part_of_its_limit(name: str, watts: float) -> None:
    """A card that is at full load from its first reading on."""
    assert expected({card(0, name): seen((1.0, 690.0))})["GPU-0"] == (watts, "prior")


def test_a_reading_at_rest_is_better_than_what_others_need() -> None:
    own = Baseline()
    own.observe(0.0, 9.0)
    assert expected({card(0): own, card(1): seen((0.0, 70.0))})["GPU-0"] == (9.0, "prior")


def test_no_more_than_was_ever_read_of_it() -> None:
    assert expected({card(0): seen((0.4, 45.0))})["GPU-0"] == (45.0, "prior")


@pytest.mark.parametrize("utilization_ratio", [0.05, 0.5, 1.0])
def test_neither_zero_nor_its_first_reading_without_a_limit(utilization_ratio: float) -> None:
    assert expected({card(0): seen((utilization_ratio, 400.0))}, None)["GPU-0"] == (40.0, "prior")


def test_unknown_before_anything_is_known_of_it() -> None:
    assert expected({card(0): Baseline()}, None)["GPU-0"] == (None, "prior")
    assert expected({card(0): Baseline()})["GPU-0"] == (70.0, "prior")


def test_what_is_configured_or_not_a_gpu_is_left_alone() -> None:
    package = Device("package-0", "cpu", "rapl", "measured", "", 8.0)
    found = expected({card(0): Baseline(42.0), package: seen((1.0, 150.0))})
    assert found == {"GPU-0": (42.0, "configured"), "package-0": (0.0, "prior")}
