"""Configurations for a fleet: rules divided between shards and the fleet lose nothing, and configurations are valid."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.cardinality import rows
from deploy import scale
from tests.support import promql
from tests.support.needs import needs
from tests.support.patience import patience
from tests.support.repository import REPOSITORY

SCALE = REPOSITORY / "prometheus" / "scale"
DOCUMENT = (REPOSITORY / "docs/scale.md").read_text(encoding="utf-8")
SHARDS = 10
EDGE, FLEET = (
    yaml.safe_load((scale.FOLDER / f"{name}.yml").read_text(encoding="utf-8")) for name in ("edge", "global")
)

needs_promtool = needs("promtool")


def rules(content: Any) -> Iterator[dict[str, Any]]:
    """Every rule of a file."""
    for group in content["groups"]:
        yield from group["rules"]


def names(content: Any) -> Counter[str]:
    """How often each record or alert is in a file."""
    return Counter(rule.get("record") or rule["alert"] for rule in rules(content))


def reads(content: Any) -> set[str]:
    """Every metric that the rules of a file read."""
    return {name for rule in rules(content) for name, _ in promql.names(rule["expr"]).metrics}


def passes(name: str, **labels: str) -> bool:
    """Whether the shards send a series, by the same matching as Prometheus: whole values, joined by the separator."""
    (away,) = yaml.safe_load((SCALE / "shard.yml").read_text(encoding="utf-8"))["remote_write"]
    for step in away["write_relabel_configs"]:
        value = step.get("separator", ";").join(
            {"__name__": name, **labels}.get(one, "") for one in step["source_labels"]
        )
        matches = re.fullmatch(step["regex"], value) is not None
        action = step.get("action", "replace")
        if (action == "keep" and not matches) or (action == "drop" and matches):
            return False
    return True


@pytest.mark.parametrize(("name", "text"), scale.texts().items())
def test_generated_rules_are_those_of_the_shipped_ones(name: str, text: str) -> None:
    """``make scale-rules`` would change nothing."""
    assert (scale.FOLDER / name).read_text(encoding="utf-8") == text


def test_every_shipped_rule_is_on_one_level_and_sums_are_on_both() -> None:
    shipped = names({"groups": list(scale.groups(scale.shipped()))})
    parts = Counter({name: count for name, count in names(EDGE).items() if not name.startswith("shard_")})
    assert parts + names(FLEET) == shipped
    sums = {name for name in scale.SUMMED if not name.startswith("budget:")}
    assert {scale.of_shard(name) for name in sums} == {n for n in names(EDGE) if n.startswith("shard_")}


def test_budgets_are_sums_of_shards() -> None:
    """Energy, grams and money of a budget's selector, whatever its window."""
    demonstration = REPOSITORY / "prometheus/demo/budgets.yml"
    edge, fleet = scale.levels([demonstration])
    written = {name for name in names({"groups": list(scale.groups([demonstration]))}) if name in scale.SUMMED}
    assert written >= {"budget:energy_joules:rate5m"}
    assert set(names({"groups": edge})) == {scale.of_shard(name) for name in written}
    assert all(
        rule["expr"].startswith("sum without (shard) (shard_budget:")
        for rule in rules({"groups": fleet})
        if rule.get("record") in written
    )


def test_a_shard_needs_nothing_of_another() -> None:
    """Every recorded series that its rules read is one of its own: about its nodes, cards or pods, or its own sum."""
    own = {name for name in reads(EDGE) if ":" in name}
    assert own <= set(names(EDGE))
    assert {name.partition(":")[0] for name in own} <= {"node", "gpu", "pod", "shard_model", "shard_cluster"}


def test_the_fleet_has_all_that_its_rules_read() -> None:
    """Recorded by itself, or sent by the shards."""
    made = set(names(FLEET))
    missing = {name for name in reads(FLEET) - made if not passes(name, model_name="m", namespace="")}
    assert missing == set()
    assert len(reads(FLEET) - made) > 30


@pytest.mark.parametrize(
    ("name", "labels", "sent"),
    [
        ("energy_container_joules_total", {}, False),
        ("energy_process_joules_total", {}, False),
        ("energy_container_info", {"model_name": "m"}, True),
        ("energy_container_info", {}, False),
        ("energy_model_joules_total", {"model_name": "m"}, True),
        ("energy_model_joules_total", {"model_name": "m", "namespace": "a"}, False),
        ("shard_model:energy_model_joules:rate5m", {}, True),
        ("vllm:generation_tokens_total", {}, True),
        ("up", {}, True),
    ],
)
def test_raw_series_stay_in_the_shard(name: str, labels: dict[str, str], sent: bool) -> None:
    assert passes(name, **labels) == sent


def numbered(name: str, folder: Path, shard: int) -> Path:
    """The configuration of one shard, where its targets are."""
    path = folder / "scale" / f"{shard}-{name}"
    text = (SCALE / name).read_text(encoding="utf-8")
    assert text.count("SHARD_NUMBER") >= 3
    path.write_text(text.replace("SHARD_NUMBER", str(shard)), encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files that an operator copies, with a hundred targets."""
    shutil.copytree(SCALE, tmp_path / "scale")
    (tmp_path / "targets").mkdir()
    targets = {
        "exporters": [{"targets": [f"node-{n}:9400" for n in range(100)]}],
        "model-servers": [],
        "alertmanagers": [],
    }
    for name, content in targets.items():
        (tmp_path / "targets" / f"{name}.yml").write_text(json.dumps(content), encoding="utf-8")
    return tmp_path


@needs_promtool
@pytest.mark.parametrize(("name", "flags"), [("shard.yml", []), ("agent.yml", ["--agent"]), ("global.yml", [])])
def test_configurations_are_valid(folder: Path, name: str, flags: list[str]) -> None:
    path = folder / "scale" / name if name == "global.yml" else numbered(name, folder, SHARDS - 1)
    command = ["promtool", "check", "config", *flags, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=patience(60))
    assert done.returncode == 0, done.stdout + done.stderr


def kept(path: Path, seconds: int) -> list[str]:
    """Addresses of the exporters that a Prometheus with this configuration scrapes; empty if it took longer."""
    command = ["promtool", "check", "service-discovery", f"--timeout={seconds}s", str(path), "energy"]
    done = subprocess.run(command, capture_output=True, check=False, timeout=patience(60))
    found = json.loads(done.stdout) if done.stdout.startswith(b"[") else []
    return [one["labels"]["__address__"] for one in found if one["labels"]]


@needs_promtool
@pytest.mark.parametrize("name", ["shard.yml", "agent.yml"])
def test_every_exporter_is_scraped_by_one_shard(folder: Path, name: str) -> None:
    """As Prometheus itself hashes their addresses. It waits as long as it is told to, even if it has found them."""
    paths = [numbered(name, folder, shard) for shard in range(SHARDS)]
    for seconds in (1, 10, 100):
        with ThreadPoolExecutor(SHARDS) as pool:
            shares = list(pool.map(kept, paths, [seconds] * SHARDS))
        if all(shares):
            break
    assert all(0 < len(share) < 30 for share in shares)
    assert Counter(address for share in shares for address in share) == {f"node-{n}:9400": 1 for n in range(100)}


@needs_promtool
def test_what_the_shards_add_up_to_is_what_one_prometheus_records() -> None:
    command = ["promtool", "test", "rules", str(SCALE / "tests" / "levels.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=patience(60))
    assert "SUCCESS" in done.stdout, done.stdout + done.stderr


def test_the_document_has_the_series_that_are_counted() -> None:
    for row in rows(10_000):
        assert "| " + " | ".join(row) + " |" in DOCUMENT
