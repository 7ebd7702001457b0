"""The catalogue keeps the contract that dashboards and rules are written against."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from exporter.exposition.metrics.catalogue import CATALOGUE
from exporter.exposition.metrics.collector import Instruments
from exporter.exposition.metrics.families import LEVELS, Family
from exporter.exposition.metrics.reference import reference
from exporter.records import REASONS, SourceHealth
from exporter.snapshot import ExporterState, Snapshot
from tests.support.repository import REPOSITORY

DEVICE = ("component", "device", "source")
GPU = ("gpu", "uuid", "gpu_instance")
CARD = ("gpu", "uuid")
PROCESS = ("pid", "comm", "namespace", "pod", "container", "component")
CONTAINER = ("namespace", "pod", "container", "runtime", "component")
MODEL = ("model_name", "namespace", "phase", "variant", "component")
REGION = ("region", "model_name", "namespace")
SERVED = ("model_name", "namespace", "variant")
CONTRACT = {
    "energy_node_joules_total": ("counter", ("component",)),
    "energy_node_power_watts": ("gauge", ("component",)),
    "energy_device_joules_total": ("counter", DEVICE),
    "energy_device_power_watts": ("gauge", DEVICE),
    "energy_device_idle_watts": ("gauge", DEVICE),
    "energy_device_idle_low_watts": ("gauge", DEVICE),
    "energy_device_idle_high_watts": ("gauge", DEVICE),
    "energy_device_idle_info": ("gauge", (*DEVICE, "method")),
    "energy_device_utilization_ratio": ("gauge", DEVICE),
    "energy_device_power_low_watts": ("gauge", DEVICE),
    "energy_device_power_high_watts": ("gauge", DEVICE),
    "energy_device_stuck": ("gauge", DEVICE),
    "energy_device_up": ("gauge", DEVICE),
    "energy_device_period_seconds": ("gauge", DEVICE),
    "energy_device_last_reading_timestamp_seconds": ("gauge", DEVICE),
    "energy_device_agreement_ratio": ("gauge", DEVICE),
    "energy_device_retired_joules_total": ("counter", ("component",)),
    "energy_gpu_power_watts": ("gauge", CARD),
    "energy_gpu_joules_total": ("counter", CARD),
    "energy_gpu_power_limit_watts": ("gauge", GPU),
    "energy_gpu_memory_used_bytes": ("gauge", GPU),
    "energy_gpu_memory_total_bytes": ("gauge", GPU),
    "energy_gpu_temperature_celsius": ("gauge", GPU),
    "energy_gpu_utilization_ratio": ("gauge", GPU),
    "energy_gpu_sm_active_ratio": ("gauge", GPU),
    "energy_gpu_tensor_active_ratio": ("gauge", GPU),
    "energy_gpu_dram_active_ratio": ("gauge", GPU),
    "energy_gpu_power_utilization_ratio": ("gauge", GPU),
    "energy_gpu_clock_hertz": ("gauge", (*GPU, "domain")),
    "energy_gpu_throttle_seconds_total": ("counter", (*GPU, "reason")),
    "energy_gpu_ecc_errors_total": ("counter", (*GPU, "error")),
    "energy_gpu_memory_repair": ("gauge", (*GPU, "state")),
    "energy_gpu_xid_errors_total": ("counter", GPU),
    "energy_gpu_last_xid": ("gauge", GPU),
    "energy_gpu_allocated_ratio": ("gauge", (*GPU, "namespace", "pod", "container")),
    "energy_gpu_info": ("gauge", (*GPU, "gpu_model", "driver_version", "pci_bus_id")),
    "energy_model_activity_joules_total": ("counter", (*MODEL[:-1], "activity")),
    "energy_container_gpu_unused_joules_total": ("counter", ("namespace", "pod", "container")),
    "energy_process_joules_total": ("counter", (*PROCESS, "mode")),
    "energy_process_power_watts": ("gauge", PROCESS),
    "energy_process_utilization_ratio": ("gauge", PROCESS),
    "energy_container_joules_total": ("counter", (*CONTAINER, "mode")),
    "energy_container_power_watts": ("gauge", CONTAINER),
    "energy_container_utilization_ratio": ("gauge", CONTAINER),
    "energy_model_joules_total": ("counter", (*MODEL, "mode")),
    "energy_model_power_watts": ("gauge", MODEL),
    "energy_model_utilization_ratio": ("gauge", MODEL),
    "energy_container_gpu_joules_total": ("counter", ("namespace", "pod", "container", *CARD, "mode")),
    "energy_container_info": (
        "gauge",
        (
            *CONTAINER[:4],
            "container_id",
            "pod_uid",
            "image",
            "owner_kind",
            "owner_name",
            "model_name",
            "model_source",
            "variant",
        ),
    ),
    "energy_container_joules_per_cpu_second": ("gauge", CONTAINER[:4]),
    "energy_node_carbon_grams_total": ("counter", ()),
    "energy_container_carbon_grams_total": ("counter", (*CONTAINER[:4], "mode")),
    "energy_model_carbon_grams_total": ("counter", (*MODEL[:4], "mode")),
    "energy_unattributed_carbon_grams_total": ("counter", ("reason",)),
    "energy_retired_carbon_grams_total": ("counter", ()),
    "energy_unnamed_carbon_grams": ("gauge", ()),
    "energy_node_cost_total": ("counter", ("currency",)),
    "energy_container_cost_total": ("counter", (*CONTAINER[:4], "mode", "currency")),
    "energy_model_cost_total": ("counter", (*MODEL[:4], "mode", "currency")),
    "energy_unattributed_cost_total": ("counter", ("reason", "currency")),
    "energy_retired_cost_total": ("counter", ("currency",)),
    "energy_unnamed_cost": ("gauge", ("currency",)),
    "energy_node_credit_total": ("counter", ("currency",)),
    "energy_container_credit_total": ("counter", (*CONTAINER[:4], "mode", "currency")),
    "energy_model_credit_total": ("counter", (*MODEL[:4], "mode", "currency")),
    "energy_unattributed_credit_total": ("counter", ("reason", "currency")),
    "energy_retired_credit_total": ("counter", ("currency",)),
    "energy_unnamed_credit": ("gauge", ("currency",)),
    "energy_node_embodied_carbon_low_grams_total": ("counter", ()),
    "energy_container_embodied_carbon_low_grams_total": ("counter", CONTAINER[:4]),
    "energy_embodied_carbon_low_grams_per_gpu_hour": ("gauge", ("source",)),
    "energy_node_embodied_carbon_high_grams_total": ("counter", ()),
    "energy_container_embodied_carbon_high_grams_total": ("counter", CONTAINER[:4]),
    "energy_embodied_carbon_high_grams_per_gpu_hour": ("gauge", ("source",)),
    "energy_carbon_intensity_grams_per_kilowatt_hour": ("gauge", ()),
    "energy_marginal_carbon_intensity_grams_per_kilowatt_hour": ("gauge", ()),
    "energy_electricity_price_per_kilowatt_hour": ("gauge", ("currency",)),
    "energy_pue_ratio": ("gauge", ()),
    "energy_impact_info": (
        "gauge",
        ("zone", "provider", "source", "basis", "factor_type", "year", "estimated", "currency"),
    ),
    "energy_impact_factor_timestamp_seconds": ("gauge", ("factor",)),
    "energy_model_tokens_total": ("counter", (*SERVED, "kind")),
    "energy_model_requests_total": ("counter", SERVED),
    "energy_container_tokens_total": ("counter", (*CONTAINER[:3], "model_name", "kind", "variant")),
    "energy_model_token_step": ("gauge", SERVED),
    "energy_token_source_up": ("gauge", (*CONTAINER[:3], "model_name", "server", "variant")),
    "energy_token_source_info": (
        "gauge",
        (*CONTAINER[:3], "model_name", "server", "served_model", "method", "variant"),
    ),
    "energy_region_joules_total": ("counter", (*REGION, "component")),
    "energy_region_seconds_total": ("counter", REGION),
    "energy_region_gpu_seconds_total": ("counter", REGION),
    "energy_region_runs_total": ("counter", REGION),
    "energy_region_units_total": ("counter", (*REGION, "unit")),
    "energy_region_watts": ("gauge", (*REGION, "component")),
    "energy_region_low_watts": ("gauge", (*REGION, "component")),
    "energy_region_high_watts": ("gauge", (*REGION, "component")),
    "energy_region_info": ("gauge", (*REGION, "component", "method")),
    "energy_region_programs": ("gauge", ()),
    "energy_region_runs_lost_total": ("counter", ()),
    "energy_region_messages_rejected_total": ("counter", ("reason",)),
    "energy_unattributed_joules_total": ("counter", ("component", "reason")),
    "energy_retired_joules_total": ("counter", ("component",)),
    "energy_unnamed_joules": ("gauge", ("component",)),
    "energy_conservation_error_ratio": ("gauge", ()),
    "energy_power_source_info": ("gauge", (*DEVICE, "quality", "method")),
    "energy_source_up": ("gauge", ("source",)),
    "energy_source_failures_total": ("counter", ("source", "reason")),
    "energy_source_last_success_timestamp_seconds": ("gauge", ("source",)),
    "energy_source_read_seconds_total": ("counter", ("source",)),
    "energy_meter_wraps_total": ("counter", ("device",)),
    "energy_meter_resets_total": ("counter", ("device",)),
    "energy_samples_total": ("counter", ()),
    "energy_sample_seconds_total": ("counter", ()),
    "energy_sample_overruns_total": ("counter", ()),
    "energy_sample_interval_seconds": ("gauge", ()),
    "energy_sample_timestamp_seconds": ("gauge", ()),
    "energy_series_dropped_total": ("counter", ("level",)),
    "energy_exporter_build_info": ("gauge", ("version", "python_version", "demo")),
}
INSTRUMENTS = {
    "energy_config_last_reload_successful": ("gauge", ()),
    "energy_history_last_write_timestamp_seconds": ("gauge", ()),
    "energy_http_requests_total": ("counter", ("code",)),
    "energy_sample_duration_seconds": ("histogram", ()),
    "energy_scrape_duration_seconds": ("histogram", ()),
    "energy_state_last_write_timestamp_seconds": ("gauge", ()),
}


def test_names_kinds_and_labels_are_the_contract() -> None:
    assert {family.name: (family.kind, family.labels) for family in CATALOGUE} == CONTRACT
    assert {row.name: (row.kind, row.labels) for row in Instruments().rows()} == INSTRUMENTS


@pytest.mark.parametrize("family", CATALOGUE, ids=lambda family: family.name)
def test_a_family_is_well_formed(family: Family, busy_node: Callable[..., Snapshot]) -> None:
    assert family.help.endswith(".")
    assert family.name.endswith("_total") == (family.kind == "counter")
    samples = list(family.samples(busy_node()))
    assert samples, "the busy node shows every family"
    assert all(len(values) == len(family.labels) for values, _ in samples)
    if re.search(r"_(joules|watts|seconds|bytes|celsius|hertz|ratio)(_total)?$", family.name):
        assert family.unit in family.name.split("_")


def test_every_level_has_its_three_families() -> None:
    for level in LEVELS:
        assert {f"energy_{level.name}_{kind}" for kind in ("joules_total", "power_watts", "utilization_ratio")} <= set(
            CONTRACT
        )


def test_unknown_is_absent(busy_node: Callable[..., Snapshot]) -> None:
    samples = {family.name: dict(family.samples(busy_node())) for family in CATALOGUE}
    assert samples["energy_source_last_success_timestamp_seconds"][("hwmon",)] is None
    assert samples["energy_device_power_low_watts"][("cpu", "package-0", "rapl")] is None
    assert samples["energy_device_idle_watts"][("cpu", "core-0", "rapl")] is None


def test_every_failure_reason_starts_at_zero() -> None:
    source = SourceHealth("rapl", True, None, "", "", {"timeout": 3}, 1.0, 0.1)
    snapshot = Snapshot(1, 1.0, 1.0, 1.0, exporter=ExporterState(sources=(source,)))
    (failures,) = [family for family in CATALOGUE if family.name == "energy_source_failures_total"]
    assert dict(failures.samples(snapshot)) == {("rapl", reason): 3 if reason == "timeout" else 0 for reason in REASONS}


def test_the_reference_is_generated_from_the_catalogue() -> None:
    path = REPOSITORY / "docs" / "metrics.md"
    assert path.read_text() == reference(), "run: python -m exporter.exposition.metrics.reference > docs/metrics.md"
