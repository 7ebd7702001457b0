"""Finds the name of a model in files: Ollama manifests, repositories of Triton and MLServer, arguments in a file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from .names import chosen_name, harmless, place_name
from .process_root import ProcessRootFs
from .variants import of_config

_MAX_BYTES = 65_536
_MAX_ENTRIES = 1000
_MAX_MANIFESTS = 1000
_OLLAMA_DEPTH = 4
_MLSERVER_DEPTH = 2
_DIGEST = re.compile(r"(.*)/blobs/sha256[-:]([0-9a-f]{64})")
_YAML_KEY = re.compile(r"""([\w.-]+|'[\w.-]+'|"[\w.-]+")[ \t]*:(?=[ \t]|\Z)(.*)\Z""")
_YAML_QUOTED = re.compile(r"""'([^']*)'|"([^"\\]*)\"""")
_YAML_INDICATORS = ("#", "&", "*", "!", "|", ">", "%", "@", "`", "{", "}", "[", "]", "'", '"', "?", "- ")
_YAML_NULL = ("", "~", "null", "Null", "NULL")
_MODEL_LAYER = "application/vnd.ollama.image.model"


def ollama_name(files: ProcessRootFs, blob: str) -> str:
    """The name whose manifest lists this blob of weights (``llama3.2:3b``), "" if there is none.

    Of several names for the same weights, a tag other than "latest" is preferred, then the shortest name.
    """
    match = _DIGEST.fullmatch(blob)
    if match is None:
        return place_name(blob)
    folder, digest = f"{match[1]}/manifests", f"sha256:{match[2]}"
    try:
        paths = list(_manifests(files, folder, _OLLAMA_DEPTH))
    except OSError:
        paths = []
    found = [_ollama_label(path) for path in paths if _has_model(files, f"{folder}/{path}", digest)]
    best = min(found, key=lambda name: (name.endswith(":latest"), len(name), name), default="")
    return harmless(best)


def triton_name(files: ProcessRootFs, repository: str) -> str:
    """The only model of a repository, "" if it has none or several, or cannot be read."""
    try:
        models = [
            name
            for name, is_dir in files.entries(repository, _MAX_ENTRIES)
            if is_dir and not name.startswith(".") and name != "lost+found"
        ]
    except OSError:
        return ""
    return harmless(models[0]) if len(models) == 1 else ""


def mlserver_name(files: ProcessRootFs, repository: str) -> str:
    """The name in the only ``model-settings.json`` in or below a folder, "" if there is none or several.

    A model without a name has that of its folder.
    """
    try:
        paths = list(_settings_files(files, repository, _MLSERVER_DEPTH))
        if len(paths) != 1:
            return ""
        settings = _of_json(files.read(paths[0], _MAX_BYTES).decode("utf-8", "replace"))
    except OSError:
        return ""
    if settings is None:
        return ""
    name = settings.get("name", "")
    folder = paths[0].split("/")[-2]
    return chosen_name(name) if name else "" if folder in (".", "..") else harmless(folder)


def configured_name(files: ProcessRootFs, path: str, keys: Sequence[str], served: Sequence[str] = ()) -> str:
    """The first of ``served`` (chosen names), else of ``keys`` (places) that a YAML or JSON file has at its top level.

    The untrusted file needs no YAML parser: ``key: value``, ``key: [first, …]`` and the first ``- item`` below ``key:``
    are read. If the first key that is present has any other value, there is no name.
    """
    try:
        text = files.read(path, _MAX_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
    found = (_of_json(text) or {}) if text.lstrip().startswith("{") else _of_yaml(text.splitlines())
    for wanted, name in ((served, chosen_name), (keys, place_name)):
        for key in wanted:
            if key in found:
                return name(found[key])
    return ""


def variant_of_weights(files: ProcessRootFs, folder: str) -> str:
    """What the ``config.json`` in a folder of weights says about their quantization, "" if it says nothing."""
    try:
        config = json.loads(files.read(f"{folder}/config.json", _MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return ""
    return of_config(config) if isinstance(config, dict) else ""


def _of_json(text: str) -> dict[str, str] | None:
    """The texts of an object, "" for other values; None if the file has no object."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    return {key: value if isinstance(value, str) else "" for key, value in content.items()}


def _of_yaml(lines: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, line in enumerate(lines):
        match = _YAML_KEY.match(line)
        if match is not None:
            found[match[1].strip("\"'")] = _scalar(match[2]) or _first_item(match[2], lines[number + 1 :])
    return found


def _scalar(text: str) -> str:
    """A plain or quoted YAML scalar, or the first of a list in brackets; "" if there is none, or for anything else."""
    listed = text.strip()
    text = listed.removeprefix("[").lstrip()
    quoted = _YAML_QUOTED.match(text)
    if quoted is not None:
        return quoted[1] if quoted[1] is not None else quoted[2]
    plain = text.partition(" #")[0]
    if listed.startswith("["):
        plain = plain.partition(",")[0].partition("]")[0]
    plain = plain.rstrip()
    return "" if plain.startswith(_YAML_INDICATORS) or plain.endswith(":") or plain in _YAML_NULL else plain


def _first_item(value: str, lines: Sequence[str]) -> str:
    """The first item of a block list at the beginning of ``lines``, if the key has no ``value`` of its own."""
    if value.partition("#")[0].strip():
        return ""
    for line in lines:
        text = line.strip()
        if text and not text.startswith("#"):
            return _scalar(text[2:]) if text.startswith("- ") and ": " not in text else ""
    return ""


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


def _settings_files(files: ProcessRootFs, folder: str, depth: int) -> Iterator[str]:
    """The files that MLServer reads: below any folder, links aside."""
    for name, is_dir in files.entries(folder, _MAX_ENTRIES):
        if is_dir and depth > 0:
            yield from _settings_files(files, f"{folder}/{name}", depth - 1)
        elif name == "model-settings.json":
            yield f"{folder}/{name}"


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
