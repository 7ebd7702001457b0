"""Every dialect, on the pages of servers of two versions each (``pages/``, made from their own code)."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.records import CountKind, Unavailable
from exporter.sources.inference.dialects import DIALECTS
from exporter.sources.inference.page import Counts, counts, fold, line_filter, spellings
from exporter.sources.inference.server_counts import ServerCounts
from exporter.workloads.models.launchers import LAUNCHERS
from exporter.workloads.protocol import ServerRole
from tests.support.repository import REPOSITORY

PAGES = Path(__file__).parent / "pages"
ALL = {"prompt": 9000.0, "cached_prompt": 3000.0, "output": 9000.0, "requests": 52.0}
UNCACHED = {"prompt": 12000.0, "output": 9000.0, "requests": 52.0}

EXPECTED: dict[str, dict[str, float]] = {
    # 2000 of 12 000 prompt tokens were transferred from a prefill server, which computed and counted them
    "vllm-0.32.0": {"prompt": 7000, "cached_prompt": 3000, "output": 9000, "requests": 52},
    "vllm-0.11.2": ALL | {"requests": 50},
    "sglang-0.5.23": ALL,
    "sglang-0.5.6": ALL,
    "lmdeploy-0.18.0": ALL,
    "lmdeploy-0.10.2": UNCACHED,
    "tensorrt_llm-050f80d": ALL,
    "tensorrt_llm-first": {"requests": 52},
    "tgi-3.3.6": UNCACHED,
    "tgi-1.4.0": UNCACHED,
    "tei-1.9.3": {"prompt": 12000, "requests": 52},
    "tei-1.2.0": {"prompt": 12000, "requests": 52},
    "triton-c6eb0fb": {"requests": 52},
    "llama.cpp-xllamacpp-2026.10.11549": {"prompt": 38, "cached_prompt": 0, "output": 20},
    "llama.cpp-python-0.2.90": {"prompt": 9000, "output": 1_234_570},
    "ray-2.60.0": ALL,
    "ray-2.52.0": ALL,
}
ENSEMBLE = next(path.stem for path in PAGES.glob("triton-*.prom") if path.stem not in EXPECTED)
EXPECTED[ENSEMBLE] = {"requests": 52}


def dialect_of(page: str) -> str:
    return next(name for name in sorted(DIALECTS, key=len, reverse=True) if page.startswith(f"{name}-"))


def read(text: str, server: ServerCounts) -> Counts:
    return counts(line_filter(server.names)(text.encode()), server.names, "page")


def counted(text: str, dialect: str, role: ServerRole = "") -> dict[CountKind, float]:
    """What a server that the exporter saw start has counted by its first page."""
    server = ServerCounts(DIALECTS[dialect], role, newborn=True)
    return server.update(read(text, server), 60.0).counts


def test_there_are_pages_of_eight_servers_at_two_versions_each() -> None:
    pages = [path.stem for path in PAGES.glob("*.prom")]
    assert sorted(pages) == sorted(EXPECTED)
    servers = [dialect_of(page) for page in pages]
    assert len([server for server in set(servers) if servers.count(server) >= 2]) >= 8


@pytest.mark.parametrize("page", sorted(EXPECTED))
def test_a_page_is_counted(page: str) -> None:
    text = (PAGES / f"{page}.prom").read_text()
    assert text.startswith("# "), "the first line says what it is"
    assert counted(text, dialect_of(page)) == EXPECTED[page]


def test_every_dialect_is_that_of_a_launcher_and_described() -> None:
    used = {launcher.metrics.dialect for launcher in LAUNCHERS if launcher.metrics is not None}
    assert used == set(DIALECTS)
    document = (REPOSITORY / "docs/tokens.md").read_text()
    assert [name for name in DIALECTS if f"`{name}`" not in document] == []


@pytest.mark.parametrize("page", ["vllm-0.32.0", "sglang-0.5.23", "llama.cpp-xllamacpp-2026.10.11549"])
@pytest.mark.parametrize("escape", ["underscores", "dots"])
def test_names_that_prometheus_3_escapes_are_the_same(page: str, escape: str) -> None:
    """As a scraper's ``escaping=underscores`` gets them, or ``escaping=dots``, which doubles underscores."""
    lines = []
    for line in (PAGES / f"{page}.prom").read_text().splitlines():
        name, brace, rest = line.partition("{" if "{" in line else " ")
        if not line.startswith("#"):
            name = name.replace(":", "_") if escape == "underscores" else name.replace("_", "__")
        lines.append(name + brace + rest)
    assert counted("\n".join((*lines, "")), dialect_of(page)) == EXPECTED[page]


def test_nim_has_the_names_of_vllm_without_their_prefix() -> None:
    text = (PAGES / "vllm-0.11.2.prom").read_text().replace("vllm:", "")
    assert counted(text, "nim") == EXPECTED["vllm-0.11.2"]


@pytest.mark.parametrize("page", ["vllm-0.32.0", "sglang-0.5.23", "tensorrt_llm-050f80d"])
def test_a_worker_of_dynamo_has_the_metrics_of_its_engine(page: str) -> None:
    assert counted((PAGES / f"{page}.prom").read_text(), "dynamo") == EXPECTED[page]


class TestPrefillAndDecode:
    """Each request passes two servers: together they count it once, and each prompt token where it was computed."""

    PREFILL = """
vllm:prompt_tokens_total{model_name="m"} 10000
vllm:prompt_tokens_by_source_total{model_name="m",source="local_compute"} 8000
vllm:prompt_tokens_by_source_total{model_name="m",source="local_cache_hit"} 2000
vllm:generation_tokens_total{model_name="m"} 50
vllm:request_success_total{finished_reason="length",model_name="m"} 50
"""
    DECODE = """
vllm:prompt_tokens_total{model_name="m"} 10000
vllm:prompt_tokens_by_source_total{model_name="m",source="local_compute"} 100
vllm:prompt_tokens_by_source_total{model_name="m",source="external_kv_transfer"} 9900
vllm:generation_tokens_total{model_name="m"} 7000
vllm:request_success_total{finished_reason="stop",model_name="m"} 50
"""

    def test_vllm(self) -> None:
        assert counted(self.PREFILL, "vllm", "prefill") == {"prompt": 8000, "cached_prompt": 2000}
        assert counted(self.DECODE, "vllm", "decode") == {
            "prompt": 100,
            "cached_prompt": 0,
            "output": 7000,
            "requests": 50,
        }

    def test_an_older_decode_server_counts_no_prompts(self) -> None:
        old = "\n".join(line for line in self.DECODE.splitlines() if "by_source" not in line) + "\n"
        assert counted(old, "vllm", "decode") == {"output": 7000, "requests": 50}

    @pytest.mark.parametrize(
        ("role", "expected"),
        [("prefill", {"prompt": 900, "cached_prompt": 100}), ("decode", {"output": 70, "requests": 5})],
    )
    @pytest.mark.parametrize("labelled", [True, False])
    def test_sglang(self, role: ServerRole, expected: dict[str, float], labelled: bool) -> None:
        label = f',engine_type="{role}"' if labelled else ""
        text = "".join(
            f'sglang:{name}{{model_name="m"{label}}} {value}\n'
            for name, value in (
                ("prompt_tokens_total", 1000),
                ("cached_tokens_total", 100),
                ("generation_tokens_total", 70),
                ("num_requests_total", 5),
            )
        )
        assert counted(text, "sglang", "" if labelled else role) == expected


def test_ranks_that_publish_the_same_tokens_count_once() -> None:
    text = "".join(
        f'sglang:generation_tokens_total{{dp_rank="{dp}",model_name="m",tp_rank="{tp}"}} 100\n'
        for dp in (0, 1)
        for tp in (0, 1)
    )
    assert counted(text, "sglang") == {"output": 200}


def test_rounded_counters_show_their_step() -> None:
    server = ServerCounts(DIALECTS["llama.cpp"], newborn=True)
    for text, step in (("12345", 1), ("999999", 1), ("1e+06", 10), ("1.23457e+06", 10), ("1.23457e+09", 10_000)):
        server.update(read(f"llamacpp:tokens_predicted_total {text}\n", server), 1000.0)
        assert server.step == step


def test_other_metrics_whose_names_begin_alike_do_not_count() -> None:
    text = (
        "vllm:generation_tokens_total 5\nvllm:generation_tokens_created 1.7e9\n"
        "vllm:generation_tokens_per_second 900\nvllm:request_generation_tokens_sum 700\n"
    )
    assert counted(text, "vllm") == {"output": 5}


def test_folding() -> None:
    for name in ("vllm_prompt_tokens", "ray_vllm_prompt_tokens", "nv_inference_request_success", "prompt_tokens"):
        assert {fold(f"{spelling}{total}") for spelling in spellings(name) for total in ("", "_total")} == {name}


HOSTILE = {
    "no number": "vllm:generation_tokens_total{} many\n",
    "half a line": 'vllm:generation_tokens_total{model_name="m',
    "not a number": "vllm:generation_tokens_total NaN\n",
    "negative": "vllm:generation_tokens_total -5\n",
    "infinite": "vllm:generation_tokens_total +Inf\n",
    "more than a double counts": "vllm:generation_tokens_total 1e300\n",
    "not UTF-8": "vllm:generation_tokens_total{model_name='\udcff'} 5\n",
    "many series": "".join(f'vllm:generation_tokens_total{{model_name="{n}"}} 5\n' for n in range(5000)),
    "deep labels": "vllm:generation_tokens_total" + "{" * 100_000 + "\n",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=list(HOSTILE))
def test_a_page_that_no_server_has_is_implausible(text: str) -> None:
    server = ServerCounts(DIALECTS["vllm"], newborn=True)
    raw = line_filter(server.names)(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(Unavailable) as raised:
        counts(raw, server.names, "page")
    assert raised.value.reason == "implausible"


def test_nothing_is_left_of_a_page_without_counters() -> None:
    assert line_filter(["vllm_generation_tokens"])(b"<html>\nvllm is great\n" * 1000) == b""
