"""Finds the name of a model in files: Ollama manifests, a Triton repository, the YAML file of a training."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from .names import harmless, model_name
from .process_root import ProcessRootFs

_MAX_BYTES = 65_536
_MAX_ENTRIES = 1000
_MAX_MANIFESTS = 1000
_OLLAMA_DEPTH = 4
_DIGEST = re.compile(r"(.*)/blobs/sha256[-:]([0-9a-f]{64})")
_MODEL_LAYER = "application/vnd.ollama.image.model"


def ollama_name(files: ProcessRootFs, blob: str) -> str:
    """The name whose manifest lists this blob of weights (``llama3.2:3b``), else the first digits of the digest.

    Of several names for the same weights, a tag other than "latest" is preferred, then the shortest name.
    """
    match = _DIGEST.fullmatch(blob)
    if match is None:
        return model_name(blob)
    folder, digest = f"{match[1]}/manifests", f"sha256:{match[2]}"
    try:
        paths = list(_manifests(files, folder, _OLLAMA_DEPTH))
    except OSError:
        paths = []
    found = [_ollama_label(path) for path in paths if _has_model(files, f"{folder}/{path}", digest)]
    best = min(found, key=lambda name: (name.endswith(":latest"), len(name), name), default="")
    return harmless(best) if best else f"sha256-{match[2][:12]}"


def triton_name(files: ProcessRootFs, repository: str) -> str:
    """The only model of a repository, "" if it has none or several, or cannot be read."""
    try:
        models = [
            name for name, is_dir in files.entries(repository, _MAX_ENTRIES) if is_dir and not name.startswith(".")
        ]
    except OSError:
        return ""
    return harmless(models[0]) if len(models) == 1 else ""


def configured_name(files: ProcessRootFs, path: str, keys: Sequence[str]) -> str:
    """Value of the first of ``keys`` that a YAML file has at its top level.

    Only lines of the form ``key: value`` are read, so that the untrusted file needs no YAML parser.
    """
    try:
        text = files.read(path, _MAX_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
    values: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        values.setdefault(key.strip("\"'"), value.partition(" #")[0].strip("[] \t").partition(",")[0])
    return next((name for key in keys if (name := model_name(values.get(key, "")))), "")


def _manifests(files: ProcessRootFs, folder: str, depth: int, prefix: str = "") -> Iterator[str]:
    """Paths of the form ``host/namespace/model/tag``, `_MAX_MANIFESTS` at most."""
    remaining = _MAX_MANIFESTS
    for name, is_dir in files.entries(f"{folder}/{prefix}", _MAX_ENTRIES):
        if depth == 1 and not is_dir:
            yield prefix + name
            remaining -= 1
        elif depth > 1 and is_dir:
            for path in _manifests(files, folder, depth - 1, f"{prefix}{name}/"):
                yield path
                remaining -= 1
                if remaining <= 0:
                    return
        if remaining <= 0:
            return


def _has_model(files: ProcessRootFs, path: str, digest: str) -> bool:
    try:
        layers = json.loads(files.read(path, _MAX_BYTES))["layers"]
        return any(layer["mediaType"] == _MODEL_LAYER and layer["digest"] == digest for layer in layers)
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return False


def _ollama_label(path: str) -> str:
    host, namespace, name, tag = path.split("/")
    registry = "" if host == "registry.ollama.ai" else f"{host}/"
    return f"{registry}{'' if namespace == 'library' and not registry else f'{namespace}/'}{name}:{tag}"
