"""``make serving-check``: real model servers and their clients, and the tokens and joules per token of the exporter.

Outside the suite. The servers are installed from PyPI, in the versions of `tests.launchers.trials`, into a folder
(``--folder``, else a temporary one), and run on this machine beside the exporter, as processes of the host and as
containers of Docker. What the client counted must be what is published, and joules per token those of the client's own
count.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.launchers.environments import prepare
from tests.launchers.trials import ENVIRONMENTS, VLLM
from tests.runtimes.docker import Docker, engine
from tests.support.live import Exporter, Scrape
from tests.support.patience import patience
from tests.support.program import free_port
from tests.support.repository import REPOSITORY

PROGRAMS = REPOSITORY / "tests/launchers/programs"
ADDRESS = "--host {host} --port {port}"
VLLM_FLAGS = "--enforce-eager --dtype float32 --max-model-len 512 --max-num-seqs 8"
TOKENS = (20, 64, 5, 100)
"""Lengths of the completions."""

TOLERANCE = 0.01
IMAGE, CONTAINER = "acme/server:1", "server"


class Server(NamedTuple):
    """A command, and the names that its model has for clients (``served``) and in the exporter.

    ``network`` is that of its container, "" for a process of the host.
    """

    name: str
    environment: str
    command: str
    served: str
    model: str
    before: str
    variables: Mapping[str, str] = {}
    network: str = ""


ON_THE_HOST = (
    Server(
        "llama.cpp",
        "llama",
        f"llama-server {PROGRAMS / 'serve_llama.py'} -m models/Tiny-4M.F32.gguf --metrics {ADDRESS}",
        "",
        "Tiny-4M.F32",
        "weights_gguf.py",
    ),
    Server(
        "vllm, a path",
        "vllm",
        f"vllm serve {{work}}/acme/tiny-llama {VLLM_FLAGS} {ADDRESS}",
        "{work}/acme/tiny-llama",
        "tiny-llama",
        "weights.py",
        VLLM,
    ),
    Server(
        "vllm, a served name",
        "vllm",
        f"vllm serve {{work}}/acme/tiny-llama {VLLM_FLAGS} --served-model-name team/chat {ADDRESS}",
        "team/chat",
        "team/chat",
        "weights.py",
        VLLM,
    ),
)
SERVERS = (
    *ON_THE_HOST,
    *(
        server._replace(name=f"{server.name}, in Docker, network {network}", network=network)
        for server, network in zip(ON_THE_HOST, ("bridge", "host", "bridge"), strict=True)
    ),
)


class Client:
    """Sends completions, and adds up what their ``usage`` says."""

    def __init__(self, address: str, model: str) -> None:
        self.prompt = self.output = 0
        self._url = f"http://{address}/v1/completions"
        self._model = model

    def complete(self, tokens: int) -> None:
        body = {"prompt": "the quick brown fox", "max_tokens": tokens, "ignore_eos": True}
        body |= {"model": self._model} if self._model else {}
        request = urllib.request.Request(self._url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=patience(60.0)) as answer:
            usage = json.load(answer)["usage"]
        self.prompt += usage["prompt_tokens"]
        self.output += usage["completion_tokens"]


def check(server: Server, folder: Path) -> list[str]:
    """Run one server and its client; returns what is wrong."""
    programs = prepare(server.environment, ENVIRONMENTS[server.environment], folder)
    work = folder / "work" / server.environment
    if not work.exists():
        work.mkdir(parents=True)
        subprocess.run([programs / "python", PROGRAMS / server.before], cwd=work, check=True)
    with contextlib.ExitStack() as stack:
        docker: Docker | None = None
        flags: tuple[str, ...] = ()
        if server.network:
            data = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            docker = stack.enter_context(engine(data))
            docker.load_image(data, IMAGE)
            flags = ("--docker.socket", str(docker.socket))
        exporter = Exporter(*flags)
        stack.callback(_end, exporter.process)
        exporter.scrape()
        time.sleep(1.1)  # what starts from now on is younger, in the hundredths of a second that the kernel counts
        started = _start(server, programs, work, docker)
        stack.callback(_end, started.process)
        _wait_until_ready(started, work / "log")
        client = Client(started.address, server.served.format(work=work))
        for tokens in TOKENS:
            client.complete(tokens)
        return _compare(server, client, exporter)


class Started(NamedTuple):
    """A server: its process, or the client of its container, and where it listens."""

    process: subprocess.Popen[bytes]
    address: str


def _start(server: Server, programs: Path, work: Path, docker: Docker | None) -> Started:
    port, bridged = free_port(), server.network == "bridge"
    words = server.command.format(work=work, host="0.0.0.0" if bridged else "127.0.0.1", port=port).split()
    executable = str(programs / ("python" if server.environment == "llama" else words[0]))
    (site,) = programs.parent.glob("lib/python3*/site-packages")
    variables = {"PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **server.variables}
    variables["PATH"] = f"{programs}:{os.environ['PATH']}"
    with open(work / "log", "wb") as log:
        if docker is None:
            process = subprocess.Popen(
                words, executable=executable, cwd=work, env=os.environ | variables, stdout=log, stderr=subprocess.STDOUT
            )
            return Started(process, f"127.0.0.1:{port}")
        folders = [f"{path}:{path}" for path in (work.parents[1], PROGRAMS, sys.base_prefix) if str(path) != "/usr"]
        folders += ["/usr:/usr:ro", "/usr/lib:/lib:ro", "/usr/lib64:/lib64:ro", "/etc/passwd:/etc/passwd:ro"]
        options = ["--network", server.network, "--workdir", str(work), "--shm-size", "1g"]
        options += [word for each in folders for word in ("--volume", each)]
        options += [word for name, value in variables.items() for word in ("--env", f"{name}={value}")]
        docker("run", "--detach", "--name", CONTAINER, *options, IMAGE,
               "/usr/bin/bash", "-c", 'exec -a "$1" "$0" "${@:2}"', executable, *words)  # fmt: skip
        host = docker("inspect", "--format", "{{.NetworkSettings.IPAddress}}", CONTAINER) if bridged else "127.0.0.1"
        # It ends when the container does.
        follow = subprocess.Popen(docker.words("logs", "--follow", CONTAINER), stdout=log, stderr=subprocess.STDOUT)
        return Started(follow, f"{host}:{port}")


def _end(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    process.wait(patience())


def _wait_until_ready(started: Started, log: Path) -> None:
    deadline = time.monotonic() + patience(120.0)
    while True:
        try:
            with urllib.request.urlopen(f"http://{started.address}/health", timeout=patience()):
                return
        except OSError:
            if started.process.poll() is not None or time.monotonic() > deadline:
                raise OSError("not ready: " + log.read_text("utf-8", "replace")[-600:]) from None
            time.sleep(0.5)


def _compare(server: Server, client: Client, exporter: Exporter) -> list[str]:
    """Compare until everything is as expected; what still is not after a while is wrong."""
    deadline = time.monotonic() + patience(20.0)
    while True:
        scrape = exporter.scrape()
        found = {labels["kind"]: count for labels, count in _tokens(scrape, server.model)}
        published = (found.get("prompt", 0.0) + found.get("cached_prompt", 0.0), found.get("output", 0.0))
        if published == (client.prompt, client.output) or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    wrong = []
    if server.network:
        there = scrape.total("energy_container_tokens_total", container=CONTAINER, kind="output")
        if there != client.output:
            wrong.append(f"{server.name}: {there} output tokens of the container")
    joules = scrape.total("energy_model_joules_total", model_name=server.model)
    requests = scrape.total("energy_model_requests_total", model_name=server.model)
    print(f"\n{server.name}: the client counted {client.prompt} prompt and {client.output} output tokens")
    print(f"  published: {found}, requests {requests:g}, joules {joules:.2f}")
    if published != (client.prompt, client.output):
        wrong.append(f"{server.name}: {published} tokens published")
    if joules <= 0 or not published[1]:
        return [*wrong, f"{server.name}: no joules or no tokens"]
    ours, theirs = joules / published[1], joules / client.output
    print(f"  joules per output token: {ours:.6f}, by the client's count {theirs:.6f}")
    if abs(ours / theirs - 1) > TOLERANCE:
        wrong.append(f"{server.name}: {ours} J per token, not {theirs}")
    return wrong


def _tokens(scrape: Scrape, model: str) -> list[tuple[dict[str, str], float]]:
    return scrape.find("energy_model_tokens_total", model_name=model)


def main() -> int:
    """Run the servers that are named, or all. Returns the exit status: 1 if something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.serving.check", description=__doc__)
    parser.add_argument("--folder", type=Path, help="where the servers are installed, and stay")
    parser.add_argument("names", nargs="*", metavar="NAME", help="part of a server's name; all of them without one")
    given = parser.parse_args()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        for server in SERVERS:
            if given.names and not any(name in server.name for name in given.names):
                continue
            try:
                wrong += check(server, folder)
            except subprocess.CalledProcessError as error:
                print(f"{server.name}: left out, its packages cannot be had: {error}", file=sys.stderr)
            except OSError as error:
                wrong.append(f"{server.name}: {error}")
    for line in wrong:
        print(f"WRONG {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
