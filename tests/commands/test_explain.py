"""``explain``: how a process, container or pod is named, and what was tried in vain, on real and written processes."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exporter.cli import main
from exporter.commands.explain import write
from exporter.config.model_rules import ModelRule
from exporter.records import GroupKey, Process, Workload
from exporter.workloads.explainer import Explanation
from exporter.workloads.models.background_lookups import DirectLookups
from exporter.workloads.models.declared import ModelOptions
from exporter.workloads.models.resolver import Models
from tests.support.model_server import model_server
from tests.support.program import run
from tests.workloads.conftest import Clock, WrittenProc

ID = "4f" * 32
DOCKER = f"/docker/{ID}"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A real process whose command line is that of a model server, with a child."""
    script = (
        "import os, subprocess, sys\n"
        "child = subprocess.Popen([os.environ['REAL_PYTHON'], '-c', 'input()'], stdin=subprocess.PIPE)\n"
        "print(child.pid, flush=True)\n"
        "sys.stdin.readline()\n"
        "child.communicate(b'end')\n"
    )
    with model_server(tmp_path, script, "--port", "8000", "Qwen/Qwen3-4B") as process:
        yield process


class TestRealProcesses:
    def test_a_server_and_what_it_started(self, server: subprocess.Popen[str]) -> None:
        assert server.stdout is not None
        child = int(server.stdout.readline())
        done = run("explain", str(server.pid))
        assert (done.returncode, done.stderr) == (0, "")
        assert f"process {server.pid} (" in done.stdout
        assert "Qwen/Qwen3-4B, inference, from a command line" in done.stdout
        assert "+ its command line: Qwen/Qwen3-4B, inference" in done.stdout
        done = run("explain", str(child))
        assert done.returncode == 0
        assert f"process {child} (" in done.stdout
        assert "- its command line: no known program with a model" in done.stdout
        assert f"+ process {server.pid} above it: command line: Qwen/Qwen3-4B, inference" in done.stdout

    def test_a_process_without_a_model(self) -> None:
        done = run("explain", str(os.getpid()))
        assert done.returncode == 0
        assert f"process {os.getpid()} (" in done.stdout
        assert ": no model" in done.stdout
        assert "annotations and labels" in done.stdout
        assert "fix: " in done.stdout

    def test_a_script_of_ones_own_that_names_no_model(self, tmp_path: Path) -> None:
        script = tmp_path / "myexp.py"
        script.write_text("print('up', flush=True); input()")
        with subprocess.Popen(
            [sys.executable, str(script), "--lr", "3e-4"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            done = run("explain", str(process.pid))
            process.communicate("end\n")
        assert "- its command line: no known program with a model" in done.stdout
        assert "3e-4" not in done.stdout, "command lines are not shown: they may have credentials in them"

    def test_what_is_not_there(self) -> None:
        done = run("explain", "no-such-container")
        assert (done.returncode, done.stdout) == (1, "")
        assert "no process, container or pod of this machine is called 'no-such-container'" in done.stderr

    @pytest.mark.parametrize(
        "words", [[], [""], ["--path.procfs", "/proc"], ["1", "2"], ["1", "--once"], ["1", "--nope"]]
    )
    def test_usage_errors(self, words: list[str]) -> None:
        done = run("explain", *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("ai-energy-exporter: ")

    def test_help_and_a_wrong_place(self) -> None:
        assert run("explain", "--help").stdout.startswith("usage: ai-energy-exporter explain PID|CONTAINER|POD")
        done = run("--demo", "explain")
        assert done.returncode == 2
        assert "explain must come before all flags" in done.stderr


@pytest.fixture
def container(tmp_path: Path) -> WrittenProc:
    """A written machine with one container of Docker: Ray, a server beside it, and a worker."""
    (tmp_path / "proc").mkdir()
    group = tmp_path / "cgroup" / DOCKER[1:]
    group.mkdir(parents=True)
    for folder in (tmp_path / "cgroup", group):
        (folder / "cpu.stat").write_text("usage_usec 0\n")
    (tmp_path / "proc/self").symlink_to(str(os.getpid()))
    proc = WrittenProc(tmp_path / "proc", Clock())
    proc.add(10, ["/opt/ray/raylet"], cgroup=DOCKER)
    proc.add(12, ["vllm", "serve", "Qwen/Qwen3-4B"], cgroup=DOCKER)
    proc.add(14, ["ray::RayWorkerWrapper"], parent=10, cgroup=DOCKER)
    proc.add(15, ["sleep", "60"], parent=10, cgroup=DOCKER, comm="sl\x1b[31m")
    proc.add(20, ["sleep", "60"], cgroup="/")
    return proc


@pytest.mark.parametrize(("container", "shown"), [("", True), ("server", False)])
def test_the_row_of_a_pod(container: str, shown: bool) -> None:
    """A pod has it beside those of its containers; what runs in it is the sandbox, which nobody has to name."""
    workload = Workload(runtime="kubernetes", namespace="team", pod="chat-0", container=container)
    out = io.StringIO()
    write(Explanation(workload, ["/kubepods/pod1"], described=True, shared=False, processes=[]), out)
    assert ("the pod's own: its sandbox" in out.getvalue()) is shown


class TestWrittenMachine:
    def explain(self, proc: WrittenProc, target: str, capsys: Any) -> tuple[int, str]:
        """Exit status and output of the command on the written machine."""
        root = proc.root
        flags = [
            "--path.procfs",
            str(root),
            "--path.cgroupfs",
            str(root.parent / "cgroup"),
            "--kubernetes.names",
            "off",
        ]
        status = main(["explain", target, *flags], {})
        return status, capsys.readouterr().out

    @pytest.mark.parametrize("target", [ID, ID[:12], ID[:6]])
    def test_a_container_with_all_its_processes(self, container: WrittenProc, target: str, capsys: Any) -> None:
        status, text = self.explain(container, target, capsys)
        assert status == 0
        assert "runtime docker" in text
        assert f"cgroup    {DOCKER}" in text
        assert "process 12 (vllm): Qwen/Qwen3-4B, inference" in text
        assert "process 14 (ray::RayWorkerW): Qwen/Qwen3-4B, inference" in text
        assert "+ process 14, a worker of Ray: Qwen/Qwen3-4B, inference" in text
        assert "process 10 (raylet): no model" in text
        assert "process 20" not in text
        assert "sl?[31m" in text

    def test_a_worker_alone_knows_the_rest_of_its_container(self, container: WrittenProc, capsys: Any) -> None:
        status, text = self.explain(container, "14", capsys)
        assert status == 0
        assert text.count("\nprocess ") == 1
        assert "process 14 (ray::RayWorkerW): Qwen/Qwen3-4B, inference" in text

    def test_a_worker_between_two_models(self, container: WrittenProc, capsys: Any) -> None:
        container.add(16, ["vllm", "serve", "google/gemma-3-4b-it"], cgroup=DOCKER)
        _, text = self.explain(container, "14", capsys)
        assert "- process 14, a worker of Ray: 2 models in its container: " in text

    def test_the_row_of_the_host(self, container: WrittenProc, capsys: Any) -> None:
        status, text = self.explain(container, "host", capsys)
        assert status == 0
        assert "it never belongs to one model as a whole" in text
        assert "process 20 (sleep): no model" in text

    def test_a_process_whose_cgroup_cannot_be_read(self, container: WrittenProc, capsys: Any) -> None:
        (container.root / "20/cgroup").unlink()
        status, text = self.explain(container, "20", capsys)
        assert status == 0
        assert text.startswith("unknown (runtime unknown)")
        assert "named by  nothing: the cgroup of its processes cannot be read" in text

    def test_too_few_digits_of_an_id(self, container: WrittenProc, capsys: Any) -> None:
        assert self.explain(container, ID[:4], capsys)[0] == 1


class TestSteps:
    """What the resolver says it looked at."""

    def steps(self, proc: WrittenProc, process: Process, options: ModelOptions | None = None) -> list[str]:
        """The steps of one process as text."""
        models = Models(proc.host, options, DirectLookups(proc.host))
        _, steps = models.explain(process, GroupKey("/a", 1), Workload("t", "p", "c", "docker"))
        return [f"{'+' if step.found else '-'} {step.looked_at}: {step.result}" for step in steps]

    def test_variables_lookups_and_the_server(self, container: WrittenProc) -> None:
        process = container.add(30, ["vllm", "serve", "/mnt/models", "--config", "/c.yaml"])
        assert self.steps(container, process)[1:] == [
            "+ its command line: inference; no model: what its arguments give as the model is a folder, a setting, a "
            "variable or a digest, and no name",
            "- config /c.yaml: no key that names a model, or it cannot be read",
            "- GET /v1/models on port 8000: not sent: models.ask-servers is off",
        ]
        process = container.add(31, ["text-generation-launcher"])
        assert "- its variables MODEL_ID: not set, or not readable" in self.steps(container, process)

    def test_why_a_known_program_has_no_name(self, container: WrittenProc) -> None:
        blob = f"/root/.ollama/models/blobs/sha256-{'0a' * 32}"
        process = container.add(35, ["ollama", "runner", "--model", blob])
        assert self.steps(container, process)[1:3] == [
            "+ its command line: inference; no model: its arguments name no model",
            f"- ollama {blob}: no manifest lists these weights, or it cannot be read",
        ]
        process = container.add(
            36, ["torchrun", "pretrain_gpt.py", "--train-iters", "9", "--save", "/checkpoints/gpt3"]
        )
        assert (
            self.steps(container, process)[1] == "+ its command line: training; no model: its arguments name no model"
        )
        process = container.add(37, ["infinity_emb", "v2", "--model-id", "a/b", "--model-id", "c/d"])
        assert self.steps(container, process)[1].endswith("no model: several models in one process")

    def test_a_rule_and_a_shell(self, container: WrittenProc) -> None:
        container.add(32, ["bash", "run.sh"])
        process = container.add(33, ["top"], parent=32)
        rule = ModelRule((("command", re.compile("^vim ")),), (), "editor", "")
        assert self.steps(container, process, ModelOptions([rule]))[1:] == [
            "- its rule: none matches",
            "- its command line: no known program with a model",
            "- process 32 above it: bash starts unrelated programs",
        ]

    def test_a_trace_is_only_kept_while_somebody_asks(self, container: WrittenProc) -> None:
        models = Models(container.host)
        process = container.add(34, ["vllm", "serve", "a/b"])
        models.resolve(process, None, Workload("t", "p", "c", "docker"))
        assert models._trace.steps == []
