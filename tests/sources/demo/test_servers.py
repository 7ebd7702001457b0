"""The simulated model servers count as vLLM, SGLang and TGI do, and in step with the simulated cards."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from exporter.sources.demo import servers
from exporter.sources.demo.servers import Servers, serve
from exporter.sources.demo.tenants import TENANTS
from tests.support.patience import patience


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def samples(text: str) -> dict[tuple[str, str, str], float]:
    """Name, pod and rank → value."""
    return {
        (sample.name, sample.labels["pod"], sample.labels.get("tp_rank", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_counters_start_at_0_and_only_grow() -> None:
    clock = Clock()
    played = Servers(clock)
    before = samples(played.metrics())
    counters = {key for key in before if "running" not in key[0] and "batch_current" not in key[0]}
    assert {before[key] for key in counters} == {0.0}
    for _ in range(50):
        clock.now += 37.0
        after = samples(played.metrics())
        assert all(after[key] >= before[key] for key in counters)
        before = after


def test_scrapes_do_not_change_what_is_counted() -> None:
    often, once = Clock(), Clock()
    scraped, left = Servers(often), Servers(once)
    for _ in range(600):
        often.now += 1.0
        scraped.metrics()
    once.now += 600.0
    assert scraped.metrics() == left.metrics()


def test_every_rank_of_sglang_repeats_the_same_and_an_idle_model_has_no_requests() -> None:
    clock = Clock()
    played = Servers(clock)
    clock.now += 300
    found = samples(played.metrics())
    ranks = [value for (name, _, rank), value in found.items() if name == "sglang:generation_tokens_total" and rank]
    assert len(ranks) == 2
    assert ranks[0] == ranks[1] > 0
    assert found["vllm:generation_tokens_total", "gemma-3-27b-demo-84f6b7d9c-hw7jr", ""] == 0
    assert found["vllm:generation_tokens_total", "qwen2-5-7b-chat-6f7c9d5b8-x2lqp", ""] > 1000
    assert found["tgi_request_generated_tokens_sum", "mistral-7b-rag-5b8d7c6f4-9kzwt", ""] > 0


def test_tgi_has_no_model_label_and_all_others_that_of_their_pod() -> None:
    models = {tenant.owner.pod: tenant.model[0] for tenant in TENANTS if tenant.model}
    for family in text_string_to_metric_families(Servers(Clock()).metrics()):
        for sample in family.samples:
            if sample.name.startswith("tgi"):
                assert "model_name" not in sample.labels
            else:
                assert sample.labels["model_name"] == models[sample.labels["pod"]]


@pytest.fixture
def served() -> Iterator[str]:
    server = serve("127.0.0.1:0")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/metrics"
    server.shutdown()
    server.server_close()
    thread.join()


def test_they_are_scraped_over_http(served: str) -> None:
    with urllib.request.urlopen(served, timeout=patience()) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert samples(answer.read().decode())
    assert servers.DEFAULT_ADDRESS.startswith("127.0.0.1:")
