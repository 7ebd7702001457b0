"""Which processes are model servers, on which port they count, and which half of requests they do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.host import Host
from exporter.records import GroupKey, Process, ProcessKey
from exporter.workloads.metadata.container_metadata import ContainerMetadata
from exporter.workloads.models.evidence import Evidence, ServerCall
from exporter.workloads.models.recognise import recognise
from exporter.workloads.models.servers import ModelServers
from exporter.workloads.proc import process_stat
from tests.support.patience import wait_for

CALLS = {
    "vllm serve org/chat": ("vllm", 8000),
    "vllm serve org/chat --port 8001": ("vllm", 8001),
    "vllm serve org/chat --port=8001": ("vllm", 8001),
    "python3 -m vllm.entrypoints.openai.api_server --model org/chat": ("vllm", 8000),
    "python3 -m sglang.launch_server --model-path org/chat --port 30001": ("sglang", 30001),
    "text-generation-launcher --model-id org/chat -p 8080": ("tgi", 8080),
    "trtllm-serve org/chat --port 8010": ("tensorrt_llm", 8010),
    "lmdeploy serve api_server org/chat --server-port 23334": ("lmdeploy", 23334),
    "llama-server -m /models/chat.gguf --port 8081 --metrics": ("llama.cpp", 8081),
    "llama-server --models-dir /models": ("llama.cpp", 8080),
    "tritonserver --model-repository /models --metrics-port 9002": ("triton", 9002),
    "text-embeddings-router --model-id BAAI/bge-m3": ("tei", 3000),
    "ollama serve": ("ollama", 11434),
    "python3 -m dynamo.vllm --model org/chat": ("dynamo", 0),
    "/usr/bin/python3 -u /x/ray/dashboard/agent.py --metrics-export-port=8090 --node-ip-address=10.0.0.7": (
        "ray",
        8090,
    ),
    "vllm serve org/chat --port 99999": ("vllm", 8000),
}
NONE = (
    "vllm bench throughput --model org/chat",
    "bash -c vllm\\ serve\\ org/chat",
    "python3 train.py --model_name_or_path org/chat",
    "ollama run llama3.2",
    "vllm serve --help",
)
ROLES = {
    "python3 -m sglang.launch_server --model-path m/x --disaggregation-mode prefill": "prefill",
    "python3 -m sglang.launch_server --model-path m/x --disaggregation-mode decode": "decode",
    'vllm serve m/x --kv-transfer-config {"kv_connector":"P2pNcclConnector","kv_role":"kv_producer"}': "prefill",
    'vllm serve m/x --kv-transfer-config {"kv_connector":"P2pNcclConnector","kv_role":"kv_consumer"}': "decode",
    "vllm serve m/x --kv-transfer-config.kv_role kv_producer": "prefill",
    'vllm serve m/x --kv-transfer-config {"kv_connector":"NixlConnector","kv_role":"kv_both"}': "",
    "vllm serve m/x --kv-transfer-config {": "",
    "python3 -m dynamo.vllm --model m/x --is-prefill-worker": "prefill",
    "vllm serve m/x": "",
}


@pytest.mark.parametrize("command", CALLS)
def test_a_server_has_its_dialect_and_port(command: str) -> None:
    call = recognise(command.split()).server
    assert call is not None
    assert (call.dialect, call.port) == CALLS[command]


@pytest.mark.parametrize("command", NONE)
def test_what_is_no_server(command: str) -> None:
    assert recognise([word.replace("\\", " ").strip() for word in command.replace("\\ ", "\\").split()]).server is None


@pytest.mark.parametrize("command", ROLES)
def test_a_server_of_one_half_of_each_request(command: str) -> None:
    call = recognise(command.split()).server
    assert call is not None
    assert call.role == ROLES[command]


@pytest.fixture
def sleeper() -> Iterator[Process]:
    """A process with variables of a server in its environment."""
    script = "import sys; sys.stdin.read()"
    environment = {"PORT": "8085", "DYN_SYSTEM_PORT": "8086"}
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, env=environment) as running:
        # The kernel lets the parent go on before it has set up the environment of the new program.
        wait_for(lambda: Path(f"/proc/{running.pid}/environ").read_bytes(), "its environment")
        stat = process_stat(Host(), running.pid)
        assert stat is not None
        yield Process(stat.key, "python")
        running.communicate()


def learned(process: Process, call: ServerCall, metadata: ContainerMetadata | None = None) -> ModelServers:
    servers = ModelServers(Host())
    servers.learn(process, None, Evidence("org/chat", "inference", "command", server=call), metadata)
    return servers


def test_the_port_may_be_a_variable(sleeper: Process) -> None:
    (server,) = learned(sleeper, ServerCall("tgi", 3000, ("PORT",))).running()
    assert (server.port, server.dialect, server.model, server.process) == (8085, "tgi", "org/chat", sleeper)
    (server,) = learned(sleeper, ServerCall("tgi", 3000, ("OTHER_PORT",))).running()
    assert server.port == 3000
    (server,) = learned(sleeper, ServerCall("dynamo", 0, ("DYN_SYSTEM_PORT",))).running()
    assert server.port == 8086


def test_the_role_may_be_a_label_of_the_pod(sleeper: Process) -> None:
    metadata = ContainerMetadata(namespace="prod", pod="chat-0", labels={"llm-d.ai/role": "prefill"})
    (server,) = learned(sleeper, ServerCall("vllm", 8000), metadata).running()
    assert server.role == "prefill"
    (server,) = learned(sleeper, ServerCall("vllm", 8000, (), "decode"), metadata).running()
    assert server.role == "decode", "its own command line comes first"


def test_a_server_that_is_moved_to_another_group_stays_one(sleeper: Process) -> None:
    servers = learned(sleeper, ServerCall("vllm", 8000))
    group = GroupKey("/kubepods/pod1", 7)
    servers.learn(sleeper, group, Evidence(server=ServerCall("vllm", 8000)), None)
    servers.learn(sleeper, None, Evidence(server=ServerCall("vllm", 8000)), None)
    assert [server.group for server in servers.running()] == [group]


def test_a_pid_that_another_process_has_by_now_is_no_server(sleeper: Process) -> None:
    gone = Process(ProcessKey(sleeper.key.pid, 1), "vllm")
    assert learned(gone, ServerCall("vllm", 8000)).running() == ()


def test_servers_that_ended_make_room(sleeper: Process, tmp_path: Path) -> None:
    servers = ModelServers(Host(procfs=str(tmp_path)))
    for pid in range(1, 300):
        stat = tmp_path / str(pid) / "stat"
        stat.parent.mkdir()
        stat.write_text(f"{pid} (vllm) S 1 {' 0' * 17} {pid} 0\n")
        if pid > 1:
            (tmp_path / str(pid - 1) / "stat").unlink()
        evidence = Evidence(server=ServerCall("vllm", 8000))
        servers.learn(Process(ProcessKey(pid, pid), "vllm"), None, evidence, None)
    assert servers.running()[-1].process.key.pid == 299
    assert len(servers.running()) <= 256
