"""The file of ``--web.config.file``, value by value; every mistake is kept with its line."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, TypeVar

from ...config import yaml_file as yamlfile

T = TypeVar("T")

_MAX_FILE_BYTES = 1 << 20


class WebConfigError(Exception):
    """The file cannot be used; ``problems`` has one line for each thing wrong with it, and no secret."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


class WebFile:
    """What the file says, by dotted name; ``mappings`` are the names whose keys are the user's own.

    ``problems`` grows while it is read, and ``notes`` with what can be used but means something else here than in the
    toolkit; ``files`` are all that were looked at.
    """

    def __init__(self, path: str, names: Collection[str], mappings: Collection[str]) -> None:
        self._layer, self.problems = yamlfile.read(path, names, (), mappings)
        self.files = [path]
        self.warnings: list[str] = []
        self._folder = os.path.dirname(path)

    def __contains__(self, name: str) -> bool:
        return name in self._layer

    def where(self, *names: str) -> str:
        """``file:line`` of the first of these that is there; a name that ends in a dot is a whole section."""
        for name in names:
            for given, (where, _) in self._layer.items():
                if given == name or (name.endswith(".") and given.startswith(name)):
                    return where
        return self.files[0]

    def take(self, name: str, parse: Callable[[Any], T], default: T) -> T:
        """The value, or the default if there is none or none that can be used."""
        if name not in self._layer:
            return default
        try:
            return parse(self._layer[name][1])
        except ValueError as error:
            self.error(name, str(error))
            return default

    def entries(self, name: str) -> Iterator[tuple[str, str, str]]:
        """Where, key and value of each entry of a mapping."""
        if name not in self._layer:
            return
        found = self._layer[name][1]
        for entry in found if isinstance(found, list) else [found]:
            if not isinstance(entry, yamlfile.Entry):
                self.error(name, "must be a mapping")
                continue
            for key, (where, value) in entry.values.items():
                if isinstance(value, str):
                    yield where, key, value
                else:
                    self.problems.append(f"{where}: {name}: is nested too deeply")

    def load(self, path: str) -> str:
        """Text of another file, relative to the folder of this one. Raises ValueError."""
        path = os.path.join(self._folder, path)
        self.files.append(path)
        try:
            with open(path, "rb") as file:
                return file.read(_MAX_FILE_BYTES).decode("ascii")
        except OSError as error:
            hint = f" for uid {os.geteuid()}" if isinstance(error, PermissionError) else ""
            raise ValueError(f"{path}: {error.strerror}{hint}") from None
        except UnicodeDecodeError:
            raise ValueError(f"{path}: not PEM text") from None

    def error(self, name: str, message: str) -> None:
        """Note what is wrong with a name that is there."""
        self.problems.append(f"{self.where(name)}: {name}: {message}")

    def warn(self, name: str, message: str) -> None:
        """Note what the operator should know about it."""
        self.warnings.append(f"{self.where(name)}: {name}: {message}")
