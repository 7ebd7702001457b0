"""What a model used its energy for, in lines."""

from __future__ import annotations

import math
import typing

from exporter.analysis.facts import Card, Facts, Grid, Subject
from exporter.analysis.uses import ACTIVITIES, sentences, use
from exporter.snapshot import Activity

MODEL = Subject("model", "", "chat", "org/m", "inference")
GRID = Grid(0.0, 3600.0, 4)


def test_energy_tokens_cards_and_activities_most_joules_first() -> None:
    facts = Facts(
        MODEL,
        GRID,
        active=[0.0, 2.7e6, 2.7e6, math.ulp(0.0)],
        idle=[0.0, 0.45e6, 0.45e6, 0.0],
        cpu=[0.0, 0.45e6, 0.45e6, 0.0],
        activities={
            "idle": [0.0, 0.3e6, 0.0, math.nan],
            "memory_bound": [0.0, 2.85e6, 3.15e6, 0.0],
            "mixed": [0.0] * 4,
        },
        output_tokens=[math.nan, 1e6, 1e6, 0.0],
        replicas=[math.nan, 2.0, 2.0, 2.0],
        cards=[Card("a", "H100"), Card("b", "H100"), Card("c", "")],
    )
    assert list(sentences(use(facts))) == [
        "2.00 kWh; 667 W while it ran; GPUs 88%, of it idle power 14%; CPU and memory 12%",
        "2,000,000 tokens at 3.60 J each, 185 a second, 2.00 replicas on average",
        "1 × GPU, 2 × H100",
        " 95% of the GPUs' energy: memory_bound: waiting for their own memory, as with small batches and long contexts",
        "  5% of the GPUs' energy: idle: held, and the model did nothing on them",
    ]


def test_a_model_without_gpus() -> None:
    assert list(sentences(use(Facts(MODEL, GRID, cpu=[0.0, 3.6e6, 0.0, 0.0])))) == [
        "1.00 kWh; 1,000 W while it ran; CPU and memory 100%"
    ]


def test_tokens_without_energy_are_no_rate() -> None:
    assert list(sentences(use(Facts(MODEL, GRID, cpu=[0.0] * 4, output_tokens=[5.0] * 4)))) == ["0.000 kWh"]


def test_activities_divide_the_energy_of_gpus() -> None:
    facts = Facts(MODEL, GRID, active=[1.0] * 4, idle=[1.0] * 4, activities={"mixed": [2.0] * 4})
    used = use(facts)
    assert sum(used.activities.values()) == used.gpu_joules == used.joules
    assert used.gpu_idle_joules == 4.0


def test_every_activity_has_a_meaning() -> None:
    assert set(ACTIVITIES) == set(typing.get_args(Activity))
