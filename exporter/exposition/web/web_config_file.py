"""Access to the values of ``--web.config.file``; every error is collected with its line."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, TypeVar

from ...config import yaml_file

T = TypeVar("T")

_MAX_FILE_BYTES = 1 << 20


class WebConfigError(Exception):
    """The file is invalid; ``problems`` has one line per error and contains no secret."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


class WebFile:
    """The values of the file by dotted name; ``mappings`` are the names whose keys the user chooses.

    While values are taken, ``problems`` collects errors and ``warnings`` what has another effect here than in the
    toolkit. ``files`` are the paths read so far.
    """

    def __init__(self, path: str, names: Collection[str], mappings: Collection[str]) -> None:
        self._layer, self.problems = yaml_file.read(path, names, (), mappings)
        self.files = [path]
        self.warnings: list[str] = []
        self._folder = os.path.dirname(path)

    def __contains__(self, name: str) -> bool:
        return name in self._layer

    def where(self, *names: str) -> str:
        """Return ``file:line`` of the first name that is set; a name that ends in a dot is a whole section."""
        for name in names:
            for given, (where, _) in self._layer.items():
                if given == name or (name.endswith(".") and given.startswith(name)):
                    return where
        return self.files[0]

    def take(self, name: str, parse: Callable[[Any], T], default: T) -> T:
        """Return the parsed value; the default if it is not set or invalid."""
        if name not in self._layer:
            return default
        try:
            return parse(self._layer[name][1])
        except ValueError as error:
            self.error(name, str(error))
            return default

    def entries(self, name: str) -> Iterator[tuple[str, str, str]]:
        """Yield ``file:line``, key and value of each entry of a mapping."""
        if name not in self._layer:
            return
        found = self._layer[name][1]
        for entry in found if isinstance(found, list) else [found]:
            if not isinstance(entry, yaml_file.Entry):
                self.error(name, "must be a mapping")
                continue
            for key, (where, value) in entry.values.items():
                if isinstance(value, str):
                    yield where, key, value
                else:
                    self.problems.append(f"{where}: {name}: is nested too deeply")

    def load(self, path: str) -> str:
        """Read another file; a relative path starts at the folder of this one. Raises ValueError."""
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
        """Add an error about a name that is set."""
        self.problems.append(f"{self.where(name)}: {name}: {message}")

    def warn(self, name: str, message: str) -> None:
        """Add a warning about a name that is set."""
        self.warnings.append(f"{self.where(name)}: {name}: {message}")
