"""Two real processes for each of the usual servers and launchers: the program as installed, and what it starts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from exporter.host import Host
from exporter.records import Process, Workload
from exporter.workloads.models.resolver import Models
from exporter.workloads.proc import process_stat
from tests.support.patience import patience

PROGRAM = """#!{python}
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
print(child.pid, flush=True)
sys.stdin.readline()
child.communicate(b"end")
"""

LAUNCHERS = [
    ("vllm serve --data-parallel-hybrid-lb --quantization fp8 Qwen/Qwen3-4B", "Qwen/Qwen3-4B", "inference"),
    ("vllm serve /models/x --served-model-name team/prod/llama", "team/prod/llama", "inference"),
    ("-m sglang.launch_server --model-path deepseek-ai/DeepSeek-V3 --tp 8", "deepseek-ai/DeepSeek-V3", "inference"),
    ("trtllm-serve --backend pytorch /engines/llama-3-8b/", "llama-3-8b", "inference"),
    ("lmdeploy serve api_server --tp 2 internlm/internlm3-8b", "internlm/internlm3-8b", "inference"),
    ("aphrodite run --single-user-mode mistralai/Mistral-7B-v0.3", "mistralai/Mistral-7B-v0.3", "inference"),
    ("mlx_lm.server --model mlx-community/Llama-3.2-3B-4bit", "mlx-community/Llama-3.2-3B-4bit", "inference"),
    ("-m dynamo.vllm --model Qwen/Qwen3-0.6B --is-prefill-worker", "Qwen/Qwen3-0.6B", "inference"),
    ("-m huggingfaceserver --model_name=llama3 --model_dir=/mnt/models", "llama3", "inference"),
    ("torchrun --nproc-per-node 2 train.py --model_name_or_path gpt2", "gpt2", "training"),
    ("accelerate launch --num-processes 8 --config-file f.yaml sft.py --model_name_or_path gpt2", "gpt2", "training"),
    ("deepspeed --num-gpus 8 train.py --model_name_or_path bigscience/bloom-7b1", "bigscience/bloom-7b1", "training"),
    ("axolotl train lora.yml --base-model NousResearch/Llama-3.2-1B", "NousResearch/Llama-3.2-1B", "training"),
    ("llamafactory-cli train --model_name_or_path Qwen/Qwen2-7B", "Qwen/Qwen2-7B", "training"),
    ("nemo llm finetune --factory llama3_8b", "llama3_8b", "training"),
    ("-m MaxText.train base.yml run_name=r1 model_name=llama2-7b", "llama2-7b", "training"),
]


@pytest.fixture(params=LAUNCHERS, ids=lambda row: str(row[0])[:40])
def launched(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[list[int], str, str]]:
    """The pids of a program and of its child, and the model and phase that are expected."""
    line, model, phase = request.param
    words = line.split()
    with subprocess.Popen(
        installed(words, tmp_path),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield [process.pid, int(process.stdout.readline())], model, phase
        process.communicate("end\n", timeout=patience())


def installed(words: Sequence[str], folder: Path) -> list[str]:
    """Install the program that a command line starts, as a script or module; returns the command line to run."""
    text = PROGRAM.format(python=sys.executable)
    if words[0] == "-m":
        package, _, module = words[1].partition(".")
        (folder / package).mkdir()
        (folder / package / "__init__.py").touch()
        (folder / package / f"{module or '__main__'}.py").write_text(text)
        return [sys.executable, *words]
    script = folder / words[0]
    script.write_text(text)
    script.chmod(0o755)
    return [str(script), *words[1:]]


def test_a_program_and_what_it_starts_have_its_model(launched: tuple[list[int], str, str]) -> None:
    pids, name, phase = launched
    models = Models(Host())
    found = []
    for pid in pids:
        stat = process_stat(Host(), pid)
        assert stat is not None
        found.append(models.resolve(Process(stat.key, stat.comm), None, Workload("t", "p", "main", "kubernetes")))
    assert [(model.model_name, model.phase) if model else None for model in found] == [(name, phase)] * 2
