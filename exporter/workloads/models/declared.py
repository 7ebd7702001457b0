"""Evidence of a model in the metadata of its container: annotations, labels, the specification's command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ...config.model_rules import PHASES, ModelRule
from ..metadata.container_metadata import ContainerMetadata
from .evidence import NOTHING, Evidence, Variable
from .names import harmless
from .podspec import entry_point
from .recognise import recognise


class ModelOptions(NamedTuple):
    """Options; ``keys``, ``phase_keys`` and ``variant_keys`` are names of labels or annotations (see the settings)."""

    rules: Sequence[ModelRule] = ()
    keys: Sequence[str] = ()
    phase_keys: Sequence[str] = ()
    ask_servers: bool = False
    variant_keys: Sequence[str] = ()
    key_file: str = ""


def by_label(metadata: ContainerMetadata | None, options: ModelOptions) -> Evidence:
    """Evidence of annotations and labels; an annotation takes precedence, because a label cannot contain a slash."""
    if metadata is None:
        return NOTHING
    places = (("annotation", metadata.annotations), ("label", metadata.labels))
    name = source = phase = variant = ""
    for key in options.keys:
        for kind, values in places:
            if not name and (name := harmless(values.get(key, ""))):
                source = kind
    for key in options.phase_keys:
        for _, values in places:
            value = values.get(key, "").strip().lower()
            phase = phase or (value if value in PHASES else "")
    for key in options.variant_keys:
        for _, values in places:
            variant = variant or harmless(values.get(key, ""))
    return Evidence(name, phase, source, variant=variant)


def no_label(metadata: ContainerMetadata | None, options: ModelOptions) -> str:
    """Why annotations and labels give no name."""
    if metadata is None:
        return "no metadata of its container"
    return f"none of {', '.join(options.keys)}" if options.keys else "no keys are configured"


def declared_command(metadata: ContainerMetadata) -> Evidence:
    """Evidence of the pod's command, for processes that hide theirs: those with a title, and those in a sandbox."""
    evidence = recognise(entry_point(metadata))
    if evidence.model_name:
        return evidence
    found = of_variables(evidence.environment, metadata.environment)
    return found._replace(phase=evidence.phase, why=evidence.why, variant=evidence.variant or found.variant)


def of_variables(variables: Sequence[Variable], values: Mapping[str, str]) -> Evidence:
    """Evidence of the first variable whose value names a model."""
    for variable in variables:
        value = values.get(variable.name, "")
        if name := variable.model_name(value):
            return Evidence(name, source="environment", variant=variable.variant(value))
    return NOTHING
