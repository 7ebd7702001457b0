"""The model of a process: process families, rules, variables, rechecks, and their limits."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter.config.model_rules import ModelRule
from exporter.host import Host
from exporter.records import GroupKey, Model, Process, ProcessKey, Workload
from exporter.workloads.metadata.container_metadata import ContainerMetadata
from exporter.workloads.models.background_lookups import BackgroundLookups
from exporter.workloads.models.declared import ModelOptions
from exporter.workloads.models.evidence import Lookup
from exporter.workloads.models.lineage import ancestors, is_boundary
from exporter.workloads.models.resolver import RECHECK_SECONDS, Models
from exporter.workloads.proc import process_stat
from tests.support.model_server import model_server
from tests.support.patience import patience, wait_for

GROUP = GroupKey("/team/a", 7)
POD = Workload("team", "pod-0", "main", "kubernetes")
VLLM = ["vllm", "serve", "Qwen/Qwen3-4B"]
QWEN = Model("Qwen/Qwen3-4B", "team", "inference", "command")
SPAWNED = ["python3", "-c", "from multiprocessing.spawn import spawn_main; spawn_main()", "--multiprocessing-fork"]
CONTAINER_B = "/kubepods.slice/cri-containerd-" + "b" * 64 + ".scope"


def resolve(models: Models, process: Process, metadata: ContainerMetadata | None = None) -> Model | None:
    """The model of a process of the pod."""
    return models.resolve(process, GROUP, POD, metadata)


class TestFamilies:
    def test_a_worker_inherits_from_any_ancestor(self, proc: Any) -> None:
        proc.add(10, VLLM)
        engine = proc.add(11, ["VLLM::EngineCore"], parent=10)
        worker = proc.add(12, ["VLLM::Worker_TP0"], parent=11)
        spawned = proc.add(13, SPAWNED, parent=12)
        compiler = proc.add(14, ["/usr/local/cuda/bin/nvcc", "x.cu"], parent=13)
        models = Models(proc.host)
        assert [resolve(models, one) for one in (engine, worker, spawned, compiler)] == [QWEN] * 4

    def test_the_nearest_ancestor_with_evidence_counts(self, proc: Any) -> None:
        proc.add(10, ["torchrun", "train.py", "--model_name_or_path", "gpt2"])
        judge = proc.add(11, VLLM, parent=10)
        worker = proc.add(12, ["VLLM::EngineCore"], parent=11)
        rank = proc.add(13, ["python", "-u", "train.py", "--local_rank=0", "--model_name_or_path", "gpt2"], parent=10)
        loader = proc.add(14, ["pt_data_worker"], parent=13)
        models = Models(proc.host)
        assert resolve(models, judge) == resolve(models, worker) == QWEN
        assert resolve(models, rank) == resolve(models, loader) == Model("gpt2", "team", "training", "command")

    def test_two_servers_in_one_container_stay_apart(self, proc: Any) -> None:
        proc.add(5, ["supervisord"], parent=1)
        proc.add(10, VLLM, parent=5)
        proc.add(20, ["vllm", "serve", "google/gemma-3-4b-it"], parent=5)
        one = proc.add(11, ["VLLM::EngineCore"], parent=10)
        two = proc.add(21, ["VLLM::EngineCore"], parent=20)
        alone = proc.add(30, ["VLLM::EngineCore"], parent=5)
        models = Models(proc.host)
        names = [model.model_name if (model := resolve(models, each)) else None for each in (one, two, alone)]
        assert names == ["Qwen/Qwen3-4B", "google/gemma-3-4b-it", None]

    def test_children_of_a_shell_inherit_nothing(self, proc: Any) -> None:
        shell = proc.add(10, ["bash", "-c", "vllm serve Qwen/Qwen3-4B; nvidia-smi -l"])
        monitor = proc.add(11, ["nvidia-smi", "-l"], parent=10)
        proc.add(20, VLLM)
        inner = proc.add(21, ["sh", "-c", "echo $PATH; top"], parent=20)
        top = proc.add(22, ["top"], parent=21)
        scripted = proc.add(23, ["/bin/bash", "./run.sh"], parent=20, comm="run.sh")
        child = proc.add(24, ["top"], parent=23)
        models = Models(proc.host)
        assert resolve(models, shell) == QWEN
        assert resolve(models, monitor) is None
        assert resolve(models, inner) == resolve(models, scripted) == QWEN
        assert resolve(models, top) is resolve(models, child) is None

    def test_children_of_boundaries_inherit_nothing(self, proc: Any) -> None:
        proc.add(10, ["sudo", *VLLM])
        server = proc.add(11, VLLM, parent=10)
        other = proc.add(12, ["sleep", "60"], parent=10)
        proc.add(13, ["tmux", "new"], parent=11, comm="tmux: server")
        editor = proc.add(14, ["vim"], parent=13)
        models = Models(proc.host)
        assert resolve(models, server) == QWEN
        assert resolve(models, other) is resolve(models, editor) is None

    def test_processes_of_another_container_inherit_nothing(self, proc: Any) -> None:
        proc.add(10, VLLM)
        inside = proc.add(11, ["VLLM::EngineCore"], parent=10)
        beside = proc.add(12, ["VLLM::EngineCore"], parent=10, cgroup=CONTAINER_B)
        hidden = proc.add(13, ["VLLM::EngineCore"], parent=10)
        (proc.root / "13/cgroup").unlink()
        models = Models(proc.host)
        assert resolve(models, inside) == QWEN
        assert resolve(models, beside) is resolve(models, hidden) is None

    def test_groups_below_one_container_are_one_container(self, proc: Any) -> None:
        proc.add(10, VLLM, cgroup=CONTAINER_B + "/init.scope")
        worker = proc.add(11, ["VLLM::EngineCore"], parent=10, cgroup=CONTAINER_B + "/ray/workers")
        assert resolve(Models(proc.host), worker) == QWEN

    def test_a_parent_younger_than_its_child_is_a_reused_pid(self, proc: Any) -> None:
        """Fault 34."""
        proc.add(10, VLLM, start=500)
        child = proc.add(11, ["VLLM::EngineCore"], parent=10, start=400)
        assert resolve(Models(proc.host), child) is None

    def test_a_reused_pid_gives_no_model(self, proc: Any) -> None:
        """Fault 34."""
        proc.add(10, VLLM)
        worker = proc.add(11, ["VLLM::EngineCore"], parent=10)
        models = Models(proc.host)
        assert resolve(models, Process(ProcessKey(10, 1), "python")) is None
        assert resolve(models, Process(ProcessKey(11, 1), "python")) is None
        assert resolve(models, worker) == QWEN

    def test_cycles_and_long_chains_end(self, proc: Any) -> None:
        one = proc.add(10, ["a"], parent=11, start=5)
        proc.add(11, ["b"], parent=10, start=5)
        proc.add(12, ["c"], parent=12)
        assert len(list(ancestors(proc.host, one.key))) <= 16
        assert list(ancestors(proc.host, ProcessKey(12, 120))) == []
        proc.add(100, VLLM, start=1)
        for pid in range(101, 140):
            last = proc.add(pid, ["python"], parent=pid - 1)
        models = Models(proc.host)
        assert resolve(models, last) is resolve(models, one) is None

    def test_a_name_with_parentheses_and_newlines_does_not_hide_the_parent(self, proc: Any) -> None:
        """Fault 44."""
        worker = proc.add(11, ["VLLM::EngineCore"], parent=10, comm="a) S 1 (\n")
        proc.add(10, VLLM)
        assert resolve(Models(proc.host), worker) == QWEN
        stat = process_stat(proc.host, 11)
        assert stat is not None
        assert (stat.key, stat.comm, stat.parent) == (worker.key, "a) S 1 (\n", 10)

    def test_kernel_threads_hidden_and_ended_processes_have_no_model(self, proc: Any) -> None:
        """Fault 48."""
        models = Models(proc.host)
        assert resolve(models, Process(ProcessKey(2, 1), "kthreadd", kernel=True)) is None
        assert resolve(models, Process(ProcessKey(77, 1), "gone")) is None
        zombie = proc.add(10, b"", comm="vllm")
        assert resolve(models, zombie) is None
        garbage = proc.add(11, VLLM)
        (proc.root / "11/stat").write_bytes(b"not a stat file")
        assert resolve(models, garbage) is None

    @pytest.mark.parametrize("comm", ["bash", "-sh", "tmux: server", "containerd-shim-runc-v2", "sshd", "systemd"])
    def test_boundaries(self, comm: str) -> None:
        assert is_boundary(comm)

    @pytest.mark.parametrize("comm", ["python3", "vllm", "VLLM::EngineCor", "raylet", "tini", "torchrun"])
    def test_not_boundaries(self, comm: str) -> None:
        assert not is_boundary(comm)

    def test_a_phase_of_an_ancestor_completes_a_name(self, proc: Any) -> None:
        proc.add(10, ["torchrun", "main.py"])
        rank = proc.add(11, ["python", "-u", "main.py", "--model_name_or_path", "gpt2"], parent=10)
        assert resolve(Models(proc.host), rank) == Model("gpt2", "team", "training", "command")


class TestOrder:
    """Precedence: label, rule, command line, environment, lookups."""

    FACTS = ContainerMetadata(image="registry/acme/llm:1", labels={"name": "labelled"}, environment={"TAG": "from-pod"})
    RULE = ModelRule((("image", re.compile("acme/(?P<app>[a-z]+)")),), (), "acme-${app}", "")

    def test_a_label_comes_before_a_rule_before_the_command_line(self, proc: Any) -> None:
        process = proc.add(10, VLLM)
        both = Models(proc.host, ModelOptions([self.RULE], keys=["name"]))
        rule = Models(proc.host, ModelOptions([self.RULE]))
        assert resolve(both, process, self.FACTS) == Model("labelled", "team", "inference", "label")
        assert resolve(rule, process, self.FACTS) == Model("acme-llm", "team", "inference", "rule")
        assert resolve(rule, process) == QWEN

    def test_an_image_that_only_the_workload_has(self, proc: Any) -> None:
        process = proc.add(10, ["./serve"])
        workload = POD._replace(image="acme/llm")
        model = Models(proc.host, ModelOptions([self.RULE])).resolve(process, GROUP, workload)
        assert model == Model("acme-llm", "team", "unknown", "rule")

    def test_a_rule_over_the_command_line_also_names_its_workers(self, proc: Any) -> None:
        rule = ModelRule((("command", re.compile(r"--weights (?P<path>\S+)")),), (), "${path}", "inference")
        proc.add(10, ["./server", "--weights", "/data/llama-7b/"])
        worker = proc.add(11, ["./server-worker"], parent=10)
        models = Models(proc.host, ModelOptions([rule]))
        assert resolve(models, worker) == Model("llama-7b", "team", "inference", "rule")

    def test_a_rule_may_set_only_the_phase(self, proc: Any) -> None:
        rule = ModelRule((("container", re.compile("^main$")),), (), "", "training")
        models = Models(proc.host, ModelOptions([rule]))
        assert resolve(models, proc.add(10, VLLM)) == QWEN._replace(phase="training")

    def test_a_rule_over_a_variable_reads_the_process_before_the_pod(self, proc: Any) -> None:
        rule = ModelRule((), (("TAG", re.compile("(?P<tag>.+)")),), "${tag}", "inference")
        own = proc.add(10, ["./serve"], environ={"TAG": "own", "SECRET": "hunter2"})
        other = proc.add(11, ["./serve"])
        models = Models(proc.host, ModelOptions([rule]))
        assert resolve(models, own, self.FACTS) == Model("own", "team", "inference", "rule")
        assert resolve(models, other, self.FACTS) == Model("from-pod", "team", "inference", "rule")
        assert resolve(models, other) is None

    def test_a_rule_with_a_capture_that_is_not_a_name_names_nothing(self, proc: Any) -> None:
        rule = ModelRule((("command", re.compile("--weights (?P<path>[^ ]*)")),), (), "x-${path}", "inference")
        models = Models(proc.host, ModelOptions([rule]))
        assert resolve(models, proc.add(10, ["./server", "--weights", "$WEIGHTS"])) is None

    def test_the_variable_of_a_launcher(self, proc: Any) -> None:
        environ = {"MODEL_ID": "a/b", "HF_TOKEN": "hf_secret"}
        process = proc.add(10, ["text-generation-launcher"], environ=environ)
        shard = proc.add(11, ["python", "/opt/text-generation-server", "serve", "/data/models"], parent=10)
        models = Models(proc.host)
        expected = Model("a/b", "team", "inference", "environment")
        assert resolve(models, process) == resolve(models, shard) == expected

    def test_other_variables_are_not_read(self, proc: Any) -> None:
        """Fault 47."""
        process = proc.add(10, [*VLLM[:2], "$MODEL"], environ={"MODEL": "a/b", "MODEL_ID": "c/d"})
        assert resolve(Models(proc.host), process) is None

    def test_a_secret_is_neither_a_name_nor_kept(self, proc: Any) -> None:
        """Fault 47."""
        token = "hf_" + "A1b2" * 8
        process = proc.add(10, ["vllm", "serve", "a/b", "--api-key", token])
        models = Models(proc.host, ModelOptions(keys=["name"]))
        assert resolve(models, process) == QWEN._replace(model_name="a/b")
        assert resolve(models, proc.add(11, ["vllm", "serve", token])) is None
        assert token not in repr(vars(models))


class TestLater:
    def test_a_recheck_finds_the_program_after_exec(self, proc: Any, clock: Any) -> None:
        process = proc.add(10, ["bash", "start.sh"])
        quiet = proc.add(11, ["sleep", "60"])
        models = Models(proc.host)
        assert resolve(models, process) is resolve(models, quiet) is None
        proc.add(10, VLLM)
        assert models.changed() == set()
        clock.now += RECHECK_SECONDS
        assert models.changed() == {GROUP}
        assert resolve(models, process) == QWEN
        clock.now += 100 * RECHECK_SECONDS
        assert models.changed() == set()

    def test_a_recheck_drops_the_command_line_of_the_parent(self, proc: Any, clock: Any) -> None:
        process = proc.add(10, ["bash", "-c", "nvidia-smi -l & exec vllm serve Qwen/Qwen3-4B"])
        models = Models(proc.host)
        assert resolve(models, process) == QWEN
        proc.add(10, ["nvidia-smi", "-l"])
        clock.now += RECHECK_SECONDS
        assert models.changed() == {GROUP}
        assert resolve(models, process) is None

    def test_a_title_does_not_change_the_model(self, proc: Any, clock: Any) -> None:
        process = proc.add(10, VLLM)
        models = Models(proc.host)
        assert resolve(models, process) == QWEN
        proc.add(10, b"VLLM::APIServer_0\0\0\0\0")
        clock.now += RECHECK_SECONDS
        assert models.changed() == {GROUP}
        assert resolve(models, process) == QWEN
        assert resolve(models, process) == QWEN

    def test_an_ended_process_is_not_rechecked(self, proc: Any, clock: Any) -> None:
        process = proc.add(10, ["true"])
        models = Models(proc.host)
        resolve(models, process)
        (proc.root / "10/cmdline").unlink()
        clock.now += RECHECK_SECONDS
        assert models.changed() == set()

    def test_a_lookup_completes_later_for_workers_too(self, proc: Any) -> None:
        started: list[tuple[int, Lookup]] = []
        ready = threading.Event()

        def run(host: Host, pid: int, lookup: Lookup) -> str:
            started.append((pid, lookup))
            ready.wait(patience(30))
            return "llama3.2:3b"

        runner = proc.add(10, ["ollama", "runner", "--model", "/m/blobs/sha256-" + "c" * 64])
        helper = proc.add(11, ["helper"], parent=10)
        models = Models(proc.host, lookups=BackgroundLookups(proc.host, run))
        assert resolve(models, runner) is resolve(models, helper) is None
        ready.set()
        wait_for(lambda: GROUP in models.changed())
        expected = Model("llama3.2:3b", "team", "inference", "file")
        assert resolve(models, runner) == resolve(models, helper) == expected
        assert len(started) == 1
        models.close()

    def test_servers_are_queried_only_if_enabled(self, proc: Any) -> None:
        started: list[Lookup] = []
        ready = threading.Event()

        def run(host: Host, pid: int, lookup: Lookup) -> str:
            started.append(lookup)
            ready.wait(patience(30))
            return "served" if lookup.kind == "server" else ""

        process = proc.add(10, ["vllm", "serve", "/mnt/models", "--port", "8123"])
        disabled = BackgroundLookups(proc.host, run)
        assert resolve(Models(proc.host, lookups=disabled), process) is None
        assert disabled._thread is None
        enabled = Models(proc.host, ModelOptions(ask_servers=True), BackgroundLookups(proc.host, run))
        assert resolve(enabled, process) is None
        ready.set()
        wait_for(lambda: GROUP in enabled.changed())
        assert resolve(enabled, process) == Model("served", "team", "inference", "server")
        assert started[0] == Lookup("server", "8123")
        enabled.close()

    def test_no_lookup_for_a_shell(self, proc: Any) -> None:
        shell = proc.add(10, ["sh", "-c", "vllm serve /mnt/models"])
        lookups = BackgroundLookups(proc.host, lambda host, pid, lookup: "wrong")
        assert resolve(Models(proc.host, ModelOptions(ask_servers=True), lookups), shell) is None
        assert lookups._thread is None

    def test_memory_is_bounded(self, proc: Any, clock: Any) -> None:
        """Fault 43."""
        proc.add(10, VLLM)
        models = Models(proc.host)
        for start in range(9000):
            resolve(models, Process(ProcessKey(10, start), "vllm"))
        assert len(models._inspections) == 8192
        clock.now += RECHECK_SECONDS
        assert resolve(models, Process(ProcessKey(10, 100), "vllm")) == QWEN

    def test_a_process_without_a_group(self, proc: Any, clock: Any) -> None:
        process = proc.add(10, VLLM)
        models = Models(proc.host)
        assert models.resolve(process, None, POD) == QWEN
        clock.now += RECHECK_SECONDS
        assert models.changed() == set()


class TestHostile:
    """Fault 45: whatever /proc contains, a name is safe in a label and nothing raises."""

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(raw=st.binary(max_size=300), prefix=st.sampled_from([b"", b"vllm\0serve\0", b"python\0-m\0", b"sh\0-c\0"]))
    def test_arbitrary_bytes(self, proc: Any, raw: bytes, prefix: bytes) -> None:
        process = proc.add(10, prefix + raw)
        model = resolve(Models(proc.host), process)
        if model is not None:
            assert 0 < len(model.model_name) <= 128
            assert re.fullmatch(r"[\w.:/+@~-]+", model.model_name)

    def test_a_command_line_of_a_megabyte(self, proc: Any) -> None:
        process = proc.add(10, [*VLLM, "x" * 1_000_000])
        assert resolve(Models(proc.host), process) == QWEN
        assert resolve(Models(proc.host), proc.add(11, ["vllm", "serve", "x" * 1_000_000])) is None


class TestRealProcesses:
    """Processes of this machine with the command line of a server."""

    SERVER = """
import os, subprocess, sys, time
python = os.environ["REAL_PYTHON"]
sleep = "import time; print('up', flush=True); time.sleep(120)"
spawned = subprocess.Popen([python, "-c", "# from multiprocessing.spawn import spawn_main\\n" + sleep])
script = f'"{python}" -c "import time; time.sleep(120)" & echo $! ; wait'
shell = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True)
below = int(shell.stdout.readline())
print(spawned.pid, shell.pid, below, flush=True)
sys.stdin.readline()
for child in (spawned, shell):
    child.kill()
os.kill(below, 9)
"""

    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
        with model_server(tmp_path, self.SERVER, "Qwen/Qwen3-4B") as process:
            yield process

    def test_workers_belong_to_their_server_and_a_shells_children_do_not(self, server: subprocess.Popen[str]) -> None:
        assert server.stdout is not None
        line = server.stdout.readline()
        if line.strip() == "up":
            line = server.stdout.readline()
        spawned, shell, below = map(int, line.split())
        host, models = Host(), Models(Host())
        found = {}
        for pid in (server.pid, spawned, shell, below):
            stat = process_stat(host, pid)
            assert stat is not None
            found[pid] = resolve(models, Process(stat.key, stat.comm))
        assert found == {server.pid: QWEN, spawned: QWEN, shell: QWEN, below: None}

    def test_exec_is_found_by_the_recheck(self, tmp_path: Path, clock: Any) -> None:
        (tmp_path / "serve").write_text("import sys; print('up', flush=True); sys.stdin.readline()")
        code = f"import os, sys; sys.stdin.readline(); os.execv({sys.executable!r}, ['vllm', 'serve', 'Qwen/Qwen3-4B'])"
        with subprocess.Popen(
            [sys.executable, "-c", code], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            wait_for(lambda: b"execv" in Path(f"/proc/{process.pid}/cmdline").read_bytes())
            stat = process_stat(Host(), process.pid)
            assert stat is not None
            models = Models(Host(clock=clock))
            assert resolve(models, Process(stat.key, stat.comm)) is None
            process.stdin.write("go\n")
            process.stdin.flush()
            assert process.stdout.readline() == "up\n"
            clock.now += RECHECK_SECONDS
            assert models.changed() == {GROUP}
            assert resolve(models, Process(stat.key, stat.comm)) == QWEN
            process.stdin.write("end\n")

    def test_this_process_has_no_model(self) -> None:
        stat = process_stat(Host(), os.getpid())
        assert stat is not None
        assert resolve(Models(Host()), Process(stat.key, stat.comm)) is None
