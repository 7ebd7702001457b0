"""Chargeback in the columns of FOCUS 1.2 (FinOps Open Cost and Usage Specification): one row for a day and line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

from .lines import JOULES_PER_KWH, Amounts, Report
from .window import Window

COLUMNS = (
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "ServiceCategory",
    "ServiceName",
    "SubAccountId",
    "SubAccountName",
    "Tags",
    "x_CarbonGrams",
    "x_Joules",
)
"""All mandatory ones, those that are conditional and apply, and two of ours."""


@dataclass(frozen=True, slots=True)
class Account:
    """Whose bill it is: the account without a cluster's name, and the provider of the electricity."""

    identifier: str = "default"
    provider: str = "Internal"


def render(days: Sequence[Report], account: Account, zone: tzinfo) -> str:
    """Rows of one report for each day. Lines without a price have none."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for day in days:
        writer.writerows(_rows(day, account, zone))
    return out.getvalue()


def _rows(day: Report, account: Account, zone: tzinfo) -> Iterator[dict[str, str]]:
    for line in day.lines:
        tags = {
            label.removeprefix("label_"): value for label, value in zip(day.labels, line.names, strict=True) if value
        }
        yield from _charges(day.window, "Electricity used", tags, line.used, account, zone)
        if day.spread != "none":
            yield from _charges(
                day.window,
                f"Share of electricity that no workload used ({day.spread})",
                tags,
                line.share,
                account,
                zone,
            )
    if day.spread == "none":
        for name, amounts in day.shared:
            yield from _charges(day.window, f"Electricity that no workload used: {name}", {}, amounts, account, zone)


def _charges(
    window: Window, what: str, tags: dict[str, str], amounts: Amounts, account: Account, zone: tzinfo
) -> Iterator[dict[str, str]]:
    first = datetime.fromtimestamp(window.start, zone).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    following = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
    name = next((tags[key] for key in ("model_name", "owner_name", "instance", "namespace") if tags.get(key)), "")
    kwh = f"{amounts.total_joules / JOULES_PER_KWH:.9f}"
    for currency, cost in sorted(amounts.cost.items()):
        money = f"{cost:.9f}"
        yield {
            "BilledCost": money,
            "BillingAccountId": tags.get("cluster") or account.identifier,
            "BillingAccountName": tags.get("cluster") or account.identifier,
            "BillingCurrency": currency,
            "BillingPeriodStart": _time(first.timestamp()),
            "BillingPeriodEnd": _time(following.timestamp()),
            "ChargeCategory": "Usage",
            "ChargeClass": "",
            "ChargeDescription": what,
            "ChargeFrequency": "Usage-Based",
            "ChargePeriodStart": _time(window.start),
            "ChargePeriodEnd": _time(window.end),
            "ConsumedQuantity": kwh,
            "ConsumedUnit": "kWh",
            "ContractedCost": money,
            "EffectiveCost": money,
            "InvoiceIssuerName": account.provider,
            "ListCost": money,
            "PricingQuantity": kwh,
            "PricingUnit": "kWh",
            "ProviderName": account.provider,
            "PublisherName": account.provider,
            "ResourceId": "/".join(tags.values()),
            "ResourceName": name,
            "ResourceType": "AI model" if tags.get("model_name") else "Workload" if tags else "",
            "ServiceCategory": "AI and Machine Learning" if tags.get("model_name") else "Compute",
            "ServiceName": "Electricity",
            "SubAccountId": tags.get("namespace", ""),
            "SubAccountName": tags.get("namespace", ""),
            "Tags": json.dumps(tags, ensure_ascii=False),
            "x_CarbonGrams": "" if amounts.grams is None else f"{amounts.grams:.6f}",
            "x_Joules": f"{amounts.total_joules:.3f}",
        }


def _time(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
