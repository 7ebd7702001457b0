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
    r"|tar|tar\.gz|tgz|zip|(?:\w+\.index\.)?json|ya?ml|toml|kcpps)\Z",
    re.IGNORECASE,
)
_INSIDE = re.compile(
    r"(?:\.|v?\d+(?:\.\d+)*|v?\d*-?\d{8}[-_T]?\d{4,6}|[0-9a-f]{32,64}|(?:checkpoint|ckpt)[-_]\d+"
    r"|(?:global_)?step[-_]?\d+|iter_\d+|epoch[-_=]?\d+|(?:mp_)?rank[-_]?\d+"
    r"|(?:ggml-|pytorch_|adapter_)?model|snapshots?|refs|gguf|ggml|hf|huggingface|onnx|safetensors|torch_dist"
    r"|final|latest|last|best|merged|main|base|default|adapters?|lora|tokenizers?)",
    re.IGNORECASE,
)
"""Parts of a path inside the folder of a model: versions, steps, formats. What is above them may name it."""

_EITHER = re.compile(
    r"(?:weights?|checkpoints?|ckpts?|(?:trt_)?engines?|out|outputs?|results?|runs?|logs?|saves?|saved|saved_models?"
    r"|configs?|conf|cfg|params)",
    re.IGNORECASE,
)
"""Parts inside the folder of a model, or folders that hold several: what is above names it unless that is a mount."""

_MOUNTS = re.compile(r"|mnt|etc|media|srv|nfs|scratch|data|pvc|volumes?|storage|export|gpfs|lustre", re.IGNORECASE)
"""Folders, and the root, in which disks and departments have their names."""

_ABOVE = re.compile(
    r"(?:\..+|~|mnt|srv|opt|usr|share|lib|var|tmp|home|users?|root|data|app|workspaces?|work|scratch|pvc|volumes?|nfs"
    r"|(?:model|hf|huggingface|triton)?[-_]?caches?|shared|local|hub|storage|media|models|ml|artifacts?|blobs|bundles"
    r"|repository|repos?|model[-_](?:repo|repository|store|dir|path)|lost\+found)",
    re.IGNORECASE,
)
"""Folders that hold models: what is above them is a place, a disk or a person, and names no model."""

_PERSON = re.compile(r"(?:/(?:home|users)/|\A~)[^/]*", re.IGNORECASE)
"""The home directory of a person."""

_ADDRESSED = re.compile(r"sha(?:1|256|384|512)(?:[-:_][0-9a-f]+)?", re.IGNORECASE)
"""A store that names its files by their content (Ollama's, Docker's), so nothing above it names a model."""

NO_NAMES = frozenset(
    {
        *("auto", "none", "null", "nil", "true", "false", "on", "off", "yes", "no", "default", "all", "any", "unknown"),
        *("fp4", "fp8", "fp16", "fp32", "bf16", "tf32", "int4", "int8", "w4a16", "w8a8", "mxfp4", "nvfp4"),
        *("fp8_e4m3", "fp8_e5m2", "half", "float", "float16", "float32", "bfloat16", "awq", "gptq", "bitsandbytes"),
        *("awq_marlin", "gptq_marlin", "marlin", "gguf", "safetensors", "dummy", "torchao", "compressed-tensors"),
    }
)
"""Settings, in lower case, that stand where a place of weights is expected: switches, types, quantizations."""

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

    ``org/name`` stays unchanged. A path or URL becomes its last component that is no version, step or format
    (``/mnt/models/llama-7b/1`` → ``llama-7b``), without the suffix of a weights file; a path in the Hugging Face cache
    becomes the repository. Folders that hold models name none, and neither does what is above them
    (``/home/alice/models``, Ollama's ``blobs/sha256-…``). Settings (``auto``, ``fp8``), unexpanded values (``$MODEL``)
    and values that look like a credential become "".
    """
    text = raw.strip().strip("'\"").strip() if len(raw) <= _MAX_RAW else ""
    if not text or _is_no_name(text) or text.lower() in NO_NAMES:
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
    return bool(slash) and any(folder.fullmatch(first) for folder in (_INSIDE, _EITHER, _ABOVE))


def _of_path(text: str) -> str:
    """The innermost part that may name a model, "" from where on the path names only a place."""
    parts = _PERSON.sub("/~", text).split("/")
    has_either = False
    while parts:
        name = _PART.sub("", _WEIGHTS.sub("", parts.pop().strip()))
        if _ABOVE.fullmatch(name) or _ADDRESSED.fullmatch(name):
            return ""
        if _EITHER.fullmatch(name):
            has_either = True
        elif name and not _INSIDE.fullmatch(name):
            return "" if has_either and parts and _MOUNTS.fullmatch(parts[-1]) else name
    return ""
