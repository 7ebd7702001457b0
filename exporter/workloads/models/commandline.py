"""Finds the programs that a command line starts, inside wrappers, interpreters and ``sh -c`` strings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .wrappers import WRAPPERS

_DEPTH = 8
_MAX_SCRIPT = 8192
_MAX_COMMANDS = 64
_MAX_WORDS = 1024

_SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh", "ksh", "fish", "busybox", "su"})
_PYTHON = re.compile(r"(?:python|pypy|python-real|pythonw)(?:\d+(?:\.\d+)*t?d?)?")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=", re.ASCII)
_SHELL_WORDS = frozenset({"then", "do", "else", "{", "(", "!", "if", "elif", "while", "until", "eval"})
_PYTHON_VALUED = frozenset({"-X", "-W", "--check-hash-based-pycs"})

# Possessive quantifiers keep matching linear on hostile input. The last group is a quote that is never closed.
_TOKEN = re.compile(
    r"""([;&|()<>\n]++) | ((?: [^\s;&|()<>'"\\]++ | '[^']*+' | "(?:[^"\\]++|\\.)*+" | \\. )++) | (['"\\])""",
    re.DOTALL | re.VERBOSE,
)
_QUOTED = re.compile(r"""'([^']*+)'|"((?:[^"\\]++|\\.)*+)"|\\(.)""", re.DOTALL)
_ESCAPED = re.compile(r"\\([\\\"$`])")

TITLE = re.compile(r"[\w.-]+::")
"""Start of a title that a process has written over its command line: ``VLLM::EngineCore``, ``sglang::scheduler``."""


class Command(NamedTuple):
    """One program that a command line starts.

    ``program`` is the last component of its path, ``-m MODULE`` for a Python module, or the path of a ``.py`` script.
    ``ranks`` is whether a launcher of training ranks starts it.
    """

    program: str
    arguments: tuple[str, ...]
    ranks: bool = False


def split(raw: bytes) -> list[str]:
    """Words of ``/proc/PID/cmdline`` (proc(5)). Invalid UTF-8 becomes U+FFFD, the padding of a title is dropped."""
    text = raw.rstrip(b"\0 ").decode("utf-8", "replace")
    return text.split("\0", _MAX_WORDS)[:_MAX_WORDS] if text else []


def is_shell(word: str) -> bool:
    """Whether the first word of a command line, or a ``comm``, names a shell."""
    return word.rpartition("/")[2].removeprefix("-") in _SHELLS


def commands(words: Sequence[str]) -> list[Command]:
    """Every program that a command line starts: one, several in a ``sh -c`` string, or none."""
    return list(_commands(list(words), _DEPTH, ranks=False))[:_MAX_COMMANDS]


def _commands(words: list[str], depth: int, *, ranks: bool) -> Iterator[Command]:
    while words and depth > 0:
        depth -= 1
        while words and (_ASSIGNMENT.match(words[0]) or words[0] in _SHELL_WORDS):
            words = words[1:]
        if not words:
            return
        program = words[0].rpartition("/")[2].removeprefix("-")
        if is_shell(program):
            for command in _of_shell(words):
                yield from _commands(command, depth, ranks=ranks)
            return
        if _PYTHON.fullmatch(program):
            words = _of_python(words)
            if not words:
                return
            program = words[0] if words[0].endswith(".py") else words[0].rpartition("/")[2]
        wrapper = WRAPPERS.get(program)
        if wrapper is None:
            yield Command(program, tuple(words[1:]), ranks)
            return
        ranks = ranks or wrapper.ranks
        words = wrapper.inner(words)


def _of_python(words: list[str]) -> list[str]:
    """``-m MODULE`` as one word, or the script, with its arguments; nothing for ``-c`` and a bare interpreter."""
    index = 1
    while index < len(words):
        word = words[index]
        if word == "-m":
            return [f"-m {words[index + 1]}", *words[index + 2 :]] if index + 1 < len(words) else []
        if word.startswith("-m") and not word.startswith("--"):
            return [f"-m {word[2:]}", *words[index + 1 :]]
        if word == "-" or (word.startswith("-") and not word.startswith("--") and word.endswith("c")):
            return []
        if not word.startswith("-"):
            return words[index:]
        index += 2 if word in _PYTHON_VALUED else 1
    return []


def _of_shell(words: list[str]) -> list[list[str]]:
    """The simple commands of the string after ``-c``; a script file is not read."""
    index, wanted = 1, False
    while index < len(words):
        word = words[index]
        if word[:1] in ("-", "+") and len(word) > 1 and word != "--":
            short = not word.startswith("--")
            wanted = wanted or (short and word[0] == "-" and "c" in word)
            index += 2 if short and word[-1] in "oO" and not wanted else 1
            if wanted and short and word[-1] == "o":  # bash -c -o pipefail, bash -co pipefail
                index += 1
        elif wanted:
            return _simple_commands(word if word != "--" else " ".join(words[index + 1 : index + 2]))
        elif words[0].endswith(("su", "busybox")):
            index += 1  # su USER -c …, busybox sh -c …
        else:
            return []
    return []


def _simple_commands(script: str) -> list[list[str]]:
    """Words of each simple command. Redirections and keywords also split commands, which is harmless here."""
    if len(script) > _MAX_SCRIPT:
        return []
    found: list[list[str]] = [[]]
    for match in _TOKEN.finditer(script.replace("\\\n", " ")):
        if match[1]:
            if len(found) > _MAX_COMMANDS:
                break
            found.append([])
        elif match[2]:
            found[-1].append(_QUOTED.sub(_unquoted, match[2]))
        elif match[3]:
            return []
    return [words for words in found if words]


def _unquoted(match: re.Match[str]) -> str:
    if match[2] is not None:
        return _ESCAPED.sub(r"\1", match[2])
    return match[1] if match[1] is not None else match[3]
