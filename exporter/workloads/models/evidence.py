"""Evidence of a model: its name and phase as found in a command line, a label or a rule."""

from __future__ import annotations

from typing import Literal, NamedTuple

from ..protocol import ServerRole
from .names import chosen_name, place_name


class Variable(NamedTuple):
    """A variable from which a program takes its model: a ``chosen`` name, or else the place of its weights.

    ``listed``: its value is a list with commas, of which the first counts.
    """

    name: str
    chosen: bool = False
    listed: bool = False

    def model_name(self, value: str) -> str:
        """The model name in its value, "" if there is none."""
        if not self.chosen:
            return place_name(value)
        return chosen_name(value.partition(",")[0] if self.listed else value)


class Lookup(NamedTuple):
    """Another place to find the name, too slow to read in the tick.

    ``kind`` server: list the models of the HTTP server on port ``value``. ollama: find the manifest of the blob with
    the path ``value``. triton, mlserver: read the only model of the repository ``value``. config: read the first of
    ``served`` (chosen names), else of ``keys`` (places of weights), that the YAML or JSON file ``value`` has.
    """

    kind: Literal["server", "ollama", "triton", "mlserver", "config"]
    value: str
    keys: tuple[str, ...] = ()
    served: tuple[str, ...] = ()


class ServerCall(NamedTuple):
    """How a command line starts a model server: its dialect, port, and role (see `ModelServer`).

    ``variables`` may set the port where no argument does; port 0 is unknown without them.
    """

    dialect: str
    port: int
    variables: tuple[str, ...] = ()
    role: ServerRole = ""


class Evidence(NamedTuple):
    """``model_name`` and ``phase`` are "" if not found; ``source`` is where the name was found.

    ``environment`` lists the variables from which the program takes its model if its arguments do not name one;
    ``lookups`` are tried if those are not set either. ``why`` is the reason why a known program's arguments name none.
    ``server`` is set for a program that counts tokens.
    """

    model_name: str = ""
    phase: str = ""
    source: str = ""
    environment: tuple[Variable, ...] = ()
    lookups: tuple[Lookup, ...] = ()
    why: str = ""
    server: ServerCall | None = None


NO_ARGUMENT = "its arguments name no model"
NO_PLACE = "what its arguments give as the model is a folder, a setting, a variable or a digest, and no name"
SEVERAL = "several models in one process"
"""Values of `Evidence.why`."""

NOTHING = Evidence()
