"""A Prometheus over a history, with everything the shipped rules would have recorded in it."""

from __future__ import annotations

import re
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from . import history

PROMETHEUS = Path(__file__).resolve().parent.parent.parent / "prometheus"
_PATIENCE_SECONDS = 60.0

OF_A_WEEK = re.compile(r"(?:cluster|node|pod|namespace|model|server):\w+:(?:rate5m|info|max|sum|zero_filled)")
"""What is recorded of the week before the day, too: bars of kWh per day and the sums of a week are of these."""

Groups = list[dict[str, Any]]


def _rules() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every shipped rule and those of the demonstration's budgets, after the interval of its group."""
    for path in sorted([*PROMETHEUS.glob("rules/*.yml"), PROMETHEUS / "demo/budgets.yml"]):
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
            yield from ((group["interval"], rule) for rule in group["rules"])


def alerts() -> Groups:
    """What fires, as a rule that records it: promtool does not evaluate alerts.

    An alert fires that held at each minute of its ``for``. Labels that are templates are left to the series.
    """
    made = []
    for _, rule in _rules():
        if "alert" in rule:
            held = f"({rule['expr']}) * 0 + 1"
            if "for" in rule:
                held = f"count_over_time(({rule['expr']})[{rule['for']}:1m]) >= scalar(count_over_time(vector(1)"
                held = f"({held}[{rule['for']}:1m]))) * 0 + 1"
            labels = {name: value for name, value in rule.get("labels", {}).items() if "{{" not in value}
            labels |= {"alertname": rule["alert"], "alertstate": "firing"}
            made.append({"record": "ALERTS", "expr": held, "labels": labels})
    return [{"name": "alerts", "interval": "5m", "rules": made}]


def levels() -> list[Groups]:
    """The recording rules in groups, first those that need no other, then those that need only the ones before.

    promtool writes what it evaluates into new blocks and does not read them: hence one run for each level.
    """
    rules: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for interval, rule in _rules():
        if "record" in rule:
            rules.setdefault(rule["record"], []).append((interval, rule))
    needs = {
        name: {other for _, rule in found for other in rules if other != name and _names(other, rule["expr"])}
        for name, found in rules.items()
    }
    done: set[str] = set()
    made = []
    while len(done) < len(rules):
        ready = {name for name in rules if name not in done and needs[name] <= done}
        if not ready:
            raise ValueError(f"rules that need each other: {sorted(set(rules) - done)}")
        groups: dict[str, list[dict[str, Any]]] = {}
        for name in sorted(ready):
            for interval, rule in rules[name]:
                groups.setdefault(interval, []).append(rule)
        made.append([{"name": every, "interval": every, "rules": each} for every, each in groups.items()])
        done |= ready
    return made


def _names(metric: str, expr: str) -> bool:
    return re.search(rf"(?<![\w:]){re.escape(metric)}(?![\w:])", expr) is not None


def _only(groups: Groups, *, of_a_week: bool) -> Groups:
    kept = [
        group
        | {"rules": [rule for rule in group["rules"] if (OF_A_WEEK.fullmatch(rule["record"]) is not None) == of_a_week]}
        for group in groups
    ]
    return [group for group in kept if group["rules"]]


def build(folder: Path, stretches: Sequence[history.Stretch]) -> None:
    """Make the data once: raw series, then level after level of recorded ones. Takes some minutes for a day."""
    data, raw = folder / "data", folder / "raw"
    data.mkdir(parents=True)
    raw.mkdir()
    for path in history.write(raw, stretches):
        _promtool("tsdb", "create-blocks-from", "openmetrics", str(path), str(data))
        path.unlink()
    week = history.END - sum(stretch.hours for stretch in stretches) * 3600
    day = max(week, history.END - 24 * 3600)
    for number, groups in enumerate([*levels(), alerts()]):
        with serving(folder) as url:
            for start, of_a_week in ((week, True), (day, False)):
                if not (chosen := _only(groups, of_a_week=of_a_week)):
                    continue
                rules = raw / f"level-{number}-{of_a_week}.yml"
                rules.write_text(yaml.safe_dump({"groups": chosen}), encoding="utf-8")
                span = ["--start", str(int(start)), "--end", str(int(history.END)), "--url", url]
                _promtool("tsdb", "create-blocks-from", "rules", *span, "--output-dir", str(data), str(rules))


def _promtool(*arguments: str) -> None:
    subprocess.run(["promtool", *arguments], check=True, capture_output=True)


@contextmanager
def serving(folder: Path, program: str = "prometheus") -> Iterator[str]:
    """The address of a Prometheus that has the folder's data, or none, and scrapes nothing."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    config = folder / "prometheus.yml"
    config.write_text("{}", encoding="utf-8")
    url = f"http://127.0.0.1:{port}"
    command = [program, f"--config.file={config}", f"--storage.tsdb.path={folder}/data"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--storage.tsdb.retention.time=10y", "--log.level=error"]
    process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                urllib.request.urlopen(f"{url}/-/ready", timeout=5).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(30)
