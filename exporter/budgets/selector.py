"""The selection of a budget: turns labels and patterns into the PromQL of what they use per second."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping

from ..config.value_types import quoted
from .budget import UNITS, Unit

ALIASES = {"node": "instance", "model": "model_name"}
"""Maps aliases that users write to label names."""

CHOICES: Mapping[str, tuple[str, ...]] = {
    "component": ("cpu", "dram", "gpu", "other"),
    "mode": ("active", "idle"),
    "phase": ("training", "inference", "unknown"),
    "runtime": ("kubernetes", "docker", "podman", "systemd", "slurm", "host"),
}
"""Labels with a fixed set of values."""

_MODEL = ("model_name", "phase", "variant")
_WORKLOAD = ("pod", "container", "runtime")
_IDENTITY = ("image", "owner_kind", "owner_name", "container_id", "pod_uid")
"""Labels that only ``energy_container_info`` has, like the exported pod labels ``label_<name>``."""

_ELSEWHERE = ("pid", "comm", "device", "source", "gpu", "uuid", "gpu_instance", "reason")
"""Labels that no metric of nodes, containers or models has."""

_KNOWN = ("node", "model", "namespace", "cluster", "instance", "job", *CHOICES, *_MODEL, *_WORKLOAD, *_IDENTITY)
_LABEL = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")


def check(label: str, pattern: str) -> tuple[str, str]:
    """The label's real name and the pattern. Raises ValueError, also for probable typing errors."""
    if not _LABEL.fullmatch(label):
        raise ValueError("is not the name of a label")
    if label in _ELSEWHERE:
        raise ValueError(f"cannot be selected: no joules of nodes, containers or models have it; take {_list(_KNOWN)}")
    near = difflib.get_close_matches(label, _KNOWN, 1, cutoff=0.78)
    if near and label not in _KNOWN and not label.startswith("label_"):
        raise ValueError(f"is no such label; did you mean {near[0]}?")
    items = [item.strip() for item in pattern.split(",")]
    if not all(items):
        raise ValueError("has an empty item" if pattern.strip() else "is empty")
    for item in items:
        if not item.isprintable() or len(item) > 256:
            raise ValueError(f"{quoted(item)} is not printable text of at most 256 characters")
        if label in CHOICES and item not in CHOICES[label]:
            raise ValueError(f"{quoted(item)} is not one of {_list(CHOICES[label])}")
    return ALIASES.get(label, label), ",".join(items)


def contradiction(labels: Iterable[str]) -> str | None:
    """Why no series can have all of these labels, None if one can."""
    given = set(labels)
    models = sorted(given & set(_MODEL))
    others = sorted(label for label in given if label in _WORKLOAD or _is_identity(label))
    if models and others:
        return f"{others[0]} cannot be combined with {models[0]}: a model's joules are known by namespace and node only"
    return None


def rate(selector: Iterable[tuple[str, str]], unit: Unit = UNITS["kwh"], currency: str = "") -> str:
    """PromQL of the watts, or of the grams or money per second, of all series that match every pattern.

    It uses raw counters, not other rules: counters have every label and do not depend on the evaluation order. Not
    rate(), because VictoriaMetrics divides by the age of a young series.
    """
    given = dict(selector)
    identity = {label: pattern for label, pattern in given.items() if _is_identity(label)}
    own = {label: pattern for label, pattern in given.items() if label not in identity}
    plain = _matchers(own | ({"currency": currency} if currency else {}))
    if not identity:
        return f"sum(increase(energy_{_level(given)}_{unit.counter}{plain}[5m])) / 300"
    return (
        "sum(\n"
        f"  increase(energy_container_{unit.counter}{plain}[5m]) / 300\n"
        "    and on (cluster, instance, namespace, pod, container)\n"
        f"  energy_container_info{_matchers(identity)}\n"
        ")"
    )


def _level(labels: Iterable[str]) -> str:
    given = set(labels)
    if given & set(_MODEL):
        return "model"
    return "container" if given & {"namespace", "mode", *_WORKLOAD} else "node"


def _is_identity(label: str) -> bool:
    return label in _IDENTITY or label.startswith("label_")


def _matchers(patterns: Mapping[str, str]) -> str:
    written = ", ".join(f"{label}{_matcher(pattern)}" for label, pattern in sorted(patterns.items()))
    return f"{{{written}}}" if written else ""


def _matcher(pattern: str) -> str:
    items = pattern.split(",")
    if len(items) == 1 and "*" not in pattern:
        return f'="{_escaped(pattern)}"'
    return f'=~"{_escaped("|".join(".*".join(map(_literal, item.split("*"))) for item in items))}"'


def _literal(text: str) -> str:
    return re.sub(r"([\\.+*?()|\[\]{}^$])", r"\\\1", text)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _list(words: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(words))
