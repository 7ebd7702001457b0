"""``make serving-check``: real model servers and their clients, and the tokens and joules per token of the exporter.

Outside the suite. The servers are installed from PyPI, in the versions of `tests.launchers.trials`, into a folder
(``--folder``, else a temporary one), and run on this machine beside the exporter. What the client counted must be what
is published, and joules per token those of the client's own count.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.launchers.environments import prepare
from tests.launchers.trials import ENVIRONMENTS, VLLM
from tests.support.live import Exporter, Scrape
from tests.support.patience import patience
from tests.support.program import free_port
from tests.support.repository import REPOSITORY

PROGRAMS = REPOSITORY / "tests/launchers/programs"
VLLM_FLAGS = "--enforce-eager --dtype float32 --max-model-len 512 --max-num-seqs 8"
TOKENS = (20, 64, 5, 100)
"""Lengths of the completions."""

TOLERANCE = 0.01


class Server(NamedTuple):
    """A command, and the names that its model has for clients (``served``) and in the exporter."""

    name: str
    environment: str
    command: str
    served: str
    model: str
    before: str
    variables: Mapping[str, str] = {}


SERVERS = (
    Server(
        "llama.cpp",
        "llama",
        f"llama-server {PROGRAMS / 'serve_llama.py'} -m models/Tiny-4M.F32.gguf --metrics --port",
        "",
        "Tiny-4M.F32",
        "weights_gguf.py",
    ),
    Server(
        "vllm, a path",
        "vllm",
        f"vllm serve {{work}}/acme/tiny-llama {VLLM_FLAGS} --host 127.0.0.1 --port",
        "{work}/acme/tiny-llama",
        "tiny-llama",
        "weights.py",
        VLLM,
    ),
    Server(
        "vllm, a served name",
        "vllm",
        f"vllm serve {{work}}/acme/tiny-llama {VLLM_FLAGS} --served-model-name team/chat --host 127.0.0.1 --port",
        "team/chat",
        "team/chat",
        "weights.py",
        VLLM,
    ),
)


class Client:
    """Sends completions, and adds up what their ``usage`` says."""

    def __init__(self, port: int, model: str) -> None:
        self.prompt = self.output = 0
        self._url = f"http://127.0.0.1:{port}/v1/completions"
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
    port = free_port()
    words = [*server.command.format(work=work).split(), str(port)]
    (site,) = programs.parent.glob("lib/python3*/site-packages")
    variables = {"PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **server.variables}
    environment = os.environ | variables | {"PATH": f"{programs}:{os.environ['PATH']}"}
    exporter = Exporter()
    exporter.scrape()
    time.sleep(1.1)  # what starts from now on is younger, in the hundredths of a second that the kernel counts
    executable = str(programs / "python") if server.environment == "llama" else str(programs / words[0])
    with open(work / "log", "wb") as log:
        process = subprocess.Popen(
            words, executable=executable, cwd=work, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        _wait_until_ready(port, process, work / "log")
        client = Client(port, server.served.format(work=work))
        for tokens in TOKENS:
            client.complete(tokens)
        return _compare(server, client, exporter)
    finally:
        process.terminate()
        process.wait(patience())
        exporter.process.terminate()
        exporter.process.wait(patience())


def _wait_until_ready(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + patience(120.0)
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=patience()):
                return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
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
    joules = scrape.total("energy_model_joules_total", model_name=server.model)
    requests = scrape.total("energy_model_requests_total", model_name=server.model)
    print(f"\n{server.name}: the client counted {client.prompt} prompt and {client.output} output tokens")
    print(f"  published: {found}, requests {requests:g}, joules {joules:.2f}")
    wrong = []
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
