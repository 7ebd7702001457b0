"""The series of a thousand nodes and of their model servers, and a month of what the rules would have recorded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from exporter.snapshot import ACTIVITIES

from .remote_write import series

NODES = 1000
CONTAINERS = 30
GPUS = 8
NAMESPACES = 40
MODELS = 200
RUNS = 50
RULES = Path(__file__).resolve().parent.parent / "prometheus/rules"

_ACTIVITY_WATTS = {"idle": 40.0, "throttled": 60.0, "memory_bound": 240.0}

Series = tuple[bytes, float, float]
"""Labels, value at the beginning, growth in a second."""


class Recorded(NamedTuple):
    """A recorded series: its name and labels, the seconds that it covers and those between samples, and its value."""

    name: str
    labels: str
    window: int
    step: int
    value: float


def fleet() -> Iterator[Series]:
    """What all exporters and model servers expose."""
    for number in range(NODES):
        yield from _node(number)
    for number in range(MODELS):
        own = {"namespace": f"ns-{number % NAMESPACES}", "pod": f"model-{number}", "instance": f"10.0.0.{number}:8000"}
        for name, growth in (("generation_tokens", 400.0), ("prompt_tokens", 900.0), ("request_success", 2.0)):
            labels = {"__name__": f"vllm:{name}_total", "job": "model-servers", "model_name": f"org/m-{number}", **own}
            yield series(labels), 0.0, growth


def _node(number: int) -> Iterator[Series]:
    node = {"job": "energy", "instance": f"node-{number}"}

    def one(name: str, value: float, growth: float = 0.0, /, **labels: str) -> Series:
        return series({"__name__": f"energy_{name}", **node, **labels}), value, growth

    for component, watts in (("cpu", 200.0), ("dram", 20.0), ("gpu", 2800.0), ("other", 150.0)):
        yield one("node_joules_total", 0, watts, component=component)
        for reason in ("idle", "kernel", "exited", "unknown", "gap"):
            yield one("unattributed_joules_total", 0, watts / 50, component=component, reason=reason)
    yield from _impact("node", one, 3170.0, {})
    for reason in ("idle", "kernel", "exited", "unknown", "gap"):
        yield from _impact("unattributed", one, 60.0, {"reason": reason})
    for gauge in ("sample_timestamp_seconds", "sample_interval_seconds", "config_last_reload_successful"):
        yield one(gauge, 1e12 if "timestamp" in gauge else 1)
    yield one("conservation_error_ratio", 1e-12)
    for source in ("rapl", "nvml", "procfs", "cgroups", "podresources"):
        yield one("source_up", 1, source=source)
        for reason in ("not_found", "permission", "driver", "timeout", "implausible", "error"):
            yield one("source_failures_total", 0, source=source, reason=reason)
    for gpu in range(GPUS):
        card = {"gpu": str(gpu), "uuid": f"GPU-{number}-{gpu}", "gpu_instance": ""}
        device = {"component": "gpu", "device": card["uuid"], "source": "nvml"}
        yield one("device_joules_total", 0, 350.0, **device)
        yield one("device_up", 1, **device)
        yield one("device_last_reading_timestamp_seconds", 1e12, **device)
        yield one("device_stuck", 0, **device)
        yield one("power_source_info", 1, **device, quality="measured", method="energy_counter")
        yield one("gpu_utilization_ratio", 0.5, **card)
        yield one("gpu_power_limit_watts", 700, **card)
        for reason in ("sw_power_cap", "hw_slowdown", "hw_thermal_slowdown", "sw_thermal_slowdown", "hw_power_brake"):
            yield one("gpu_throttle_seconds_total", 0, 0.01 * (reason == "sw_power_cap"), **card, reason=reason)
    for place in range(CONTAINERS):
        yield from _container(number, place, one)


def _impact(family: str, one: Any, watts: float, labels: dict[str, str]) -> Iterator[Series]:
    """Grams and money of some watts."""
    yield one(f"{family}_carbon_grams_total", 0, watts * 1e-4, **labels)
    yield one(f"{family}_cost_total", 0, watts * 8e-8, **labels, currency="EUR")


def _container(number: int, place: int, one: Any) -> Iterator[Series]:
    model = (number * GPUS + place) % MODELS if place < GPUS else None
    training = model is not None and model < RUNS
    own = {
        "namespace": f"ns-{(number + place if model is None else model) % NAMESPACES}",
        "pod": f"pod-{number}-{place}",
        "container": "main",
    }
    named = {"model_name": f"org/m-{model}", "owner_name": f"run-{model}"} if model is not None else {}
    identity = {"runtime": "kubernetes", "container_id": f"{number:032x}{place:032x}", "owner_kind": "Job", **named}
    yield one("container_info", 1, 0, **own, **identity)
    for component, mode, watts in (("cpu", "active", 5.0), ("dram", "active", 0.5)):
        yield one("container_joules_total", 0, watts, **own, runtime="kubernetes", component=component, mode=mode)
    yield from _impact("container", one, 5.5, {**own, "runtime": "kubernetes", "mode": "active"})
    if model is None:
        return
    card = {"gpu": str(place), "uuid": f"GPU-{number}-{place}", "gpu_instance": ""}
    yield one("gpu_allocated_ratio", 1, 0, **card, **own)
    whose = {"namespace": own["namespace"], "model_name": f"org/m-{model}"}
    whose["phase"] = "training" if training else "inference"
    for mode, watts in (("active", 250.0), ("idle", 90.0)):
        yield one("container_joules_total", 0, watts, **own, runtime="kubernetes", component="gpu", mode=mode)
        yield one("model_joules_total", 0, watts, **whose, component="gpu", mode=mode)
        yield from _impact("model", one, watts, {**whose, "mode": mode})
    yield one("container_gpu_unused_joules_total", 0, 40.0, **own)
    for activity in ACTIVITIES:
        yield one("model_activity_joules_total", 0, _ACTIVITY_WATTS.get(activity, 0.0), **whose, activity=activity)
    yield from _impact("container", one, 90.0, {**own, "runtime": "kubernetes", "mode": "idle"})
    if not training:
        yield from _tokens(model, own, one)


def _tokens(model: int, own: dict[str, str], one: Any) -> Iterator[Series]:
    """What the exporter counts of a model server."""
    whose = {"namespace": own["namespace"], "model_name": f"org/m-{model}"}
    yield one("token_source_info", 1, **own, model_name=whose["model_name"], server="vllm", method="counter")
    yield one("token_source_up", 1, **own, model_name=whose["model_name"], server="vllm")
    yield one("model_requests_total", 0, 2.0, **whose)
    yield one("model_token_step", 1, **whose)
    for kind, growth in (("prompt", 800.0), ("cached_prompt", 100.0), ("output", 400.0)):
        yield one("model_tokens_total", 0, growth, **whose, kind=kind)
        yield one("container_tokens_total", 0, growth, **own, model_name=whose["model_name"], kind=kind)


def history() -> Iterator[Recorded]:
    """What a month of evaluations would have recorded: sums over 30 days read all of it."""
    budgets = yaml.safe_load((RULES.parent / "demo" / "budgets.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]
    for rule in budgets:
        if rule["record"] == "budget:energy_joules:rate5m":
            yield Recorded("budget:energy_joules:rate5m", _labels(rule["labels"]), 30 * 86_400, 60, 500.0)
    for number in range(MODELS):
        own = {"namespace": f"ns-{number % NAMESPACES}", "model_name": f"org/m-{number}"}
        phase = {"phase": "training" if number < RUNS else "inference"}
        yield Recorded("model:energy_model_watts:zero_filled", _labels({**own, **phase}), 30 * 86_400, 300, 900.0)
        for name in ("output_tokens", "requests", "energy_serving_joules"):
            yield Recorded(f"model:{name}:rate5m", _labels(own), 86_400, 60, 400.0)
        for activity, watts in _ACTIVITY_WATTS.items():
            kept = _labels({**own, **phase, "activity": activity})
            yield Recorded("model:energy_model_activity_joules:rate5m", kept, 7 * 86_400, 300, watts)
        if number < RUNS:
            run = _labels({**own, "run": f"run-{number}"})
            yield Recorded("run:energy_container_joules:difference4m", run, 3 * 86_400, 240, 216_000.0)


def _labels(labels: dict[str, str]) -> str:
    return ",".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
