"""Finds values in the arguments of a program of which only some options are known."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .names import NO_NAMES, looks_like_weights

_SWITCH = re.compile(
    r"--?(?:enable|disable|no|use|trust|enforce|log|return|skip|allow|ignore|is|with|verbose|debug|quiet|headless|reload"
    r"|cpu|local|fully|force|calculate|async|multi|show|print|do|bf16|fp16|tf32|omni|ollama-engine|v|q)(?:[-_].*)?"
)
"""Options that probably take no value, by their first word."""

_SWITCHES = frozenset(
    {
        # vLLM
        *("--data-parallel-hybrid-lb", "--data-parallel-external-lb", "--language-model-only", "--mm-encoder-only"),
        *("--interleave-mm-strings", "--aggregate-engine-logging", "--exclude-tools-when-tool-choice-none"),
        *("--ray-workers-use-nsight", "--tokens-only", "--kv-sharing-fast-prefill"),
        # TensorRT-LLM, LMDeploy, Aphrodite
        *("--fail-fast-on-attention-window-too-large", "--eager-mode", "--single-user-mode", "--launch-kobold-api"),
    }
)
"""Options of model servers that take no value, though their first word does not say so."""

_ATTACHED = re.compile(r"-[A-Za-z]{1,3}\d+")
"""A short option with its value in the same word: ``-O3``, ``-tp8``."""

_NO_PLACE = re.compile(r"[\w.+-]+=|\d+\Z|[\[{]")
"""A pair (``model=x``, ``sql-lora=/adapters/sql``), a number or JSON, which is no place of a model."""

_ONE_VALUE = frozenset(
    {
        *("--host", "--port", "--dtype", "--quantization", "-q", "--tokenizer", "--tokenizer-mode", "--revision"),
        *(
            "--backend",
            "--device",
            "--load-format",
            "--download-dir",
            "--chat-template",
            "--kv-cache-dtype",
            "--config",
        ),
        *("--max-model-len", "--gpu-memory-utilization", "--reasoning-parser", "--tool-call-parser", "--model-name"),
        *("--distributed-executor-backend", "--log-level", "--task", "--runner", "--precision", "--tp", "--cache-dir"),
    }
)
"""Options of model servers that take exactly one value."""

_SETTINGS = NO_NAMES | {
    *("cuda", "cpu", "xpu", "hpu", "tpu", "rocm", "ray", "mp", "uni", "nccl", "gloo", "pytorch", "torch", "turbomind"),
    *("tensorrt", "trt", "flashinfer", "triton", "vllm", "eager", "inductor", "hermes", "mistral", "pythonic"),
    *("debug", "info", "warning", "warn", "error", "critical", "trace", "fcfs", "priority", "outlines", "xgrammar"),
    *("openai", "json", "prefill", "decode", "generate", "embed", "embedding", "classify", "score", "reward"),
}
"""Values of ordinary options, which are no names of models where it is unclear whether they are an option's value."""


class Arguments:
    """The words after a program's name. ``--a-b`` and ``--a_b`` are the same option; the last value wins."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words
        self._options: dict[str, list[str]] = {}
        for index, word in enumerate(words):
            if is_option(word):
                option, equals, value = word.partition("=")
                if not equals:
                    following = words[index + 1] if index + 1 < len(words) else ""
                    value = "" if following.startswith("-") else following
                self._options.setdefault(normal_option(option), []).append(value)

    def has(self, option: str) -> bool:
        """Whether an option is present, with or without a value."""
        return normal_option(option) in self._options

    def all(self, option: str) -> list[str]:
        """Every value of a repeated option."""
        return [value for value in self._options.get(normal_option(option), ()) if value]

    def find(self, place: str) -> str | None:
        """The value at a place, None if there is none.

        A place is ``--option``, ``--option,`` (the first of a list with commas), ``@`` (the positional argument, see
        `_positional`), ``key=`` (a Hydra override, ``model=yolo11n.pt``), or ``--option/key`` (a pair in the value,
        ``--model_args pretrained=gpt2``).
        """
        if place == "@":
            return self._positional()
        if place.endswith("="):
            found = [word[len(place) :] for word in self._words if word.startswith(place)]
            return found[-1] if found else None
        option, _, key = place.removesuffix(",").partition("/")
        values = self._options.get(normal_option(option))
        if not values:
            return None
        if place.endswith(","):
            return values[-1].partition(",")[0]
        if not key:
            return values[-1]
        pairs = (pair.partition("=") for pair in values[-1].split(","))
        return next((value for name, _, value in pairs if name.strip() == key), None)

    def _positional(self) -> str | None:
        """The positional argument that may name a model; None if there is none, or if it is uncertain which.

        A word before all options is certain. After an option that is not in a table, it may also be that option's
        value: then the only word that looks like weights counts. Any other word counts only alone, if it is no usual
        setting and no further value of an option that may have a list.
        """
        words = [word for word in self._unattached() if not _NO_PLACE.match(word.text)]
        if words and words[0].certain:
            return words[0].text
        weights = {word.text for word in words if looks_like_weights(word.text)}
        if weights:
            return weights.pop() if len(weights) == 1 else None
        plain = {word.text for word in words}
        listed = any(word.listed for word in words)
        return plain.pop() if len(plain) == 1 and not listed and plain.isdisjoint(_SETTINGS) else None

    def _unattached(self) -> Iterator[_Word]:
        """The words that are probably no option's value; an option never takes a word that begins with ``-``."""
        before_options = True
        listed = False
        index = 0
        while index < len(self._words):
            word = self._words[index]
            if word == "--":
                yield from (_Word(rest, certain=True) for rest in self._words[index + 1 :])
                return
            if not is_option(word):
                yield _Word(word, before_options, listed)
            else:
                before_options = listed = False
                following = self._words[index + 1] if index + 1 < len(self._words) else "-"
                if not following.startswith("-") and not _takes_no_value(word):
                    index += 1
                    listed = normal_option(word) not in _ONE_VALUE and not following.isdigit()
            index += 1


class _Word(NamedTuple):
    """A positional word; ``certain`` if it cannot be the value of an option, ``listed`` if it may be a further one."""

    text: str
    certain: bool
    listed: bool = False


def is_option(word: str) -> bool:
    """Whether a word is an option: ``-`` alone is an argument."""
    return word.startswith("-") and len(word) > 1


def normal_option(option: str) -> str:
    """The spelling with hyphens: ``--a_b`` → ``--a-b``. ``-ab`` and ``--ab`` are different options."""
    return option.replace("_", "-")


def _takes_no_value(option: str) -> bool:
    return (
        "=" in option
        or normal_option(option) in _SWITCHES
        or _SWITCH.fullmatch(option) is not None
        or _ATTACHED.fullmatch(option) is not None
    )
