"""The variant of a model, its precision or quantization, by what a command line, a file's name or its config says.

A variant is never derived from what a program does by default: without evidence it is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .arguments import Arguments
from .names import harmless

MAX_CHARACTERS = 64

QUANTIZATIONS = "--quantization --quantize --quant --model-format --weight-dtype"
"""Options whose value is how the weights are quantized."""

_DTYPES = "--dtype --torch-dtype --model-dtype"
_SWITCHES = (("--load-in-4bit", "int4"), ("--load-in-8bit", "int8"))

_UNSAID = frozenset({"", "auto", "none", "null", "false", "true", "default", "hf", "float", "weight-only"})
_KERNELS = ("-marlin", "-triton", "-exllama", "-exllamav2", "-cutlass")
"""Ends of quantization methods that say which kernel runs the same weights: ``awq_marlin``."""

_SAME = {
    **dict.fromkeys(("half", "float16", "fp16", "f16"), "fp16"),
    **dict.fromkeys(("bfloat16", "bf16"), "bf16"),
    **dict.fromkeys(("float32", "fp32", "f32"), "fp32"),
    **dict.fromkeys(("4bit", "int4"), "int4"),
    **dict.fromkeys(("8bit", "int8"), "int8"),
    **dict.fromkeys(("bnb", "bitsandbytes"), "bitsandbytes"),
}
_FORMATS = frozenset({"gguf", "compressed-tensors", "modelopt", "quark", "torchao", "bitsandbytes", "auto-round"})
"""Methods that are containers of several precisions: what else is known is more exact."""

_FLOATS = frozenset({"fp16", "bf16", "fp32"})

_GGUF = re.compile(
    r"(?<![A-Za-z0-9])(I?Q\d_(?:K|\d|XXS|XS|S|M|NL|XL)(?:_(?:XXS|XS|S|M|L|XL))?|TQ\d_\d|MXFP4(?:_MOE)?)"
    r"(?=(?:-\d+-of-\d+)?(?:\.gguf)?\Z|[-.])",
    re.IGNORECASE,
)
"""Types of llama.cpp's files as they are written in names: ``Q4_K_M``, ``IQ2_XXS``, ``Q8_0``."""

_WORDS = re.compile(
    r"(?<![A-Za-z0-9])(awq|gptq|bnb|bitsandbytes|aqlm|hqq|exl2|exl3|nvfp4|mxfp4|fp4|fp8|int4|int8|4bit|8bit"
    r"|w\d{1,2}a\d{1,2}|bf16|bfloat16|fp16|float16|f16|fp32|f32)(?![A-Za-z0-9])",
    re.IGNORECASE,
)


def of_arguments(arguments: Arguments, place: str) -> str:
    """The variant by the arguments of a program and the ``place`` of weights among them, "" if unknown.

    How weights are quantized precedes the type in which is computed: ``--quantization awq --dtype half`` is awq. Of two
    words for the same the more exact one counts: with ``--quantization gptq``, ``…-GPTQ-Int4`` is gptq-int4.
    """
    named = of_place(place)
    method = next((text for option in QUANTIZATIONS.split() if (text := of_setting(arguments.find(option)))), "")
    if not method and _WORDS.match(short := arguments.find("-q") or ""):  # vLLM's; elsewhere it means quiet
        method = of_setting(short)
    if not method:
        method = next((name for switch, name in _SWITCHES if _is_on(arguments, switch)), "")
    if method:
        return named if named and named not in _FLOATS and (method in named or method in _FORMATS) else method
    if named and named not in _FLOATS:
        return named
    return next((text for option in _DTYPES.split() if (text := of_setting(arguments.find(option)))), named)


def of_setting(value: str | None) -> str:
    """A value of an option or of a config as a variant: ``half`` is fp16, ``awq_marlin`` is awq; "" if it says none."""
    text = (value or "").strip().lower().removeprefix("torch.").replace("_", "-")
    if len(text) > MAX_CHARACTERS or text in _UNSAID or text.startswith(("-", "{", "$")):
        return ""
    for kernel in _KERNELS:
        text = text.removesuffix(kernel)
    return harmless(_SAME.get(text, text))


def of_place(place: str) -> str:
    """What the last two parts of a place of weights say: ``Qwen2.5-7B-Instruct-AWQ``, ``llama-3-8b.Q4_K_M.gguf``."""
    parts = place.rstrip("/").split("/")[-2:]
    for part in reversed(parts):
        types = {found[1].upper() for found in _GGUF.finditer(part.replace(":", "-"))}
        if len(types) == 1:
            return types.pop()
        words = dict.fromkeys(_SAME.get(found.lower(), found.lower()) for found in _WORDS.findall(part))
        words = dict.fromkeys(word for word in words if word not in _FLOATS) or words
        if words and not types:
            return "-".join(words) if len(words) <= 3 else ""
    return ""


def of_config(config: Mapping[str, Any]) -> str:
    """The variant by ``quantization_config`` of a Hugging Face ``config.json``, "" without one.

    ``torch_dtype`` is no evidence: servers convert it.
    """
    given = config.get("quantization_config")
    if not isinstance(given, dict):
        return ""
    weights = _weights(given)
    if weights:
        return weights
    method = of_setting(_text(given, "quant_algo") or _text(given, "quant_method"))
    bits = given.get("bits")
    if not method and bits is None:
        return ""
    if method == "bitsandbytes":
        bits = 4 if given.get("load_in_4bit") is True else 8 if given.get("load_in_8bit") is True else bits
    return f"{method}-int{bits}" if method in ("gptq", "bitsandbytes") and isinstance(bits, int) else method


def _weights(given: Mapping[str, Any]) -> str:
    """Bits of weights and activations by compressed-tensors, if all groups have the same: ``w4a16``, ``fp8``."""
    groups = given.get("config_groups")
    found = set()
    for group in groups.values() if isinstance(groups, dict) else ():
        if not isinstance(group, dict) or not isinstance(weights := group.get("weights"), dict):
            return ""
        bits, inputs = weights.get("num_bits"), group.get("input_activations")
        if not isinstance(bits, int):
            return ""
        activations = inputs.get("num_bits") if isinstance(inputs, dict) else 16
        found.add(f"fp{bits}" if weights.get("type") == "float" else f"w{bits}a{activations}")
    return found.pop() if len(found) == 1 else ""


def _text(given: Mapping[str, Any], key: str) -> str:
    value = given.get(key)
    return value if isinstance(value, str) else ""


def _is_on(arguments: Arguments, switch: str) -> bool:
    return arguments.has(switch) and (arguments.find(switch) or "true").lower() not in ("false", "0", "no")
