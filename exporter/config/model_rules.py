"""Operator-defined rules that map processes to model names and phases."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from .value_types import NestedValueError, ValueType, did_you_mean, quoted
from .yaml_file import Entry, entries

FIELDS = ("namespace", "pod", "container", "image", "command")
"""Fields that a rule may match, each with a regular expression that is searched for in the value."""

PHASES = ("training", "inference", "unknown")

_ASSIGNED = ("model_name", "phase", "variant")
_KEYS = (*FIELDS, "environment", *_ASSIGNED)
_REFERENCE = re.compile(r"\$\{(\w+)\}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Claim(NamedTuple):
    """The model name, phase and variant that a rule assigns; "" for none."""

    model_name: str = ""
    phase: str = ""
    variant: str = ""


@dataclass(frozen=True, slots=True)
class ModelRule:
    """All of ``fields`` and ``environment`` (name of a variable → pattern) must match.

    ``model_name`` and ``variant`` may hold ``${group}`` for a named group of any of the patterns.
    """

    fields: tuple[tuple[str, re.Pattern[str]], ...] = ()
    environment: tuple[tuple[str, re.Pattern[str]], ...] = ()
    model_name: str = ""
    phase: str = ""
    variant: str = ""

    @property
    def reads_command(self) -> bool:
        """Whether the rule needs the command line."""
        return any(name == "command" for name, _ in self.fields)

    def match(
        self, values: Mapping[str, str], variable: Callable[[str], str], name_of: Callable[[str], str]
    ) -> Claim | None:
        """Return what the rule assigns to a process, None if it does not match.

        ``variable`` returns the value of an environment variable, "" if it is not set; it is called last, because
        reading the environment is expensive. ``name_of`` converts a captured text to a name; if a captured group gives
        an empty name, the rule assigns no name. A variant has the captured text itself.
        """
        groups: dict[str, str] = {}
        for name, pattern in self.fields:
            if (found := pattern.search(values.get(name, ""))) is None:
                return None
            groups.update(found.groupdict(""))
        for name, pattern in self.environment:
            value = variable(name)
            if not value or (found := pattern.search(value)) is None:
                return None
            groups.update(found.groupdict(""))
        variant = _REFERENCE.sub(lambda match: groups[match[1]], self.variant)
        parts = {name: name_of(groups[name]) for name in _REFERENCE.findall(self.model_name)}
        if not all(parts.values()):
            return Claim(phase=self.phase, variant=variant)
        return Claim(_REFERENCE.sub(lambda match: parts[match[1]], self.model_name), self.phase, variant)


def rule_list() -> ValueType:
    """A list of rules, as YAML mappings; a flag or variable has the same YAML on one line."""

    def parse(value: Any) -> tuple[ModelRule, ...]:
        texts = [value] if isinstance(value, str) else value
        given = [entry for one in texts for entry in (entries(one) if isinstance(one, str) else [one])]
        problems: list[tuple[str, str]] = []
        rules = tuple([_rule(entry, problems) for entry in given])
        if problems:
            raise NestedValueError(problems)
        return rules

    return ValueType("RULES", parse, lambda rules: "" if not rules else f"{len(rules)} rules", "records")


def _rule(entry: Entry, problems: list[tuple[str, str]]) -> ModelRule:
    wrong = len(problems)
    texts: dict[str, str] = {}
    fields, environment = [], []
    for key, (where, value) in entry.values.items():
        if key not in _KEYS:
            problems.append((where, f"unknown key: {quoted(key)}{did_you_mean(key, _KEYS)}"))
        elif key == "environment":
            if not isinstance(value, dict):
                problems.append((where, "environment must map names of variables to regular expressions"))
                continue
            for name, (place, pattern) in value.items():
                if not _VARIABLE.fullmatch(name):
                    problems.append((place, f"environment: {quoted(name)} is not the name of a variable"))
                environment.append((name, _pattern(f"environment.{name}", place, pattern, problems)))
        elif not isinstance(value, str):
            problems.append((where, f"{key} must not be a {'mapping' if isinstance(value, dict) else 'list'}"))
        elif key in FIELDS:
            fields.append((key, _pattern(key, where, value, problems)))
        else:
            texts[key] = _text(key, where, value, problems)
    assigned = (texts.get(key, "") for key in _ASSIGNED)
    rule = ModelRule(tuple(fields), tuple(environment), *assigned)
    if len(problems) == wrong:
        _check(rule, entry, problems)
    return rule


def _check(rule: ModelRule, entry: Entry, problems: list[tuple[str, str]]) -> None:
    """Append the errors that concern the rule as a whole."""
    if not (rule.fields or rule.environment):
        problems.append((entry.where, f"a rule must match something: {', '.join(FIELDS)} or environment"))
    if not (rule.model_name or rule.phase or rule.variant):
        problems.append((entry.where, "a rule must set model_name, phase or variant"))
    known = {name for _, pattern in (*rule.fields, *rule.environment) for name in pattern.groupindex}
    for key, text in (("model_name", rule.model_name), ("variant", rule.variant)):
        for name in _REFERENCE.findall(text):
            if name in known:
                continue
            where = entry.values[key][0]
            hint = did_you_mean(name, known) or f"; add (?P<{name}>...) to one of its patterns"
            problems.append((where, f"{key}: no group is named {quoted(name)}{hint}"))


def _pattern(key: str, where: str, text: str, problems: list[tuple[str, str]]) -> re.Pattern[str]:
    try:
        if not text:
            raise re.error("it is empty")
        return re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        problems.append((where, f"{key}: {quoted(text)} is not a regular expression: {error}"))
        return re.compile("")


def _text(key: str, where: str, value: str, problems: list[tuple[str, str]]) -> str:
    rest = _REFERENCE.sub("", value)
    if not value:
        problems.append((where, f"{key}: is empty"))
    elif key == "phase" and value not in PHASES:
        problems.append((where, f"phase: {quoted(value)} is not one of {', '.join(PHASES)}"))
    elif not value.isprintable() or len(value) > 128:
        problems.append((where, f"{key}: {quoted(value)} is not a printable text of at most 128 characters"))
    elif "$" in rest:
        problems.append((where, f"{key}: $ must be the start of ${{group}}, the name of a group of the rule"))
    return value


def variables(rules: Sequence[ModelRule]) -> frozenset[str]:
    """Return the environment variables that the rules match; no others are read."""
    return frozenset(name for rule in rules for name, _ in rule.environment)
