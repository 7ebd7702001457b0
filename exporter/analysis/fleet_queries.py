"""PromQL of the facts of a fleet. Aggregated by the server to one value for each step, of an hour as a rule."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import NamedTuple

MODEL = ("cluster", "namespace", "model_name", "phase")
CONTAINER = ("cluster", "namespace", "pod", "container")
CARD = ("cluster", "instance", "uuid")
NODE = ("cluster", "instance")

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
_POWER_CAP, _WHOLE = 'reason="sw_power_cap"', 'gpu_instance=""'

GAP_STEP_SECONDS = 300.0
QUIET_SHARE = 0.02
"""Active joules below this share of the GPU's joules are none."""


class Queries(NamedTuple):
    """Queries for steps of ``step`` seconds, 300 at least, and series with ``matchers``.

    ``recorded`` takes watts of models from the shipped recording rule, which has a sample each minute, whatever the
    scrape interval and the number of nodes; ``recorded_activities`` those by activity, every five minutes.
    """

    step: float
    matchers: str = ""
    recorded: bool = False
    recorded_activities: bool = False

    def _of(self, metric: str, *where: str) -> str:
        return f"{metric}{{{','.join(filter(None, (self.matchers, *where)))}}}"

    def _grown(self, metric: str, by: Sequence[str], *where: str, seconds: float = 0.0) -> str:
        return f"sum by ({', '.join(by)}) (increase({self._of(metric, *where)}[{seconds or self.step:.0f}s]))"

    def models(self) -> str:
        """One series for each model and phase of the last step."""
        return (
            f"group by ({', '.join(MODEL)}) (last_over_time({self._of('energy_model_joules_total')}[{self.step:.0f}s]))"
        )

    def seen(self) -> str:
        """Whether any node has a sample at the end of a step."""
        return f"group({self._of('energy_node_joules_total')})"

    def joules(self) -> str:
        """Joules of models by component and mode."""
        by = (*MODEL, "component", "mode")
        if self.recorded:
            rule = self._of("model:energy_model_joules:rate5m")
            return f"sum by ({', '.join(by)}) (sum_over_time({rule}[{self.step - 1:.0f}s])) * 60"
        return self._grown("energy_model_joules_total", by)

    def activities(self) -> str:
        """GPU joules of models by activity."""
        by = (*MODEL, "activity")
        if self.recorded_activities:
            rule = self._of("model:energy_model_activity_joules:rate5m")
            return f"sum by ({', '.join(by)}) (sum_over_time({rule}[{self.step - 1:.0f}s])) * 300"
        return self._grown("energy_model_activity_joules_total", by)

    def quiet(self, names: Sequence[str] = ()) -> str:
        """GPU joules of the last five minutes of models that did nothing in the last ten; only ``names`` if given."""
        some = (f"model_name=~{json.dumps('|'.join(map(re.escape, names)), ensure_ascii=False)}",) if names else ()
        if not self.recorded:
            return self._gap("energy_model_joules_total", MODEL, *some)
        by, rule = ", ".join(MODEL), "model:energy_model_joules:rate5m"
        idle, active, both = (self._of(rule, _GPU, *some, *mode) for mode in ((_IDLE,), (_ACTIVE,), ()))

        def worked(offset: str) -> str:
            return f"sum by ({by}) ({active}{offset}) > {QUIET_SHARE} * sum by ({by}) ({both}{offset})"

        return (
            f"(sum by ({by}) ({idle}) * 300 > 0) unless on ({by}) ({worked('')}) "
            f"unless on ({by}) ({worked(' offset 5m')})"
        )

    def quiet_containers(self) -> str:
        """The same of containers that no model is known of."""
        gap = self._gap("energy_container_joules_total", CONTAINER)
        return f"{gap} unless on ({', '.join(CONTAINER)}) {self._named()}"

    def held_containers(self) -> str:
        """GPU joules of those containers by mode."""
        joules = self._grown("energy_container_joules_total", (*CONTAINER, "mode"), _GPU)
        return f"{joules} unless on ({', '.join(CONTAINER)}) {self._named()}"

    def _named(self) -> str:
        return f"group by ({', '.join(CONTAINER)}) ({self._of('energy_container_info', _NAMED)})"

    def _gap(self, metric: str, labels: Sequence[str], *some: str) -> str:
        idle = self._grown(metric, labels, *some, _GPU, _IDLE, seconds=GAP_STEP_SECONDS)
        active = self._grown(metric, labels, *some, _GPU, _ACTIVE, seconds=2 * GAP_STEP_SECONDS)
        both = self._grown(metric, labels, *some, _GPU, seconds=2 * GAP_STEP_SECONDS)
        return f"({idle} > 0) unless on ({', '.join(labels)}) ({active} > {QUIET_SHARE} * {both})"

    def tokens(self) -> str:
        """Tokens of models by kind, as exporters count them."""
        return self._grown("energy_model_tokens_total", ("cluster", "namespace", "model_name", "kind"))

    def scraped_tokens(self, kind: str) -> str:
        """Tokens of models whose servers Prometheus scrapes."""
        rule = self._of(f"model:{kind}_tokens:rate5m")
        return (
            f"sum by (cluster, namespace, model_name) (avg_over_time({rule}[{self.step - 1:.0f}s])) * {self.step:.0f}"
        )

    def server(self, gauges: Sequence[str], reduce: str) -> str:
        """Mean of gauges of model servers by the name under which they serve a model."""
        by = "cluster, namespace, pod, instance, model_name"
        each = " or ".join(f"max by ({by}) (avg_over_time({self._of(gauge)}[{self.step:.0f}s]))" for gauge in gauges)
        return f"{reduce} by (cluster, namespace, model_name) ({each})"

    def served(self) -> tuple[str, str]:
        """The exporter's name of a model by the one under which its server serves it: by exporters, and by rules."""
        by = "cluster, namespace, served_model, model_name"
        source = self._of("energy_token_source_info", 'served_model!=""')
        return f"group by ({by}) ({source})", f"group by ({by}) ({self._of('server:energy_model:info')})"

    def replicas(self) -> str:
        """Containers that count output tokens of a model."""
        source = self._of("energy_container_tokens_total", 'kind="output"')
        by = "cluster, instance, namespace, pod, container, model_name"
        return f"count by (cluster, namespace, model_name) (group by ({by}) ({source}))"

    def images(self) -> str:
        """Images of the containers of models."""
        return f"group by (cluster, namespace, model_name, image) ({self._of('energy_container_info', _NAMED, _IMAGE)})"

    def card(self, metric: str) -> str:
        """A gauge of whole cards, at the end of a step."""
        return f"max by ({', '.join(CARD)}) ({self._of(metric, _WHOLE)})"

    def power(self) -> str:
        """Mean watts of cards."""
        return f"{self._grown('energy_gpu_joules_total', CARD)} / {self.step:.0f}"

    def clock(self) -> str:
        """Highest SM clock of cards in a step: it is at the lock, or at the card's maximum, while the card works."""
        each = self._of("energy_gpu_clock_hertz", _WHOLE, 'domain="sm"')
        return f"max by ({', '.join(CARD)}) (max_over_time({each}[{self.step:.0f}s]))"

    def memory(self) -> str:
        """Used share of the memory of cards, at the end of a step."""
        used, whole = (self.card(f"energy_gpu_memory_{each}_bytes") for each in ("used", "total"))
        return f"{used} / on ({', '.join(CARD)}) ({whole} > 0)"

    def throttled(self) -> str:
        """Share of the time for which cards were at their power limit."""
        return f"{self._grown('energy_gpu_throttle_seconds_total', CARD, _POWER_CAP)} / {self.step:.0f}"

    def card_models(self) -> str:
        """Which product a card is."""
        each = self._of("energy_gpu_info", _WHOLE)
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
        return self._grown("energy_unattributed_joules_total", NODE, _GPU, 'reason="idle"')

    def grams(self) -> str:
        """CO2e of models."""
        return self._grown("energy_model_carbon_grams_total", MODEL)

    def money(self, counter: str) -> str:
        """Cost or credit of models by currency."""
        return self._grown(f"energy_model_{counter}_total", (*MODEL, "currency"))

    def of_nodes(self, counter: str) -> str:
        """Joules, grams or money of nodes."""
        by = NODE if counter in ("joules", "carbon_grams") else (*NODE, "currency")
        return self._grown(f"energy_node_{counter}_total", by)

    def intensity(self) -> str:
        """Grams of CO2e per kWh by zone, PUE included."""
        at = "on (cluster, instance)"
        each = f"avg_over_time({self._of('energy_carbon_intensity_grams_per_kilowatt_hour')}[{self.step:.0f}s])"
        times = f"({each} * {at} {self._of('energy_pue_ratio')} or {each})"
        return f"avg by (cluster, zone) ({times} * {at} group_left (zone) {self._of('energy_impact_info', _ZONED)})"

    def zones(self) -> str:
        """The zone of each node."""
        each = self._of("energy_impact_info", _ZONED)
        return f"group by (cluster, instance, zone) (last_over_time({each}[{self.step:.0f}s]))"
