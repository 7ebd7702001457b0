"""Evidence of a model: its name and phase as found in a command line, a label or a rule."""

from __future__ import annotations

from typing import Literal, NamedTuple

from ..protocol import ServerRole
from .names import chosen_name, place_name
from .variants import of_place


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

    def variant(self, value: str) -> str:
        """The variant that a place in its value says, "" if none."""
        return "" if self.chosen else of_place(value)


class Lookup(NamedTuple):
    """Another place to find the name, too slow to read in the tick.

    ``kind`` server: list the models of the HTTP server on port ``value``. ollama: find the manifest of the blob with
    the path ``value``. triton, mlserver: read the only model of the repository ``value``. config: read the first of
    ``served`` (chosen names), else of ``keys`` (places of weights), that the YAML or JSON file ``value`` has.
    weights: read the variant in the config of the folder of weights ``value``.
    """

    kind: Literal["server", "ollama", "triton", "mlserver", "config", "weights"]
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


CHOSEN = ("annotation", "label", "rule")
"""Sources of a name that may stand for any program in the container."""


class Evidence(NamedTuple):
    """``model_name`` and ``phase`` are "" if not found; ``source`` is where the name was found.

    ``environment`` lists the variables from which the program takes its model if its arguments do not name one;
    ``lookups`` are tried if those are not set either. ``why`` is the reason why a known program's arguments name none.
    ``server`` is set for a program that counts tokens. ``variant`` is as in `Model`; ``weights`` is a folder whose
    config may say one, where the arguments do not.
    """

    model_name: str = ""
    phase: str = ""
    source: str = ""
    environment: tuple[Variable, ...] = ()
    lookups: tuple[Lookup, ...] = ()
    why: str = ""
    server: ServerCall | None = None
    variant: str = ""
    weights: str = ""

    def merged(self, other: Evidence) -> Evidence:
        """This evidence, with what it lacks taken from ``other``.

        A variant is taken only if it is that of the same model: with the name, or for a name that was chosen for
        whatever runs there.
        """
        merged = self
        same = self.source in CHOSEN or not self.model_name or self.model_name == other.model_name
        if same and not self.variant and other.variant:
            merged = merged._replace(variant=other.variant)
        if not self.model_name and other.model_name:
            merged = merged._replace(model_name=other.model_name, source=other.source)
        return merged if merged.phase else merged._replace(phase=other.phase)


NO_ARGUMENT = "its arguments name no model"
NO_PLACE = "what its arguments give as the model is a folder, a setting, a variable or a digest, and no name"
SEVERAL = "several models in one process"
"""Values of `Evidence.why`."""

NOTHING = Evidence()
