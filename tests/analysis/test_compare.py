"""`compare` against a real Prometheus that holds a day of two variants of which the effect is known."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest

from exporter.commands import compare
from tests.support.patience import wait_for
from tests.support.prerequisites import lacking
from tests.support.program import free_port
from tests.support.stack import Server

START = 1_793_491_200
"""2026-11-01 00:00 UTC."""
STEP, BLOCK, DAY = 60, 300, 86_400
NOW = float(START + DAY)
SAVING = 0.12
CHANGED = 12 * 3600
"""When the driver of the node of "steady" changes."""


def _rates(random: Random, watts: float, saving: float) -> Iterator[Mapping[str, float]]:
    """Watts, tokens and requests a second of each block."""
    for block in range(DAY // BLOCK):
        hour = 0.5 - 0.5 * math.cos(2 * math.pi * block * BLOCK / DAY)
        tokens = 200 * 3 ** (hour - 0.5) * math.exp(0.2 * random.gauss(0, 1))
        energy = (watts + 0.4 * tokens) * (1 - saving) * (1 + 0.02 * random.gauss(0, 1))
        yield {
            "gpu": energy * 0.8,
            "idle": energy * 0.1,
            "cpu": energy * 0.1,
            "output": tokens,
            "requests": tokens / 200,
        }


class _Written:
    """Samples of counters and gauges, family by family, in OpenMetrics."""

    def __init__(self) -> None:
        self._families: dict[str, list[str]] = {}

    def counter(self, name: str, labels: str, rates: list[float]) -> None:
        held, lines = 1000.0, self._families.setdefault(name, [])
        for second in range(0, DAY + 1, STEP):
            lines.append(f"{name}{{{labels}}} {held:.6f} {START + second}")
            held += rates[min(second // BLOCK, len(rates) - 1)] * STEP

    def gauge(self, name: str, labels: str, value: float = 1.0, since: int = 0, until: int = DAY) -> None:
        lines = self._families.setdefault(name, [])
        lines.extend(f"{name}{{{labels}}} {value} {START + second}" for second in range(since, until + 1, STEP))

    def text(self) -> str:
        lines = []
        for name, samples in self._families.items():
            lines += [
                f"# TYPE {name.removesuffix('_total')} {'counter' if name.endswith('_total') else 'gauge'}",
                *samples,
            ]
        return "\n".join([*lines, "# EOF", ""])


def _model(written: _Written, name: str, variant: str, node: str, saving: float, *, tokens: bool = True) -> None:
    rates = list(_rates(Random(f"{name} {variant}"), 150.0, saving))
    labels = f'instance="{node}",namespace="chat",model_name="{name}"' + (f',variant="{variant}"' if variant else "")
    pod = f'instance="{node}",namespace="chat",pod="{node}-0",container="server"'

    def of(key: str, factor: float = 1.0) -> list[float]:
        return [one[key] * factor for one in rates]

    for component, mode, key in (("gpu", "active", "gpu"), ("gpu", "idle", "idle"), ("cpu", "active", "cpu")):
        cell = f'component="{component}",mode="{mode}"'
        written.counter("energy_model_joules_total", f'{labels},phase="inference",{cell}', of(key))
        written.counter("energy_container_joules_total", f"{pod},{cell}", of(key))
    whole = [one["gpu"] + one["idle"] + one["cpu"] for one in rates]
    money = f'{labels},phase="inference",mode="active",currency="EUR"'
    for counter, price in (("cost", 0.3), ("credit", 0.05)):  # prices were negative for some of the time
        written.counter(f"energy_model_{counter}_total", money, [watts / 3.6e6 * price for watts in whole])
    written.counter("energy_container_gpu_joules_total", f'{pod},gpu="0",uuid="GPU-{node}",mode="active"', of("gpu"))
    info = f'{pod},image="vllm:{variant or 1}",label_team="{node}",model_name="{name}"'
    written.gauge("energy_container_info", info + (f',variant="{variant}"' if variant else ""))
    written.gauge("energy_gpu_power_limit_watts", f'instance="{node}",gpu="0",uuid="GPU-{node}"', 700)
    written.gauge("energy_gpu_clock_hertz", f'instance="{node}",gpu="0",uuid="GPU-{node}",domain="sm"', 1.98e9)
    card = f'instance="{node}",gpu="0",uuid="GPU-{node}",gpu_model="NVIDIA H100"'
    if name == "org/steady":
        written.gauge("energy_gpu_info", f'{card},driver_version="550.1"', until=CHANGED)
        written.gauge("energy_gpu_info", f'{card},driver_version="560.2"', since=CHANGED + STEP)
    else:
        written.gauge("energy_gpu_info", f'{card},driver_version="550.1"')
    if tokens:
        variant_of = f',variant="{variant}"' if variant else ""
        for kind, factor in (("output", 1.0), ("prompt", 2.0), ("cached_prompt", 0.5)):
            written.counter("energy_model_tokens_total", f'{labels},kind="{kind}"', of("output", factor))
            of_pod = f'{pod},model_name="{name}"{variant_of},kind="{kind}"'
            written.counter("energy_container_tokens_total", of_pod, of("output", factor))
        written.counter("energy_model_requests_total", labels, of("requests"))
        for end, factor in (("sum", 3.0), ("count", 1.0)):
            series = f'instance="{node}:8000",namespace="chat",pod="{node}-0",model_name="{name}"'
            written.counter(f"vllm:e2e_request_latency_seconds_{end}", series, of("requests", factor))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Prometheus that holds the day."""
    if reason := lacking("promtool", "prometheus"):
        pytest.skip(reason)
    folder: Path = tmp_path_factory.mktemp("compare")
    written = _Written()
    _model(written, "org/chat", "fp16", "n1", 0.0)
    _model(written, "org/chat", "awq", "n2", SAVING)
    _model(written, "org/steady", "", "n3", 0.0)
    _model(written, "org/mute", "", "n4", 0.0, tokens=False)
    (folder / "history.txt").write_text(written.text(), encoding="utf-8")
    (folder / "prometheus.yml").write_text("", encoding="utf-8")
    command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "history.txt", "data"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    address = f"127.0.0.1:{free_port()}"
    command = [
        "prometheus",
        "--config.file=prometheus.yml",
        "--storage.tsdb.path=data",
        f"--web.listen-address={address}",
    ]
    command.append("--storage.tsdb.retention.time=100y")
    with (folder / "log").open("wb") as log, subprocess.Popen(command, cwd=folder, stdout=log, stderr=log) as process:
        try:
            wait_for(Server(f"http://{address}").is_ready, "Prometheus", 60.0)
            yield f"http://{address}"
        finally:
            process.terminate()


FP16, AWQ = "model=org/chat,variant=fp16", "model=org/chat,variant=awq"


def _run(url: str, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = compare.run([*words, "--prometheus.url", url], {}, lambda: NOW)
    said = capsys.readouterr()
    return status, said.out, said.err


def _json(url: str, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    status, out, err = _run(url, capsys, *words, "--format", "json")
    assert err == ""
    return status, json.loads(out)


def test_two_variants_under_one_name(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The planted saving is in the interval, and in a year it is what the traffic makes of it."""
    status, found = _json(url, capsys, FP16, AWQ)
    assert (status, found["verdict"], found["unit"]) == (0, "saves", "output token")
    saving = found["saving_ratio"]
    assert saving["low"] <= SAVING <= saving["high"]
    assert saving["high"] - saving["low"] < 0.04
    a, b = found["a"], found["b"]
    assert a["ran_on"] == ["GPU NVIDIA H100", "driver 550.1", "image vllm:fp16", "power limit 700 W"]
    assert a["output_tokens_per_request"] == pytest.approx(200, rel=1e-3)
    assert a["prompt_tokens_per_output_token"] == pytest.approx(2, rel=1e-3)
    assert a["cached_prompt_ratio"] == pytest.approx(0.2, rel=1e-3)
    assert a["guard_rails"]["mean latency of a request, s"] == pytest.approx(3, rel=1e-3)
    year = 365 * (a["joules"] + b["joules"] / (1 - SAVING)) / 3.6e6 * SAVING
    assert found["kwh_per_year"]["middle"] == pytest.approx(year, rel=0.05)
    assert found["money_per_year"]["EUR"]["middle"] == pytest.approx(found["kwh_per_year"]["middle"] * 0.25, rel=0.01)
    assert any("differ in more than the traffic: A has image vllm:fp16" in note for note in found["notes"])


def test_the_other_way_round(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """B costs more, with a status of its own, by image or by pod label too."""
    for words in ((AWQ, FP16), ("image=vllm:awq", "image=vllm:fp16"), ("label:team=n2", "label:team=n1")):
        status, found = _json(url, capsys, *words, "--boundary", "gpu")
        assert (status, found["verdict"]) == (4, "costs more")
        assert found["saving_ratio"]["low"] <= 1 - 1 / (1 - SAVING) <= found["saving_ratio"]["high"]


def test_before_and_after(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing changed but the driver: no difference, and the driver is named."""
    windows = ("--before", "2026-11-01T00:00/2026-11-01T12:00", "--after", "2026-11-01T12:05/2026-11-02")
    status, found = _json(url, capsys, "model=org/steady", *windows)
    assert (status, found["verdict"]) == (3, "no difference seen")
    assert any("A has driver 550.1, B driver 560.2" in note for note in found["notes"])
    assert any("One arm after the other" in note for note in found["notes"])


def test_a_change_inside_an_arm_is_left_out(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a window with two drivers only the blocks of one count."""
    _, found = _json(url, capsys, "model=org/steady", FP16)
    assert sum(found["a"]["dropped_blocks"].values()) == pytest.approx(144, abs=2)


def test_too_little_data(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Ten minutes are no evidence: how much more would be is said."""
    status, out, _ = _run(url, capsys, FP16, AWQ, "--since", "10m")
    assert status == 5
    assert out.startswith("Not enough data: too few blocks. ")
    assert "more of each arm may do" in out


def test_without_tokens(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By the hour, and that this says nothing about efficiency."""
    _, found = _json(url, capsys, FP16, "model=org/mute")
    assert found["unit"] == "hour"
    assert any("says nothing about efficiency" in note for note in found["notes"])


@pytest.mark.parametrize("form", ["text", "markdown", "html"])
def test_forms(url: str, capsys: pytest.CaptureFixture[str], form: str) -> None:
    """Verdict, boundary, and what is not measured are in each."""
    status, out, _ = _run(url, capsys, FP16, AWQ, "--format", form)
    assert status == 0
    for words in ("B saves", "gpu+cpu+dram", "not measured here", "In a year", "EUR"):
        assert words in out


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("model=org/none", AWQ), 1, "no energy of A, model=org/none, in its window"),
        ((FP16,), 2, "give A and B, or A with --before and --after"),
        ((FP16, FP16), 2, "A and B are the same"),
        ((FP16, AWQ, "--before", "2026-11-01/2026-11-02"), 2, "--before and --after go together"),
        ((FP16, "model"), 2, "model: not LABEL=VALUE"),
        ((FP16, "colour=red"), 2, "colour is no label of models or containers"),
        ((FP16, "namespace=chat"), 2, "names no model, image or label"),
        ((FP16, "{model_name=org}"), 2, "not matchers such as"),
        ((FP16, AWQ, "--block", "2h"), 2, "--block 2h: not 1m to 60m"),
        ((FP16, AWQ, "--level", "2"), 2, "--level 2.0: not from 0.5 to below 1"),
    ],
)
def test_errors_are_one_line(
    url: str, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], status: int, said: str
) -> None:
    """With what to do."""
    got, out, err = _run(url, capsys, *words)
    assert (got, out) == (status, "")
    assert said in err
    assert err.count("\n") == 1
