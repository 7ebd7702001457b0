"""Stores that answer PromQL, on the same data: Prometheus over blocks, and VictoriaMetrics with their samples."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from grafana.render import storage
from tests.support.patience import wait_for
from tests.support.program import free_port

EXPORT_SECONDS = 3600

Labels = tuple[tuple[str, str], ...]
Answer = dict[Labels, dict[float, float]]
"""Labels without name and without empty ones → time → value; an instant query's time is 0. NaN is no value."""


class Refused(Exception):  # noqa: N818 - an answer, not an error of the program
    """An engine answers a query with an error."""


class Engine(NamedTuple):
    """A store, its name with version, and its address."""

    name: str
    url: str

    def ask(self, path: str, **parameters: str) -> Any:
        """The data of an answer; raises `Refused` with the engine's own words."""
        body = urllib.parse.urlencode({"nocache": "1", **parameters}).encode()
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}", body, timeout=300) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise Refused(error.read().decode(errors="replace")[:300]) from None

    def instant(self, expression: str, at: float) -> Answer:
        """What an expression is at a time."""
        data = self.ask("query", query=expression, time=f"{at:.3f}")
        if data["resultType"] == "scalar":
            return _answer([({}, [(0.0, data["result"][1])])])
        return _answer((row["metric"], [(0.0, row["value"][1])]) for row in data["result"])

    def course(self, expression: str, start: float, end: float, step: float) -> Answer:
        """What an expression is at each step of a range."""
        span = {"start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:g}"}
        rows = self.ask("query_range", query=expression, **span)["result"]
        return _answer((row["metric"], row["values"]) for row in rows)


def _answer(rows: Iterable[tuple[Mapping[str, str], Iterable[tuple[float, str]]]]) -> Answer:
    """VictoriaMetrics leaves out what is NaN, such as 0 / 0; a graph shows neither."""
    found = (
        (_labels(metric), {float(at): float(value) for at, value in values if value != "NaN"})
        for metric, values in rows
    )
    return {labels: values for labels, values in found if values}


def _labels(metric: Mapping[str, str]) -> Labels:
    return tuple(sorted((name, value) for name, value in metric.items() if value and name != "__name__"))


def version(package: str) -> str:
    """Version of an installed Debian package: programs of VictoriaMetrics that Debian built do not know their own."""
    command = ["dpkg-query", "--show", "--showformat=${Version}", package]
    with contextlib.suppress(FileNotFoundError):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if found := re.match(r"\d+\.\d+\.\d+", done.stdout):
            return found[0]
    return "of unknown version"


@contextlib.contextmanager
def prometheus(folder: Path, name: str, program: str = "prometheus") -> Iterator[Engine]:
    """A Prometheus that has the blocks in a folder that `storage.build` made."""
    with storage.serving(folder, program) as url:
        yield Engine(name, url)


@contextlib.contextmanager
def victoria_metrics(folder: Path, name: str, program: str = "victoria-metrics") -> Iterator[Engine]:
    """A VictoriaMetrics that keeps its data in this folder, and shows samples as soon as it has them."""
    address = f"127.0.0.1:{free_port()}"
    command = [program, f"-storageDataPath={folder}", f"-httpListenAddr={address}", "-retentionPeriod=10y"]
    command += ["-search.latencyOffset=0s", "-search.disableCache", "-loggerLevel=ERROR"]
    process = subprocess.Popen(command)
    try:
        wait_for(partial(is_ready, f"http://{address}/health"), program, 60.0)
        yield Engine(name, f"http://{address}")
    finally:
        process.terminate()
        process.wait(60)


def is_ready(url: str) -> bool:
    """Whether something answers there with 200."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def copy(source: Engine, target: Engine, start: float, end: float) -> int:
    """Give a VictoriaMetrics all samples of a Prometheus. Returns how many there are."""
    count, at = 0, end
    while at > start:
        # a range of 2.x includes both of its ends: without the last millisecond no sample is in two of them
        rows = source.ask("query", query=f'{{__name__!=""}}[{EXPORT_SECONDS * 1000 - 1}ms]', time=f"{at:.3f}")["result"]
        lines = []
        for row in rows:
            values = [float(value) for _, value in row["values"]]
            times = [int(float(when) * 1000) for when, _ in row["values"]]
            lines.append(json.dumps({"metric": row["metric"], "values": values, "timestamps": times}))
            count += len(values)
        if lines:
            urllib.request.urlopen(f"{target.url}/api/v1/import", "\n".join(lines).encode(), timeout=300).close()
        at -= EXPORT_SECONDS
    urllib.request.urlopen(f"{target.url}/internal/force_flush", timeout=60).close()
    return count
