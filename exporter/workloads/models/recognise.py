"""Recognises the model of a command line by the table of launchers. Pure, no I/O."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from .arguments import Arguments
from .commandline import Command, commands, is_shell
from .evidence import NO_ARGUMENT, NO_PLACE, NOTHING, SEVERAL, Evidence, Lookup, Variable
from .launchers import CALLS, Launcher
from .names import chosen_name, harmless, place_name
from .scripts import recognise_script
from .servers import server_call
from .variants import of_arguments

_REPLICA = re.compile(r"ray::ServeReplica:[^:]*:(.+?)(?:\.\w+(?:\(.*)?)?\Z", re.DOTALL)
_NO_MODELS = re.compile(r"(?:.*(?:Ingress|Router|Proxy|Config\w*))|(?:V?LLM|Prefill|Decode)?(?:Deployment|Server)")
"""Ray Serve deployments that run no model, or have the name of one of Ray's own classes."""

_MAX_TITLE = 512
_NO_RUN_OPTIONS = ("--help", "--version")


def recognise(words: Sequence[str]) -> Evidence:
    """Evidence of the model that a command line runs; `NOTHING` without any, or if it starts several models."""
    if not words:
        return NOTHING
    if words[0].startswith("ray::"):
        return _of_replica(words[0][:_MAX_TITLE])
    found = [evidence for command in commands(words) if (evidence := _of_command(command)) is not NOTHING]
    named = [evidence for evidence in found if evidence.model_name]
    if named:
        sole = named[0] if len({evidence.model_name for evidence in named}) == 1 else NOTHING
        if len({evidence.variant for evidence in named}) > 1:
            sole = sole._replace(variant="", weights="")
        return sole._replace(server=None) if is_shell(words[0]) and sole.server is not None else sole
    if len(found) != 1:
        return NOTHING
    # A shell only waits: lookups and variables apply to the program that it starts.
    return Evidence(phase=found[0].phase, why=found[0].why) if is_shell(words[0]) else found[0]


def _of_command(command: Command) -> Evidence:
    if not set(_NO_RUN_OPTIONS).isdisjoint(command.arguments):
        return NOTHING
    for key in _keys(command.program):
        for verbs, launcher in CALLS.get(key, ()):
            if command.arguments[: len(verbs)] == verbs:
                arguments = Arguments(command.arguments[len(verbs) :])
                return _of_launcher(launcher, arguments)._replace(server=server_call(launcher.metrics, arguments))
    return recognise_script(command)


def _keys(program: str) -> Iterator[str]:
    """Names of a program in the table: a script may also be listed by the end of its path, or as a module.

    A module may be listed as the program of its name: ``python -m lm_eval`` is ``lm-eval``.
    """
    yield program
    if program.startswith("-m "):
        name = program[3:].removesuffix(".__main__")
        yield from dict.fromkeys((name, name.replace("_", "-")))
    if program.endswith(".py") and "/" in program:
        parts = program.split("/")
        yield parts[-1]
        for start in range(max(0, len(parts) - 5), len(parts) - 1):
            yield "/".join(parts[start:])
            yield "-m " + ".".join(parts[start:]).removesuffix(".py").removesuffix(".__main__")


def _of_launcher(launcher: Launcher, arguments: Arguments) -> Evidence:
    why = NO_ARGUMENT
    given = (arguments.find(place) for place in launcher.names.split() if not place.endswith("*"))
    weights = next(filter(None, given), "")
    variant = of_arguments(arguments, weights)
    folder = weights if weights.startswith("/") and not variant else ""
    for places, name_of in ((launcher.served, chosen_name), (launcher.names, place_name)):
        for place in places.split():
            if place.endswith("*"):
                values = set(arguments.all(place[:-1]))
                if len(values) > 1:
                    return Evidence(phase=launcher.phase, why=SEVERAL)
                value = next(iter(values), None)
            else:
                value = arguments.find(place)
            if value and (name := name_of(value)):
                return Evidence(name, launcher.phase, "command", variant=variant, weights=folder)
            why = NO_PLACE if value else why
    return Evidence(
        phase=launcher.phase,
        environment=(
            *(Variable(name.removesuffix(","), True, name[-1] == ",") for name in launcher.served_environment.split()),
            *(Variable(name) for name in launcher.environment.split()),
        ),
        lookups=tuple(_lookups(launcher, arguments)),
        why=why,
        variant=variant,
        weights=folder,
    )


def _lookups(launcher: Launcher, arguments: Arguments) -> Iterator[Lookup]:
    if launcher.files is not None and (path := arguments.find(launcher.files.place)):
        if len(set(arguments.all(launcher.files.place))) > 1:
            return  # several repositories: the only model of one need not be the only model
        yield Lookup(launcher.files.kind, path, launcher.files.keys, launcher.files.served)
    if launcher.port:
        port = arguments.find("--port") or str(launcher.port)
        if port.isdecimal() and 0 < int(port[:6]) < 65_536:
            yield Lookup("server", port)


def _of_replica(title: str) -> Evidence:
    """``ray::ServeReplica:default:LLMServer:Qwen--Qwen2_5-7B``: Ray writes ``--`` for ``/`` and ``_`` for ``.``."""
    match = _REPLICA.match(title)
    if match is None:
        return NOTHING
    kind, _, model = match[1].rpartition(":")
    if not kind and _NO_MODELS.fullmatch(model):
        return NOTHING
    return Evidence(harmless(model.replace("--", "/", 1) if kind else model), "inference", "command")
