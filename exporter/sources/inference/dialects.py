"""The metrics in which model servers count tokens and requests: a table, one row for each server.

Facts and versions: docs/tokens.md. Names are written with ``_`` for ``:`` and without ``_total``; `exporter.sources.
inference.page` reads every other spelling.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

_UNKNOWN_FIX = "see its documentation for its metrics"


class Dialect(NamedTuple):
    """How one server publishes its counters.

    ``pages`` are paths, of which the first with counters is read. ``prompt``, ``cached_prompt``, ``output`` and
    ``requests`` are sums of metrics (``a - b``), several of them in order of preference (``|``); the first whose
    metrics are all on the page counts. ``{label=value}`` selects series, ``{label!=value,label!=other}`` excludes some.
    ``at_decode`` replaces ``prompt`` and ``cached_prompt`` on a server that only decodes, whose prompts were computed
    and counted elsewhere. ``model`` is the label with the served name. ``role`` is a label whose value may be prefill
    or decode. Series that differ in ``ranks`` only count the same tokens; where ``members`` is set, so do the series of
    different models: each request passes several. ``digits`` are the significant digits of its values, 0 for all.
    ``method`` is as in `TokenUse`. ``fix`` is what to do where the page or its counters are missing, ``none`` why a
    server has no such page in any version.
    """

    pages: tuple[str, ...] = ("/metrics",)
    prompt: str = ""
    cached_prompt: str = ""
    output: str = ""
    requests: str = ""
    at_decode: tuple[str, str] = ("", "")
    model: str = "model_name"
    role: str = ""
    ranks: tuple[str, ...] = ()
    members: bool = False
    digits: int = 0
    method: str = "counter"
    fix: str = _UNKNOWN_FIX
    none: str = ""


_FINISHED = "{finished_reason!=abort,finished_reason!=error}"

_VLLM = Dialect(
    # The tokens that another server transferred (external_kv_transfer) were computed and counted there.
    prompt="vllm_prompt_tokens_by_source{source=local_compute} | vllm_prompt_tokens - vllm_prompt_tokens_cached"
    " | vllm_prompt_tokens - vllm_prefix_cache_hits | vllm_prompt_tokens",
    cached_prompt="vllm_prompt_tokens_by_source{source=local_cache_hit} | vllm_prompt_tokens_cached"
    " | vllm_prefix_cache_hits",
    output="vllm_generation_tokens",
    requests=f"vllm_request_success{_FINISHED}",
    at_decode=(
        "vllm_prompt_tokens_by_source{source=local_compute}",
        "vllm_prompt_tokens_by_source{source=local_cache_hit}",
    ),
    fix="start it without --disable-log-stats",
)

_SGLANG = Dialect(
    prompt="sglang_prompt_tokens - sglang_cached_tokens | sglang_prompt_tokens",
    cached_prompt="sglang_cached_tokens",
    output="sglang_generation_tokens",
    requests="sglang_num_requests",
    role="engine_type",
    ranks=("tp_rank", "pp_rank", "moe_ep_rank"),
    fix="start it with --enable-metrics",
)

_TRTLLM = Dialect(
    # Its /metrics is another thing: statistics in JSON, which each request takes out of a queue.
    pages=("/prometheus/metrics",),
    prompt="trtllm_prompt_tokens - trtllm_prompt_cached_tokens | trtllm_prompt_tokens",
    cached_prompt="trtllm_prompt_cached_tokens",
    output="trtllm_generation_tokens",
    requests="trtllm_request_success | request_success",
    fix="set return_perf_metrics: true in the file of --config (--extra_llm_api_options)",
)


def _prefixed(dialect: Dialect, old: str, new: str) -> Dialect:
    """The same metrics under another prefix."""
    return dialect._replace(
        prompt=dialect.prompt.replace(old, new),
        cached_prompt=dialect.cached_prompt.replace(old, new),
        output=dialect.output.replace(old, new),
        requests=dialect.requests.replace(old, new),
        at_decode=(dialect.at_decode[0].replace(old, new), dialect.at_decode[1].replace(old, new)),
    )


def _any_of(*dialects: Dialect) -> Dialect:
    """One that has the metrics of whichever engine is behind it."""
    return dialects[0]._replace(
        prompt=" | ".join(one.prompt for one in dialects),
        cached_prompt=" | ".join(one.cached_prompt for one in dialects),
        output=" | ".join(one.output for one in dialects),
        requests=" | ".join(one.requests for one in dialects),
        role=next((one.role for one in dialects if one.role), ""),
        ranks=tuple(label for one in dialects for label in one.ranks),
    )


DIALECTS: Mapping[str, Dialect] = {
    "vllm": _VLLM,
    "sglang": _SGLANG,
    "tensorrt_llm": _TRTLLM,
    "tgi": Dialect(
        # Histograms of whole requests; TGI has no label for the model.
        prompt="tgi_request_input_length_sum",
        output="tgi_request_generated_tokens_sum",
        requests="tgi_request_success",
        method="histogram_sum",
    ),
    "tei": Dialect(
        prompt="te_request_input_length_sum",
        requests="te_request_success",
        method="histogram_sum",
    ),
    "llama.cpp": Dialect(
        # C++ streams print six significant digits; prompt_tokens leaves out the cached ones in every version.
        prompt="llamacpp_prompt_tokens",
        cached_prompt="llamacpp_prompt_tokens_cached",
        output="llamacpp_tokens_predicted",
        digits=6,
        method="rounded_counter",
        fix="start it with --metrics",
    ),
    "lmdeploy": Dialect(
        prompt="lmdeploy_prompt_tokens - lmdeploy_cached_tokens | lmdeploy_prompt_tokens",
        cached_prompt="lmdeploy_cached_tokens",
        output="lmdeploy_generation_tokens",
        requests=f"lmdeploy_request_success{_FINISHED}",
        fix="start it with --enable-metrics",
    ),
    # Requests only: Triton does not know what a token is. An ensemble counts each request once for every member.
    "triton": Dialect(
        requests="nv_inference_request_success",
        model="model",
        members=True,
        fix="start it with --allow-metrics=true",
    ),
    "nim": _prefixed(_VLLM, "vllm_", "")._replace(pages=("/v1/metrics", "/metrics"), fix=_UNKNOWN_FIX),
    "ray": _prefixed(_VLLM, "vllm_", "ray_vllm_")._replace(
        fix="set log_engine_metrics: true in the LLMConfig, and start Ray with --metrics-export-port",
    ),
    "dynamo": _any_of(_VLLM, _SGLANG, _TRTLLM)._replace(
        pages=("/metrics",), fix="set DYN_SYSTEM_PORT in the environment of the worker"
    ),
    "ollama": Dialect(none="no released version of Ollama publishes token counters (ollama/ollama#3144)"),
}
"""Name in `exporter.workloads.models.launchers.Metrics` → dialect."""
