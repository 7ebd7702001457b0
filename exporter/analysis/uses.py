"""Why a model uses what it does: by component, by token, and by what its GPUs did. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from .facts import Facts, Subject, finite, mean
from .formats import percent, quantity
from .lines import JOULES_PER_KWH

ACTIVITIES = {
    "idle": "held, and the model did nothing on them",
    "throttled": "slowed by their power or temperature limit",
    "compute_bound": "tensor cores at work",
    "memory_bound": "waiting for their own memory, as with small batches and long contexts",
    "host_bound": "little to do while a CPU core was busy all the time",
    "underused": "little to do: few requests, small batches, or too large a card",
    "mixed": "at work, bound by neither memory nor tensor cores",
    "unknown": "the cards report too little",
}
"""What each activity of ``energy_model_activity_joules_total`` means for a reader."""

_LEAST_SHARE = 0.005
"""Activities below it are not listed."""


@dataclass(frozen=True, slots=True)
class Use:
    """Of the window in sum; ``seconds`` are those of steps with joules, ``activities`` divides the joules of GPUs.

    ``tokens`` are generated ones, ``cards`` the number of GPUs by their model.
    """

    subject: Subject
    joules: float
    gpu_joules: float
    gpu_idle_joules: float
    seconds: float
    tokens: float = 0.0
    replicas: float | None = None
    cards: Mapping[str, int] = field(default_factory=dict)
    activities: Mapping[str, float] = field(default_factory=dict)


def use(facts: Facts) -> Use:
    """What one subject used, and for what."""
    used = [sum(step) for step in zip(*filter(None, (facts.active, facts.idle, facts.cpu)), strict=True)]
    activities = {name: sum(finite(steps)) for name, steps in facts.activities.items()}
    return Use(
        facts.subject,
        facts.joules,
        sum(facts.gpu),
        sum(facts.idle),
        facts.grid.step * sum(joules > 0 for joules in used),
        sum(finite(facts.output_tokens)),
        mean(facts.replicas),
        Counter(card.gpu_model for card in facts.cards),
        {name: joules for name, joules in activities.items() if joules > 0},
    )


def sentences(used: Use) -> Iterator[str]:
    """Lines for a reader: energy and mean power, tokens, and what the GPUs did, most joules first."""
    host = used.joules - used.gpu_joules
    parts = [f"{quantity(used.joules / JOULES_PER_KWH)} kWh"]
    if used.seconds:
        parts.append(f"{quantity(used.joules / used.seconds)} W while it ran")
    if used.gpu_joules:
        idle = percent(used.gpu_idle_joules, used.gpu_joules)
        parts.append(f"GPUs {percent(used.gpu_joules, used.joules)}, of it idle power {idle}")
    if host:
        parts.append(f"CPU and memory {percent(host, used.joules)}")
    yield "; ".join(parts)
    if used.tokens and used.seconds:
        serving = f", {quantity(used.replicas)} replicas on average" if used.replicas and used.replicas > 1 else ""
        yield (
            f"{quantity(used.tokens)} tokens at {quantity(used.joules / used.tokens)} J each, "
            f"{quantity(used.tokens / used.seconds)} a second{serving}"
        )
    if used.cards:
        yield ", ".join(f"{count} × {model or 'GPU'}" for model, count in sorted(used.cards.items()))
    total = sum(used.activities.values())
    for name, joules in sorted(used.activities.items(), key=lambda item: -item[1]):
        if joules >= total * _LEAST_SHARE:
            meaning = ACTIVITIES.get(name, "of a newer exporter")
            yield f"{percent(joules, total):>4} of the GPUs' energy: {name}: {meaning}"
