"""What a command line, a label or a rule says of a model."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Question(NamedTuple):
    """Where else the name can be learned, by someone who has time.

    ``kind`` server: ask the HTTP server on port ``value`` for its models; ollama: find the manifest of the blob whose
    path is ``value``; triton: see whether the repository ``value`` has one model; config: look up the first of
    ``keys`` in the YAML file ``value``.
    """

    kind: Literal["server", "ollama", "triton", "config"]
    value: str
    keys: tuple[str, ...] = ()


class Evidence(NamedTuple):
    """``model_name`` and ``phase`` are "" where nothing is said; ``source`` tells who said the name.

    ``environment`` are the variables in which this program looks for its model when its arguments are silent;
    ``questions`` are asked when those are silent too.
    """

    model_name: str = ""
    phase: str = ""
    source: str = ""
    environment: tuple[str, ...] = ()
    questions: tuple[Question, ...] = ()


NOTHING = Evidence()
