"""What goes wrong in a soak, one after the other: each begins, shows in a scrape, and ends without a trace."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from tests.support.live import Exporter, Scrape

from .background import again
from .clients import rude
from .site import Site

_HANGING_CALL = "nvmlDeviceGetFieldValues"
_GARBAGE = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"items":'


@dataclass(frozen=True, slots=True)
class Scene:
    """The node, and the exporters that run on it."""

    site: Site
    exporters: Sequence[Exporter]


Sign = Callable[[Scrape, Scrape], bool]
"""Whether it shows: in a scrape since the one before it began."""


@dataclass(frozen=True, slots=True)
class Fault:
    """``keeps`` says whether the state file is up to date while it lasts."""

    name: str
    make: Callable[[Scene], AbstractContextManager[object]]
    shows: Sign
    keeps: bool = True


def _failed(source: str, *reasons: str) -> Sign:
    def rose(before: Scrape, now: Scrape) -> bool:
        name = "energy_source_failures_total"
        return any(
            now.total(name, source=source, reason=reason) > before.total(name, source=source, reason=reason)
            for reason in reasons
        )

    return rose


def _ticked(times: int) -> Sign:
    def ticked(before: Scrape, now: Scrape) -> bool:
        return now["energy_samples_total", ()] - before["energy_samples_total", ()] >= times

    return ticked


# --- meters ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _meters(scene: Scene, content: bytes | None, instead: str = "") -> Iterator[None]:
    """All meters have this content; or they are gone, with a link to something else in their place."""
    meters = scene.site.node.meters
    for meter in meters:
        path = meter.hold()
        path.write_bytes(content or b"")  # in place, for who has it open
        if content is None:
            path.unlink()
        if instead:
            path.symlink_to(instead)
    try:
        yield
    finally:
        for meter in meters:
            meter.go_on()


@contextlib.contextmanager
def _hanging_driver(scene: Scene) -> Iterator[None]:
    scene.site.driver.hang(_HANGING_CALL)
    try:
        yield
    finally:
        scene.site.driver.release()


@contextlib.contextmanager
def _lost_card(scene: Scene) -> Iterator[None]:
    card = scene.site.gpus[-1]
    card.lose()
    try:
        yield
    finally:
        card.lose(lost=False)


# --- names ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _api_down(scene: Scene) -> Iterator[None]:
    site = scene.site
    with site.lock:
        site.node.server_down()
    try:
        yield
    finally:
        with site.lock:
            site.node.server_back(*site.pods())


@contextlib.contextmanager
def _api_garbage(scene: Scene) -> Iterator[None]:
    server = scene.site.node.server
    server.next_responses.extend([_GARBAGE] * 1000)
    server.drop_watches(b'{"type":"ADDED","object":')
    try:
        yield
    finally:
        server.next_responses.clear()


@contextlib.contextmanager
def _api_slow(scene: Scene) -> Iterator[None]:
    """It has forgotten what it said, so that all is asked for anew, and takes its time."""
    server = scene.site.node.server
    server.list_delay_seconds = 5.0
    server.compact()
    server.drop_watches()
    try:
        yield
    finally:
        server.list_delay_seconds = 0.0


# --- the rest of the node -------------------------------------------------------------------------------------


@contextlib.contextmanager
def _bursts(scene: Scene) -> Iterator[None]:
    with again(lambda: scene.site.burst(3), 0.0, scene.site.problems):
        yield


@contextlib.contextmanager
def _full_disk(scene: Scene) -> Iterator[None]:
    """What replaces a state file is written to a device that is always full."""
    links = [path.with_name(f"{path.name}.new") for path in scene.site.folder.glob("state-?")]
    for link in links:
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/full")
    try:
        yield
    finally:
        for link in links:
            link.unlink(missing_ok=True)  # an exporter that starts removes what another left


@contextlib.contextmanager
def _bad_settings(scene: Scene) -> Iterator[None]:
    """Good and bad settings in turn, faster than anybody reads them; bad ones at the end."""
    for more in range(1, 6):
        scene.site.write_settings(more)
        _reload(scene)
        scene.site.settings.write_text("process:\n  top: many\n", encoding="utf-8")
        _reload(scene)
    try:
        yield
    finally:
        scene.site.write_settings()
        _reload(scene)


def _reload(scene: Scene) -> None:
    for exporter in scene.exporters:
        if exporter.process.poll() is None:
            exporter.process.send_signal(signal.SIGHUP)


@contextlib.contextmanager
def _rude_clients(scene: Scene) -> Iterator[None]:
    with rude([exporter.url for exporter in scene.exporters], scene.site.problems):
        yield


def _reloading_failed(_: Scrape, now: Scrape) -> bool:
    return now["energy_config_last_reload_successful", ()] == 0


def _card_down(_: Scrape, now: Scrape) -> bool:
    return 0.0 in [up for _, up in now.find("energy_device_up")]


FAULTS: Sequence[Fault] = (
    Fault("meters answer nonsense", lambda scene: _meters(scene, b"\xff-1 J\n"), _failed("rapl", "implausible")),
    Fault("an NVML call hangs", _hanging_driver, _failed("nvml", "timeout")),
    Fault("the API server is down", _api_down, _failed("kubernetes", "not_found", "error", "timeout", "driver")),
    Fault("meters are gone", lambda scene: _meters(scene, None), _failed("rapl", "not_found")),
    Fault("settings are reloaded, some of them wrong", _bad_settings, _reloading_failed),
    Fault("a card falls off the bus", _lost_card, _card_down),
    Fault("the API server answers nonsense", _api_garbage, _failed("kubernetes", "implausible", "error")),
    Fault("clients hang, leave, and do not read", _rude_clients, _ticked(10)),
    Fault("meters answer EIO", lambda scene: _meters(scene, None, "/proc/self/mem"), _failed("rapl", "driver")),
    Fault("the disk is full", _full_disk, _ticked(15), keeps=False),
    Fault("the API server is slow", _api_slow, _ticked(10)),
    Fault("cgroups come and go within a tick", _bursts, _ticked(10)),
)
