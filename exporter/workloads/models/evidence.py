"""Evidence of a model: its name and phase as found in a command line, a label or a rule."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Lookup(NamedTuple):
    """Another place to find the name, too slow to read in the tick.

    ``kind`` server: list the models of the HTTP server on port ``value``. ollama: find the manifest of the blob with
    the path ``value``. triton: read the only model of the repository ``value``. config: read the first of ``keys`` that
    the YAML file ``value`` has.
    """

    kind: Literal["server", "ollama", "triton", "config"]
    value: str
    keys: tuple[str, ...] = ()


class Evidence(NamedTuple):
    """``model_name`` and ``phase`` are "" if not found; ``source`` is where the name was found.

    ``environment`` lists the variables from which the program takes its model if its arguments do not name one;
    ``lookups`` are tried if those are not set either.
    """

    model_name: str = ""
    phase: str = ""
    source: str = ""
    environment: tuple[str, ...] = ()
    lookups: tuple[Lookup, ...] = ()


NOTHING = Evidence()
