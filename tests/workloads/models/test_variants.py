"""Which variant of a model runs: from what the operator says, from arguments, from names of files and their config."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.config.model_rules import ModelRule
from exporter.records import GroupKey, Model, Process, Workload
from exporter.workloads.metadata.container_metadata import ContainerMetadata
from exporter.workloads.models.arguments import Arguments
from exporter.workloads.models.background_lookups import DirectLookups
from exporter.workloads.models.declared import ModelOptions
from exporter.workloads.models.recognise import recognise
from exporter.workloads.models.resolver import Models
from exporter.workloads.models.variants import of_arguments, of_config, of_place, of_setting

POD = Workload("team", "pod-0", "main", "kubernetes")
OPTIONS = ModelOptions(keys=("name",), phase_keys=("phase",), variant_keys=("variant",))


@pytest.mark.parametrize(
    ("words", "variant"),
    [
        ("vllm serve org/m --quantization awq --dtype half", "awq"),
        ("vllm serve org/m --quantization=awq_marlin", "awq"),
        ("vllm serve org/m -q fp8", "fp8"),
        ("vllm serve org/m --dtype half", "fp16"),
        ("vllm serve org/m --dtype bfloat16 --served-model-name chat", "bf16"),
        ("vllm serve org/m-AWQ --served-model-name chat", "awq"),
        ("vllm serve org/m-GPTQ-Int4 --quantization gptq_marlin", "gptq-int4"),
        ("vllm serve org/m.w4a16 --quantization compressed-tensors", "w4a16"),
        ("vllm serve org/m-FP8 --dtype bfloat16", "fp8"),
        ("vllm serve org/m --dtype auto", ""),
        ("vllm serve org/m --quantization none", ""),
        ("vllm serve org/m --kv-cache-dtype fp8", ""),
        ("vllm serve org/m", ""),
        ("python -m sglang.launch_server --model-path org/m --quantization w8a8_int8", "w8a8-int8"),
        ("text-generation-launcher --model-id org/m --quantize bitsandbytes-nf4", "bitsandbytes-nf4"),
        ("llama-server -m /models/m-8b.Q4_K_M.gguf", "Q4_K_M"),
        ("llama-server -hf org/m-GGUF:IQ2_XXS", "IQ2_XXS"),
        ("llama-server -m /models/m-8b.gguf -q", ""),
        ("lmdeploy serve api_server org/m --model-format awq", "awq"),
        ("python finetune_train.py --model_name_or_path org/m --load_in_4bit", "int4"),
        ("python finetune_train.py --model_name_or_path org/m --load_in_4bit False", ""),
        ("bash -c 'vllm serve org/m --quantization awq; vllm serve org/m'", ""),
    ],
)
def test_of_a_command_line(words: str, variant: str) -> None:
    """What the arguments say, and never a default of the program."""
    split = re.findall(r"'[^']*'|\S+", words)
    assert recognise([word.strip("'") for word in split]).variant == variant


@pytest.mark.parametrize(
    ("place", "variant"),
    [
        ("/models/x/ggml-model-q8_0.gguf", "Q8_0"),
        ("/m/UD-Q4_K_XL/x-UD-Q4_K_XL-00001-of-00002.gguf", "Q4_K_XL"),
        ("/models/x-f16.gguf", "fp16"),
        ("mlx-community/x-4bit", "int4"),
        ("unsloth/x-bnb-4bit", "bitsandbytes-int4"),
        ("org/Q1-report", ""),
        ("org/x-GGUF", ""),
        ("/srv/fp8-models/llama/a/b", ""),
        ("/blobs/sha256-8d3f16f16f16", ""),
        ("", ""),
    ],
)
def test_of_a_name(place: str, variant: str) -> None:
    """The last two parts of a path or repository."""
    assert of_place(place) == variant


@pytest.mark.parametrize(
    ("config", "variant"),
    [
        ({"torch_dtype": "float16"}, ""),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "awq"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 8}}, "gptq-int8"),
        ({"quantization_config": {"quant_method": "fp8"}}, "fp8"),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "bitsandbytes-int4"),
        ({"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}}, "nvfp4"),
        (
            {
                "quantization_config": {
                    "quant_method": "compressed-tensors",
                    "config_groups": {
                        "group_0": {"weights": {"num_bits": 4, "type": "int"}, "input_activations": None}
                    },
                }
            },
            "w4a16",
        ),
        (
            {
                "quantization_config": {
                    "quant_method": "compressed-tensors",
                    "config_groups": {"a": {"weights": {"num_bits": 8, "type": "float"}}},
                }
            },
            "fp8",
        ),
        ({"quantization_config": "awq"}, ""),
        ({"quantization_config": {"quant_method": 4, "bits": None}}, ""),
        ({"quantization_config": {"quant_method": "x", "config_groups": {"a": 1}}}, "x"),
    ],
)
def test_of_a_config(config: dict[str, Any], variant: str) -> None:
    """``quantization_config`` states it; the type of the stored weights does not say what runs."""
    assert of_config(config) == variant


@given(st.text(max_size=80), st.text(max_size=80))
def test_any_text_is_a_harmless_label(place: str, setting: str) -> None:
    """Letters, digits and a few signs, of bounded length."""
    arguments = Arguments(["--quantization", setting, "--dtype", place])
    for found in (of_place(place), of_setting(setting), of_arguments(arguments, place)):
        assert re.fullmatch(r"[\w.:/+@~-]{0,128}", found)


def _resolve(models: Models, process: Process, metadata: ContainerMetadata | None = None) -> Model | None:
    return models.resolve(process, GroupKey("/team/a", 7), POD, metadata)


AWQ = ["vllm", "serve", "org/m", "--quantization", "awq"]


def test_workers_have_the_variant_of_their_server(proc: Any) -> None:
    """Two variants of one name are two models, each with its engine."""
    proc.add(10, AWQ)
    proc.add(20, ["vllm", "serve", "org/m", "--dtype", "half"])
    engines = [proc.add(11, ["VLLM::EngineCore"], parent=10), proc.add(21, ["VLLM::EngineCore"], parent=20)]
    models = Models(proc.host)
    found = [_resolve(models, engine) for engine in engines]
    assert [model.variant if model else None for model in found] == ["awq", "fp16"]
    assert len({model.key for model in found if model}) == 2


def test_a_model_below_another_does_not_take_its_variant(proc: Any) -> None:
    """The variant is of the program that names the model."""
    proc.add(10, AWQ)
    judge = proc.add(11, ["vllm", "serve", "org/judge"], parent=10)
    assert _resolve(Models(proc.host), judge) == Model("org/judge", "team", "inference", "command")


def test_a_label_precedes_the_command_line(proc: Any) -> None:
    """An operator's word is not second-guessed."""
    process = proc.add(10, AWQ)
    metadata = ContainerMetadata(annotations={"variant": "awq-calibrated"})
    model = _resolve(Models(proc.host, OPTIONS), process, metadata)
    assert model == Model("org/m", "team", "inference", "command", "awq-calibrated")


def test_a_name_of_a_label_has_the_variant_of_the_container(proc: Any) -> None:
    """Of the specified command for all its processes, and else of the server for what it started."""
    proc.add(10, AWQ)
    engine = proc.add(11, ["VLLM::EngineCore"], parent=10)
    helper = proc.add(30, ["tini", "--", "start.sh"])
    models = Models(proc.host, OPTIONS)
    labels = {"name": "chat", "phase": "inference"}
    bare, full = ContainerMetadata(labels=labels), ContainerMetadata(labels=labels, command=tuple(AWQ))
    assert _resolve(models, engine, bare) == Model("chat", "team", "inference", "label", "awq")
    assert _resolve(models, helper, bare) == Model("chat", "team", "inference", "label")
    assert _resolve(models, helper, full) == Model("chat", "team", "inference", "label", "awq")


def test_a_rule_says_a_variant(proc: Any) -> None:
    """With a group of its pattern, for whatever name the command line gives."""
    rule = ModelRule((("pod", re.compile(r"-(?P<kind>\d+)$")),), variant="pruned-${kind}")
    process = proc.add(10, ["vllm", "serve", "org/m"])
    model = _resolve(Models(proc.host, ModelOptions(rules=(rule,))), process)
    assert model == Model("org/m", "team", "inference", "command", "pruned-0")


def test_the_config_of_served_files(proc: Any, tmp_path: Path) -> None:
    """A local folder of weights states how they are quantized, and `explain` says that it was looked at."""
    folder = tmp_path / "weights" / "chat-8b"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "gptq", "bits": 4}}))
    process = proc.add(10, ["vllm", "serve", str(folder)])
    (proc.root / "10/root").symlink_to("/")
    models = Models(proc.host, lookups=DirectLookups(proc.host))
    model, steps = models.explain(process, GroupKey("/team/a", 7), POD)
    assert model == Model("chat-8b", "team", "inference", "command", "gptq-int4")
    assert (f"config.json in {folder}", "variant gptq-int4", True) in [
        (step.looked_at, step.result.partition(";")[0], step.found) for step in steps
    ]
