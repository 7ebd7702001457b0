"""A model beside strangers: its joules against those of its own processes, wherever it runs.

Part of `benchmarks.accuracy`; the workers, their meter and the truth are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from . import groups
from .rig import MODEL_VARIABLE, Outcome, Work
from .table import verdict

MODEL = "org/neighbour-1B"
GOAL = 0.03
"""Largest error of a model's joules, relative to those of its own processes."""
SLEEPER_GOAL = 0.005
"""Most joules of a model that does nothing, relative to those of the strangers beside it.

Its process has used some milliseconds to start, which the exporter counts when it first scans the group.
"""

ROUND_MS = 40.0
SERVER = ("llama-server", "-m", "weights.gguf", "--alias", MODEL)
TRAINER = ("python3", "train.py", "--model_name_or_path", MODEL)
KERNEL = ("python3", "-m", "ipykernel_launcher", "-f", "kernel.json")

HOST = "."
SESSION = "user.slice/user-1000.slice/session-1.scope"
DESKTOP = "user.slice/user-1000.slice/user@1000.service/app.slice/app-editor.scope"
POD, SIDECAR = groups.pod_container(1), groups.pod_container(2)


def model(path: str, words: tuple[str, ...], mode: str = "duty", a: float = 0.4, b: float = ROUND_MS) -> Work:
    """A process that works for the model."""
    environment = ((MODEL_VARIABLE, MODEL),) if words == KERNEL else ()
    return Work(0, mode, a, b, path=path, words=words, environment=environment, model=MODEL)


def busy(path: str, duty: float = 0.3, words: tuple[str, ...] = ("browser",)) -> Work:
    """A stranger that runs all the time."""
    return Work(1, "duty", duty, ROUND_MS, path=path, words=words)


def compilers(path: str) -> Work:
    """A stranger whose processes live for 1 to 50 ms of CPU time."""
    return Work(2, "storm", 1.0, 50.0, path=path, words=("make",))


@dataclass(frozen=True, slots=True)
class Setting:
    """Where a model works, and who beside it. Without a ``goal`` the error is a limit of the attribution."""

    name: str
    works: tuple[Work, ...]
    goal: float | None = GOAL


SLEEPER = Setting(
    "a model that sleeps, strangers compile on the host",
    (model(HOST, TRAINER, "sleep"), compilers(HOST), compilers(HOST)),
    SLEEPER_GOAL,
)
HOST_SETTING = Setting("host: beside a browser and compilers", (model(HOST, TRAINER), busy(HOST), compilers(HOST)))
SESSIONS = Setting(
    "user slice: in a session, beside a desktop", (model(SESSION, TRAINER), compilers(SESSION), busy(DESKTOP))
)
ONE_CONTAINER = Setting("pod with a sidecar process", (model(POD, SERVER), busy(POD, 0.1, ("envoy",)), compilers(POD)))
SETTINGS = (
    HOST_SETTING,
    SESSIONS,
    Setting(
        "user slice: below its service manager, beside a session",
        (model(DESKTOP, SERVER), busy(DESKTOP), compilers(SESSION)),
    ),
    Setting(
        "notebook pod: one kernel trains, others work",
        (model(POD, KERNEL), busy(POD, 0.2, KERNEL[:-1]), busy(POD, 0.1, KERNEL[:-1]), compilers(POD)),
    ),
    Setting("pod with a sidecar container", (model(POD, SERVER), busy(SIDECAR, 0.3, ("envoy",)), compilers(SIDECAR))),
    ONE_CONTAINER,
    Setting("pod with a sidecar of short-lived processes", (model(POD, SERVER), compilers(POD))),
    SLEEPER,
    Setting("pod of its own, with short-lived workers", (model(POD, TRAINER, "storm", 1.0, 50.0), model(POD, TRAINER))),
    Setting(
        "short-lived workers beside strangers",
        (model(POD, TRAINER, "storm", 1.0, 50.0), model(POD, TRAINER), busy(POD)),
        None,
    ),
)


HEADER = ("where the model works", "its truth", "charged", "strangers beside it", "worst error", "goal", "")


def error(outcome: Outcome) -> float:
    """Error of the model's joules: relative to its truth, or to the strangers' if it did next to nothing."""
    charged, true = outcome.models[MODEL]
    _, strangers = outcome.models.get("", (0.0, 0.0))
    return (charged - true) / (true if true > SLEEPER_GOAL * strangers else strangers)


def row(setting: Setting, outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """The setting in the table: joules of all runs, the error of the worst, the goal."""
    worst = max((error(outcome) for outcome in outcomes), key=abs)
    charged, true = (sum(outcome.models[MODEL][side] for outcome in outcomes) for side in (0, 1))
    strangers = sum(outcome.models.get("", (0.0, 0.0))[1] for outcome in outcomes)
    goal = "a limit" if setting.goal is None else f"each <= {setting.goal * 100:g}%"
    met = "" if setting.goal is None else verdict(abs(worst) <= setting.goal)
    return (setting.name, f"{true:.1f}", f"{charged:.1f}", f"{strangers:.1f}", f"{worst:+.2%}", goal, met)
