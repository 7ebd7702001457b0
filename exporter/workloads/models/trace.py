"""What was looked at to name the model of one process, for people who ask why it has this name or none."""

from __future__ import annotations

from typing import NamedTuple


class Step(NamedTuple):
    """One piece of evidence that was looked at, and what it gave: ``found`` if that was a name or a phase."""

    looked_at: str
    result: str
    found: bool = False


class Trace:
    """The steps of one resolution, in order; a trace that is not ``on`` records nothing."""

    __slots__ = ("on", "steps")

    def __init__(self) -> None:
        self.on = False
        self.steps: list[Step] = []

    def add(
        self, looked_at: str, model_name: str, phase: str = "", missing: str = "nothing", variant: str = ""
    ) -> None:
        """Record a step; ``missing`` is the reason why there is no name."""
        if self.on:
            variant = f"variant {variant}" if variant else ""
            found = ", ".join(word for word in (model_name, phase, variant) if word)
            result = found if model_name else f"{found}; no model: {missing}" if found else missing
            self.steps.append(Step(looked_at, result, bool(found)))

    def note(self, looked_at: str, result: str) -> None:
        """Record a step that gives no name."""
        if self.on:
            self.steps.append(Step(looked_at, result))
