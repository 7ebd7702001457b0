"""Reuse the KV cache of prompts that begin alike."""

from __future__ import annotations

from ..facts import Facts, Fleet
from .lever import Finding, Lever, hint, percent, silent

_LEAST_RATIO = 10.0
_LOW_HITS = 0.1


def judge(facts: Facts, fleet: Fleet) -> Finding:
    """Prompts much longer than answers, of which few tokens came from a cache."""
    output, prompt, cached = sum(facts.output_tokens), sum(facts.prompt_tokens), sum(facts.cached_tokens)
    if not output or not prompt:
        return silent("its prompt and output tokens are not counted")
    if prompt + cached < _LEAST_RATIO * output:
        return silent(f"{(prompt + cached) / output:.1f} prompt tokens for each output token: prefill is a small part")
    hits = cached / (prompt + cached)
    if hits > _LOW_HITS:
        return silent(f"{percent(hits)} of its prompt tokens come from a cache already")
    return hint(
        f"{(prompt + cached) / output:.0f} prompt tokens for each output token, {percent(hits)} of them from a cache"
    )


LEVER = Lever(
    name="prefix_cache",
    title="Cache prefixes of prompts",
    applies="prompts ten times as long as answers, of which few tokens came from a cache",
    evidence='sum(increase(energy_model_tokens_total{$subject,kind="prompt"}[$range]))',
    counter_evidence='sum(increase(energy_model_tokens_total{$subject,kind="cached_prompt"}[$range]))',
    would_change="prompts without common beginnings, answers that dominate",
    risk="little; a router must send alike prompts to the same replica",
    undo="switch it off (--no-enable-prefix-caching of vLLM)",
    published="no measured joules found; at most the prefill share of the energy times the hit rate",
    pools=("active",),
    judge=judge,
)
