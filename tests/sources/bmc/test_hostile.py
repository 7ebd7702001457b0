"""A BMC that is wrong in any way: no wrong number, no secret where it does not belong, nothing else is lost by it."""

from __future__ import annotations

import json
import logging
import math
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.network.kept_connection import Trust
from exporter.records import EnergyReading, PowerReading, Unavailable
from exporter.sources.bmc.meters import values
from exporter.sources.bmc.poller import Poller
from exporter.sources.bmc.redfish import RedfishReader
from exporter.sources.bmc.session import RedfishSession
from exporter.sources.bmc.survey import survey
from exporter.sources.bmc.values import MAX_WATTS
from tests.sources.bmc import boards
from tests.sources.bmc.boards import ENVIRONMENT, POWER, ROOT
from tests.support.mock_bmc import PASSWORD, SESSIONS, USER, MockBmc, Resources
from tests.support.patience import patience


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


Read = Callable[..., RedfishReader]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reading(login: Path, clock: Clock) -> Iterator[Callable[[MockBmc], RedfishReader]]:
    made: list[RedfishReader] = []

    def reader(bmc: MockBmc) -> RedfishReader:
        session = RedfishSession(bmc.url, Trust(fingerprint=bmc.fingerprint), str(login), patience(20.0))
        made.append(RedfishReader(session, clock, 10.0))
        return made[-1]

    yield reader
    for one in made:
        one.close()


def failure(reader: RedfishReader) -> Unavailable:
    with pytest.raises(Unavailable) as caught:
        reader.read()
    assert PASSWORD not in f"{caught.value.message} {caught.value.fix}"
    return caught.value


# --- numbers

LIES: tuple[Any, ...] = (
    -412,
    -0.5,
    math.nan,
    math.inf,
    1e308,
    10**400,
    50_001,
    "NaN",
    "1e308",
    "0.4 kW",
    "412000 mW",
    "1,412",
    "0x19C",
    "412 W 3",
    True,
    [412],
    {"Reading": {"Reading": 412}},
    {"Reading": 412, "ReadingUnits": "mW"},
    {"Reading": 412_000, "ReadingUnits": "%"},
    "9" * 5000,
)


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: str(lie)[:20])
def test_what_is_no_power_is_no_power(lie: Any, bmc: MockBmc, reading: Read) -> None:
    """As the first value, and as a later one: the node has no value, which is said; nothing is made up."""
    first = reading(bmc)
    bmc.at(ENVIRONMENT).pop("EnergyJoules")
    bmc.at(ENVIRONMENT)["PowerWatts"] = lie
    found = first.read()
    assert (found.meters, [problem.reason for problem in found.problems]) == ((), ["not_found"])
    bmc.at(ENVIRONMENT)["PowerWatts"] = {"Reading": 412.0}
    later = reading(bmc)
    assert len(later.read().meters) == 1
    bmc.at(ENVIRONMENT)["PowerWatts"] = lie
    found = later.read()
    assert (found.meters, [problem.reason for problem in found.problems]) == ((), ["implausible"])


@pytest.mark.parametrize("lie", [-1, math.nan, 1e308, 10**400, "5 Wh", "5 kWh", "x", [5]])
def test_what_is_no_energy_is_no_energy(lie: Any, bmc: MockBmc, reading: Read) -> None:
    bmc.at(ENVIRONMENT)["EnergyJoules"]["Reading"] = lie
    (meter,) = reading(bmc).read().meters
    assert isinstance(meter, PowerReading)
    assert meter.watts == 250.0


def test_a_unit_that_contradicts_the_property_is_believed_by_nobody(bmc: MockBmc, reading: Read) -> None:
    bmc.at(ENVIRONMENT)["EnergyJoules"] |= {"ReadingUnits": "kW.h", "LifetimeReading": 3.0}
    (meter,) = reading(bmc).read().meters
    assert isinstance(meter, PowerReading)
    bmc.at(ENVIRONMENT)["EnergyJoules"]["ReadingUnits"] = "J"
    (meter,) = reading(bmc).read().meters
    assert isinstance(meter, EnergyReading)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
BOARDS = (boards.dell, boards.hpe, boards.supermicro, boards.fujitsu, boards.huawei, boards.openbmc, boards.hgx)


@given(st.sampled_from(BOARDS), st.data())
def test_whatever_a_property_is_every_value_is_a_power_of_a_machine(
    board: Callable[[], Resources], data: st.DataObject
) -> None:
    """One property anywhere is replaced by anything."""
    resources = json.loads(json.dumps(board()))
    path = data.draw(st.sampled_from(sorted(resources)))
    place = resources[path]
    while True:
        names = sorted(place) if isinstance(place, dict) else list(range(len(place)))
        name = data.draw(st.sampled_from(names)) if names else None
        if name is None:
            break
        if not (isinstance(place[name], dict | list) and place[name]) or data.draw(st.booleans()):
            place[name] = data.draw(JUNK)
            break
        place = place[name]

    def get(path: str) -> Any:
        if path not in resources or not isinstance(resources[path], dict):
            raise Unavailable("not_found", path)
        return resources[path]

    try:
        found = values(survey(get))
    except Unavailable:
        return
    for value in found:
        assert value.watts is None or 0 <= value.watts <= 16 * MAX_WATTS
        assert value.counter is None or 0 <= value.counter.joules <= 1e17
        assert value.id.isprintable()


def test_a_counter_that_goes_back_and_forth_counts_nothing_twice(bmc: MockBmc, reading: Read) -> None:
    """Passed on as it is: accounting knows resets (`tests/accounting/test_meters.py`)."""
    reader, seen = reading(bmc), []
    for joules in (1000.0, 500.0, 1000.0, 500.0, 1100.0):
        bmc.at(ENVIRONMENT)["EnergyJoules"]["Reading"] = joules
        (meter,) = reader.read().meters
        assert isinstance(meter, EnergyReading)
        seen.append(meter.joules)
    assert seen == [1000.0, 500.0, 1000.0, 500.0, 1100.0]


# --- names


def test_names_that_change_are_no_new_devices(bmc: MockBmc, reading: Read) -> None:
    """Each would be a series; what is there is decided when everything is read."""
    bmc.resources.clear()
    bmc.resources.update(boards.supermicro())
    reader, ids = reading(bmc), set()
    for read in range(40):
        for entry in bmc.at(POWER)["PowerControl"][1:]:
            entry["Name"] = f"CPU {entry['MemberId']} at {read}"
        ids |= {meter.device.id for meter in reader.read().meters}
    assert ids == {"bmc-power-control", "bmc-CPU-1-at-0", "bmc-CPU-2-at-0", "bmc-supply-0", "bmc-supply-1"}


def test_parts_without_number_are_bounded(bmc: MockBmc, reading: Read) -> None:
    bmc.resources.clear()
    bmc.resources.update(boards.supermicro())
    entry = {"PowerConsumedWatts": 5, "PhysicalContext": "CPU"}
    bmc.at(POWER)["PowerControl"] += [entry | {"Name": f"CPU {n}"} for n in range(1000)]
    assert len(reading(bmc).read().meters) == 1 + 64


def test_a_path_that_is_no_url_is_quoted(bmc: MockBmc, reading: Read) -> None:
    """Chassis with blanks in their ids are seen; one of them must not take the others away."""
    at = f"{ROOT}/Chassis/Rack Mount%20Ä"
    bmc.at(f"{ROOT}/Systems/1")["Links"]["Chassis"] = [{"@odata.id": at}]
    quoted = f"{ROOT}/Chassis/Rack%20Mount%20%C3%84"
    bmc.resources[quoted] = bmc.resources.pop(f"{ROOT}/Chassis/1")
    (meter,) = reading(bmc).read().meters
    assert meter.device.id == "bmc-1"


# --- one broken resource


@pytest.mark.parametrize("status", [500, 503, 404, 403])
def test_a_card_that_is_broken_takes_no_other_meter_away(status: int, reading: Read) -> None:
    """At the start, when it breaks later, and when everything is read again."""
    path = f"{ROOT}/Chassis/HGX_GPU_SXM_3/EnvironmentMetrics"
    with MockBmc(boards.hgx()) as bmc:
        bmc.statuses[path] = status
        reader = reading(bmc)
        found = reader.read()
        assert "bmc-supplies" in {meter.device.id for meter in found.meters}
        assert len(found.meters) == 1 + 6 + 7
        assert any(path in problem.message for problem in found.problems) == (status != 404)
        bmc.statuses.clear()
        later = reading(bmc)
        later.read()
        bmc.statuses[path] = status if status != 404 else 500
        counts = [len(later.read().meters) for _ in range(6)]
        assert counts[:5] == [7] * 5
        assert counts[5] >= 7


def test_if_everything_cannot_be_read_again_the_node_still_is(bmc: MockBmc, clock: Clock, reading: Read) -> None:
    reader = reading(bmc)
    reader.read()
    bmc.statuses[f"{ROOT}/Chassis"] = 500
    clock.now += 3601.0
    assert [meter.device.id for meter in reader.read().meters] == ["bmc-1"]
    assert [meter.device.id for meter in reader.read().meters] == ["bmc-1"]


def test_a_machines_own_resource_that_fails_once_is_read_again_soon(bmc: MockBmc, clock: Clock, reading: Read) -> None:
    bmc.resources.update(boards.hpe())
    bmc.at(f"{ROOT}/Chassis/1")["EnvironmentMetrics"] = {"@odata.id": ENVIRONMENT}
    bmc.statuses[ENVIRONMENT] = 500
    reader = reading(bmc)
    found = reader.read()
    assert found.meters[0].device.id == "bmc-power-control"
    assert [problem.reason for problem in found.problems] == ["error"]
    bmc.statuses.clear()
    clock.now += 301.0
    found = reader.read()
    assert (found.meters[0].device.id, found.problems) == ("bmc-1", ())


# --- answers without measure


@pytest.mark.parametrize(
    ("said", "words"),
    [(b"1\r\n \r\n", "5000 chunks"), (b"10000\r\n" + b" " * 65_536 + b"\r\n", "512 KiB")],
    ids=["a byte at a time", "64 KiB at a time"],
)
def test_an_endless_answer_ends(bmc: MockBmc, reading: Read, said: bytes, words: str) -> None:
    """After little, and not after the time limit, in which it would take a core."""
    reader = reading(bmc)
    reader._session._connection._seconds = 3600.0
    reader.read()
    bmc.endless[ENVIRONMENT] = said
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_utime
    error = failure(reader)
    assert (error.reason, words in error.message) == ("implausible", True)
    assert resource.getrusage(resource.RUSAGE_THREAD).ru_utime - before < 30.0
    bmc.endless.clear()
    assert len(reader.read().meters) == 1


def test_ten_megabytes_are_no_resource(bmc: MockBmc, reading: Read) -> None:
    reader = reading(bmc)
    reader.read()
    body = json.dumps({"PowerWatts": {"Reading": 1}, "padding": "x" * (10 << 20)}).encode()
    bmc.raw[ENVIRONMENT] = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    assert failure(reader).reason == "implausible"


def test_deep_nesting_is_no_resource(bmc: MockBmc, reading: Read) -> None:
    reader = reading(bmc)
    reader.read()
    body = b"[" * 100_000
    bmc.raw[ENVIRONMENT] = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    assert failure(reader).reason == "implausible"


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1:1/redfish/v1/",
        "https://192.0.2.1/redfish/v1/Chassis",
        "//192.0.2.1/redfish/v1/",
        "https://user@192.0.2.1/",
        "file:///etc/passwd",
        "?x",
    ],
)
def test_a_redirect_to_elsewhere_takes_no_secret_along(bmc: MockBmc, reading: Read, target: str) -> None:
    reader = reading(bmc)
    reader.read()
    bmc.redirects[ENVIRONMENT] = target
    error = failure(reader)
    assert error.reason in ("implausible", "not_found")
    assert "token-" not in error.message


# --- sessions


@pytest.mark.parametrize("status", [400, 403, 503])
def test_no_session_left_is_no_wrong_password(bmc: MockBmc, clock: Clock, reading: Read, status: int) -> None:
    """Some BMCs say so with 400; by basic authentication it works, and an hour later a session is tried again."""
    message = {"error": {"@Message.ExtendedInfo": [{"MessageId": "IDRAC.2.9.RAC0218"}]}}
    bmc.session_answer = (status, message, {})
    reader = reading(bmc)
    assert len(reader.read().meters) == 1
    assert bmc.tokens == {}
    bmc.session_answer = None
    clock.now += 3601.0
    assert len(reader.read().meters) == 1
    assert len(bmc.tokens) == 1


def test_a_session_without_location_is_ended_all_the_same(bmc: MockBmc, reading: Read) -> None:
    """Its place is in its own resource; otherwise each start of the exporter would leave one behind."""
    bmc.tokens["token-x"] = f"{SESSIONS}/x"
    bmc.session_answer = (201, {"@odata.id": f"{SESSIONS}/x"}, {"X-Auth-Token": "token-x"})
    reader = reading(bmc)
    reader.read()
    reader.close()
    assert bmc.asked[-1] == ("DELETE", f"{SESSIONS}/x")
    assert bmc.tokens == {}


def test_a_token_that_is_refused_at_once_leaves_no_sessions_behind(bmc: MockBmc, reading: Read) -> None:
    """401 to a user who may log in and not read: a session for each attempt would use up those of the BMC."""
    reader = reading(bmc)
    reader.read()
    bmc.statuses[ENVIRONMENT] = 401
    for _ in range(10):
        assert failure(reader).reason == "permission"
    assert bmc.logins <= 2
    assert bmc.tokens == {}


@pytest.mark.parametrize("token", ["tök-en", "to\tken", "x" * 10_000])
def test_a_strange_token_is_in_no_log(
    bmc: MockBmc, reading: Read, caplog: pytest.LogCaptureFixture, token: str
) -> None:
    bmc.session_answer = (201, {}, {"X-Auth-Token": token, "Location": f"{SESSIONS}/1"})
    poller = Poller(reading(bmc), lambda: 0.0, 10.0)
    poller._stop.set()
    with caplog.at_level(logging.DEBUG):
        poller.poll()
    meters, problems = poller.take()
    assert token[:100] not in f"{problems} {caplog.text}"
    assert bool(meters) != bool(problems)


# --- the file of the login


@pytest.mark.parametrize("content", [f"{USER}:{PASSWORD}\r\n", f"{USER}:{PASSWORD}", f"{USER}:{PASSWORD}\n\nmore\n"])
def test_ends_of_lines_are_no_part_of_the_password(bmc: MockBmc, login: Path, reading: Read, content: str) -> None:
    login.write_bytes(content.encode())
    assert len(reading(bmc).read().meters) == 1


@pytest.mark.parametrize("content", ["", "\n", "\r\n", ":", f":{PASSWORD}", f"{USER}:", "\0\0:\0", "ä:ö", "x" * 9000])
def test_what_is_no_login_is_not_sent(bmc: MockBmc, login: Path, reading: Read, content: str) -> None:
    login.write_text(content)
    error = failure(reading(bmc))
    assert (error.reason, "USER:PASSWORD" in error.fix) == ("implausible", True)
    assert bmc.logins == 0


def test_a_password_that_was_changed_in_both_places_is_used(bmc: MockBmc, login: Path, reading: Read) -> None:
    """Rotation: the session goes on, and the next login reads the file again."""
    reader = reading(bmc)
    reader.read()
    bmc.password = "rotated"
    login.write_text(f"{USER}:rotated\n")
    assert len(reader.read().meters) == 1
    bmc.reboot()
    assert len(reader.read().meters) == 1


def test_a_file_that_becomes_readable_by_all_is_used_no_more(bmc: MockBmc, login: Path, reading: Read) -> None:
    reader = reading(bmc)
    reader.read()
    login.chmod(0o644)
    bmc.reboot()
    assert f"chmod o= {login}" in failure(reader).fix
