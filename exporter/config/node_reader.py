"""Base of what reads a YAML file of its own, and reports every error in it with file, line and key."""

from __future__ import annotations

from abc import abstractmethod
from typing import Generic, TypeVar

import yaml

from .loading import ConfigError
from .yaml_file import compose

T = TypeVar("T")


class NodeReader(Generic[T]):
    """Reads one file; ``problems`` has one message for each error found so far."""

    def __init__(self, path: str) -> None:
        self.problems: list[str] = []
        self._path = path

    def read(self) -> T:
        """What the file says. Raises `ConfigError` with all errors."""
        try:
            root = compose(self._path)
        except ValueError as error:
            raise ConfigError([f"{self._path}:{error}"]) from None
        content = self.document(root)
        if self.problems:
            raise ConfigError(self.problems)
        return content

    @abstractmethod
    def document(self, root: yaml.Node | None) -> T:
        """What the document says, None being an empty one; errors are reported, and what they concern is left out."""

    def _report(self, node: yaml.Node | None, message: str) -> None:
        line = node.start_mark.line + 1 if node is not None else 1
        self.problems.append(f"{self._path}:{line}: {message}")
