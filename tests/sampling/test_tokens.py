"""Tokens under the labels of the joules: from a tick's readings to the scrape, across restarts, renames and ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.accounting.checkpoint import decode
from exporter.exposition.metrics.render import Renderer
from exporter.host import Host
from exporter.records import (
    CountKind,
    CpuUse,
    Device,
    EnergyReading,
    GroupKey,
    GroupUse,
    Model,
    Process,
    ProcessKey,
    ProcessUse,
    Reading,
    TokenUse,
    Workload,
)
from exporter.sampling.sampler import Sampler, SamplerOptions
from exporter.sampling.state_file import StateStore
from exporter.workloads.protocol import Namer
from tests.support.inline_pool import Inline
from tests.support.live import Scrape

PACKAGE = Device("package-0", "cpu", "node", "measured", "package-0", 32.0, max_watts=2000.0)
GROUP = GroupKey("/pod", 7)
SERVER = Process(ProcessKey(100, 1), "vllm")
PLACE = {"namespace": "prod", "pod": "chat-0", "container": "vllm"}
NAMED = {"model_name": "chat", "namespace": "prod"}
TOKENS = "energy_model_tokens_total"
KINDS: tuple[CountKind, ...] = ("prompt", "cached_prompt", "output", "requests")
OPTIONS = SamplerOptions(linger_seconds=300.0)


class Names(Namer):
    """One container; its model, and its name if ``provisional``, are found late."""

    def __init__(self) -> None:
        self.found: Model | None = Model("chat", "prod", "inference", "command")
        self.provisional = False
        self.changed: set[GroupKey] = set()

    def workload(self, group: GroupKey) -> Workload:
        return Workload("prod", "chat-0", "vllm", "kubernetes", provisional=self.provisional)

    def model(self, group: GroupKey | None, process: Process) -> Model | None:
        return self.found

    def renamed(self) -> set[GroupKey]:
        changed, self.changed = self.changed, set()
        return changed


class Node:
    """A node whose only server uses a CPU and counts what the test says; a tick a second."""

    name = "node"

    def __init__(self, folder: Path, *, scraped: bool = False, names: Names | None = None) -> None:
        self.names = names or Names()
        self.now = 1000.0
        self.tokens: dict[CountKind, float] = {}
        self.read_now = True
        self.server: Process | None = SERVER
        self.ended = False
        self.scraped: int | None = 0 if scraped else None
        self.path = folder / "state"
        self._folder = folder
        self._first = True
        self._sampler = self._start()

    def _start(self) -> Sampler:
        self._first = True
        return Sampler(
            [self],
            self.names,
            Host(procfs=str(self._folder), clock=lambda: self.now, wall=lambda: self.now + 1e9),
            OPTIONS,
            store=StateStore(str(self.path)),
            pools=Inline,
            received_by_all=lambda _: self.scraped,
        )

    def read(self, now: float) -> Reading:
        started, self._first = ((GROUP,) if self._first else ()), False
        groups: tuple[GroupUse, ...] = ()
        if not self.ended:
            groups = (GroupUse(GROUP, 0.5, (ProcessUse(self.server or SERVER, 0.5),)),)
        counts, self.tokens = self.tokens, {}
        use = None
        if self.server is not None and not self.ended:
            use = TokenUse(self.server, GROUP, "vllm", ("org/chat",), "counter", self.read_now, counts)
        ended = (GROUP,) if self.ended else ()
        exited = (SERVER.key,) if self.ended else ()
        return Reading(
            meters=(EnergyReading(PACKAGE, now, 100.0 * now, None),),
            cpu=CpuUse(now, 1.0, 0.5, groups, started=started, ended=ended, exited=exited),
            tokens=() if use is None else (use,),
        )

    def close(self) -> None:
        """Nothing is open."""

    def tick(self, seconds: float = 1.0, **counted: float) -> Scrape:
        self.tokens = {kind: counted[kind] for kind in KINDS if kind in counted}
        self.now += seconds
        return Scrape.parse(Renderer().body(self._sampler.tick()).decode())

    def restart(self, *, killed: bool = False) -> None:
        if not killed:
            self._sampler.close()
        else:
            assert self._sampler._checkpointer is not None
            self._sampler._checkpointer._store.close()
        self._sampler = self._start()


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_tokens_have_the_labels_of_the_joules(node: Node) -> None:
    node.tick(prompt=0.0, output=0.0, requests=0.0)
    scrape = node.tick(prompt=40.0, cached_prompt=10.0, output=300.0, requests=3.0)
    assert scrape.find("energy_model_requests_total") == [(NAMED, 3.0)]
    assert sorted(scrape.find(TOKENS), key=lambda found: found[1]) == [
        (NAMED | {"kind": "cached_prompt"}, 10.0),
        (NAMED | {"kind": "prompt"}, 40.0),
        (NAMED | {"kind": "output"}, 300.0),
    ]
    assert scrape.find("energy_container_tokens_total", kind="output") == [
        (PLACE | {"model_name": "chat", "kind": "output"}, 300.0)
    ]
    joules = [labels for labels, _ in scrape.find("energy_model_joules_total")]
    assert joules
    assert all(NAMED.items() <= labels.items() for labels in joules)
    assert scrape.find("energy_token_source_info") == [
        (PLACE | {"model_name": "chat", "server": "vllm", "served_model": "org/chat", "method": "counter"}, 1.0)
    ]


def test_a_server_that_is_not_read_is_down_and_keeps_its_counters(node: Node) -> None:
    node.tick(output=5.0)
    node.read_now = False
    scrape = node.tick()
    assert scrape.find("energy_token_source_up") == [(PLACE | {"model_name": "chat", "server": "vllm"}, 0.0)]
    assert scrape.find("energy_token_source_info") == []
    assert scrape.total(TOKENS) == 5.0


def test_a_server_that_was_never_read_has_the_labels_of_its_joules(node: Node) -> None:
    node.read_now = False
    assert node.tick().find("energy_token_source_up") == [(PLACE | {"model_name": "chat", "server": "vllm"}, 0.0)]


def test_a_new_counter_is_at_zero_until_every_scraper_has_seen_it(tmp_path: Path) -> None:
    node = Node(tmp_path, scraped=True)
    assert node.tick(output=70.0).find(TOKENS) == [(NAMED | {"kind": "output"}, 0.0)]
    assert node.tick(output=30.0).total(TOKENS) == 0.0
    node.scraped = 2  # the second snapshot
    assert node.tick(output=5.0).total(TOKENS) == 105.0


@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
def test_counters_go_on_after_a_restart(node: Node, killed: bool) -> None:
    node.tick(output=70.0, requests=1.0)
    node.tick(output=30.0, requests=1.0)
    node.restart(killed=killed)
    scrape = node.tick(output=1.0)
    assert (scrape.total(TOKENS), scrape.total("energy_model_requests_total")) == (101.0, 2.0)


def test_a_journal_line_has_the_tokens_only_when_they_changed(node: Node) -> None:
    node.tick(output=70.0)
    node.tick(output=5.0)
    lengths = [len(node.path.read_bytes())]
    for _ in range(2):
        node.tick()
        lengths.append(len(node.path.read_bytes()))
    lines = node.path.read_bytes().splitlines()
    assert [b'"tokens"' in line for line in lines] == [True, True, False, False]
    saved = decode(node.path.read_bytes()).tokens
    assert saved is not None
    assert set(saved.cells.values()) == {75.0}


def test_what_is_counted_before_the_model_has_a_name_counts_then(tmp_path: Path) -> None:
    names = Names()
    names.found = None
    node = Node(tmp_path, names=names)
    scrape = node.tick(output=70.0)
    assert scrape.find(TOKENS) == []
    assert scrape.find("energy_token_source_up")[0][0]["model_name"] == ""
    names.found = Model("chat", "prod", "inference", "server")
    names.changed = {GROUP}
    node.tick()
    assert node.tick(output=5.0).total(TOKENS) == 75.0


def test_a_container_without_its_name_is_waited_for(tmp_path: Path) -> None:
    names = Names()
    names.provisional = True
    node = Node(tmp_path, names=names)
    assert node.tick(output=70.0).find("energy_container_tokens_total") == []
    names.provisional, names.changed = False, {GROUP}
    node.tick()
    scrape = node.tick(output=5.0)
    assert scrape.find("energy_container_tokens_total") == [(PLACE | {"model_name": "chat", "kind": "output"}, 75.0)]


def test_a_server_that_restarts_goes_on_counting_for_its_model(node: Node) -> None:
    node.tick(output=70.0)
    node.server = Process(ProcessKey(200, 9), "vllm")
    assert node.tick(output=8.0).total(TOKENS) == 78.0


def test_counters_end_with_the_joules_of_their_model(node: Node) -> None:
    node.tick(output=70.0)
    node.ended = True
    assert node.tick(6.0).total(TOKENS) == 70.0
    node.tick(290.0)
    assert node.tick(6.0).total(TOKENS) == 70.0, "as long as the joules"
    node.tick(20.0)
    scrape = node.tick(6.0)
    assert scrape.find("energy_model_joules_total") == []
    assert scrape.find(TOKENS) == []
    assert scrape.find("energy_container_tokens_total") == []
