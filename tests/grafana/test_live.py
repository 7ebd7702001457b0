"""Every query of every dashboard is answered by a real Prometheus that scrapes the simulated node.

A metric that is renamed, or a label that is dropped, leaves a panel empty here.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.boards import BOARDS, Query, filled, panels, queries, variables
from tests.support.needs import needs
from tests.support.patience import wait_for
from tests.support.stack import CLUSTER, NODE, Server, running

pytestmark = needs("prometheus")

QUERIES = queries()
MODEL = "Qwen/Qwen2.5-7B-Instruct"

MAY_BE_EMPTY = {
    "energy-overview/12A": "which alerts fire takes its time; tests/prometheus shows each of them, with its labels",
    "energy-workloads/8C": "the energy of a CPU second is learned with --attribution.cpu=learned only",
    "energy-exporter/9B": "bounds are of estimates, and this node is simulated",
    "energy-exporter/9C": "the same",
    "energy-exporter/9E": "bounds are of idle power that is assumed",
    "energy-exporter/9F": "the same",
    "energy-exporter/7D": "this exporter has no state file",
    "energy-model/11C": "lines of variants are drawn if a model has several",
} | {query.name: "there is no week before" for query in QUERIES if "offset 1w" in query.expr}
"""Query → why the simulated node need not have an answer to it here."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("stack")) as started:
        yield started


def answer(server: Server, query: Query) -> list[dict[str, Any]]:
    expr = filled(query.expr, query.board, model_name=MODEL if query.board == "energy-model" else ".+")
    return server.instant(expr) if query.target.get("instant") else server.course(expr)


def labels(query: Query) -> set[str]:
    """What the panel shows of a series: the columns of a table, the names of lines."""
    if query.panel["type"] == "table":
        (organize,) = (part for part in query.panel["transformations"] if part["id"] == "organize")
        return {name for name in organize["options"]["indexByName"] if not name.startswith("Value")}
    legend = query.target["legendFormat"]
    return set(re.findall(r"\{\{(\w+)\}\}", legend))


def of_no_cluster(query: Query) -> set[str]:
    """Budgets have the label only beyond the Prometheus that evaluates them, where it is that one's external label."""
    return {"cluster"} if "budget" in query.expr else set()


def test_every_query_has_an_answer_with_its_labels(server: Server) -> None:
    waiting = {query.name: query for query in QUERIES if query.name not in MAY_BE_EMPTY}
    lacking: dict[str, set[str]] = {}

    def all_have() -> bool:
        for name, query in list(waiting.items()):
            found = answer(server, query)
            seen = {label for series in found for label in series["metric"]}
            lacking[name] = labels(query) - seen - of_no_cluster(query)
            if found and not lacking[name]:
                del waiting[name]
        return not waiting

    with contextlib.suppress(AssertionError):  # the next line says which lacks what
        wait_for(all_have, "every answer", 75.0, every_seconds=1.0)
    assert {name: (lacking.get(name), query.expr) for name, query in waiting.items()} == {}


def test_what_may_be_empty_is_there() -> None:
    assert set(MAY_BE_EMPTY) <= {query.name for query in QUERIES}


def test_every_dropdown_has_choices(server: Server) -> None:
    for uid, board in BOARDS.items():
        for name, variable in variables(board).items():
            if variable["type"] != "query":
                continue
            query = filled(variable["query"], uid)
            if query.startswith("query_result("):  # with the largest first
                found = server.instant(query.removeprefix("query_result(").removesuffix(")"))
                amounts = [float(series["value"][1]) for series in found]
                assert {name} == {label for series in found for label in series["metric"]}
                assert amounts == sorted(amounts, reverse=True)
                continue
            selector = query.removeprefix("label_values(").rpartition(",")[0]
            values = server.ask(f"label/{name}/values", **{"match[]": selector})
            assert values, f"{uid}: {name}"
            if name in ("cluster", "instance"):
                assert values == [{"cluster": CLUSTER, "instance": NODE}[name]]


def test_rows_of_tables_meet(server: Server) -> None:
    """Grafana merges the queries of a table by their labels: one with other labels makes rows of its own."""
    for uid, board in BOARDS.items():
        for panel in panels(board):
            mine = [query for query in QUERIES if query.board == uid and query.panel["id"] == panel["id"]]
            if panel["type"] == "table":
                first, *rest = [{tuple(sorted(series["metric"])) for series in answer(server, query)} for query in mine]
                names = {frozenset(key) for key in first}
                for other in rest:
                    assert {frozenset(key) for key in other} <= names, panel["title"]


def test_the_reason_fits_what_the_node_plays(server: Server) -> None:
    """Gemma is asked nothing; the training of Llama runs into its card's power limit."""
    (why,) = [query for query in QUERIES if query.name == "energy-models/6G"]
    expected = {"google/gemma-3-27b-it": 1.0, "meta-llama/Llama-3.1-8B": 2.0}

    def found() -> dict[str, float]:
        return {series["metric"]["model_name"]: float(series["value"][1]) for series in answer(server, why)}

    wait_for(lambda: expected.items() <= found().items(), "the reasons", 75.0, every_seconds=1.0)
