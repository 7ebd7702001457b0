"""What a server counted, whatever its counters do: never less than before, never twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from exporter.sources.inference.dialects import DIALECTS
from exporter.sources.inference.page import Counts
from exporter.sources.inference.server_counts import ServerCounts

MODEL = (("model_name", "m"),)
OUTPUT = ("vllm_generation_tokens", MODEL)
PROMPT = ("vllm_prompt_tokens", MODEL)
CACHED = ("vllm_prompt_tokens_cached", MODEL)


def server(*, newborn: bool = False) -> ServerCounts:
    return ServerCounts(DIALECTS["vllm"], newborn=newborn)


def outputs(one: ServerCounts, *values: float) -> list[float]:
    return [one.update({OUTPUT: value}, 5.0).counts["output"] for value in values]


def test_what_an_old_server_had_counted_is_not_claimed() -> None:
    assert outputs(server(), 9000.0, 9100.0) == [0.0, 100.0]


def test_all_that_a_server_counted_counts_if_the_exporter_saw_it_start() -> None:
    assert outputs(server(newborn=True), 40.0, 100.0) == [40.0, 60.0]


def test_a_series_that_appears_later_counts_from_zero() -> None:
    one = server()
    one.update({PROMPT: 1000.0}, 5.0)
    assert one.update({PROMPT: 1500.0, CACHED: 200.0}, 5.0).counts == {"prompt": 300.0, "cached_prompt": 200.0}


def test_a_glitch_counts_nothing_twice() -> None:
    assert outputs(server(), 1000.0, 1100.0, 0.0, 1200.0) == [0.0, 100.0, 0.0, 100.0]


def test_after_a_reset_counts_what_follows_the_lower_value() -> None:
    assert outputs(server(), 1000.0, 50.0, 80.0, 100.0) == [0.0, 0.0, 30.0, 20.0]


def test_two_resets_in_a_row() -> None:
    assert outputs(server(), 1000.0, 50.0, 20.0, 30.0) == [0.0, 0.0, 0.0, 10.0]


def test_a_series_that_is_missing_for_a_while_goes_on() -> None:
    one = server()
    one.update({OUTPUT: 100.0, PROMPT: 10.0}, 5.0)
    one.update({PROMPT: 10.0}, 5.0)
    assert one.update({OUTPUT: 160.0, PROMPT: 10.0}, 5.0).counts["output"] == 60.0


def test_what_no_server_generates_does_not_count() -> None:
    one = server()
    outputs(one, 100.0)
    increase = one.update({OUTPUT: 2.0**50}, 5.0)
    assert (increase.counts["output"], increase.implausible) == (0.0, ("vllm_generation_tokens",))
    assert outputs(one, 2.0**50 + 70.0) == [70.0]


def test_a_better_metric_that_appears_counts_nothing_again() -> None:
    one = server(newborn=True)
    assert one.update({PROMPT: 1000.0}, 5.0).counts["prompt"] == 1000.0
    by_source = ("vllm_prompt_tokens_by_source", (("model_name", "m"), ("source", "local_compute")))
    # From now on the page has them by source; the first 1000 are in there as well.
    one.update({PROMPT: 1000.0, by_source: 1000.0}, 5.0)
    later = one.update({PROMPT: 1400.0, by_source: 1300.0}, 5.0)
    assert later.counts["prompt"] == 300.0


def test_the_models_of_an_ensemble_count_a_request_once() -> None:
    one = ServerCounts(DIALECTS["triton"])
    names = ("ensemble", "preprocessing", "tensorrt_llm", "postprocessing")

    def page(*values: float) -> Counts:
        return {
            ("nv_inference_request_success", (("model", name), ("version", "1"))): value
            for name, value in zip(names, values, strict=True)
        }

    one.update(page(100, 100, 100, 100), 5.0)
    # Requests under way have been through the first members only.
    increases = [one.update(page(*values), 5.0).counts["requests"] for values in ((105, 110, 107, 105), (110,) * 4)]
    assert sum(increases) == 10.0


def test_the_difference_of_two_counters_never_falls() -> None:
    one = server(newborn=True)
    pages: list[Counts] = [{PROMPT: 100.0, CACHED: 0.0}, {PROMPT: 100.0, CACHED: 60.0}, {PROMPT: 200.0, CACHED: 60.0}]
    assert [one.update(page, 5.0).counts["prompt"] for page in pages] == [100.0, 0.0, 40.0]


STEPS = st.lists(st.tuples(st.sampled_from(["count", "count", "reset", "glitch", "missing"]), st.integers(0, 500)))


@given(steps=STEPS, newborn=st.booleans())
def test_counts_only_grow_and_never_exceed_what_was_generated(steps: list[tuple[str, int]], newborn: bool) -> None:
    one = server(newborn=newborn)
    value, generated, total = 0.0, 0.0, 0.0
    resets = glitches = 0
    one.update({OUTPUT: 0.0}, 5.0)
    for kind, amount in steps:
        shown: float | None = None
        if kind == "count":
            value += amount
            generated += amount
        elif kind == "reset":
            resets += 1
            value = 0
        elif kind == "glitch" and not glitches:  # one that lasts cannot be told from a reset
            glitches += 1
            shown = value / 2
        page: Counts = {} if kind == "missing" else {OUTPUT: float(value if shown is None else shown)}
        increase = one.update(page, 5.0).counts.get("output", 0.0)
        assert increase >= 0
        total += increase
        # After a glitch in the middle of a reset it is not known which of two values was wrong.
        assert total <= generated or (resets and glitches)
    if not resets and not glitches and all(kind != "missing" for kind, _ in steps[-1:]):
        assert total == generated
