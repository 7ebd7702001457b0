"""The status page: complete, accurate, and safe for any name."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser

import pytest

from exporter.exposition.status.history import History
from exporter.exposition.status.page import Page
from exporter.records import Model, SourceHealth, Workload
from exporter.snapshot import AccountRow, ExporterState, Snapshot

VOID = {"meta", "path", "rect", "link", "br"}


class Tree(HTMLParser):
    """Checks that every element is closed, and collects elements, text and attributes."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(page.decode())
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(key, value or "") for key, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(key, value or "") for key, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def history(busy_node: Callable[..., Snapshot]) -> History:
    history = History()
    for sequence in range(60):
        history.observe(busy_node(sequence))
    return history


def test_it_shows_the_whole_node(busy_node: Callable[..., Snapshot], history: History) -> None:
    tree = Tree(Page(history, "/custom")(busy_node(60)))
    for expected in (
        "Node power now", "partly estimated", "every joule accounted for",
        "llama-70b-server-7f9c4d5b8-x2x7q",
        "mistralai/Mistral-7B-v0.3", "training", "CPU package 0", "learned", "measured", "estimated", "31.0 to 60.0 W",
        "stuck", "not here", "permission", "run as root, or mount the socket into the container",
    ):  # fmt: skip
        assert expected in tree.text, expected
    assert {"/custom", "/-/healthy", "/-/ready"} == {value for key, value in tree.attributes if key == "href"}
    assert tree.tags.count("svg") > 15
    assert "simulated" not in tree.text


def test_a_demo_is_marked(busy_node: Callable[..., Snapshot]) -> None:
    assert "simulated" in Tree(Page(History())(busy_node(1, demo=True))).text


def test_it_loads_no_other_resource(busy_node: Callable[..., Snapshot], history: History) -> None:
    page = Page(history)
    html = page(busy_node()).decode()
    assert not re.search(r"(src|href)=\"(https?:)?//|@import|url\(", html)
    assert " style=" not in html  # the policy forbids inline style attributes
    policy = dict(page.headers)[b"Content-Security-Policy"].decode()
    for element in ("style", "script"):
        found = re.search(rf"<{element}>(.*?)</{element}>", html, re.DOTALL)
        assert found
        assert f"{element}-src 'sha256-{b64encode(sha256(found[1].encode()).digest()).decode()}'" in policy
    assert "default-src 'none'" in policy


def test_hostile_names_stay_text(row: Callable[..., AccountRow], busy_node: Callable[..., Snapshot]) -> None:
    """Fault 45: a name that contains a script is not executed."""
    evil = "<script>alert(1)</script>\"'&\u202e\x00\udcff"
    source = SourceHealth(evil, False, "error", evil, evil, {}, 0.0, 0.0)
    base = busy_node()
    devices = tuple(
        d._replace(device=replace(d.device, name=evil, within=evil), idle_method=evil) for d in base.energy.devices
    )
    snapshot = replace(
        base,
        energy=replace(
            base.energy,
            containers=(row(1, Workload(evil, evil, evil, evil), {("cpu", "active"): 1.0}, {"cpu": 1.0}),),
            models=(row(2, Model(evil, evil, evil), {("cpu", "active"): 1.0}, {"cpu": 1.0}),),
            container_models={1: Model(evil, evil, evil)},
            devices=devices,
        ),
        gpu=replace(base.gpu, states=tuple(replace(gpu, index=evil, gpu_model=evil) for gpu in base.gpu.states)),
        exporter=replace(base.exporter, sources=(source,)),
    )
    html = Page(History(), evil)(snapshot).decode()
    assert html.count("<script>") == 1
    assert "\u202e" not in html
    assert "<script>alert(1)</script>" in Tree(html.encode()).text


def test_a_machine_without_meters_gets_the_fix() -> None:
    """Fault 69: a machine without any working source still has a page."""
    source = SourceHealth("rapl", False, "permission", "energy_uj: Permission denied", "run as root", {}, 0.0, 0.0)
    tree = Tree(Page(History())(Snapshot(1, 1.0, 1.0, 1.0, exporter=ExporterState(sources=(source,), samples=1))))
    assert "No energy meter on this machine" in tree.text
    assert "run as root" in tree.text
    assert "Waiting for the first sample" in Tree(Page(History())(None)).text


def test_a_device_without_a_reading_is_marked(busy_node: Callable[..., Snapshot]) -> None:
    """Fault 22: a card that fell off the bus or is missing after a restart; a suspended one is not a fault."""

    def shown(up: bool | None) -> str:
        base = busy_node()
        devices = tuple(row._replace(stuck=False, up=up) for row in base.energy.devices)
        return Tree(Page(History())(replace(base, energy=replace(base.energy, devices=devices)))).text

    assert "no reading" in shown(up=False)
    assert "no reading" not in shown(up=True) + shown(up=None)


def test_a_conservation_error_is_shown(busy_node: Callable[..., Snapshot]) -> None:
    assert (
        "joules do not add up"
        in Tree(Page(History())(replace(busy_node(), energy=replace(busy_node().energy, retired=())))).text
    )


def test_it_is_rendered_once_per_snapshot(busy_node: Callable[..., Snapshot]) -> None:
    page, snapshot = Page(History()), busy_node()
    assert page(snapshot) is page(snapshot)
    assert page(busy_node(2)) is not page(snapshot)
