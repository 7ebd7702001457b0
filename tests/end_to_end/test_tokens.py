"""Tokens of a real llama.cpp server: what its client counted is what the exporter publishes."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.live import Exporter, Scrape
from tests.support.patience import patience, wait_for
from tests.support.program import free_port
from tests.support.repository import REPOSITORY
from tests.support.tiny_gguf import write_tiny_gguf

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None,
    reason="xllamacpp is missing: no wheel for this platform, or an environment older than requirements-dev.lock",
)
SCRIPT = REPOSITORY / "tests/launchers/programs/serve_llama.py"
MODEL = "Tiny-Chat"


class LlamaServer:
    """``llama-server``, in truth Python with llama.cpp's server in it, and what its clients got."""

    def __init__(self, model: Path, *flags: str) -> None:
        self.port = free_port()
        self.prompt = self.cached = self.output = 0
        words = ["llama-server", str(SCRIPT), "-m", str(model), "--port", str(self.port), *flags]
        # Python looks for its packages beside the name under which it is called.
        found = importlib.util.find_spec("xllamacpp")
        assert found is not None
        assert found.origin is not None
        environment = os.environ | {"PYTHONPATH": str(Path(found.origin).parents[1])}
        self.process = subprocess.Popen(
            words,
            executable=sys.executable,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def complete(self, tokens: int) -> None:
        """A completion of as many tokens, and what its ``usage`` says."""
        body = {"prompt": "the quick brown fox", "max_tokens": tokens, "ignore_eos": True}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=patience()) as answer:
            usage = json.load(answer)["usage"]
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        self.prompt += usage["prompt_tokens"] - cached
        self.cached += cached
        self.output += usage["completion_tokens"]

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=patience()) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@contextmanager
def llama_server(folder: Path, *flags: str) -> Iterator[LlamaServer]:
    model = folder / f"{MODEL}.gguf"
    write_tiny_gguf(model)
    server = LlamaServer(model, *flags)
    try:
        wait_for(server.is_ready, "the server", every_seconds=0.3)
        yield server
    finally:
        server.process.kill()
        server.process.wait()


@pytest.fixture
def exporter(tmp_path: Path) -> Iterator[Exporter]:
    one = Exporter("--state.file", str(tmp_path / "state"))
    yield one
    one.process.terminate()
    one.process.wait(patience())


def tokens(scrape: Scrape) -> dict[str, float]:
    return {labels["kind"]: value for labels, value in scrape.find("energy_model_tokens_total", model_name=MODEL)}


def test_the_tokens_of_the_client_are_those_published(exporter: Exporter, tmp_path: Path) -> None:
    exporter.scrape()  # it samples: all that the server counts is new
    time.sleep(1.1)  # the kernel has the start of a process in hundredths of a second
    with llama_server(tmp_path, "--metrics") as server:
        for number in (20, 35, 50):
            server.complete(number)
        expected = {"prompt": server.prompt, "cached_prompt": server.cached, "output": server.output}
        assert server.output == 105
        wait_for(lambda: tokens(exporter.scrape()) == expected, f"{expected}", every_seconds=0.3)
        server.complete(40)
        wait_for(
            lambda: tokens(exporter.scrape())["output"] == 145, "the tokens after the first page", every_seconds=0.3
        )
        scrape = exporter.scrape()
    assert scrape.total("energy_container_tokens_total", model_name=MODEL, kind="output") == 145
    ((info, _),) = scrape.find("energy_token_source_info", model_name=MODEL)
    assert (info["server"], info["method"]) == ("llama.cpp", "rounded_counter")
    assert scrape.find("energy_model_token_step", model_name=MODEL)[0][1] == 1.0
    joules = {labels["model_name"] for labels, _ in scrape.find("energy_model_joules_total")}
    assert MODEL in joules


def test_a_server_without_metrics_is_down_with_its_fix(exporter: Exporter, tmp_path: Path) -> None:
    with llama_server(tmp_path):
        wait_for(
            lambda: exporter.scrape().find("energy_token_source_up", model_name=MODEL), "the server", every_seconds=0.3
        )
        scrape = exporter.scrape()
    assert [up for _, up in scrape.find("energy_token_source_up", model_name=MODEL)] == [0.0]
    assert tokens(scrape) == {}
    assert scrape.total("energy_source_failures_total", source="inference", reason="not_found") >= 1
    wait_for(lambda: any("start it with --metrics" in line for line in exporter.log), "the fix in the log")
