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
from exporter.exposition.status.reference import reference_page
from exporter.records import HOST, GpuState, Model, ProcessOwner, SourceHealth, Workload
from exporter.snapshot import AccountRow, ExporterState, Snapshot
from tests.support import status_pages

VOID = {"meta", "path", "rect", "link", "br"}
MOST_BYTES = 60_000


class Tree(HTMLParser):
    """Checks that every element is closed, and collects elements, text, attributes and the cells of tables."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.folded: list[str] = []
        self.tables: list[list[list[str]]] = []
        self._open: list[str] = []
        self.feed(page.decode())
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(key, value or "") for key, value in attrs]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in {"th", "td"}:
            self.tables[-1][-1].append("")
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(key, value or "") for key, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] in (["style"], ["script"]):
            return
        folded = "details" in self._open and "summary" not in self._open
        (self.folded if folded else self.words).append(data)
        if "td" in self._open or "th" in self._open:
            self.tables[-1][-1][-1] = " ".join(f"{self.tables[-1][-1][-1]} {data}".split())

    @property
    def text(self) -> str:
        """All text that is not folded away."""
        return " ".join(" ".join(self.words).split())

    def table(self, title: str) -> dict[str, dict[str, str]]:
        """The table whose first column has this title: name of each row → title of each column → text."""
        (found,) = [rows for rows in self.tables if rows[0][0] == title]
        heads = found[0]
        return {row[0]: dict(zip(heads[1:], row[1:], strict=True)) for row in found[1:]}


def shown(snapshot: Snapshot | None, history: History | None = None, path: str = "/metrics") -> Tree:
    return Tree(Page(history or History(), "gpu-node-17", path)(snapshot))


@pytest.fixture
def history(busy_node: Callable[..., Snapshot]) -> History:
    history = History()
    for sequence in range(0, 120, 2):
        history.observe(busy_node(sequence))
    return history


def test_it_shows_the_whole_node(busy_node: Callable[..., Snapshot], history: History) -> None:
    tree = shown(busy_node(120), history, "/custom")
    for expected in (
        "Node power now", "partly estimated", "every joule accounted for",
        "llama-70b-server-7f9c4d5b8-x2x7q",
        "mistralai/Mistral-7B-v0.3", "training", "CPU package 0", "learned", "measured", "estimated", "31.0 to 60.0",
        "stuck", "permission", "run as root, or mount the socket into the container",
    ):  # fmt: skip
        assert expected in tree.text, expected
    links = {value for key, value in tree.attributes if key == "href" and not value.startswith("#")}
    assert links == {"/custom", "/-/reference", "/-/healthy"}
    assert tree.tags.count("svg") > 15
    assert "Demo." not in tree.text


def test_the_node_is_named_on_the_page_and_in_its_title(busy_node: Callable[..., Snapshot]) -> None:
    for snapshot in (busy_node(), None):
        html = Page(History(), "gpu-node-17")(snapshot).decode()
        assert "<title>gpu-node-17 – AI Energy Exporter</title>" in html
        assert "<h1><bdi>gpu-node-17</bdi></h1>" in html


def test_what_only_idles_does_not_look_like_work(busy_node: Callable[..., Snapshot], history: History) -> None:
    """A model that holds a card without using it, beside one that works on the same kind of card."""
    models = shown(busy_node(120), history).table("Model")
    idle = models["BAAI/bge-large-en-v1.5 idle serving · inference"]
    assert float(idle["Idle now W"]) == float(idle["Power W"]) == 64.0
    assert idle["Unused of the energy"] == "100 %"
    busy = next(row for name, row in models.items() if name.startswith("meta-llama"))
    assert 0 < float(busy["Idle now W"]) < float(busy["Power W"].replace(",", "")) / 2
    assert busy["Unused of the energy"] == "11 %"
    assert not any(" idle " in name for name in models if not name.startswith("BAAI"))


def test_processes_have_watts_container_and_model(busy_node: Callable[..., Snapshot], history: History) -> None:
    processes = shown(busy_node(120), history).table("Process")
    trainer = processes["python3 4002 research · finetune-mistral-0 · trainer · mistralai/Mistral-7B-v0.3"]
    assert float(trainer["Power W"]) > 400
    assert trainer["Share of the node"].endswith("%")
    assert "python3 4003 serving · embeddings-59d8c-zz8lp · tei" in processes, "no model of its own, none shown"


def test_a_card_has_one_row_with_index_watts_and_holder(busy_node: Callable[..., Snapshot], history: History) -> None:
    tree = shown(busy_node(120), history)
    cards = tree.table("GPU")
    assert [name.split(" GPU-")[0] for name in cards if name.startswith("GPU")] == ["GPU 0", "GPU 1", "GPU 2", "GPU 3"]
    first = next(iter(cards.values()))
    assert float(first["Power W"].replace(",", "")) > 500
    assert first["Limit W"] == "700.0"
    assert first["Temp. °C"] == "61"
    assert "llama-70b-server-7f9c4d5b8-x2x7q 681 W · meta-llama/Llama-3.1-70B-Instruct" in first["Held by"]
    last = next(row for name, row in cards.items() if "stuck" in name)
    assert last["Held by"].startswith("embeddings-59d8c-zz8lp idle 64.0 W")
    assert "4 × NVIDIA H100 80GB HBM3 , measured (nvml)" in tree.text
    assert not [name for name in tree.table("Device") if "GPU" in name or "H100" in name]
    assert "GPU-1c2d3e4f" not in tree.text
    assert "GPU-1c2d3e4f" in " ".join(tree.folded)


def test_mig_instances_follow_their_card(busy_node: Callable[..., Snapshot]) -> None:
    snapshot = busy_node()
    card = snapshot.gpu.states[1]
    parts = tuple(
        GpuState(card.uuid, "1", instance, gpu_model="H100 MIG 1g", sm_active_ratio=0.5) for instance in ("13", "5")
    )
    states = (*snapshot.gpu.states[:4], *parts)
    names = list(shown(replace(snapshot, gpu=replace(snapshot.gpu, states=states))).table("GPU"))
    assert [re.sub(" (GPU-|H100|NVIDIA).*", "", name) for name in names] == [
        "GPU 0", "GPU 1", "MIG 1 / 5", "MIG 1 / 13", "GPU 2", "GPU 3",
    ]  # fmt: skip


def test_each_column_has_one_unit(busy_node: Callable[..., Snapshot], history: History) -> None:
    """One row of 12 J beside kilowatt-hours is 0.00 kWh, not 12 J."""
    for title in ("Model", "Workload", "Process", "GPU", "Device"):
        table = shown(busy_node(120), history).table(title)
        energies = {row["Energy kWh"] for row in table.values()}
        assert all(re.fullmatch(r"[\d,]+\.\d\d?|0|< 0\.01|–", energy) for energy in energies), energies


def test_it_says_since_when_energy_is_counted(busy_node: Callable[..., Snapshot]) -> None:
    snapshot = busy_node(0)
    assert "since 2026-11-22 12:53:20 UTC (11 h 6 min)" in shown(snapshot).text
    unsaid = replace(snapshot, exporter=replace(snapshot.exporter, counted_since=None))
    assert "since before 2026-11-22 23:00:00 UTC" in shown(unsaid).text


def test_what_is_absent_is_folded_away() -> None:
    tree = shown(status_pages.virtual_machine())
    assert "Not on this machine: rapl , nvml , hwmon , drm , podresources" in tree.text
    for _, why, fix in status_pages.ABSENT:
        assert why not in tree.text
        assert why in tree.folded
        assert fix not in tree.text
        assert fix in tree.folded
    assert "No AI model recognised" in tree.text
    assert "GPU" not in [table[0][0] for table in tree.tables]
    assert "Idle now" not in tree.text, "no workload is charged for idle power here"


def test_small_accounts_are_one_row(busy_node: Callable[..., Snapshot]) -> None:
    """Their sum is not lost."""
    snapshot = status_pages.crowded()
    table = shown(snapshot).table("Workload")
    assert len(table) == 11
    total = sum(sum(row.joules) for row in snapshot.energy.containers) / 3.6e6
    assert sum(float(row["Energy kWh"].replace(",", "")) for row in table.values()) == pytest.approx(total, abs=0.5)
    assert [name for name in table if name.endswith("more")] == [f"{len(snapshot.energy.containers) - 10} more"]


@pytest.mark.parametrize("path", status_pages.pages())
def test_every_word_is_explained_and_the_page_is_small(path: str) -> None:
    body, _ = status_pages.pages()[path]
    tree = Tree(body)
    ids = [value for key, value in tree.attributes if key == "id"]
    assert len(ids) == len(set(ids))
    assert {value for key, value in tree.attributes if key == "href" and value[0] == "#"} <= {f"#{id_}" for id_ in ids}
    assert len(body) <= MOST_BYTES


def test_lines_of_a_table_have_one_scale(busy_node: Callable[..., Snapshot], history: History) -> None:
    html = Page(history, "n")(busy_node(120)).decode()
    models = html[html.index("Models") : html.index("Workloads")]
    most = max(float(value.replace(",", "")) for value in re.findall(r"at most ([\d,.]+) W", models))
    assert f"0 to {most:,.0f} W" in models
    heights = [
        min(int(y) for y in re.findall(r"\d+ (\d+)", path)) for path in re.findall(r'c-active" d="(.*?)V', models)
    ]
    assert heights[0] < 5
    assert heights[2] > 35, "64 W beside 1,600 W stay at the bottom"


def test_a_demo_is_marked() -> None:
    assert "Demo. Everything on this page is simulated" in shown(status_pages.demo()).text


def test_it_loads_no_other_resource(busy_node: Callable[..., Snapshot], history: History) -> None:
    page = Page(history, "n")
    for body in (page(busy_node()), reference_page()):
        html = body.decode()
        assert not re.search(r"(src|href)=\"(https?:)?//|@import|url\(|http-equiv", html)
        assert " style=" not in html  # the policy forbids inline style attributes
        policy = dict(page.headers)[b"Content-Security-Policy"].decode()
        for element, content in re.findall(r"<(style|script)>(.*?)</\1>", html, re.DOTALL):
            assert f"{element}-src 'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'" in policy
        assert "default-src 'none'" in policy


def test_hostile_names_stay_text(row: Callable[..., AccountRow], busy_node: Callable[..., Snapshot]) -> None:
    """Fault 45: a name that contains a script is not executed."""
    evil = "<script>alert(1)</script>\"'&\u202e\x00\udcff"
    source = SourceHealth(evil, False, "error", evil, evil, {}, 0.0, 0.0)
    absent = SourceHealth(evil, False, "not_found", evil, evil, {}, 0.0, 0.0)
    base = busy_node()
    devices = tuple(
        d._replace(device=replace(d.device, name=evil, within=evil, source=evil), idle_method=evil)
        for d in base.energy.devices
    )
    cells = ({("cpu", "active"): 1.0}, {"cpu": 1.0})
    snapshot = replace(
        base,
        energy=replace(
            base.energy,
            containers=(row(1, Workload(evil, evil, evil, evil), *cells),),
            models=(row(2, Model(evil, evil, evil), *cells),),
            processes=(row(3, ProcessOwner(7, evil, evil, evil, evil), *cells),),
            container_models={1: Model(evil, evil, evil)},
            process_models={3: Model(evil, evil, evil)},
            container_cards=tuple(
                card._replace(owner=Workload(evil, evil, evil, evil)) for card in base.energy.container_cards
            ),
            devices=devices,
        ),
        gpu=replace(
            base.gpu,
            states=tuple(
                replace(gpu, uuid=evil * number, index=evil, gpu_model=evil, pci_bus_id=evil)
                for number, gpu in enumerate(base.gpu.states)
            ),
            indexes={},
        ),
        exporter=replace(base.exporter, sources=(source, absent)),
    )
    history = History()
    for at in (1.0, 3.0):
        cards = tuple(card._replace(joules=card.joules + at) for card in snapshot.energy.container_cards)
        history.observe(replace(snapshot, monotonic_at=at, energy=replace(snapshot.energy, container_cards=cards)))
    html = Page(history, evil, evil, evil)(snapshot).decode()
    assert html.count("<script>") == 1
    assert "\u202e" not in html
    assert "<script>alert(1)</script>" in Tree(html.encode()).text


def test_a_machine_without_meters_gets_the_fix() -> None:
    """Fault 69: a machine without any working source still has a page."""
    source = SourceHealth("rapl", False, "permission", "energy_uj: Permission denied", "run as root", {}, 0.0, 0.0)
    tree = shown(Snapshot(1, 1.0, 1.0, 1.0, exporter=ExporterState(sources=(source,), samples=1)))
    assert "No energy meter on this machine" in tree.text
    assert "run as root" in tree.text
    assert "Waiting for the first sample" in shown(None).text


def test_a_device_without_a_reading_is_marked(busy_node: Callable[..., Snapshot]) -> None:
    """Fault 22: a card that fell off the bus or is missing after a restart; a suspended one is not a fault."""

    def with_devices(up: bool | None) -> str:
        base = busy_node()
        devices = tuple(row._replace(stuck=False, up=up) for row in base.energy.devices)
        return shown(replace(base, energy=replace(base.energy, devices=devices))).text

    assert "no reading" in with_devices(up=False)
    assert "no reading" not in with_devices(up=True) + with_devices(up=None)


def test_a_conservation_error_is_shown(busy_node: Callable[..., Snapshot]) -> None:
    broken = replace(busy_node(), energy=replace(busy_node().energy, retired=()))
    assert "joules do not add up" in shown(broken).text


def test_the_shares_of_all_uses_are_the_whole(busy_node: Callable[..., Snapshot]) -> None:
    """Also what is not named yet, the fourth term of the equation."""
    base = busy_node()
    node = sum(each.joules for each in base.energy.nodes)
    held = replace(base.energy, containers=(), models=(), unnamed=(("gpu", node),), unattributed=(), retired=())
    text = shown(replace(base, energy=held)).text
    assert "Name not yet known 100 %" in text


def test_it_is_rendered_once_per_snapshot(busy_node: Callable[..., Snapshot]) -> None:
    page, snapshot = Page(History(), "n"), busy_node()
    assert page(snapshot) is page(snapshot)
    assert page(busy_node(2)) is not page(snapshot)


def test_an_unknown_process_of_the_host_has_no_model(row: Callable[..., AccountRow]) -> None:
    base = status_pages.virtual_machine()
    cells = ({("cpu", "active"): 9.0}, {"cpu": 1.0})
    host = row(1, HOST, *cells)
    process = row(2, ProcessOwner(7, "cc1", "", "", "host"), *cells)
    energy = replace(base.energy, containers=(host,), processes=(process,))
    assert list(shown(replace(base, energy=energy)).table("Process")) == ["cc1 7 host"]


def test_the_reference_has_every_metric_and_its_help(busy_node: Callable[..., Snapshot]) -> None:
    tree = Tree(reference_page())
    assert "energy_container_joules_total counter" in tree.text
    assert "energy_http_requests_total" in tree.text
