"""Programs that start another program (``numactl``, ``tini``, ``uv run``, ``torchrun``), and how to skip them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .arguments import is_option, normal_option


@dataclass(frozen=True, slots=True)
class Wrapper:
    """How to find the wrapped command after a wrapper's own arguments.

    ``verbs`` are the subcommands that start a program, none if it needs none. ``valued`` are the options (spelled with
    hyphens) whose value is the next word unless joined by ``=``, as is that of options that begin with one of
    ``families``; ``pairs`` those whose values are the next two. ``positional`` is the number of positional arguments
    before the program. ``module`` are the options after which a Python module follows. ``script``: the program may be
    a Python script without an interpreter. ``ranks``: it starts the ranks of a training.
    """

    valued: tuple[str, ...] = ()
    pairs: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()
    positional: int = 0
    module: tuple[str, ...] = ()
    script: bool = False
    ranks: bool = False
    families: tuple[str, ...] = ()

    def inner(self, words: Sequence[str]) -> list[str]:
        """The wrapped command in ``words``, of which the first is the wrapper itself; empty if there is none."""
        index, positional = 1, self.positional
        verb_missing, as_module = bool(self.verbs), False
        unknown = False
        while index < len(words):
            word = words[index]
            if word == "--" and not verb_missing:
                index += 1
                break
            if word in self.module:
                as_module = True
                index += 1
            elif is_option(word):
                option = normal_option(word)
                joined = "=" in word
                valued = option in self.valued or (option.startswith(self.families) and not joined)
                unknown = not (valued or joined or option in self.pairs)
                index += 2 if valued else 3 if option in self.pairs else 1
                continue
            elif verb_missing:
                if word not in self.verbs:
                    return []
                verb_missing = False
                index += 1
            elif positional:
                positional -= 1
                index += 1
            elif unknown and self.script and not as_module and _script_follows(words[index:]):
                index += 1  # the value of an option that is not in the table
            else:
                break
            unknown = False
        rest = list(words[index:])
        if as_module and rest:
            return ["python", "-m", *rest]
        if self.script and rest and _is_script(rest[0]):
            return ["python", *rest]
        return rest


def _is_script(word: str) -> bool:
    return word.endswith(".py")


def _script_follows(words: Sequence[str]) -> bool:
    """Whether a Python script comes later, but not first."""
    return not _is_script(words[0]) and any(map(_is_script, words))


def _ranks(
    valued: tuple[str, ...],
    *,
    verbs: tuple[str, ...] = (),
    module: tuple[str, ...] = ("-m", "--module"),
    families: tuple[str, ...] = (),
) -> Wrapper:
    return Wrapper(valued, verbs=verbs, module=module, script=True, ranks=True, families=families)


_MPI_PAIRS = ("-env", "-genv", "--mca", "-mca")

_MPI = (
    "-n", "-np", "-c", "-N", "-H", "-host", "--host", "--hostfile", "-hostfile", "--machinefile", "-machinefile",
    "-f", "-x", "--npernode", "-npernode", "--ppn", "-ppn", "--map-by", "-map-by", "--bind-to", "-bind-to",
    "--rank-by", "-genvlist", "--prefix", "-wdir", "--wdir", "-p", "--output-filename",
)  # fmt: skip

_TORCH = (
    "--nnodes", "--nproc-per-node", "--node-rank", "--rdzv-backend",
    "--rdzv-endpoint", "--rdzv-id", "--rdzv-conf",
    "--max-restarts", "--monitor-interval", "--start-method",
    "--role", "--log-dir", "-r", "--redirects", "-t", "--tee",
    "--local-ranks-filter", "--master-addr", "--master-port",
    "--local-addr", "--event-log-handler", "--numa-binding",
    "--logs-specs", "--signals-to-handle", "--duplicate-stdout-filters", "--duplicate-stderr-filters",
)  # fmt: skip

_ACCELERATE = (
    "--config-file", "--num-processes", "--num-machines", "--machine-rank", "--main-process-ip",
    "--main-process-port", "--mixed-precision", "--gpu-ids", "--dynamo-backend", "--dynamo-mode",
    "--num-cpu-threads-per-process", "--rdzv-backend", "--rdzv-conf", "--max-restarts", "--monitor-interval",
    "--role", "-r", "--redirects", "--log-dir", "-t", "--tee", "--zero-stage", "--gradient-clipping",
    "--gradient-accumulation-steps", "--main-training-function", "--mpirun-hostfile", "--mpirun-ccl", "--vm", "--env",
    "--fp8-backend", "--fp8-margin", "--fp8-interval", "--fp8-format", "--fp8-amax-history-len", "--fp8-opt-level",
    "--fp8-amax-compute-algo", "--fp8-override-linear-precision", "--fp8-enable-fsdp-float8-all-gather",
    "--fp8-pad-inner-dim",
)  # fmt: skip

_ACCELERATE_FAMILIES = (
    "--deepspeed-", "--offload-", "--zero3-", "--fsdp-", "--megatron-lm-", "--parallelism-config-", "--aws-",
)  # fmt: skip

_DEEPSPEED = (
    "-H", "--hostfile", "-i", "--include", "-e", "--exclude", "--num-nodes", "--num-gpus", "--master-port",
    "--master-addr", "--launcher", "--launcher-args", "--min-elastic-nodes", "--max-elastic-nodes", "--node-rank",
    "--world-info", "--ds-config", "--venv-script", "--num-accelerators", "--enable-each-rank-log", "--autotuning",
    "--comment", "--account", "--bind-core-list", "--ssh-port",
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
    "--traces-exporter", "--metrics-exporter", "--service-name", "--logs-exporter",
)  # fmt: skip

_HOROVODRUN = (
    "-np", "--num-proc", "-H", "--hosts", "-hostfile", "--hostfile", "-p", "--ssh-port",
)  # fmt: skip

_COMPOSER = (
    "-n", "--nproc", "--world-size", "--base-rank", "--node-rank", "--master-addr", "--master-port", "--stdout",
    "--stderr",
)  # fmt: skip

_COLOSSALAI = (
    "--nproc-per-node", "--nnodes", "--host", "--hostfile", "--master-addr", "--master-port", "--include",
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
    "accelerate": _ranks(_ACCELERATE, verbs=("launch",), families=_ACCELERATE_FAMILIES),
    "accelerate-launch": _ranks(_ACCELERATE, families=_ACCELERATE_FAMILIES),
    "-m accelerate.commands.launch": _ranks(_ACCELERATE, families=_ACCELERATE_FAMILIES),
    "deepspeed": _ranks(_DEEPSPEED, module=("--module",)),
    "-m deepspeed.launcher.runner": _ranks(_DEEPSPEED, module=("--module",)),
    "-m deepspeed.launcher.launch": _ranks(_DEEPSPEED, module=("--module",)),
    "composer": _ranks(_COMPOSER),
    "colossalai": _ranks(_COLOSSALAI, verbs=("run",)),
}
"""Maps a program, or ``-m MODULE``, to its wrapper. A wrapper itself is no evidence of a model."""
