"""The table of settings, by name: what the command line, the environment, files and the documentation are made of."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from .settings import Settings
from .value_types import ValueType

ENVIRONMENT_PREFIX = "AI_ENERGY_"


class Setting(NamedTuple):
    """One row of the table. ``in_file`` is False for what only a flag or the environment can set."""

    name: str
    field: str
    value_type: ValueType
    default: Any
    help: str
    reloadable: bool
    in_file: bool

    @property
    def variable(self) -> str:
        """Name of its environment variable."""
        return ENVIRONMENT_PREFIX + re.sub(r"[.-]", "_", self.name).upper()


def _rows() -> Iterator[Setting]:
    defaults = Settings()
    for row in dataclasses.fields(Settings):
        yield Setting(field=row.name, default=getattr(defaults, row.name), **row.metadata)


TABLE: Mapping[str, Setting] = {row.name: row for row in _rows()}
"""Settings by name, in the order of the help."""
