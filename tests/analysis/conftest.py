"""A real Prometheus that holds two written days of a node, of which every joule, gram and cent is known."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.patience import wait_for
from tests.support.prerequisites import lacking
from tests.support.program import free_port
from tests.support.stack import Server

START = 1_793_491_200
"""2026-11-01 00:00 UTC, a Sunday."""
HOUR, DAY = 3600, 86_400
STEP = 60

GRAMS_PER_KWH = 400.0
PRICE = 0.25
TOKENS_PER_SECOND = 10


@dataclass(frozen=True)
class Written:
    """A counter that grows by ``rate`` a second between two times; it starts at ``held``."""

    name: str
    labels: str
    rate: float
    since: int = 0
    until: int = 2 * DAY
    held: float = 1000.0

    def lines(self) -> Iterator[str]:
        """Its samples in OpenMetrics."""
        for second in range(self.since, self.until + 1, STEP):
            yield f"{self.name}{{{self.labels}}} {self.held + self.rate * (second - self.since):.6f} {START + second}"


AT = 'instance="n1:9400",job="energy"'
CHAT = f'{AT},namespace="chat",pod="chat-0",container="server"'
BATCH = f'{AT},namespace="batch",pod="batch-7",container="main"'
MODEL = f'{AT},namespace="chat",model_name="org/chat-8B",phase="inference"'
CHAT_WATTS = {("gpu", "active"): 300.0, ("gpu", "idle"): 60.0, ("cpu", "active"): 40.0}
UNUSED_WATTS = 40.0
BATCH_WATTS = {("cpu", "active"): 80.0}
BATCH_HOURS = (6 * HOUR, 18 * HOUR)
IDLE_WATTS = 50.0
GPU = "GPU-11112222-3333-4444-5555-666677778888"


def _converted(family: str, labels: str, watts: float, when: tuple[int, int] = (0, 2 * DAY)) -> list[Written]:
    kwh = watts / 3.6e6
    return [
        Written(f"energy_{family}_carbon_grams_total", labels, kwh * GRAMS_PER_KWH, *when),
        Written(f"energy_{family}_cost_total", f'{labels},currency="EUR"', kwh * PRICE, *when),
    ]


def written() -> list[Written]:
    """Every series."""
    found = []
    for (component, mode), watts in CHAT_WATTS.items():
        cell = f'component="{component}",mode="{mode}"'
        found += [
            Written("energy_container_joules_total", f"{CHAT},{cell}", watts),
            Written("energy_model_joules_total", f"{MODEL},{cell}", watts),
        ]
    found += [
        Written("energy_container_gpu_unused_joules_total", CHAT, UNUSED_WATTS),
        Written("energy_model_activity_joules_total", f'{MODEL},activity="idle"', UNUSED_WATTS),
        Written("energy_model_activity_joules_total", f'{MODEL},activity="memory_bound"', 360.0 - UNUSED_WATTS),
    ]
    for mode in ("active", "idle"):
        watts = sum(power for (_, kind), power in CHAT_WATTS.items() if kind == mode)
        found += _converted("container", f'{CHAT},mode="{mode}"', watts)
        found += _converted("model", f'{MODEL},mode="{mode}"', watts)
    (watts,) = BATCH_WATTS.values()
    batch = f'{BATCH},component="cpu",mode="active"'
    found.append(Written("energy_container_joules_total", batch, watts, *BATCH_HOURS, held=0.0))
    found += _converted("container", f'{BATCH},mode="active"', watts, BATCH_HOURS)
    found.append(Written("energy_unattributed_joules_total", f'{AT},component="cpu",reason="idle"', IDLE_WATTS))
    found += _converted("unattributed", f'{AT},reason="idle"', IDLE_WATTS)
    found += [
        Written("energy_node_joules_total", f'{AT},component="gpu"', 360.0),
        Written(
            "energy_model_tokens_total",
            f'{AT},namespace="chat",model_name="org/chat-8B",kind="output"',
            TOKENS_PER_SECOND,
        ),
        Written("energy_model_tokens_total", f'{AT},namespace="chat",model_name="org/chat-8B",kind="prompt"', 99.0),
        Written("energy_container_tokens_total", f'{CHAT},model_name="org/chat-8B",kind="output"', TOKENS_PER_SECOND),
        Written("energy_gpu_joules_total", f'{AT},gpu="0",uuid="{GPU}"', 360.0),
        Written(
            "energy_container_info", f'{CHAT},owner_kind="Deployment",owner_name="chat",label_team="red"', 0, held=1
        ),
        Written("energy_container_info", f'{BATCH},owner_kind="Job",owner_name="nightly"', 0, *BATCH_HOURS, 1),
    ]
    return [*found, *_budgets()]


def _budgets() -> Iterator[Written]:
    """What the rules of four budgets record: within, used up, about to be used up, and one that selects nothing."""
    for budget, owner, window, unit, used, amount, left, selected in (
        ("chat-week", "red", "week", "joules", 18e6, 36e6, None, 1),
        ("chat-month", "red", "month", "carbon_grams", 6000.0, 5000.0, 0.0, 1),
        ("batch-day", "blue", "day", "cost", 9.0, 10.0, 7200.0, 1),
        ("ghost", "blue", "week", "joules", 0.0, 36e6, None, 0),
    ):
        labels = f'budget="{budget}",owner="{owner}",window="{window}"' + ',currency="EUR"' * (unit == "cost")
        values = {
            f"energy_budget_{unit}": amount,
            f"budget:energy_used_{unit}:sum": used,
            "budget:energy_used:ratio": used / amount,
            "budget:energy_selected:bool": selected,
            "budget:energy_exhausted_in:seconds": left,
        }
        found = {name: value for name, value in values.items() if value is not None}
        yield from (Written(name, labels, 0, held=value) for name, value in found.items())
        for span, ratio in (("long", 0.5), ("short", 3.0)):
            yield Written("budget:energy_burn:ratio", f'{labels},burn="slow",span="{span}"', 0, held=ratio)


RUNS = (5 * DAY, 7 * DAY)
"""Two other days, of training runs and of a service that changes hands at midnight."""

TRAINER_WATTS, LONE_WATTS, WEB_WATTS = 500.0, 100.0, 20.0
TRAINED = (5 * DAY + 20 * HOUR, 6 * DAY + 4 * HOUR)
"""Two pods of a PyTorchJob with two cards each."""

LONE = (5 * DAY + 2 * HOUR, 5 * DAY + 3 * HOUR)
"""A container outside Kubernetes, without a card."""


def trained() -> list[Written]:
    """Every series of those days."""
    found = []
    for number in (0, 1):
        pod = f'{AT},namespace="train",pod="sft-{number}",container="trainer"'
        found.append(_joules(pod, "gpu", TRAINER_WATTS, TRAINED))
        for card in (0, 1):
            cell = f'uuid="GPU-{number}{card}",gpu="{card}",mode="active"'
            found.append(Written("energy_container_gpu_joules_total", f"{pod},{cell}", 250.0, *TRAINED, 0.0))
        info = 'owner_kind="PyTorchJob",owner_name="sft",model_name="org/net"'
        found.append(Written("energy_container_info", f"{pod},{info}", 0, *TRAINED, 1))
    lone, web = f'{AT},namespace="",pod="",container="trial"', f'{AT},namespace="web",pod="web-0",container="web"'
    found.append(_joules(lone, "cpu", LONE_WATTS, LONE))
    found.append(Written("energy_container_info", f'{lone},model_name="org/net"', 0, *LONE, 1))
    found.append(_joules(web, "cpu", WEB_WATTS, RUNS))
    for owner, since, until in (("red", RUNS[0], 6 * DAY - STEP), ("blue", 6 * DAY, RUNS[1])):
        found.append(Written("energy_container_info", f'{web},owner_name="{owner}"', 0, since, until, 1))
    for namespace, watts, times in (("train", 2 * TRAINER_WATTS, TRAINED), ("", LONE_WATTS, LONE)):
        labels = f'{AT},namespace="{namespace}",model_name="org/net",phase="training",component="gpu",mode="active"'
        found.append(Written("energy_model_joules_total", labels, watts, *times, 0.0))
    found.append(Written("energy_exporter_build_info", f'{AT},version="0.0.7"', 0, *RUNS, 1))
    found.append(Written("energy_sample_timestamp_seconds", AT, 1, *RUNS, START + RUNS[0] - 130.0))
    node = f'{AT.replace("n1", "n2")},component="cpu"'
    watts = ((TRAINED[1] - TRAINED[0]) * 2 * TRAINER_WATTS + (LONE[1] - LONE[0]) * LONE_WATTS) / (2 * DAY) + WEB_WATTS
    return [*found, Written("energy_node_joules_total", node, watts, *RUNS)]


RESTARTED = 9 * DAY + 12 * HOUR
"""When the exporter of another day, whose counters two Prometheus have, starts again with counters at 0."""

RESTARTED_WATTS = 100.0


def restarted() -> Iterator[str]:
    """The joules of its node."""
    for replica in ("a", "b"):
        node = f'{AT.replace("n1", "n3")},component="cpu",replica="{replica}"'
        for since, until in ((9 * DAY, RESTARTED), (RESTARTED + STEP, 10 * DAY)):
            yield from Written(
                "energy_node_joules_total", node, RESTARTED_WATTS, since, until, 5e6 * (since < RESTARTED)
            ).lines()


def _joules(place: str, component: str, watts: float, times: tuple[int, int]) -> Written:
    labels = f'{place},component="{component}",mode="active"'
    return Written("energy_container_joules_total", labels, watts, *times, held=0.0)


def _steps(name: str, labels: str, pieces: list[tuple[int, int, float]]) -> Iterator[str]:
    """A counter whose rate changes."""
    held = 1000.0
    for since, until, rate in pieces:
        piece = Written(name, labels, rate, since, until, held)
        yield from list(piece.lines())[: None if until == 2 * DAY else -1]
        held += rate * (until - since)


def exposition() -> str:
    """All of it in OpenMetrics, family by family."""
    families: dict[str, list[str]] = {}
    for series in written():
        families.setdefault(series.name, []).extend(series.lines())
    first, last = BATCH_HOURS
    busy, quiet = 90.0 + BATCH_WATTS["cpu", "active"], 90.0
    pieces = [(0, first, quiet), (first, last, busy), (last, 2 * DAY, quiet)]
    families["energy_node_joules_total"] += _steps("energy_node_joules_total", f'{AT},component="cpu"', pieces)
    kwh = [(since, until, (360.0 + watts) / 3.6e6) for since, until, watts in pieces]
    for name, labels, factor in (
        ("energy_node_carbon_grams_total", AT, GRAMS_PER_KWH),
        ("energy_node_cost_total", f'{AT},currency="EUR"', PRICE),
    ):
        families[name] = list(_steps(name, labels, [(since, until, rate * factor) for since, until, rate in kwh]))
    for series in trained():
        families.setdefault(series.name, []).extend(series.lines())
    families["energy_node_joules_total"] += restarted()
    lines = []
    for name, samples in families.items():
        kind = "counter" if name.endswith("_total") else "gauge"
        lines += [f"# TYPE {name.removesuffix('_total')} {kind}", *samples]
    return "\n".join([*lines, "# EOF", ""])


@pytest.fixture(scope="session")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the Prometheus."""
    if reason := lacking("promtool", "prometheus"):
        pytest.skip(reason)
    folder: Path = tmp_path_factory.mktemp("history")
    (folder / "history.txt").write_text(exposition(), encoding="utf-8")
    (folder / "prometheus.yml").write_text("", encoding="utf-8")
    command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "history.txt", "data"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    url = f"127.0.0.1:{free_port()}"
    command = ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address={url}"]
    command.append("--storage.tsdb.retention.time=100y")
    with (folder / "log").open("wb") as log, subprocess.Popen(command, cwd=folder, stdout=log, stderr=log) as process:
        try:
            wait_for(Server(f"http://{url}").is_ready, "Prometheus", 60.0)
            yield f"http://{url}"
        finally:
            process.terminate()
