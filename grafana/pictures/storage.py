"""A Prometheus over the history, with everything the shipped rules would have recorded in it."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from . import history

RULES = Path(__file__).resolve().parent.parent.parent / "prometheus" / "rules"
_PATIENCE_SECONDS = 60.0
_AFTER_SECONDS = 4.0
"""How long after the last scrape somebody looks."""


class Prometheus:
    """Asks at the time of `history.END`, whatever time it is."""

    def __init__(self, url: str) -> None:
        self._url = url

    def _ask(self, path: str, **parameters: str) -> Any:
        address = f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(address, timeout=120) as answer:
            return json.load(answer)["data"]

    def instant(self, expr: str) -> list[dict[str, Any]]:
        """Series of an instant query."""
        found: list[dict[str, Any]] = self._ask("query", query=expr, time=str(history.END + _AFTER_SECONDS))["result"]
        return found

    def course(self, expr: str, seconds: float, step: float) -> list[dict[str, Any]]:
        """Series of a range query."""
        start = str(history.END - seconds)
        found: list[dict[str, Any]] = self._ask(
            "query_range", query=expr, start=start, end=str(history.END), step=str(step)
        )["result"]
        return found


def _rules() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every shipped rule, after the interval of its group."""
    for path in sorted(RULES.glob("*.yml")):
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
            yield from ((group["interval"], rule) for rule in group["rules"])


def alerts() -> list[dict[str, Any]]:
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


def levels() -> list[list[dict[str, Any]]]:
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


def build(folder: Path) -> None:
    """Make the data once: raw series, then level after level of recorded ones. Takes some minutes."""
    data, raw = folder / "data", folder / "raw"
    data.mkdir(parents=True)
    raw.mkdir()
    for path in history.write(raw):
        _promtool("tsdb", "create-blocks-from", "openmetrics", str(path), str(data))
        path.unlink()
    for number, groups in enumerate([*levels(), alerts()]):
        rules = raw / f"level-{number}.yml"
        rules.write_text(yaml.safe_dump({"groups": groups}), encoding="utf-8")
        with serving(folder) as (_, url):
            start, end = str(int(history.END - history.HOURS * 3600)), str(int(history.END))
            span = ["--start", start, "--end", end, "--url", url, "--output-dir", str(data)]
            _promtool("tsdb", "create-blocks-from", "rules", *span, str(rules))


def _promtool(*arguments: str) -> None:
    subprocess.run(["promtool", *arguments], check=True, capture_output=True)


@contextmanager
def serving(folder: Path) -> Iterator[tuple[Prometheus, str]]:
    """A Prometheus that has the data and scrapes nothing, and its address."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    config = folder / "prometheus.yml"
    config.write_text("{}", encoding="utf-8")
    url = f"http://127.0.0.1:{port}"
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder}/data"]
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
        yield Prometheus(url), url
    finally:
        process.terminate()
        process.wait(30)
