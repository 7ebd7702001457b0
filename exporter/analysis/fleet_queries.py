"""PromQL of the facts of a fleet. Aggregated by the server to one value for each step, of an hour as a rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

MODEL = ("cluster", "namespace", "model_name", "phase")
CONTAINER = ("cluster", "namespace", "pod", "container")
CARD = ("cluster", "instance", "uuid")

RUNNING = (
    "vllm:num_requests_running",
    "vllm_num_requests_running",
    "sglang:num_running_reqs",
    "sglang_num_running_reqs",
    "tgi_batch_current_size",
    "llamacpp:requests_processing",
    "ray_vllm:num_requests_running",
    "ray_vllm_num_requests_running",
)
WAITING = (
    "vllm:num_requests_waiting",
    "vllm_num_requests_waiting",
    "sglang:num_queue_reqs",
    "sglang_num_queue_reqs",
    "tgi_queue_size",
    "llamacpp:requests_deferred",
    "ray_vllm:num_requests_waiting",
    "ray_vllm_num_requests_waiting",
)
KV_USE = (
    "vllm:kv_cache_usage_perc",
    "vllm_kv_cache_usage_perc",
    "vllm:gpu_cache_usage_perc",
    "vllm_gpu_cache_usage_perc",
    "sglang:token_usage",
    "sglang_token_usage",
    "ray_vllm:kv_cache_usage_perc",
    "ray_vllm:gpu_cache_usage_perc",
)
"""Gauges of model servers, as they are scraped; the first one that a server has counts."""

_GPU, _IDLE, _ACTIVE = 'component="gpu"', 'mode="idle"', 'mode="active"'
_NAMED, _IMAGE, _ZONED = 'model_name!=""', 'image!=""', 'zone!=""'
_POWER_CAP = 'reason="sw_power_cap"'

QUIET_SHARE = 0.02
"""Active joules below this share of the GPU's joules are none."""


class Queries(NamedTuple):
    """Queries for steps of ``step`` seconds, 300 at least, and series with ``matchers``.

    ``recorded`` takes watts of models from the shipped recording rule, which has a sample each minute, whatever the
    scrape interval and the number of nodes.
    """

    step: float
    matchers: str = ""
    recorded: bool = False

    def _of(self, metric: str, *where: str) -> str:
        return f"{metric}{{{','.join(filter(None, (self.matchers, *where)))}}}"

    def _grown(self, metric: str, by: Sequence[str], *where: str, seconds: float = 0.0) -> str:
        return f"sum by ({', '.join(by)}) (increase({self._of(metric, *where)}[{seconds or self.step:.0f}s]))"

    def _mean(self, inner: str) -> str:
        """Mean over the step of an expression that is evaluated every five minutes, or ten times a step."""
        return f"avg_over_time(({inner})[{self.step - 1:.0f}s:{min(300.0, self.step / 5):.0f}s])"

    def joules(self) -> str:
        """Joules of models by component and mode."""
        by = (*MODEL, "component", "mode")
        if self.recorded:
            rule = self._of("model:energy_model_joules:rate5m")
            return f"sum by ({', '.join(by)}) (sum_over_time({rule}[{self.step - 1:.0f}s])) * 60"
        return self._grown("energy_model_joules_total", by)

    def activities(self) -> str:
        """GPU joules of models by activity."""
        return self._grown("energy_model_activity_joules_total", (*MODEL, "activity"))

    def quiet(self, seconds: bool = False) -> str:
        """GPU joules, or seconds, of models in gaps of more than ten minutes, their first ten minutes left out."""
        by = ", ".join(MODEL)
        if self.recorded:
            rule = "model:energy_model_joules:rate5m"

            def active(offset: str) -> str:
                one = self._of(rule, _GPU, _ACTIVE)
                both = self._of(rule, _GPU)
                return f"sum by ({by}) ({one}{offset}) > {QUIET_SHARE} * sum by ({by}) ({both}{offset})"

            inner = f"sum by ({by}) ({self._of(rule, _GPU, _IDLE)}) * 300"
            gap = f"{inner} unless on ({by}) ({active('')}) unless on ({by}) ({active(' offset 5m')})"
        else:
            gap = self._gap("energy_model_joules_total", MODEL)
        return self._gaps(gap, seconds)

    def quiet_containers(self, seconds: bool = False) -> str:
        """The same of containers that no model is known of."""
        by = ", ".join(CONTAINER)
        named = f"group by ({by}) ({self._of('energy_container_info', _NAMED)})"
        return self._gaps(f"{self._gap('energy_container_joules_total', CONTAINER)} unless on ({by}) {named}", seconds)

    def held_containers(self) -> str:
        """GPU joules of those containers by mode."""
        by = ", ".join(CONTAINER)
        named = f"group by ({by}) ({self._of('energy_container_info', _NAMED)})"
        return f"{self._grown('energy_container_joules_total', (*CONTAINER, 'mode'), _GPU)} unless on ({by}) {named}"

    def _gap(self, metric: str, labels: Sequence[str]) -> str:
        idle = self._grown(metric, labels, _GPU, _IDLE, seconds=300)
        active = self._grown(metric, labels, _GPU, _ACTIVE, seconds=600)
        both = self._grown(metric, labels, _GPU, seconds=600)
        return f"({idle} > 0) unless on ({', '.join(labels)}) ({active} > {QUIET_SHARE} * {both})"

    def _gaps(self, gap: str, seconds: bool) -> str:
        function = "count_over_time" if seconds else "sum_over_time"
        return f"{function}(({gap})[{self.step - 1:.0f}s:300s]){' * 300' if seconds else ''}"

    def tokens(self) -> str:
        """Tokens of models by kind, as exporters count them."""
        return self._grown("energy_model_tokens_total", ("cluster", "namespace", "model_name", "kind"))

    def scraped_tokens(self, kind: str) -> str:
        """Tokens of models whose servers Prometheus scrapes."""
        rule = self._of(f"model:{kind}_tokens:rate5m")
        by = "cluster, namespace, model_name"
        return f"avg_over_time((sum by ({by}) ({rule}))[{self.step - 1:.0f}s:60s]) * {self.step:.0f}"

    def server(self, gauges: Sequence[str], reduce: str) -> str:
        """Mean of gauges of model servers by the name under which they serve a model."""
        by = "cluster, namespace, pod, instance, model_name"
        each = " or ".join(f"max by ({by}) ({self._of(gauge)})" for gauge in gauges)
        return self._mean(f"{reduce} by (cluster, namespace, model_name) ({each})")

    def served(self) -> tuple[str, str]:
        """The exporter's name of a model by the one under which its server serves it: by exporters, and by rules."""
        by = "cluster, namespace, served_model, model_name"
        source = self._of("energy_token_source_info", 'served_model!=""')
        return f"group by ({by}) ({source})", f"group by ({by}) ({self._of('server:energy_model:info')})"

    def replicas(self) -> str:
        """Containers that count output tokens of a model."""
        source = self._of("energy_container_tokens_total", 'kind="output"')
        return self._mean(
            "count by (cluster, namespace, model_name) "
            f"(group by (cluster, instance, namespace, pod, container, model_name) ({source}))"
        )

    def images(self) -> str:
        """Images of the containers of models."""
        return f"group by (cluster, namespace, model_name, image) ({self._of('energy_container_info', _NAMED, _IMAGE)})"

    def card(self, metric: str, *where: str) -> str:
        """Mean of a gauge of whole cards, read every ten minutes."""
        by = ", ".join(CARD)
        each = self._of(metric, 'gpu_instance=""', *where)
        return f"max by ({by}) (avg_over_time({each}[{self.step - 1:.0f}s:{min(600.0, self.step / 5):.0f}s]))"

    def power(self) -> str:
        """Mean watts of cards."""
        return f"{self._grown('energy_gpu_joules_total', CARD)} / {self.step:.0f}"

    def clock(self) -> str:
        """Highest SM clock of cards in a step: it is at the lock, or at the card's maximum, while the card works."""
        each = self._of("energy_gpu_clock_hertz", 'gpu_instance=""', 'domain="sm"')
        return (
            f"max by ({', '.join(CARD)}) (max_over_time({each}[{self.step - 1:.0f}s:{min(300.0, self.step / 5):.0f}s]))"
        )

    def memory(self) -> str:
        """Largest used share of the memory of cards in a step."""
        by = ", ".join(CARD)
        used, whole = (self._of(f"energy_gpu_memory_{each}_bytes", 'gpu_instance=""') for each in ("used", "total"))
        return (
            f"max by ({by}) (max_over_time({used}[{self.step - 1:.0f}s:{min(600.0, self.step / 5):.0f}s])) "
            f"/ on ({by}) (max by ({by}) ({whole}) > 0)"
        )

    def throttled(self) -> str:
        """Share of the time for which cards were at their power limit."""
        return f"{self._grown('energy_gpu_throttle_seconds_total', CARD, _POWER_CAP)} / {self.step:.0f}"

    def card_models(self) -> str:
        """Which product a card is."""
        each = self._of("energy_gpu_info", 'gpu_instance=""')
        return f"group by ({', '.join((*CARD, 'gpu_model'))}) (last_over_time({each}[{self.step:.0f}s]))"

    def links(self) -> str:
        """Joules of containers by card and mode."""
        by = ("cluster", "instance", "uuid", "namespace", "pod", "container", "mode")
        return self._grown("energy_container_gpu_joules_total", by, 'uuid!=""')

    def container_models(self) -> str:
        """The one model of each container, and its owner."""
        by = ", ".join((*CONTAINER, "model_name", "owner_name"))
        return f"group by ({by}) (last_over_time({self._of('energy_container_info')}[{self.step:.0f}s]))"

    def bare(self) -> str:
        """Joules of cards in steps in which no container used or held them."""
        by = ", ".join(CARD)
        held = self._grown("energy_container_gpu_joules_total", CARD)
        return f"({self._grown('energy_gpu_joules_total', CARD)} > 0) unless on ({by}) ({held} > 0)"

    def free(self) -> str:
        """Joules of the GPUs of nodes that no workload held."""
        return self._grown("energy_unattributed_joules_total", ("cluster", "instance"), _GPU, 'reason="idle"')

    def grams(self) -> str:
        """CO2e of models."""
        return self._grown("energy_model_carbon_grams_total", MODEL)

    def money(self, counter: str) -> str:
        """Cost or credit of models by currency."""
        return self._grown(f"energy_model_{counter}_total", (*MODEL, "currency"))

    def of_nodes(self, counter: str) -> str:
        """Joules, grams or money of nodes."""
        return self._grown(f"energy_node_{counter}_total", ("cluster", "instance", "currency"))

    def intensity(self) -> str:
        """Grams of CO2e per kWh by zone, PUE included."""
        at = "on (cluster, instance)"
        each = self._of("energy_carbon_intensity_grams_per_kilowatt_hour")
        times = f"({each} * {at} {self._of('energy_pue_ratio')} or {each})"
        return self._mean(
            f"avg by (cluster, zone) ({times} * {at} group_left (zone) {self._of('energy_impact_info', _ZONED)})"
        )

    def zones(self) -> str:
        """The zone of each node."""
        each = self._of("energy_impact_info", _ZONED)
        return f"group by (cluster, instance, zone) (last_over_time({each}[{self.step:.0f}s]))"
