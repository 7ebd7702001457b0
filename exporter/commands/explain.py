"""``ai-energy-exporter explain PID|CONTAINER|POD``: prints how it is named, from which evidence, and what was tried."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TextIO

from ..config.command_line import parse
from ..config.loading import load
from ..config.value_types import quoted
from ..records import NOWHERE, Model
from ..service.assembly import make_explainer, make_host
from ..workloads.explainer import Explanation, ProcessExplanation
from .doctor import wait_for_providers
from .process_list import processes

_USAGE = "usage: ai-energy-exporter explain PID|CONTAINER|POD [--SETTING VALUE]..."
_MOST_UNNAMED = 20
"""Processes without a model that are explained, of a container or pod; the others are counted."""

_NO_MODEL_FIX = "if it works for a model, name it by an annotation, a label or a rule: docs/models.md"


def run(words: Sequence[str], environ: Mapping[str, str]) -> int:
    """Explain one thing of this machine; no running exporter is needed.

    Returns the exit status: 0 if it was found, 1 if there is no such process, container or pod, 2 on a usage error.
    """
    if words[:1] in (["-h"], ["--help"]):
        sys.stdout.write(f"{_USAGE}\n")
        return 0
    if not words or not words[0] or words[0].startswith("-"):
        return _fail("explain needs a process, container or pod", 2)
    arguments = parse(words[1:])
    if arguments.command or arguments.once or arguments.check:
        return _fail("explain takes one argument, and settings", 2)
    settings = load(arguments.flags, environ)
    host = make_host(settings)
    explainer, namer = make_explainer(settings, host, lambda: processes(host))
    try:
        wait_for_providers(namer.health)
        found = explainer.explain(words[0])
    finally:
        namer.close()
    if not found:
        return _fail(f"no process, container or pod of this machine is called {quoted(words[0])}", 1)
    for explanation in found:
        write(explanation, sys.stdout)
    return 0


def _fail(reason: str, status: int) -> int:
    sys.stderr.write(f"ai-energy-exporter: {reason}\n{_USAGE}\n")
    return status


def write(explanation: Explanation, out: TextIO) -> None:
    """Write a container, then each of its processes: first those with a model."""
    workload = explanation.workload
    name = "/".join(part for part in workload.place if part) or workload.runtime
    _line(out, f"{name} (runtime {workload.runtime})")
    for what, text in (
        ("cgroup", ", ".join(explanation.groups[:3]) + (", ..." if explanation.groups[3:] else "")),
        (
            "named by",
            "nothing: the cgroup of its processes cannot be read"
            if workload == NOWHERE
            else "a metadata provider"
            if explanation.described
            else "its cgroup, engine or job; no metadata provider has it",
        ),
        ("id", workload.container_id),
        ("pod UID", workload.pod_uid),
        ("image", workload.image),
        ("owner", f"{workload.owner_kind} {workload.owner_name}".strip()),
        ("row", _row(explanation)),
    ):
        if text:
            _line(out, f"  {what:<9} {text}")
    named = [one for one in explanation.processes if one.model is not None]
    unnamed = [one for one in explanation.processes if one.model is None and not one.process.kernel]
    unnamed = unnamed or ([] if named else list(explanation.processes))
    for one in (*named, *unnamed[:_MOST_UNNAMED]):
        _write_process(one, out)
    if len(unnamed) > _MOST_UNNAMED:
        _line(out, f"\n{len(unnamed) - _MOST_UNNAMED} more processes without a model")
    _line(out, "")


def _row(explanation: Explanation) -> str:
    if explanation.shared:
        return "collects unrelated work: it never belongs to one model as a whole"
    workload = explanation.workload
    if workload.runtime == "kubernetes" and workload.pod and not workload.container and explanation.described:
        return "the pod's own: its sandbox, and containers that ended before they were read"
    return ""


def _write_process(one: ProcessExplanation, out: TextIO) -> None:
    model = one.model
    chosen = "no model" if model is None else _described(model)
    _line(out, f"\nprocess {one.process.key.pid} ({one.process.comm}): {chosen}")
    for step in one.steps:
        _line(out, f"  {'+' if step.found else '-'} {step.looked_at}: {step.result}")
    if model is None:
        _line(out, f"  fix: {_NO_MODEL_FIX}")


def _described(model: Model) -> str:
    variant = f", variant {model.variant}" if model.variant else ""
    return f"{model.model_name}, {model.phase}{variant}, from {_sources(model.source)}"


def _sources(source: str) -> str:
    article = "an" if source.startswith("a") else "a"
    return {"command": "a command line", "environment": "a variable", "server": "the server's list"}.get(
        source, f"{article} {source}"
    )


def _line(out: TextIO, text: str) -> None:
    out.write("".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text) + "\n")
