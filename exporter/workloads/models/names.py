"""Turns what a configuration gives as a model, a chosen name or a place, into a bounded name, safe in a label."""

from __future__ import annotations

import re
from hashlib import blake2b

MAX_CHARACTERS = 128
"""Longest name in characters. Hugging Face allows 96, a Kubernetes label 63."""

_HASH_BYTES = 4
_MAX_RAW = 4096

_UNRESOLVED = re.compile(r"[$`<>{}*]|%\(|\A-|\A[=@]")
"""An unexpanded variable, a template, a placeholder, a pattern or another option: not a name."""

_SECRET = re.compile(r"(?:\A|[/:=])(?:hf_|sk-|gh[pousr]_|github_pat_|glpat-|xox[a-z]-|AKIA|eyJ)[A-Za-z0-9_\-]{16,}")
"""Credentials that were passed in the wrong argument."""

_ODD = re.compile(r"[^\w.:/+@-]")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/{1,3}(.*)", re.DOTALL)
_CACHED = re.compile(r"(?:\A|/)models--([^/]+?)(?:--([^/]+))?(?=/|\Z)")
_PART = re.compile(r"-\d+-of-\d+\Z")
_WEIGHTS = re.compile(
    r"\.(?:gguf|ggml|nemo|safetensors|ckpt|pth?|bin|onnx|engine|plan|tflite|mar|llamafile|keras|h5|xml|py"
    r"|tar|tar\.gz|tgz|zip)\Z",
    re.IGNORECASE,
)
_GENERIC = re.compile(
    r"(?:v?\d+(?:\.\d+)*|[0-9a-f]{32,64}|checkpoint-\d+|(?:global_)?step[-_]?\d+|iter_\d+|epoch[-_=]?\d+|rank[-_]?\d+"
    r"|\.{0,2}|~|mnt|srv|opt|var|tmp|home|root|data|app|workspace|work|pvc|volume|nfs|cache|shared|local|hub"
    r"|(?:ggml-|pytorch_|adapter_)?models?|ml|repository|model[-_](?:repo|repository|store|dir|path|cache)|repo|artifacts?"
    r"|snapshots?|refs|blobs|weights?|checkpoints?|ckpts?|engines?|trt_engines?|gguf|ggml|hf|huggingface|onnx"
    r"|out|outputs?|results?|runs?|logs?|save|saves|saved|saved_models?|final|latest|last|best|merged|base|main|default)",
    re.IGNORECASE,
)
_REPOSITORY_HOSTS = ("huggingface.co/", "hf.co/", "www.modelscope.cn/models/", "modelscope.cn/models/")
_REPOSITORY_SCHEMES = ("hf", "huggingface", "modelscope", "ms")


def chosen_name(raw: str) -> str:
    """A chosen name (a served name, an alias), unchanged; "" if it is not a name.

    A model server labels its own metrics with it, so a path-like name stays whole. Unexpanded values (``$MODEL``) and
    values that look like a credential become "".
    """
    text = raw.strip() if len(raw) <= _MAX_RAW else ""
    return "" if not text.strip("/") or _is_no_name(text) else harmless(text)


def place_name(raw: str) -> str:
    """The model name in a place of weights (repository, path, URL), "" if there is none.

    ``org/name`` stays unchanged. A path or URL becomes its last component that is not generic
    (``/mnt/models/llama-7b/1`` → ``llama-7b``), without the suffix of a weights file; a path in the Hugging Face cache
    becomes the repository. Unexpanded values (``$MODEL``) and values that look like a credential become "".
    """
    text = raw.strip().strip("'\"").strip() if len(raw) <= _MAX_RAW else ""
    if not text or _is_no_name(text):
        return ""
    if url := _URL.fullmatch(text):
        text = _of_url(url[1].lower(), url[2])
    text = text.removeprefix("hf.co/").removeprefix("huggingface.co/")
    if cached := _CACHED.search(text):
        return harmless(f"{cached[1]}/{cached[2]}" if cached[2] else cached[1])
    return harmless((_of_path(text) if _is_path(text) else text.partition("@")[0]).strip("/"))


def harmless(name: str) -> str:
    """The name with only letters, digits and ``. _ - : / + @``, and at most `MAX_CHARACTERS` long.

    A changed name ends in a hash of the original, so that different names stay different.
    """
    text = name.strip(" ")
    safe = _ODD.sub("_", text)
    if safe == text and len(text) <= MAX_CHARACTERS:
        return text
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_HASH_BYTES).hexdigest()
    return f"{safe[: MAX_CHARACTERS - 2 * _HASH_BYTES - 1]}~{digest}"


def looks_like_weights(raw: str) -> bool:
    """Whether a value is clearly a repository, a path or a weights file, so that even ``--model`` must mean a model."""
    return "/" in raw or _WEIGHTS.search(raw) is not None


def _is_no_name(text: str) -> bool:
    return _UNRESOLVED.search(text) is not None or _SECRET.search(text) is not None


def _of_url(scheme: str, rest: str) -> str:
    place = rest.split("?", 1)[0].split("#", 1)[0]
    if scheme in _REPOSITORY_SCHEMES:
        return place
    host_and_path = place.rpartition("@")[2] if "@" in place.partition("/")[0] else place
    for host in _REPOSITORY_HOSTS:
        if host_and_path.startswith(host):
            parts = host_and_path.removeprefix(host).split("/")
            return f"/{parts[-1]}" if _WEIGHTS.search(parts[-1]) else "/".join(parts[:2])
    # The name of a bucket or host is not that of the model.
    return "/" + host_and_path if scheme in ("file", "models", "pvc") else "/" + host_and_path.partition("/")[2]


def _is_path(text: str) -> bool:
    if text.startswith(("/", ".", "~")) or text.count("/") > 1 or _WEIGHTS.search(text):
        return True
    first, slash, _ = text.partition("/")
    return bool(slash) and _GENERIC.fullmatch(first) is not None


def _of_path(text: str) -> str:
    for part in reversed(text.split("/")):
        name = _PART.sub("", _WEIGHTS.sub("", part.strip()))
        if name and not _GENERIC.fullmatch(name):
            return name
    return ""
