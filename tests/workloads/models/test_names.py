"""Model names from repositories, paths and URLs, and that every name is safe in a label."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.workloads.models.names import MAX_CHARACTERS, chosen_name, harmless, looks_like_weights, place_name

NAMES = [
    ("Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B-Instruct"),
    ("gpt2", "gpt2"),
    ("  'gpt2' ", "gpt2"),
    ("org/name@main", "org/name"),
    ("hf.co/bartowski/Llama-3.2-1B-GGUF:Q4_K_M", "bartowski/Llama-3.2-1B-GGUF:Q4_K_M"),
    ("https://huggingface.co/org/name", "org/name"),
    ("https://huggingface.co/org/name-GGUF/resolve/main/name.Q4_0.gguf?download=true", "name.Q4_0"),
    ("hf://org/name", "org/name"),
    ("/models/llama-7b", "llama-7b"),
    ("/models/llama-7b/", "llama-7b"),
    ("/models/llama-7b/1", "llama-7b"),
    ("./out/my-sft/checkpoint-1500", "my-sft"),
    ("/ckpt/llama/global_step200/hf", "llama"),
    ("../llama-7b", "llama-7b"),
    ("~/llama-7b", "llama-7b"),
    ("models/llama-7b", "llama-7b"),
    ("checkpoints/meta-llama/Llama-3.2-1B", "Llama-3.2-1B"),
    (
        "/hub/models--meta-llama--Llama-3.1-8B/snapshots/0e9e39f249a16976918f6564b8830bc894c89659",
        "meta-llama/Llama-3.1-8B",
    ),
    ("models--gpt2", "gpt2"),
    ("/c/models--org--a--b/snapshots/x", "org/a--b"),
    ("/m/Llama.Q4_K_M-00001-of-00003.gguf", "Llama.Q4_K_M"),
    ("model.gguf", ""),
    ("/m/phi/model.safetensors", "phi"),
    ("megatron.nemo", "megatron"),
    ("yolov8n.pt", "yolov8n"),
    ("/data/llama-7b.tar.gz", "llama-7b"),
    ("s3://bucket/llama-7b", "llama-7b"),
    ("s3://bucket/", ""),
    ("gs://bucket/a/llama-7b/", "llama-7b"),
    ("https://me:secret@host/llama-7b?token=secret", "llama-7b"),
    ("models:/churn/3", "churn"),
    ("file:///models/llama-7b", "llama-7b"),
    ("/模型/通义千问-7B", "通义千问-7B"),
    ("/home/alice/llama-7b", "llama-7b"),
    ("/home/alice/llama-sft/checkpoints/step_500", "llama-sft"),
    ("/mnt/llama-7b/.", "llama-7b"),
    ("/models/llama-7b/weights", "llama-7b"),
    ("llama-sft/outputs/best", "llama-sft"),
    ("/out/qwen-sft/v0-20250101-123456/checkpoint-100", "qwen-sft"),
    ("/store/blobs/sha256/" + "0a" * 32 + "/phi-4.gguf", "phi-4"),
    ("/data/models/hermes", "hermes"),
    ("yolov8n.yaml", "yolov8n"),
    ("llama/model.safetensors.index.json", "llama"),
]

NONE = [
    *("", " ", "/", "//", ".", "..", "./", "/mnt/models", "/models/1", "/mnt/pvc/model/", "/workspace/output/final"),
    *("$MODEL", "${MODEL}", "$(MODEL)", "`cat m`", "{{ .Values.model }}", "<model>", "/models/$NAME", "%(model)s"),
    *("-m", "--model", "=x", "@file", "*.gguf", "hf_" + "a1" * 16, "sk-" + "a1" * 16, "org/hf_" + "a1" * 16),
    # folders that hold models: what is above them is a disk, a person or a program
    *("/home/alice/models", "~/models", "~alice/checkpoints/step_5", "/gpfs/home/alice/weights", "/users/alice/out"),
    *("/home/alice", "/mnt/nas01/weights", "/scratch/alice/checkpoints/latest", "/acme/models", "s3://bucket/acme/out"),
    *("/srv/team/models/main", "/root/.cache/huggingface/hub", "/var/lib/models", "/usr/share/ollama/.ollama/models"),
    *("models/lost+found", "/opt/acme/model_repository/1"),
    # stores that name their files by their content
    *(f"/root/.ollama/models/blobs/sha256-{'0a' * 32}", f"/models/blobs/sha256:{'0a' * 32}", "blobs/sha256-0123abcd"),
    f"/models/bundles/sha256/{'0a' * 32}/model/model.gguf",
    *("config.json", "/etc/acme/config.yaml", "./configs/params.json"),
    # values of settings
    *("auto", "None", "true", "fp8", "bitsandbytes", "default"),
    *("ghp_" + "a1" * 18, "github_pat_" + "a1" * 18, "AKIA" + "ABCD" * 4, "eyJhbGciOiJIUzI1NiJ9", "x" * 5000),
]


@pytest.mark.parametrize(("raw", "expected"), NAMES)
def test_the_name_in_a_value(raw: str, expected: str) -> None:
    assert place_name(raw) == expected


@pytest.mark.parametrize("raw", NONE)
def test_values_without_a_name(raw: str) -> None:
    assert place_name(raw) == ""


@given(st.text(max_size=300) | st.text('/.-_ab$:@~\n"\\\u202e', max_size=40))
def test_every_name_is_safe(raw: str) -> None:
    """Faults 45 and 47."""
    for name in (place_name(raw), chosen_name(raw), harmless(raw)):
        assert len(name) <= MAX_CHARACTERS
        assert re.fullmatch(r"[\w.:/+@~-]*", name)
        assert not name.startswith(" ")
        name.encode()
    assert not place_name(raw).startswith("/")


@given(st.lists(st.text(min_size=1, max_size=200), min_size=2, max_size=2, unique_by=lambda text: text.strip(" ")))
def test_names_that_differ_stay_different(pair: list[str]) -> None:
    """Fault 46."""
    assert harmless(pair[0]) != harmless(pair[1])


@given(st.from_regex(r"[A-Za-z0-9][\w.-]{0,40}/[A-Za-z0-9][\w.-]{0,40}", fullmatch=True))
def test_a_repository_that_is_not_a_path_stays_unchanged(repository: str) -> None:
    name = place_name(repository)
    assert (
        name in ("", repository) or name == harmless(repository) or repository.endswith(f"/{name}") or "." in repository
    )


@pytest.mark.parametrize(
    "name",
    [
        "accounts/acme/models/llama-v3p1-8b",
        "team/prod/llama",
        "/mnt/Qwen1.5-14B-Chat/",
        "llama.gguf",
        "chat@v2",
        "main",
    ],
)
def test_a_chosen_name_is_kept_as_chosen(name: str) -> None:
    """vllm-project/vllm#2987: it is the label of the server's own metrics, and two of them stay two."""
    assert chosen_name(f" {name} ") == name


@pytest.mark.parametrize("raw", ["", " ", "/", "$MODEL", "$(MODEL)", "{{ .Values.model }}", "-x", "hf_" + "a1" * 16])
def test_values_that_nobody_chose(raw: str) -> None:
    assert chosen_name(raw) == ""


def test_long_names_are_cut_and_marked() -> None:
    """Fault 46."""
    one, two = harmless("x" * 200), harmless("x" * 201)
    assert len(one) == MAX_CHARACTERS
    assert one != two
    assert harmless("a b") != harmless("a\tb")


@pytest.mark.parametrize(
    ("raw", "expected"), [("org/name", True), ("x.gguf", True), ("gpt-4o", False), ("base", False)]
)
def test_values_that_are_clearly_weights(raw: str, *, expected: bool) -> None:
    assert looks_like_weights(raw) is expected
