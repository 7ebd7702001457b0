"""Programs that start another program (``numactl``, ``tini``, ``uv run``, ``torchrun``), and how to skip them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wrapper:
    """How to find the wrapped command after a wrapper's own arguments.

    ``verbs`` are the subcommands that start a program, none if it needs none. ``valued`` are the options whose value is
    the next word unless joined by ``=``, ``pairs`` those whose values are the next two. ``positional`` is the number of
    positional arguments before the program. ``module`` are the options after which a Python module follows. ``script``:
    the program may be a Python script without an interpreter. ``ranks``: it starts the ranks of a training.
    """

    valued: tuple[str, ...] = ()
    pairs: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()
    positional: int = 0
    module: tuple[str, ...] = ()
    script: bool = False
    ranks: bool = False

    def inner(self, words: Sequence[str]) -> list[str]:
        """The wrapped command in ``words``, of which the first is the wrapper itself; empty if there is none."""
        index, positional = 1, self.positional
        verb_missing, as_module = bool(self.verbs), False
        while index < len(words):
            word = words[index]
            if word == "--" and not verb_missing:
                index += 1
                break
            if word in self.module:
                as_module = True
                index += 1
            elif word.startswith("-") and len(word) > 1:
                index += 2 if word in self.valued else 3 if word in self.pairs else 1
            elif verb_missing:
                if word not in self.verbs:
                    return []
                verb_missing = False
                index += 1
            elif positional:
                positional -= 1
                index += 1
            else:
                break
        rest = list(words[index:])
        if as_module and rest:
            return ["python", "-m", *rest]
        if self.script and rest and rest[0].endswith(".py"):
            return ["python", *rest]
        return rest


def _ranks(
    valued: tuple[str, ...], *, verbs: tuple[str, ...] = (), module: tuple[str, ...] = ("-m", "--module")
) -> Wrapper:
    return Wrapper(valued, verbs=verbs, module=module, script=True, ranks=True)


_MPI_PAIRS = ("-env", "-genv", "--mca", "-mca")

_MPI = (
    "-n", "-np", "-c", "-N", "-H", "-host", "--host", "--hostfile", "-hostfile", "--machinefile", "-machinefile",
    "-f", "-x", "--npernode", "-npernode", "--ppn", "-ppn", "--map-by", "-map-by", "--bind-to", "-bind-to",
    "--rank-by", "-genvlist", "--prefix", "-wdir", "--wdir", "-p", "--output-filename",
)  # fmt: skip

_TORCH = (
    "--nnodes", "--nproc-per-node", "--nproc_per_node", "--node-rank", "--node_rank", "--rdzv-backend",
    "--rdzv_backend", "--rdzv-endpoint", "--rdzv_endpoint", "--rdzv-id", "--rdzv_id", "--rdzv-conf", "--rdzv_conf",
    "--max-restarts", "--max_restarts", "--monitor-interval", "--monitor_interval", "--start-method",
    "--start_method", "--role", "--log-dir", "--log_dir", "-r", "--redirects", "-t", "--tee",
    "--local-ranks-filter", "--local_ranks_filter", "--master-addr", "--master_addr", "--master-port",
    "--master_port", "--local-addr", "--local_addr", "--event-log-handler", "--numa-binding",
)  # fmt: skip

_ACCELERATE = (
    "--config_file", "--num_processes", "--num_machines", "--machine_rank", "--main_process_ip",
    "--main_process_port", "--mixed_precision", "--gpu_ids", "--dynamo_backend", "--dynamo_mode",
    "--num_cpu_threads_per_process", "--rdzv_backend", "--rdzv_conf", "--max_restarts", "--monitor_interval",
    "--role", "--log_dir", "--tee", "--deepspeed_config_file", "--zero_stage", "--deepspeed_hostfile",
    "--deepspeed_multinode_launcher", "--offload_optimizer_device", "--offload_param_device",
    "--gradient_accumulation_steps", "--gradient_clipping", "--zero3_init_flag", "--zero3_save_16bit_model",
    "--deepspeed_exclusion_filter", "--deepspeed_inclusion_filter", "--fsdp_version", "--fsdp_sharding_strategy",
    "--fsdp_offload_params", "--fsdp_min_num_params", "--fsdp_auto_wrap_policy",
    "--fsdp_transformer_layer_cls_to_wrap", "--fsdp_backward_prefetch", "--fsdp_state_dict_type",
    "--fsdp_use_orig_params", "--fsdp_cpu_ram_efficient_loading", "--fsdp_sync_module_states",
    "--fsdp_activation_checkpointing", "--fsdp_reshard_after_forward", "--megatron_lm_tp_degree",
    "--megatron_lm_pp_degree", "--main_training_function",
)  # fmt: skip

_DEEPSPEED = (
    "-H", "--hostfile", "-i", "--include", "-e", "--exclude", "--num_nodes", "--num_gpus", "--master_port",
    "--master_addr", "--launcher", "--launcher_args", "--min_elastic_nodes", "--max_elastic_nodes", "--node_rank",
    "--world_info", "--ds_config", "--venv_script",
)  # fmt: skip

_NSYS = (
    "-o", "--output", "-t", "--trace", "-s", "--sample", "-c", "--capture-range", "-y", "--delay", "-d",
    "--duration", "-f", "--force-overwrite", "-e", "--env-var", "-w", "--show-output", "-x", "--stop-on-exit", "-b",
    "--backtrace", "--stats", "--cuda-memory-usage", "--gpu-metrics-device", "--gpu-metrics-devices",
    "--capture-range-end", "--session-new", "--python-sampling", "--pytorch", "--kill", "-n",
)  # fmt: skip

_SUDO = (
    "-u", "--user", "-g", "--group", "-D", "--chdir", "-p", "--prompt", "-C", "--close-from", "-h", "--host", "-T",
    "-r", "-t",
)  # fmt: skip

_UV = (
    "--with", "--with-editable", "--with-requirements", "-p", "--python", "--extra", "--group", "--project",
    "--directory", "--env-file", "--package", "--index", "--index-url", "--extra-index-url", "--cache-dir",
    "--only-group", "--no-group",
)  # fmt: skip

_UVX = (
    "--from", "--with", "-p", "--python", "--index", "--index-url", "--extra-index-url",
)  # fmt: skip

_NCU = (
    "-o", "--export", "-k", "--kernel-name", "-c", "--launch-count", "-s", "--launch-skip", "--set", "--section",
    "--metrics",
)  # fmt: skip

_OPENTELEMETRY_INSTRUMENT = (
    "--traces_exporter", "--metrics_exporter", "--service_name", "--logs_exporter",
)  # fmt: skip

_HOROVODRUN = (
    "-np", "--num-proc", "-H", "--hosts", "-hostfile", "--hostfile", "-p", "--ssh-port",
)  # fmt: skip

_COMPOSER = (
    "-n", "--nproc", "--world_size", "--base_rank", "--node_rank", "--master_addr", "--master_port", "--stdout",
    "--stderr",
)  # fmt: skip

_COLOSSALAI = (
    "--nproc_per_node", "--nnodes", "--host", "--hostfile", "--master_addr", "--master_port", "--include",
)  # fmt: skip

WRAPPERS: Mapping[str, Wrapper] = {
    # init systems of containers
    "tini": Wrapper(("-p", "-e")),
    "tini-static": Wrapper(("-p", "-e")),
    "docker-init": Wrapper(("-p", "-e")),
    "dumb-init": Wrapper(("-r", "--rewrite")),
    "catatonit": Wrapper(("-g",)),
    # user, environment, place and priority
    "env": Wrapper(("-u", "--unset", "-C", "--chdir")),
    "sudo": Wrapper(_SUDO),
    "gosu": Wrapper(positional=1),
    "su-exec": Wrapper(positional=1),
    "runuser": Wrapper(("-u", "--user", "-g", "--group")),
    "setpriv": Wrapper(("--reuid", "--regid", "--groups")),
    "chroot": Wrapper(positional=1),
    "nice": Wrapper(("-n",)),
    "ionice": Wrapper(("-c", "-n")),
    "chrt": Wrapper(("-T", "-P", "-D"), positional=1),
    "taskset": Wrapper(positional=1),
    "numactl": Wrapper(("-N", "-m", "-C", "-i", "-p", "-P", "-w")),
    "nohup": Wrapper(),
    "setsid": Wrapper(),
    "exec": Wrapper(("-a",)),
    "command": Wrapper(),
    "time": Wrapper(("-o", "-f")),
    "timeout": Wrapper(("-k", "--kill-after", "-s", "--signal"), positional=1),
    "stdbuf": Wrapper(("-i", "-o", "-e")),
    "flock": Wrapper(("-w", "-E"), positional=1),
    "catchsegv": Wrapper(),
    "jemalloc.sh": Wrapper(),
    # virtual environments
    "uv": Wrapper(_UV, verbs=("run",)),
    "uvx": Wrapper(_UVX),
    "conda": Wrapper(("-n", "--name", "-p", "--prefix", "--cwd"), verbs=("run",)),
    "mamba": Wrapper(("-n", "--name", "-p", "--prefix", "--cwd"), verbs=("run",)),
    "micromamba": Wrapper(("-n", "--name", "-p", "--prefix", "--cwd", "-r"), verbs=("run",)),
    "pixi": Wrapper(("-e", "--environment", "--manifest-path"), verbs=("run",)),
    "poetry": Wrapper(("-C", "--directory", "-P", "--project"), verbs=("run",)),
    "pipenv": Wrapper(verbs=("run",)),
    "pdm": Wrapper(("-p", "--project"), verbs=("run",)),
    "hatch": Wrapper(("-e", "--env"), verbs=("run",)),
    # profilers and debuggers
    "nsys": Wrapper(_NSYS, verbs=("profile", "launch")),
    "ncu": Wrapper(_NCU),
    "rocprof": Wrapper(("-i", "-o", "-d", "-t")),
    "rocprofv3": Wrapper(("-o", "-d", "-i", "-f")),
    "perf": Wrapper(("-o", "-e", "-F", "-c", "--call-graph"), verbs=("record", "stat")),
    "strace": Wrapper(("-o", "-e", "-s", "-p", "-P", "-u", "-E", "-O", "-I")),
    "gdb": Wrapper(("-ex", "-x")),
    "py-spy": Wrapper(("-o", "--output", "-r", "--rate", "-d", "--duration", "-f", "--format"), verbs=("record",)),
    "memray": Wrapper(("-o", "--output"), verbs=("run",)),
    "opentelemetry-instrument": Wrapper(_OPENTELEMETRY_INSTRUMENT),
    "ddtrace-run": Wrapper(),
    # launchers of ranks
    "mpirun": Wrapper(_MPI, _MPI_PAIRS),
    "mpiexec": Wrapper(_MPI, _MPI_PAIRS),
    "orterun": Wrapper(_MPI, _MPI_PAIRS),
    "horovodrun": Wrapper(_HOROVODRUN),
    "trtllm-llmapi-launch": Wrapper(),
    "torchrun": _ranks(_TORCH),
    "-m torch.distributed.run": _ranks(_TORCH),
    "-m torch.distributed.launch": _ranks(_TORCH),
    "accelerate": _ranks(_ACCELERATE, verbs=("launch",)),
    "accelerate-launch": _ranks(_ACCELERATE),
    "-m accelerate.commands.launch": _ranks(_ACCELERATE),
    "deepspeed": _ranks(_DEEPSPEED, module=("--module",)),
    "-m deepspeed.launcher.runner": _ranks(_DEEPSPEED, module=("--module",)),
    "-m deepspeed.launcher.launch": _ranks(_DEEPSPEED, module=("--module",)),
    "composer": _ranks(_COMPOSER),
    "colossalai": _ranks(_COLOSSALAI, verbs=("run",)),
}
"""Maps a program, or ``-m MODULE``, to its wrapper. A wrapper itself is no evidence of a model."""
