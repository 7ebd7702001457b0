"""What each service is asked, and what is read from its answers: see answers.json for where their form is from."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from exporter.impact.feeds.protocol import FeedOptions, Quantity, Series, Slot
from exporter.impact.feeds.registry import FEEDS, make
from exporter.network.http_client import HttpStatusError
from exporter.records import Unavailable
from tests.support.feed_server import FeedServer

ANSWERS: dict[str, Any] = json.loads((Path(__file__).parent / "answers.json").read_text(encoding="utf-8"))
EIGHTEEN = datetime(2026, 11, 28, 18, tzinfo=UTC).timestamp()
NOW = EIGHTEEN + 720.0
EM_PATH = "/v3/carbon-intensity/latest"
POUND = 0.45359237


@pytest.fixture
def token(tmp_path: Path) -> str:
    file = tmp_path / "token"
    file.write_text("s3cret:pass\n")
    return str(file)


def read(
    server: FeedServer, name: str, zone: str, quantity: Quantity = "intensity", token: str = "", currency: str = ""
) -> Series:
    return make(FeedOptions(name, quantity, zone, server.url, token, currency)).read(NOW)


def test_electricity_maps(token: str) -> None:
    with FeedServer({EM_PATH: ANSWERS["electricity-maps"]}) as server:
        series = read(server, "electricity-maps", "DE", token=token)
    (asked,) = server.asked
    assert asked.headers["auth-token"] == "s3cret:pass"
    assert "authorization" not in asked.headers
    assert asked.query == {"zone": "DE", "emissionFactorType": "lifecycle"}
    assert series.slots == (Slot(EIGHTEEN, EIGHTEEN + 3600, 302.0, estimated=True),)
    assert (series.zone, series.source, series.factor_type) == ("DE", "Electricity Maps", "lifecycle")


def test_watttime_average_in_grams(token: str) -> None:
    answers = {"/login": ANSWERS["watttime-login"], "/v3/historical": ANSWERS["watttime-historical"]}
    with FeedServer(answers) as server:
        series = read(server, "watttime", "CAISO_NORTH", token=token)
    login, asked = server.asked
    assert login.headers["authorization"] == f"Basic {base64.b64encode(b's3cret:pass').decode()}"
    assert asked.headers["authorization"] == "Bearer abcdef0123456789fedcabc"
    assert asked.query == {
        "region": "CAISO_NORTH",
        "signal_type": "co2_aoer",
        "start": "2026-11-27T18:12:00+00:00",
        "end": "2026-11-28T18:12:00+00:00",
    }
    assert [slot.start - EIGHTEEN for slot in series.slots] == [-7200, -3600]
    assert [slot.value for slot in series.slots] == pytest.approx([380.5 * POUND, 400 * POUND])
    assert series.slots[1].end == EIGHTEEN
    assert series.factor_type == "direct"


def test_watttime_marginal_is_a_forecast_from_now_on(token: str) -> None:
    answers = {"/login": ANSWERS["watttime-login"], "/v3/forecast": ANSWERS["watttime-forecast"]}
    with FeedServer(answers) as server:
        series = read(server, "watttime", "CAISO_NORTH", "marginal", token)
    assert server.asked[1].query == {"region": "CAISO_NORTH", "signal_type": "co2_moer", "horizon_hours": "2"}
    assert [(slot.start - EIGHTEEN, slot.end - slot.start) for slot in series.slots] == [
        (0, 300),
        (300, 300),
        (600, 300),
    ]
    assert series.slots[0].value == pytest.approx(394.6, abs=0.1)


def test_watttime_logs_in_once_in_half_an_hour_and_again_when_rejected(token: str) -> None:
    answers = {"/login": ANSWERS["watttime-login"], "/v3/historical": ANSWERS["watttime-historical"]}
    with FeedServer(answers) as server:
        feed = make(FeedOptions("watttime", "intensity", "CAISO_NORTH", server.url, token))
        feed.read(NOW)
        feed.read(NOW + 300)
        assert [asked.path for asked in server.asked].count("/login") == 1
        feed.read(NOW + 1801)
        assert [asked.path for asked in server.asked].count("/login") == 2
        server.status = 401
        with pytest.raises(HttpStatusError) as error:
            feed.read(NOW + 1900)
        assert "USER:PASSWORD" in error.value.fix
        server.status = 200
        feed.read(NOW + 1930)
    assert [asked.path for asked in server.asked].count("/login") == 3


def test_great_britain_has_actual_values_where_they_are_known() -> None:
    with FeedServer({"/intensity/2026-11-28T17:42Z/fw24h": ANSWERS["uk-national"]}) as server:
        series = read(server, "uk-carbon-intensity", "GB")
    half = 1800.0
    assert series.slots == (
        Slot(EIGHTEEN - half, EIGHTEEN, 263.0),
        Slot(EIGHTEEN, EIGHTEEN + half, 266.0, estimated=True),
        Slot(EIGHTEEN + 2 * half, EIGHTEEN + 3 * half, 0.0, estimated=True),
    )
    assert (series.zone, series.factor_type) == ("GB", "direct")


@pytest.mark.parametrize(("zone", "path"), [("13", "regionid/13"), ("RG10", "postcode/RG10")])
def test_a_region_of_great_britain_has_a_forecast(zone: str, path: str) -> None:
    with FeedServer({f"/regional/intensity/2026-11-28T17:42Z/fw24h/{path}": ANSWERS["uk-regional"]}) as server:
        series = read(server, "uk-carbon-intensity", zone)
    assert series.slots == (Slot(EIGHTEEN, EIGHTEEN + 1800, 151.0, estimated=True),)
    assert series.zone == f"GB/{zone}"


def test_denmark_by_five_minutes_of_its_own_area() -> None:
    with FeedServer({"/dataset/CO2Emis": ANSWERS["energi-co2"]}) as server:
        series = read(server, "energi-data-service", "DK1")
    assert server.asked[0].query["filter"] == '{"PriceArea":["DK1"]}'
    assert server.asked[0].query["sort"] == "Minutes5UTC DESC"
    assert series.slots == (
        Slot(EIGHTEEN - 600, EIGHTEEN - 300, 84.0),
        Slot(EIGHTEEN - 300, EIGHTEEN + 1500, 86.0),
    )


@pytest.mark.parametrize(("currency", "prices"), [("EUR", [0.0814, 0.0, -0.0125]), ("DKK", [0.6072, 0.0, -0.09325])])
def test_day_ahead_prices_for_a_kilowatt_hour(currency: str, prices: list[float]) -> None:
    with FeedServer({"/dataset/DayAheadPrices": ANSWERS["energi-price"]}) as server:
        series = read(server, "energi-data-service", "DK1", "price", currency=currency)
    assert [slot.value for slot in series.slots] == pytest.approx(prices)
    assert [slot.start - EIGHTEEN for slot in series.slots] == [0, 900, 1800]
    assert {slot.end - slot.start for slot in series.slots} == {900}


CASES = [
    ("electricity-maps", "DE", "intensity", EM_PATH, ANSWERS["electricity-maps"]),
    ("watttime", "CAISO_NORTH", "intensity", "/v3/historical", ANSWERS["watttime-historical"]),
    ("uk-carbon-intensity", "GB", "intensity", "/intensity/2026-11-28T17:42Z/fw24h", ANSWERS["uk-national"]),
    ("energi-data-service", "DK1", "intensity", "/dataset/CO2Emis", ANSWERS["energi-co2"]),
    ("energi-data-service", "DK1", "price", "/dataset/DayAheadPrices", ANSWERS["energi-price"]),
]
PAGE = "<html><body>Under maintenance</body></html>"


@pytest.mark.parametrize(("name", "zone", "quantity", "path", "good"), CASES)
@pytest.mark.parametrize(
    "body", [PAGE, "", "null", "[]", "3", "{}", '{"data": 3}', '{"records": [null]}', '{"data": [{}]}']
)
def test_an_answer_that_is_none_is_not_plausible(
    token: str, name: str, zone: str, quantity: Quantity, path: str, good: object, body: str
) -> None:
    """A page of HTML with status 200 among them."""
    with FeedServer({path: body, "/login": ANSWERS["watttime-login"]}) as server, pytest.raises(Unavailable) as error:
        read(server, name, zone, quantity, token, "EUR")
    assert error.value.reason == "implausible"


@pytest.mark.parametrize(("name", "zone", "quantity", "path", "good"), CASES)
@pytest.mark.parametrize("value", [-1.0, 1e9, "302", None, True, float("nan"), float("inf"), [302]])
def test_a_value_that_is_none_is_left_out(
    token: str, name: str, zone: str, quantity: Quantity, path: str, good: object, value: object
) -> None:
    """Negative intensities too; only prices may be negative."""
    keys = ("carbonIntensity", "value", "forecast", "actual", "CO2Emission", "DayAheadPriceEUR")

    def spoiled(content: Any) -> Any:
        if isinstance(content, dict):
            return {key: value if key in keys else spoiled(inner) for key, inner in content.items()}
        return [spoiled(inner) for inner in content] if isinstance(content, list) else content

    answers = {path: spoiled(good), "/login": ANSWERS["watttime-login"]}
    with FeedServer(answers) as server:
        if quantity == "price" and value == -1.0:
            assert {slot.value for slot in read(server, name, zone, quantity, token, "EUR").slots} == {-0.001}
            return
        with pytest.raises(Unavailable) as error:
            read(server, name, zone, quantity, token, "EUR")
    assert error.value.reason == "implausible"


@pytest.mark.parametrize(("value", "kept"), [(0, 0.0), (1280, 1280.0)])
def test_zero_and_a_thousand_are_plausible(token: str, value: float, kept: float) -> None:
    with FeedServer({EM_PATH: {**ANSWERS["electricity-maps"], "carbonIntensity": value}}) as server:
        assert read(server, "electricity-maps", "DE", token=token).slots[0].value == kept


@pytest.mark.parametrize(
    "answer",
    [
        {**ANSWERS["electricity-maps"], "emissionFactorType": "direct"},
        {**ANSWERS["electricity-maps"], "datetime": "yesterday"},
    ],
)
def test_electricity_maps_of_another_kind_is_rejected(token: str, answer: object) -> None:
    with FeedServer({EM_PATH: answer}) as server, pytest.raises(Unavailable):
        read(server, "electricity-maps", "DE", token=token)


def test_a_marginal_rate_in_another_unit_is_rejected(token: str) -> None:
    answer = {**ANSWERS["watttime-forecast"], "meta": {"units": "kg_co2_per_mwh"}}
    answers = {"/login": ANSWERS["watttime-login"], "/v3/forecast": answer}
    with FeedServer(answers) as server, pytest.raises(Unavailable, match="lbs_co2_per_mwh"):
        read(server, "watttime", "CAISO_NORTH", "marginal", token)


@pytest.mark.parametrize(("status", "reason"), [(401, "permission"), (403, "permission"), (404, "not_found")])
def test_a_rejected_token_says_what_to_do(token: str, status: int, reason: str) -> None:
    with FeedServer({EM_PATH: {"message": "no"}}) as server:
        server.status = status
        with pytest.raises(HttpStatusError) as error:
            read(server, "electricity-maps", "DE", token=token)
    assert error.value.reason == reason
    assert error.value.fix
    assert "s3cret" not in error.value.message


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff\xfe", b"a\x00b"])
def test_a_token_file_without_a_token(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with FeedServer({EM_PATH: ANSWERS["electricity-maps"]}) as server, pytest.raises(Unavailable, match="token"):
        read(server, "electricity-maps", "DE", token=str(file))
    assert server.asked == []


@pytest.mark.parametrize("kind", FEEDS.values(), ids=lambda kind: str(kind.name))
def test_a_service_is_asked_over_tls_and_its_example_is_a_zone(kind: Any) -> None:
    assert kind.url.startswith("https://")
    assert kind.zones.fullmatch(kind.zone_example.replace(",", " ").split()[0])
