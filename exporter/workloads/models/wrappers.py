"""Programs that only start another one (``numactl``, ``tini``, ``uv run``, ``torchrun``), and how to look past them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Wrapper(NamedTuple):
    """How a wrapper's own arguments end.

    ``verbs`` are the subcommands that start something, none if it needs none. ``valued`` maps options to how many
    words their value takes when it is not joined by ``=``. ``skip`` counts the positional arguments before the program.
    ``module`` are the options that say that a Python module follows. ``script``: the program is a Python script even
    without an interpreter before it; ``ranks``: it starts the ranks of a training.
    """

    verbs: frozenset[str] = frozenset()
    valued: Mapping[str, int] = {}
    skip: int = 0
    module: frozenset[str] = frozenset()
    script: bool = False
    ranks: bool = False

    def inner(self, words: Sequence[str]) -> list[str]:
        """The wrapped command of ``words`` (whose first is the wrapper itself), empty if there is none."""
        index, skip = 1, self.skip
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
                index += 1 + self.valued.get(word, 0)
            elif verb_missing:
                if word not in self.verbs:
                    return []
                verb_missing = False
                index += 1
            elif skip:
                skip -= 1
                index += 1
            else:
                break
        rest = list(words[index:])
        if as_module and rest:
            return ["python", "-m", *rest]
        if self.script and rest and rest[0].endswith(".py"):
            return ["python", *rest]
        return rest


def _wrapper(valued: str = "", *, verbs: str = "", skip: int = 0) -> Wrapper:
    return Wrapper(frozenset(verbs.split()), _counts(valued), skip)


def _ranks(valued: str, *, verbs: str = "", module: str = "-m --module", skip: int = 0) -> Wrapper:
    return Wrapper(frozenset(verbs.split()), _counts(valued), skip, frozenset(module.split()), script=True, ranks=True)


def _counts(valued: str) -> dict[str, int]:
    counts = {}
    for word in valued.split():
        option, _, count = word.partition(":")
        counts[option] = int(count or 1)
    return counts


_MPI = (
    "-n -np -c -N -H -host --host --hostfile -hostfile --machinefile -machinefile -f -x --npernode -npernode --ppn "
    "-ppn --map-by -map-by --bind-to -bind-to --rank-by --tag-output:0 -env:2 -genv:2 -genvlist --mca:2 -mca:2 "
    "--prefix -wdir --wdir -p --output-filename"
)
_TORCH = (
    "--nnodes --nproc-per-node --nproc_per_node --node-rank --node_rank --rdzv-backend --rdzv_backend --rdzv-endpoint "
    "--rdzv_endpoint --rdzv-id --rdzv_id --rdzv-conf --rdzv_conf --max-restarts --max_restarts --monitor-interval "
    "--monitor_interval --start-method --start_method --role --log-dir --log_dir -r --redirects -t --tee "
    "--local-ranks-filter --local_ranks_filter --master-addr --master_addr --master-port --master_port --local-addr "
    "--local_addr --event-log-handler --numa-binding"
)
_ACCELERATE = (
    "--config_file --num_processes --num_machines --machine_rank --main_process_ip --main_process_port "
    "--mixed_precision --gpu_ids --dynamo_backend --dynamo_mode --num_cpu_threads_per_process --rdzv_backend "
    "--rdzv_conf --max_restarts --monitor_interval --role --log_dir --tee --deepspeed_config_file --zero_stage "
    "--deepspeed_hostfile --deepspeed_multinode_launcher --offload_optimizer_device --offload_param_device "
    "--gradient_accumulation_steps --gradient_clipping --zero3_init_flag --zero3_save_16bit_model "
    "--deepspeed_exclusion_filter --deepspeed_inclusion_filter --fsdp_version --fsdp_sharding_strategy "
    "--fsdp_offload_params --fsdp_min_num_params "
    "--fsdp_auto_wrap_policy --fsdp_transformer_layer_cls_to_wrap --fsdp_backward_prefetch --fsdp_state_dict_type "
    "--fsdp_use_orig_params --fsdp_cpu_ram_efficient_loading --fsdp_sync_module_states --fsdp_activation_checkpointing "
    "--fsdp_reshard_after_forward --megatron_lm_tp_degree --megatron_lm_pp_degree --main_training_function"
)
_DEEPSPEED = (
    "-H --hostfile -i --include -e --exclude --num_nodes --num_gpus --master_port --master_addr --launcher "
    "--launcher_args --min_elastic_nodes --max_elastic_nodes --node_rank --world_info --ds_config --venv_script"
)
_NSYS = (
    "-o --output -t --trace -s --sample -c --capture-range -y --delay -d --duration -f --force-overwrite -e --env-var "
    "-w --show-output -x --stop-on-exit -b --backtrace --stats --cuda-memory-usage --gpu-metrics-device "
    "--gpu-metrics-devices --capture-range-end --session-new --python-sampling --pytorch --kill -n"
)

WRAPPERS: Mapping[str, Wrapper] = {
    # init systems of containers
    "tini": _wrapper("-p -e"),
    "tini-static": _wrapper("-p -e"),
    "docker-init": _wrapper("-p -e"),
    "dumb-init": _wrapper("-r --rewrite"),
    "catatonit": _wrapper("-g"),
    # who, where, and how urgently
    "env": _wrapper("-u --unset -C --chdir"),
    "sudo": _wrapper("-u --user -g --group -D --chdir -p --prompt -C --close-from -h --host -T -r -t"),
    "gosu": _wrapper(skip=1),
    "su-exec": _wrapper(skip=1),
    "runuser": _wrapper("-u --user -g --group"),
    "setpriv": _wrapper("--reuid --regid --groups"),
    "chroot": _wrapper(skip=1),
    "nice": _wrapper("-n"),
    "ionice": _wrapper("-c -n"),
    "chrt": _wrapper("-T -P -D", skip=1),
    "taskset": _wrapper(skip=1),
    "numactl": _wrapper("-N -m -C -i -p -P -w"),
    "nohup": _wrapper(),
    "setsid": _wrapper(),
    "exec": _wrapper("-a"),
    "command": _wrapper(),
    "time": _wrapper("-o -f"),
    "timeout": _wrapper("-k --kill-after -s --signal", skip=1),
    "stdbuf": _wrapper("-i -o -e"),
    "flock": _wrapper("-w -E", skip=1),
    "catchsegv": _wrapper(),
    "jemalloc.sh": _wrapper(),
    # virtual environments
    "uv": _wrapper(
        "--with --with-editable --with-requirements -p --python --extra --group --project --directory --env-file "
        "--package --index --index-url --extra-index-url --cache-dir --only-group --no-group",
        verbs="run",
    ),
    "uvx": _wrapper("--from --with -p --python --index --index-url --extra-index-url"),
    "conda": _wrapper("-n --name -p --prefix --cwd", verbs="run"),
    "mamba": _wrapper("-n --name -p --prefix --cwd", verbs="run"),
    "micromamba": _wrapper("-n --name -p --prefix --cwd -r", verbs="run"),
    "pixi": _wrapper("-e --environment --manifest-path", verbs="run"),
    "poetry": _wrapper("-C --directory -P --project", verbs="run"),
    "pipenv": _wrapper(verbs="run"),
    "pdm": _wrapper("-p --project", verbs="run"),
    "hatch": _wrapper("-e --env", verbs="run"),
    # profilers and debuggers
    "nsys": _wrapper(_NSYS, verbs="profile launch"),
    "ncu": _wrapper("-o --export -k --kernel-name -c --launch-count -s --launch-skip --set --section --metrics -f:0"),
    "rocprof": _wrapper("-i -o -d -t"),
    "rocprofv3": _wrapper("-o -d -i -f"),
    "perf": _wrapper("-o -e -F -c -g:0 --call-graph -a:0", verbs="record stat"),
    "strace": _wrapper("-o -e -s -p -P -u -E -O -I"),
    "gdb": _wrapper("-ex -x"),
    "py-spy": _wrapper("-o --output -r --rate -d --duration -f --format", verbs="record"),
    "memray": _wrapper("-o --output", verbs="run"),
    "opentelemetry-instrument": _wrapper("--traces_exporter --metrics_exporter --service_name --logs_exporter"),
    "ddtrace-run": _wrapper(),
    # launchers of ranks
    "mpirun": _wrapper(_MPI),
    "mpiexec": _wrapper(_MPI),
    "orterun": _wrapper(_MPI),
    "horovodrun": _wrapper("-np --num-proc -H --hosts -hostfile --hostfile -p --ssh-port"),
    "trtllm-llmapi-launch": _wrapper(),
    "torchrun": _ranks(_TORCH),
    "-m torch.distributed.run": _ranks(_TORCH),
    "-m torch.distributed.launch": _ranks(_TORCH),
    "accelerate": _ranks(_ACCELERATE, verbs="launch"),
    "accelerate-launch": _ranks(_ACCELERATE),
    "-m accelerate.commands.launch": _ranks(_ACCELERATE),
    "deepspeed": _ranks(_DEEPSPEED, module="--module"),
    "-m deepspeed.launcher.runner": _ranks(_DEEPSPEED, module="--module"),
    "-m deepspeed.launcher.launch": _ranks(_DEEPSPEED, module="--module"),
    "composer": _ranks("-n --nproc --world_size --base_rank --node_rank --master_addr --master_port --stdout --stderr"),
    "colossalai": _ranks(
        "--nproc_per_node --nnodes --host --hostfile --master_addr --master_port --include", verbs="run"
    ),
}
"""By program, or by ``-m`` and module: what is started is the command, its wrapper says nothing."""
