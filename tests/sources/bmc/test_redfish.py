"""A BMC over real TLS: logins, certificates, errors, hangs, lies and reboots; and that none of it delays a tick."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from exporter.network.kept_connection import Trust
from exporter.records import EnergyReading, PowerReading, Problem, Reading, Unavailable
from exporter.sources.bmc.options import BmcOptions
from exporter.sources.bmc.poller import Poller
from exporter.sources.bmc.redfish import RedfishReader
from exporter.sources.bmc.session import REFUSED_SECONDS, RedfishSession
from exporter.sources.bmc.source import BmcSource
from tests.sources.bmc import boards
from tests.sources.bmc.boards import ENVIRONMENT, POWER, ROOT
from tests.support.mock_bmc import PASSWORD, SESSIONS, USER, MockBmc, Resources
from tests.support.patience import wait_for

SECONDS = 0.5


@pytest.fixture
def credentials(login: Path) -> str:
    return str(login)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def session_of(bmc: MockBmc, credentials: str, trust: Trust | None = None, seconds: float = 20.0) -> RedfishSession:
    return RedfishSession(bmc.url, trust or Trust(fingerprint=bmc.fingerprint), credentials, seconds)


Make = Callable[..., RedfishReader]


@pytest.fixture
def make(bmc: MockBmc, credentials: str) -> Iterator[Make]:
    made: list[RedfishReader] = []

    def reader(session: RedfishSession | None = None) -> RedfishReader:
        made.append(RedfishReader(session or session_of(bmc, credentials), Clock(), 10.0))
        return made[-1]

    yield reader
    for one in made:
        one.close()


@pytest.fixture
def reader(make: Make) -> RedfishReader:
    return make()


def serve(bmc: MockBmc, resources: Resources) -> None:
    bmc.resources.clear()
    bmc.resources.update(resources)


def failure(read: Callable[[], Any]) -> Unavailable:
    with pytest.raises(Unavailable) as caught:
        read()
    for text in (caught.value.message, caught.value.fix, repr(caught.value)):
        assert PASSWORD not in text
        assert "token-" not in text
    return caught.value


# --- logging in


def test_one_session_over_one_connection_which_is_ended(bmc: MockBmc, reader: RedfishReader) -> None:
    for _ in range(5):
        (meter,) = reader.read().meters
    assert isinstance(meter, EnergyReading)
    assert (meter.device.id, meter.joules, meter.watts) == ("bmc-1", 1000.0, 250.0)
    assert (bmc.logins, bmc.connections, len(bmc.tokens)) == (1, 1, 1)
    reader.close()
    assert bmc.tokens == {}
    assert bmc.asked[-1] == ("DELETE", f"{SESSIONS}/1")


def test_after_discovery_a_read_is_one_request(bmc: MockBmc, reader: RedfishReader) -> None:
    reader.read()
    bmc.asked.clear()
    reader.read()
    assert bmc.asked == [("GET", ENVIRONMENT)]


def test_a_session_that_ended_is_renewed(bmc: MockBmc, reader: RedfishReader) -> None:
    """401: sessions have a timeout, and a BMC that restarts forgets them."""
    reader.read()
    bmc.reboot()
    assert len(reader.read().meters) == 1
    assert bmc.logins == 2


@pytest.mark.parametrize("cause", ["no session service", "none in the root", "all sessions in use"])
def test_without_a_session_by_basic_authentication(bmc: MockBmc, reader: RedfishReader, cause: str) -> None:
    if cause == "no session service":
        bmc.sessions = False
    elif cause == "none in the root":  # sushy-tools 2.2.0: a login there is refused, as anything without one
        del bmc.at(f"{ROOT}/")["Links"]
        bmc.refuses_sessions = True
    else:
        bmc.most_sessions = 0
    assert len(reader.read().meters) == 1
    assert len(reader.read().meters) == 1
    assert bmc.tokens == {}


@pytest.mark.parametrize("sessions", [True, False])
def test_a_refused_login_is_not_repeated(
    bmc: MockBmc, credentials: str, monkeypatch: pytest.MonkeyPatch, sessions: bool, make: Make
) -> None:
    """Several in a row lock the user on most BMCs: again after minutes, or once the file has changed."""
    bmc.sessions = sessions
    Path(credentials).write_text(f"{USER}:wrong-{PASSWORD}\n")
    reader = make(session_of(bmc, credentials))
    error = failure(reader.read)
    assert (error.reason, "refuses the login" in error.message) == ("permission", True)
    assert credentials in error.fix
    asked = len(bmc.asked)
    for _ in range(5):
        failure(reader.read)
    posts = [one for one in bmc.asked[asked:] if one[0] == "POST" or one[1] == ENVIRONMENT]
    assert posts == []
    Path(credentials).write_text(f"{USER}:{PASSWORD}\n")
    assert len(reader.read().meters) == 1
    bmc.password = "changed"
    bmc.reboot()
    failure(reader.read)
    bmc.password = PASSWORD
    failure(reader.read)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + REFUSED_SECONDS + 1)
    assert len(reader.read().meters) == 1
    reader.close()


@pytest.mark.parametrize(
    ("content", "mode", "reason", "fix"),
    [
        (f"{USER}:{PASSWORD}", 0o644, "permission", "chmod o= "),
        (f"{USER}:{PASSWORD}", 0o602, "permission", "chmod o= "),
        (PASSWORD, 0o600, "implausible", "USER:PASSWORD"),
        ("", 0o600, "implausible", "USER:PASSWORD"),
        (None, 0o600, "not_found", ""),
    ],
)
def test_a_file_that_cannot_be_used_says_how_to_mend_it(
    bmc: MockBmc, tmp_path: Path, content: str | None, mode: int, reason: str, fix: str, make: Make
) -> None:
    path = tmp_path / "login"
    if content is not None:
        path.write_text(f"{content}\n")
        path.chmod(mode)
    error = failure(make(session_of(bmc, str(path))).read)
    assert error.reason == reason
    assert str(path) in error.message
    assert fix in error.fix
    assert bmc.logins == 0


def test_without_credentials_the_fix_names_the_setting(bmc: MockBmc, make: Make) -> None:
    error = failure(make(session_of(bmc, "")).read)
    assert error.reason == "permission"
    assert "--bmc.redfish.credentials" in error.fix


# --- certificates


def test_what_is_trusted(bmc: MockBmc, credentials: str, tmp_path: Path, make: Make) -> None:
    for trust in (Trust(ca_file=bmc.ca_file(tmp_path)), Trust(fingerprint=bmc.fingerprint), Trust(insecure=True)):
        reader = make(session_of(bmc, credentials, trust))
        assert len(reader.read().meters) == 1
        reader.close()
    for trust, setting in (
        (Trust(), "--bmc.redfish.ca"),
        (Trust(fingerprint="0" * 64), "--bmc.redfish.fingerprint"),
        (Trust(ca_file=str(tmp_path / "none.pem")), "--bmc.redfish.ca"),
    ):
        logins = bmc.logins
        error = failure(make(session_of(bmc, credentials, trust)).read)
        assert setting in error.fix
        assert bmc.logins == logins, "the password is sent to nobody else"


def test_a_certificate_that_changes_is_reported_and_gets_no_password(
    bmc: MockBmc, credentials: str, make: Make
) -> None:
    reader = make(session_of(bmc, credentials))
    reader.read()
    bmc.renew_certificate()
    bmc.statuses[ENVIRONMENT] = 503
    assert failure(reader.read).reason == "timeout"
    bmc.raw[ENVIRONMENT] = b""  # it closes the connection, as a restart does
    logins = bmc.logins
    error = failure(reader.read)
    assert (error.reason, bmc.fingerprint in error.message) == ("permission", True)
    assert bmc.logins == logins
    del bmc.raw[ENVIRONMENT], bmc.statuses[ENVIRONMENT]
    again = make(session_of(bmc, credentials))
    assert len(again.read().meters) == 1


# --- answers that are none


@pytest.mark.parametrize(
    ("status", "reason"), [(403, "permission"), (404, "not_found"), (500, "error"), (503, "timeout"), (429, "timeout")]
)
def test_a_status_has_a_reason(bmc: MockBmc, reader: RedfishReader, status: int, reason: str) -> None:
    reader.read()
    bmc.statuses[ENVIRONMENT] = status
    error = failure(reader.read)
    assert error.reason == reason
    assert bmc.url in error.message
    del bmc.statuses[ENVIRONMENT]
    assert len(reader.read().meters) == 1


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"SSH-2.0-dropbear\r\n", "error"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "implausible"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\noops", "implausible"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}", "implausible"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 30_000, "implausible"),
        (b"", "error"),
    ],
)
def test_what_is_no_answer(bmc: MockBmc, reader: RedfishReader, raw: bytes, reason: str) -> None:
    reader.read()
    bmc.raw[ENVIRONMENT] = raw
    assert failure(reader.read).reason == reason
    bmc.raw.clear()
    assert len(reader.read().meters) == 1


def test_a_redirect_is_followed_on_the_same_bmc_only(bmc: MockBmc, reader: RedfishReader) -> None:
    reader.read()
    bmc.resources[f"{ENVIRONMENT}/"] = bmc.resources[ENVIRONMENT]
    bmc.redirects[ENVIRONMENT] = f"{ENVIRONMENT}/"
    assert len(reader.read().meters) == 1
    bmc.redirects[ENVIRONMENT] = f"https://192.0.2.1{ENVIRONMENT}"
    error = failure(reader.read)
    assert (error.reason, "--bmc.redfish.url" in error.fix) == ("implausible", True)
    bmc.redirects[ENVIRONMENT] = ENVIRONMENT
    assert failure(reader.read).reason == "implausible"


def test_nobody_there(credentials: str, make: Make) -> None:
    with MockBmc({}) as gone:
        session = session_of(gone, credentials)
    error = failure(make(session).read)
    assert error.reason == "not_found"
    assert "--bmc.redfish.url" in error.fix


def test_a_bmc_that_hangs_is_given_up(bmc: MockBmc, credentials: str, make: Make) -> None:
    reader = make(session_of(bmc, credentials, seconds=SECONDS))
    reader.read()
    bmc.hanging.add(ENVIRONMENT)
    error = failure(reader.read)
    assert (error.reason, "within 0.5 s" in error.message) == ("timeout", True)
    bmc.release()
    assert len(reader.read().meters) == 1


# --- values


def test_a_null_is_a_missing_value_and_no_reason_to_count_by_another_meter(bmc: MockBmc, reader: RedfishReader) -> None:
    """Case 1: ``Reading`` null; the other meter is chosen only after a minute of it."""
    reader.read()
    bmc.at(ENVIRONMENT)["EnergyJoules"]["Reading"] = None
    for _ in range(6):
        found = reader.read()
        assert found.meters == ()
        assert [problem.reason for problem in found.problems] == ["implausible"]
    (meter,) = reader.read().meters
    assert isinstance(meter, PowerReading)
    assert (meter.watts, meter.device.method) == (250.0, "power_integrated")


def test_reset_metrics_loses_nothing(bmc: MockBmc, reader: RedfishReader) -> None:
    """Case 1: SensorResetTime moves and Reading starts at 0; what it had before is kept."""
    excerpt = bmc.at(ENVIRONMENT)["EnergyJoules"]
    joules = []
    for reading, reset in (
        (1000.0, None),
        (1500.0, None),
        (20.0, "2026-11-29T10:00:00Z"),
        (90.0, "2026-11-29T10:00:00Z"),
    ):
        excerpt.update(Reading=reading, SensorResetTime=reset)
        (meter,) = reader.read().meters
        assert isinstance(meter, EnergyReading)
        joules.append(meter.joules)
    assert joules == [1000.0, 1500.0, 1520.0, 1590.0]


def test_a_lifetime_that_falls_is_passed_on_as_it_is(bmc: MockBmc, reader: RedfishReader) -> None:
    """Case 1: the BMC restarted; accounting knows resets."""
    excerpt = bmc.at(ENVIRONMENT)["EnergyJoules"]
    excerpt.update(LifetimeReading=9e6)
    reader.read()
    excerpt.update(LifetimeReading=100.0)
    (meter,) = reader.read().meters
    assert isinstance(meter, EnergyReading)
    assert meter.joules == 100.0


def test_a_counter_that_its_gauge_contradicts_is_reported(bmc: MockBmc, credentials: str) -> None:
    """A BMC that lies: ten times the power that it shows."""
    clock = Clock()
    reader = RedfishReader(session_of(bmc, credentials), clock, 10.0)
    for _ in range(8):
        found = reader.read()
        clock.now += 10.0
        bmc.at(ENVIRONMENT)["EnergyJoules"]["Reading"] += 25_000.0
    (meter,) = found.meters
    assert isinstance(meter, EnergyReading)
    assert meter.agreement_ratio == pytest.approx(10.0, rel=0.01)
    assert [problem.reason for problem in found.problems] == ["implausible"]
    reader.close()


def test_a_counter_that_stands_still_under_power_is_replaced_by_its_gauge(reader: RedfishReader) -> None:
    """Five minutes of it; some firmware never counts."""
    found = [reader.read() for _ in range(31)]
    assert all(isinstance(one.meters[0], EnergyReading) and not one.problems for one in found[:30])
    assert isinstance(found[30].meters[0], PowerReading)
    assert [problem.reason for problem in found[30].problems] == ["driver"]


def test_a_counter_that_ends_in_zeros_keeps_its_resolution(bmc: MockBmc, reader: RedfishReader) -> None:
    serve(bmc, boards.energy(kwh=812.345))
    steps = []
    for kwh in (812.345, 812.35, 812.4):
        bmc.at(ENVIRONMENT)["EnergykWh"]["Reading"] = kwh
        (meter,) = reader.read().meters
        steps.append(meter.device.step_joules)
    assert steps == pytest.approx([3600.0] * 3)


def test_a_machine_without_a_meter_says_so(bmc: MockBmc, reader: RedfishReader) -> None:
    bmc.resources[ENVIRONMENT] = {}
    (problem,) = reader.read().problems
    assert (problem.reason, "licence" in problem.fix) == ("not_found", True)


def test_parts_with_resources_of_their_own_are_read_more_rarely(credentials: str, make: Make) -> None:
    """Eight GPUs and six supplies: the node's meter each time, the rest every sixth."""
    with MockBmc(boards.hgx()) as bmc:
        reader = make(session_of(bmc, credentials))
        first = {meter.device.id: meter.device for meter in reader.read().meters}
        assert len(first) == 1 + 6 + 8
        assert first["bmc-supplies"].within is None
        assert {device.within for id_, device in first.items() if id_ != "bmc-supplies"} == {"bmc-supplies"}
        assert (first["bmc-supplies"].period_seconds, first["bmc-HGX_GPU_SXM_1"].period_seconds) == (10.0, 60.0)
        counts = [len(reader.read().meters) for _ in range(6)]
        assert counts == [7, 7, 7, 7, 7, 15]
        reader.close()


# --- in the background


def source_of(bmc: MockBmc, credentials: str, period: float = 10.0, **fields: Any) -> BmcSource:
    options = BmcOptions(bmc.url, credentials, fingerprint=bmc.fingerprint, period_seconds=period, **fields)
    return BmcSource(options, time.monotonic)


def first(source: BmcSource) -> Reading:
    found: list[Reading] = []

    def answered() -> bool:
        found.append(source.read(0.0))
        return not found[-1].pending

    wait_for(answered)
    return found[-1]


def test_a_value_is_given_once(bmc: MockBmc, credentials: str) -> None:
    source = source_of(bmc, credentials)
    assert source.read(0.0).pending
    assert [meter.device.id for meter in first(source).meters] == ["bmc-1"]
    again = source.read(0.0)
    assert (again.meters, again.problems, again.pending) == ((), (), False)
    source.close()
    wait_for(lambda: not bmc.tokens)


@pytest.mark.parametrize("hanging", ["*", SESSIONS, ENVIRONMENT])
def test_whatever_hangs_a_read_returns_and_so_does_the_end(bmc: MockBmc, credentials: str, hanging: str) -> None:
    """Fault 15: the BMC never answers here, and everything returns all the same."""
    bmc.hanging.add(hanging)
    source = source_of(bmc, credentials)
    wait_for(lambda: any(hanging in {"*", path} for _, path in bmc.asked) or source.read(0.0) is None)
    assert source.read(0.0).pending
    source.close()


def test_a_failure_is_a_reason_and_passes(bmc: MockBmc, credentials: str) -> None:
    bmc.statuses[f"{ROOT}/"] = 503
    source = source_of(bmc, credentials, period=0.01)

    def failed() -> bool:
        try:
            return source.read(0.0) is None
        except Unavailable as error:
            return error.reason == "timeout"

    wait_for(failed)
    bmc.statuses.clear()

    def works() -> bool:
        try:
            return bool(source.read(0.0).meters)
        except Unavailable:
            return False

    wait_for(works)
    source.close()


class Scripted:
    """A reader that does what it is told."""

    name = "scripted"

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    def read(self) -> Any:
        raise self.errors.pop(0)

    def close(self) -> None:
        """Nothing is open."""

    def interrupt(self) -> None:
        """Nothing runs."""


def test_failures_are_retried_more_and_more_rarely_with_jitter_and_never_kill_the_thread() -> None:
    poller = Poller(Scripted(*[Unavailable("timeout", "busy")] * 8, ValueError("secret")), Clock(), 10.0)
    waits = [poller.poll() for _ in range(9)]
    for wait, wanted in zip(waits, (10, 20, 40, 80, 160, 300, 300, 300, 300), strict=True):
        assert 0.8 * wanted <= wait <= 1.2 * wanted
    assert len(set(waits)) == 9
    poller._stop.set()
    _, problems = poller.take()
    assert problems == (Problem("error", "scripted: ValueError", "this is a bug: report it"),)


def test_no_secret_is_in_a_log(bmc: MockBmc, credentials: str, caplog: pytest.LogCaptureFixture, make: Make) -> None:
    """Whatever goes wrong, and although the BMC itself repeats the password in its answers."""
    with caplog.at_level(logging.DEBUG):
        for fault in ("refuses", "statuses", "raw"):
            bmc.reboot()
            bmc.refuses = fault == "refuses"
            bmc.statuses = {ENVIRONMENT: 500} if fault == "statuses" else {}
            bmc.raw = {ENVIRONMENT: PASSWORD.encode()} if fault == "raw" else {}
            reader = make(session_of(bmc, credentials))
            error = failure(reader.read)
            logging.getLogger("bmc").warning("%s %s %r", error.message, error.fix, reader._session.__dict__.get("url"))
            reader.close()
    assert PASSWORD not in caplog.text
    assert "token-" not in caplog.text
    assert POWER
