"""Finds values in the arguments of a program of which only some options are known."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_FLAGS = re.compile(
    r"--?(?:enable|disable|no|use|trust|enforce|log|return|skip|allow|ignore|is|with|verbose|debug|quiet|headless|reload"
    r"|cpu|local|fully|force|calculate|async|multi|show|print|do|bf16|fp16|tf32|omni|ollama-engine|v|q)(?:[-_].*)?"
)
"""Options that take no value, guessed from their names; only positional arguments depend on this guess."""


class Arguments:
    """The words after a program's name. ``--a-b`` and ``--a_b`` are the same option; the last value wins."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words
        self._options: dict[str, list[str]] = {}
        for index, word in enumerate(words):
            if word.startswith("-") and len(word) > 1:
                option, equals, value = word.partition("=")
                if not equals:
                    following = words[index + 1] if index + 1 < len(words) else ""
                    value = "" if following.startswith("-") else following
                self._options.setdefault(_normal(option), []).append(value)

    def has(self, option: str) -> bool:
        """Whether an option is present, with or without a value."""
        return _normal(option) in self._options

    def all(self, option: str) -> list[str]:
        """Every value of a repeated option."""
        return [value for value in self._options.get(_normal(option), ()) if value]

    def find(self, place: str) -> str | None:
        """The value at a place, None if there is none.

        A place is ``--option``, ``@`` (the first positional argument that is not a number), ``key=`` (a Hydra override,
        ``model=yolo11n.pt``), or ``--option/key`` (a pair in the value, ``--model_args pretrained=gpt2``).
        """
        if place == "@":
            return next((word for word in self._positional() if not word.isdigit()), None)
        if place.endswith("="):
            found = [word[len(place) :] for word in self._words if word.startswith(place)]
            return found[-1] if found else None
        option, _, key = place.partition("/")
        values = self._options.get(_normal(option))
        if not values:
            return None
        if not key:
            return values[-1]
        pairs = (pair.partition("=") for pair in values[-1].split(","))
        return next((value for name, _, value in pairs if name.strip() == key), None)

    def _positional(self) -> Iterator[str]:
        index = 0
        while index < len(self._words):
            word = self._words[index]
            if word == "--":
                yield from self._words[index + 1 :]
                return
            if not word.startswith("-"):
                yield word
            elif "=" not in word and not _FLAGS.fullmatch(word):
                index += 1
            index += 1


def _normal(option: str) -> str:
    return option.lstrip("-").replace("_", "-") if option.startswith("--") else option.replace("_", "-")
