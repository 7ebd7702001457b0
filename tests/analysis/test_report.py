"""``report`` as users run it, on a Prometheus whose every joule is known."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

from exporter.cli import main
from grafana.generate import queries
from tests.analysis.conftest import (
    BATCH_HOURS,
    BATCH_WATTS,
    CHAT_WATTS,
    DAY,
    GRAMS_PER_KWH,
    HOUR,
    IDLE_WATTS,
    PRICE,
    RESTARTED_WATTS,
    START,
    TOKENS_PER_SECOND,
    UNUSED_WATTS,
)
from tests.support.stack import Server

Report = Callable[..., str]

WINDOW = ("--since", "2026-11-01T00:00", "--until", "2026-11-03T00:00")
CHAT_JOULES = sum(CHAT_WATTS.values()) * 2 * DAY
BATCH_JOULES = sum(BATCH_WATTS.values()) * (BATCH_HOURS[1] - BATCH_HOURS[0])
IDLE_JOULES = IDLE_WATTS * 2 * DAY
NODE_JOULES = CHAT_JOULES + BATCH_JOULES + IDLE_JOULES


@pytest.fixture
def report(prometheus: str, capsys: pytest.CaptureFixture[str]) -> Report:
    """What the command prints of both days."""

    def run(*flags: str) -> str:
        status = main(["report", "--prometheus.url", prometheus, *WINDOW, *flags], {})
        out = capsys.readouterr()
        assert (status, out.err) == (0, "")
        return out.out

    return run


def rows(text: str) -> list[dict[str, str]]:
    """Rows of CSV."""
    return list(csv.DictReader(io.StringIO(text)))


class TestNumbers:
    def test_models_have_their_energy_grams_money_and_joules_per_token(self, report: Report) -> None:
        chat, other, idle, total = rows(report("--format", "csv"))
        kwh = CHAT_JOULES / 3.6e6
        assert (chat["namespace"], chat["model_name"], chat["phase"]) == ("chat", "org/chat-8B", "inference")
        assert float(chat["kwh"]) == pytest.approx(kwh)
        assert float(chat["kwh_gpu"]) == pytest.approx(kwh * 360 / 400)
        assert float(chat["kwh_idle"]) == pytest.approx(kwh * 60 / 400)
        assert float(chat["kwh_unused"]) == pytest.approx(kwh * UNUSED_WATTS / 400)
        assert float(other["kwh_unused"]) == 0.0
        assert float(chat["kg_co2e"]) == pytest.approx(kwh * GRAMS_PER_KWH / 1000)
        assert float(chat["cost_EUR"]) == pytest.approx(kwh * PRICE)
        assert float(chat["output_tokens"]) == pytest.approx(TOKENS_PER_SECOND * 2 * DAY)
        assert float(chat["joules_per_token"]) == pytest.approx(400 / TOKENS_PER_SECOND)
        assert float(chat["kwh_per_year"]) == pytest.approx(400 * 8.76, rel=2e-3)
        assert (other["model_name"], idle["kind"], total["kind"]) == ("(no model)", "shared", "total")
        joules = [float(row["kwh"]) * 3.6e6 for row in (other, idle, total)]
        assert joules == pytest.approx([BATCH_JOULES, IDLE_JOULES, NODE_JOULES])

    @pytest.mark.parametrize("by", ["model", "namespace", "workload", "label:team"])
    @pytest.mark.parametrize("spread", ["none", "even", "proportional"])
    def test_lines_and_what_is_shared_are_what_the_nodes_used(self, report: Report, by: str, spread: str) -> None:
        *parts, total = rows(report("--format", "csv", "--by", by, "--spread", spread))
        for column in ("kwh", "kg_co2e", "cost_EUR"):
            shared = {"kwh": "kwh_shared", "kg_co2e": "kg_co2e_shared", "cost_EUR": "cost_shared_EUR"}[column]
            used = sum(float(row[column]) + float(row[shared] or 0) for row in parts)
            assert used == pytest.approx(float(total[column]), rel=1e-9)

    @pytest.mark.parametrize(
        ("by", "names"),
        [
            ("namespace", ["chat", "batch"]),
            ("workload", ["chat/Deployment/chat", "batch/Job/nightly"]),
            ("label:team", ["chat/red", "batch"]),
        ],
    )
    def test_lines_of_each_level(self, report: Report, by: str, names: list[str]) -> None:
        lines = [row for row in rows(report("--format", "csv", "--by", by)) if row["kind"] == "line"]
        labels = list(lines[0])[1 : list(lines[0]).index("kwh")]
        assert ["/".join(filter(None, (row[label] for label in labels))) for row in lines] == names
        energy = [CHAT_JOULES / 3.6e6, BATCH_JOULES / 3.6e6]
        assert [float(row["kwh"]) for row in lines] == pytest.approx(energy)

    def test_a_pod_label_is_named_as_in_kubernetes(self, report: Report) -> None:
        assert "label_app_kubernetes_io_name" in report("--format", "csv", "--by", "label:app.kubernetes.io/name")

    def test_tokens_are_of_lines_only(self, report: Report) -> None:
        for by in ("model", "workload", "namespace", "run"):
            *_, shared, total = rows(report("--format", "csv", "--by", by, "--prometheus.matchers", 'reason!="idle"'))
            assert {(row["output_tokens"], row["kwh_unused"]) for row in (shared, total)} == {("", "")}

    def test_nodes(self, report: Report) -> None:
        node, total = rows(report("--format", "csv", "--by", "node"))
        assert node["instance"] == "n1:9400"
        assert float(node["kwh"]) == pytest.approx(NODE_JOULES / 3.6e6)
        assert float(total["cost_EUR"]) == pytest.approx(NODE_JOULES / 3.6e6 * PRICE)

    def test_the_dashboards_show_the_same(self, report: Report, prometheus: str) -> None:
        query = queries.kwh("model", "model_name").replace("$__range", "2d")
        for variable in ("$cluster", "$job", "$instance"):
            query = query.replace(variable, ".*")
        (shown,) = Server(prometheus).ask("query", query=query, time=str(START + 2 * DAY))["result"]
        chat = rows(report("--format", "csv"))[0]
        assert float(chat["kwh"]) == pytest.approx(float(shown["value"][1]))

    def test_matchers_select_series(self, prometheus: str, capsys: pytest.CaptureFixture[str]) -> None:
        words = ["report", "--prometheus.url", prometheus, *WINDOW, "--prometheus.matchers", '{cluster="eu"}']
        assert main(words, {}) == 1
        assert 'no samples of energy_node_joules_total with cluster="eu" in this window' in capsys.readouterr().err


class TestWindows:
    @pytest.mark.parametrize("since", ["2026-10-30", "2026-01-01", "2016-01-01", "99999y"])
    def test_a_long_window_has_the_same_samples(
        self, prometheus: str, capsys: pytest.CaptureFixture[str], since: str
    ) -> None:
        words = ["report", "--prometheus.url", prometheus, "--since", since, "--until", "2026-11-04T12:00"]
        assert main([*words, "--format", "csv"], {}) == 0
        total = rows(capsys.readouterr().out)[-1]
        assert float(total["kwh"]) == pytest.approx(NODE_JOULES / 3.6e6)
        assert float(total["kwh_per_year"]) == pytest.approx(NODE_JOULES / 3.6e6 / 2 * 365, rel=0.01)
        assert main(words, {}) == 0
        assert "from 2026-11-01 00:0" in capsys.readouterr().out

    def test_a_counter_that_starts_again_at_the_edge_of_a_window(
        self, prometheus: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["report", "--prometheus.url", prometheus, "--by", "node", "--prometheus.matchers", 'replica="a"']
        words += ["--since", "2026-11-10T12:00:30", "--until", "2026-11-10T18:00:30", "--format", "csv"]
        assert main(words, {}) == 0
        total = rows(capsys.readouterr().out)[-1]
        assert float(total["kwh"]) == pytest.approx(RESTARTED_WATTS * 6 / 1000, rel=0.01)

    def test_energy_that_is_there_twice_is_noted(self, prometheus: str, capsys: pytest.CaptureFixture[str]) -> None:
        words = ["report", "--prometheus.url", prometheus, "--by", "node", "--since", "2026-11-10T13:00"]
        words += ["--until", "2026-11-10T18:00"]
        assert main(words, {}) == 0
        assert "Nodes with several series of the same energy, such as those of replicas: 1." in capsys.readouterr().out
        assert main([*words, "--prometheus.matchers", 'replica="a"'], {}) == 0
        assert "replicas" not in capsys.readouterr().out


class TestFormats:
    def test_text(self, report: Report) -> None:
        text = report()
        head, _, chat, *_ = text.splitlines()
        assert head.split() == [
            *[
                "namespace",
                "model",
                "phase",
                "kWh",
                "share",
                "idle",
                "unused",
                "GPU",
                "kWh",
                "CPU",
                "kWh",
                "kg",
                "CO2e",
            ],
            *["cost", "tokens", "J/token", "kWh", "a", "year"],
        ]
        assert chat.split()[:7] == ["chat", "org/chat-8B", "inference", "19.2", "85%", "15%", "10%"]
        assert "4.80 EUR" in chat
        assert text.splitlines()[-1].startswith(
            "From 2026-11-01 00:00 UTC to 2026-11-03 00:00 UTC, read from http://127.0.0.1:"
        )

    def test_the_smallest_lines_become_one(self, report: Report) -> None:
        text = report("--by", "workload", "--top", "1")
        assert "nightly" in text  # one other keeps its name
        assert report("--by", "workload", "--top", "0") == text

    def test_a_window_that_is_half_covered_says_so(self, prometheus: str, capsys: pytest.CaptureFixture[str]) -> None:
        words = ["report", "--prometheus.url", prometheus, "--since", "2026-10-30", "--until", "2026-11-03"]
        assert main(words, {}) == 0
        assert "Samples cover 48.0 hours, 50% of it, from 2026-11-01" in capsys.readouterr().out

    def test_json_has_si_units(self, report: Report) -> None:
        document: dict[str, Any] = json.loads(report("--format", "json", "--spread", "even"))
        chat, other = document["lines"]
        assert chat["labels"]["model_name"] == "org/chat-8B"
        assert (chat["joules"], chat["idle_joules"]) == pytest.approx((CHAT_JOULES, 60 * 2 * DAY))
        assert chat["shared"]["joules"] == other["shared"]["joules"] == pytest.approx(IDLE_JOULES / 2)
        assert document["total"]["carbon_grams"] == pytest.approx(NODE_JOULES / 3.6e6 * GRAMS_PER_KWH)

    def test_markdown_is_one_table(self, report: Report) -> None:
        table = [line for line in report("--format", "markdown").splitlines() if line.startswith("|")]
        assert len(table) == 2 + 4
        assert len({line.count("|") for line in table}) == 1

    def test_the_page_requests_nothing_and_escapes_names(self, report: Report) -> None:
        html = report("--format", "html")
        found: list[tuple[str, dict[str, str | None]]] = []

        class Elements(HTMLParser):
            def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
                found.append((tag, dict(attrs)))

        Elements().feed(html)
        assert not [tag for tag, attributes in found if {"src", "href"} & attributes.keys() or tag == "script"]
        assert "19.2 kWh, 15% idle" in html

    def test_a_file(self, report: Report, tmp_path: Any) -> None:
        assert report("--format", "markdown", "--output", str(tmp_path / "report.md")) == ""
        assert (tmp_path / "report.md").read_text(encoding="utf-8").startswith("| namespace |")


class TestFocus:
    def test_one_row_for_each_day_and_line(self, report: Report) -> None:
        charges = rows(report("--format", "focus", "--by", "namespace", "--provider", "Data centre"))
        chat = [row for row in charges if row["SubAccountId"] == "chat"]
        assert [row["ChargePeriodStart"] for row in chat] == ["2026-11-01T00:00:00Z", "2026-11-02T00:00:00Z"]
        assert (chat[0]["BillingPeriodStart"], chat[0]["BillingPeriodEnd"]) == (
            "2026-11-01T00:00:00Z",
            "2026-12-01T00:00:00Z",
        )
        assert (chat[0]["BillingCurrency"], chat[0]["ConsumedUnit"], chat[0]["ProviderName"]) == (
            *("EUR", "kWh"),
            "Data centre",
        )
        assert json.loads(chat[0]["Tags"]) == {"namespace": "chat"}
        assert sum(float(row["BilledCost"]) for row in charges) == pytest.approx(NODE_JOULES / 3.6e6 * PRICE)
        assert sum(float(row["x_Joules"]) for row in charges) == pytest.approx(NODE_JOULES)

    def test_days_are_those_of_the_time_zone(self, report: Report) -> None:
        charges = rows(report("--format", "focus", "--by", "node", "--timezone", "Asia/Tokyo"))
        ends = [row["ChargePeriodEnd"] for row in charges]
        assert ends == ["2026-11-01T15:00:00Z", "2026-11-02T15:00:00Z"]
        # The window is of Tokyo's days too: the data begin nine hours after its start, and the job ends at 18:00 UTC.
        joules = [450 * 15 * HOUR + 80 * 9 * HOUR, 450 * DAY + 80 * 3 * HOUR]
        assert [float(row["x_Joules"]) for row in charges] == pytest.approx(joules)


class TestMistakes:
    @pytest.mark.parametrize(
        ("flags", "status", "said"),
        [
            (["--by", "team"], 2, "--by team: not one of model, namespace, workload, node, run, label:NAME"),
            (["--since", "yesterday"], 2, "'yesterday': neither a duration (90m, 12h, 7d), a date (2026-11-01)"),
            (["--since", "2026-11-03"], 2, "the window is shorter than a minute"),
            (["--since", "2026-11-04"], 2, "the window begins after its end"),
            (["--top", "-1"], 2, "argument --top: -1 is less than 0"),
            (["--until", "2999-01-01"], 2, "the end 2999-01-01 is in the future"),
            (["--timezone", "Mars/Olympus"], 2, "No time zone found with key Mars/Olympus"),
            (["--prometheus.url", "localhost:9090"], 1, "localhost:9090: not an address such as http://localhost:9090"),
            (["--prometheus.url", "http://127.0.0.1:1"], 1, "http://127.0.0.1:1: cannot connect: Connection refused"),
            (["--since", "2020-01-01", "--until", "2020-01-02"], 1, "no samples of energy_node_joules_total"),
            (["--prometheus.matchers", "cluster=eu"], 2, "--prometheus.matchers cluster=eu: not matchers such as"),
            (["--prometheus.matchers", 'a="b"} or up{'], 2, "not matchers such as cluster="),
            (["--output", "/dev/full"], 1, "/dev/full: No space left on device"),
            (["--prometheus.header", "X-Scope-OrgID"], 2, "a header is NAME: VALUE, not 'X-Scope-OrgID'"),
            (["--output", "/nowhere/report"], 1, "/nowhere/report: No such file or directory"),
        ],
    )
    def test_each_is_one_line(
        self, prometheus: str, capsys: pytest.CaptureFixture[str], flags: list[str], status: int, said: str
    ) -> None:
        assert main(["report", "--prometheus.url", prometheus, *WINDOW, *flags], {}) == status
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1 + ("Try" in error)

    def test_standard_output_that_is_full(self, prometheus: str) -> None:
        with open("/dev/full", "w") as full:
            command = [sys.executable, "-m", "exporter", "report", "--prometheus.url", prometheus, *WINDOW]
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert "standard output: No space left on device" in done.stderr

    def test_without_a_price_there_is_nothing_to_charge(
        self, prometheus: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["--format", "focus", "--prometheus.matchers", 'currency=""']
        assert main(["report", "--prometheus.url", prometheus, *WINDOW, *words], {}) == 1
        assert "nothing to charge: the exporters have no price (--impact.price)" in capsys.readouterr().err
