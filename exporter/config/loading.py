"""Loading settings: defaults < file < environment < flags; errors name the key and the line."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from . import yaml_file
from .meters import read_meters, twice
from .settings import Settings
from .settings_table import ENVIRONMENT_PREFIX, TABLE
from .value_types import NestedValueError, did_you_mean, keeps_secrets

_KUBERNETES_LINK = re.compile(r"_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?$")
"""Variables that Kubernetes sets in every pod for a Service named ``ai-energy…``: not settings."""


class ConfigError(Exception):
    """The settings are invalid; ``problems`` has one line per error."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


def load(flags: Mapping[str, object], environ: Mapping[str, str]) -> Settings:
    """Load and check every layer, including overridden values.

    ``flags`` maps setting names to the values of the command line: text, a list of texts, or a bool. Empty environment
    variables count as unset. Raises `ConfigError` with all errors.
    """
    problems: list[str] = []
    values: dict[str, Any] = {}
    environment = _environment(environ, problems)
    given = {name: (f"--{name}", value) for name, value in flags.items()}

    path = str((given.get("config.file") or environment.get("config.file") or ("", ""))[1])
    layers: list[Mapping[str, tuple[str, Any]]] = [environment, given]
    if path.isprintable() and path:  # any other path is an error below
        allowed = [row.name for row in TABLE.values() if row.in_file]
        mappings, records = (
            [n for n in allowed if TABLE[n].value_type.shape == shape] for shape in ("mapping", "records")
        )
        content, errors = yaml_file.read(path, allowed, mappings, records)
        problems += errors
        layers.insert(0, content)

    for layer in layers:
        for name, (where, value) in layer.items():
            row = TABLE[name]
            try:
                values[row.field] = row.value_type.parse(value)
            except NestedValueError as error:
                here = where if where == f"--{name}" else f"{where}: {name}"
                problems += [
                    f"{place}: {name}: {message}" if place else f"{here}: {message}"
                    for place, message in error.problems
                ]
            except ValueError as error:
                problems.append(f"{where}: {error}" if where == f"--{name}" else f"{where}: {name}: {error}")
    if not problems:
        settings = _with_meters(Settings(**values), problems)
        problems += _contradictions(settings)
    if problems:
        raise ConfigError(problems)
    return settings


def reloaded(old: Settings, new: Settings) -> tuple[Settings, list[str]]:
    """Return the settings after a reload, and the names of those that changed but need a restart."""
    changed = [row for row in TABLE.values() if getattr(old, row.field) != getattr(new, row.field)]
    taken = {row.field: getattr(new, row.field) for row in changed if row.reloadable}
    return dataclasses.replace(old, **taken), [row.name for row in changed if not row.reloadable]


def _with_meters(settings: Settings, problems: list[str]) -> Settings:
    """The settings with the meters of their file."""
    if not settings.meters_file:
        return settings
    try:
        meters = settings.meters + read_meters(settings.meters_file)
    except NestedValueError as error:
        problems += [f"{place}: meters: {message}" for place, message in error.problems]
        return settings
    if name := twice(meters):
        problems.append(f"{settings.meters_file}: meters: another meter is named {name!r} already")
    return dataclasses.replace(settings, meters=meters)


def _environment(environ: Mapping[str, str], problems: list[str]) -> dict[str, tuple[str, object]]:
    names = {row.variable: row.name for row in TABLE.values()}
    found: dict[str, tuple[str, object]] = {}
    for variable, value in environ.items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or not value:
            continue
        if variable in names:
            found[names[variable]] = (variable, value)
        elif not _KUBERNETES_LINK.search(variable):
            problems.append(f"{variable}: unknown setting{did_you_mean(variable, names)}")
    return found


def _contradictions(settings: Settings) -> Iterator[str]:
    low, high = settings.estimate_min_watts_per_cpu, settings.estimate_max_watts_per_cpu
    if (low is None) != (high is None):
        yield "estimate.min-watts-per-cpu and estimate.max-watts-per-cpu must be set together or not at all"
    elif low is not None and high is not None and low > high:
        yield f"estimate.min-watts-per-cpu ({low:g}) is above estimate.max-watts-per-cpu ({high:g})"
    yield from _of_bmc(settings)


def _of_bmc(settings: Settings) -> Iterator[str]:
    trusts = {
        "bmc.redfish.ca": settings.bmc_redfish_ca,
        "bmc.redfish.fingerprint": settings.bmc_redfish_fingerprint,
        "bmc.redfish.insecure": settings.bmc_redfish_insecure,
    }
    given = [name for name, value in trusts.items() if value]
    if len(given) > 1:
        yield f"{' and '.join(given)} exclude each other"
    if settings.bmc_redfish_credentials and not settings.bmc_redfish_url:
        yield "bmc.redfish.credentials needs bmc.redfish.url"
    if settings.bmc_redfish_credentials and not keeps_secrets(settings.bmc_redfish_url or "https://bmc"):
        yield "bmc.redfish.url must be https: a password is sent over http to this machine only"
