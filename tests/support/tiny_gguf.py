"""Writes a llama model of random weights as a GGUF file: real tokens, no meaning, a third of a megabyte."""

from __future__ import annotations

import random
import struct
from array import array
from pathlib import Path
from typing import Any

_WIDTH, _HEADS, _INNER, _CONTEXT = 64, 2, 64, 2048
_ALIGNMENT = 32
_UINT32, _INT32, _FLOAT32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9  # GGUF's types of values
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6  # llama.cpp's types of tokens


def write_tiny_gguf(path: Path) -> None:
    """Write the model to ``path``: one layer and a tokenizer of bytes. Format: ggml's docs/gguf.md, version 3."""
    special = ["<unk>", "<s>", "</s>"]
    tokens = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *(chr(code) for code in range(33, 127)), "\u2581"]
    kinds = [_UNKNOWN, _CONTROL, _CONTROL, *[_BYTE] * 256, *[_NORMAL] * (len(tokens) - 259)]
    values: list[tuple[str, int, Any]] = [
        ("general.architecture", _STRING, "llama"),
        ("general.name", _STRING, "tiny-random"),
        ("llama.context_length", _UINT32, _CONTEXT),
        ("llama.embedding_length", _UINT32, _WIDTH),
        ("llama.block_count", _UINT32, 1),
        ("llama.feed_forward_length", _UINT32, _INNER),
        ("llama.attention.head_count", _UINT32, _HEADS),
        ("llama.attention.head_count_kv", _UINT32, _HEADS),
        ("llama.attention.layer_norm_rms_epsilon", _FLOAT32, 1e-5),
        ("llama.rope.dimension_count", _UINT32, _WIDTH // _HEADS),
        ("llama.vocab_size", _UINT32, len(tokens)),
        ("tokenizer.ggml.model", _STRING, "llama"),
        ("tokenizer.ggml.tokens", _ARRAY, (_STRING, tokens)),
        ("tokenizer.ggml.scores", _ARRAY, (_FLOAT32, [-float(index) for index in range(len(tokens))])),
        ("tokenizer.ggml.token_type", _ARRAY, (_INT32, kinds)),
        ("tokenizer.ggml.bos_token_id", _UINT32, 1),
        ("tokenizer.ggml.eos_token_id", _UINT32, 2),
        ("tokenizer.ggml.unknown_token_id", _UINT32, 0),
        ("tokenizer.ggml.add_bos_token", _BOOL, True),
    ]
    block = "blk.0."
    shapes = {"token_embd.weight": (len(tokens), _WIDTH), "output.weight": (len(tokens), _WIDTH)}
    shapes |= {f"{block}attn_{part}.weight": (_WIDTH, _WIDTH) for part in ("q", "k", "v", "output")}
    shapes |= {f"{block}ffn_{part}.weight": (_INNER, _WIDTH) for part in ("gate", "up")}
    shapes |= {f"{block}ffn_down.weight": (_WIDTH, _INNER)}
    norms = ("output_norm.weight", f"{block}attn_norm.weight", f"{block}ffn_norm.weight")
    source = random.Random(0)
    tensors = {name: ((_WIDTH,), array("f", [1.0] * _WIDTH)) for name in norms}
    data: dict[str, tuple[tuple[int, ...], array[float]]] = {**tensors}
    for name, shape in shapes.items():
        data[name] = (shape, array("f", [source.gauss(0, 0.05) for _ in range(shape[0] * shape[1])]))
    head = b"GGUF" + struct.pack("<IQQ", 3, len(data), len(values))
    head += b"".join(_text(name) + struct.pack("<I", kind) + _value(kind, value) for name, kind, value in values)
    body = b""
    for name, (sizes_of, numbers) in data.items():
        sizes = struct.pack(f"<I{len(sizes_of)}Q", len(sizes_of), *reversed(sizes_of))
        head += _text(name) + sizes + struct.pack("<IQ", 0, len(body))  # 0 is F32
        body += _padded(numbers.tobytes())
    path.write_bytes(_padded(head) + body)


def _padded(part: bytes) -> bytes:
    return part + bytes(-len(part) % _ALIGNMENT)


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(kind: int, value: Any) -> bytes:
    if kind == _STRING:
        return _text(value)
    if kind == _ARRAY:
        of, items = value
        return struct.pack("<IQ", of, len(items)) + b"".join(_value(of, item) for item in items)
    return struct.pack({_UINT32: "<I", _INT32: "<i", _FLOAT32: "<f", _BOOL: "<?"}[kind], value)
