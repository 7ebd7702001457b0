"""The table of model servers and trainers whose command line names the model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple


class FileLookup(NamedTuple):
    """A `Lookup` in files: its kind and keys, and the place of their path (see `Arguments.find`)."""

    kind: Literal["ollama", "triton", "mlserver", "config"]
    place: str
    keys: tuple[str, ...] = ()
    served: tuple[str, ...] = ()


class Metrics(NamedTuple):
    """Where a server publishes its counters: the name of its dialect (`exporter.sources.inference.dialects`).

    The port is the value of the first of ``options`` that is given, else of ``variables``, else ``port``.
    """

    dialect: str
    port: int
    options: str = "--port"
    variables: str = ""


class Launcher(NamedTuple):
    """How a program is called, and the arguments that name its model.

    ``calls`` are separated by ``|``: a program or ``-m MODULE``, and the subcommands that must follow. ``served`` and
    ``names`` are arguments (see `Arguments.find`), separated by spaces, in order of preference: ``served`` are
    chosen names, which are kept because they are in the server's own metrics; ``names`` are places of weights,
    which are shortened, and count if there is no chosen name. An argument that ends in ``*`` may be repeated; different
    values then name no model. ``served_environment`` and ``environment`` are the variables that are read instead; of
    one that ends in a comma, the first of its list counts. ``port`` is the default port of a server that lists its
    models at ``/v1/models``, ``metrics`` says where it counts tokens.
    """

    calls: str
    phase: str
    names: str = ""
    environment: str = ""
    port: int = 0
    files: FileLookup | None = None
    served: str = ""
    served_environment: str = ""
    metrics: Metrics | None = None


_SERVED = "--served-model-name"
_VLLM_CONFIG = FileLookup("config", "--config", ("model", "model_tag"), ("served-model-name", "served_model_name"))
_SGLANG_CONFIG = FileLookup("config", "--config", ("model-path", "model"), ("served-model-name", "served_model_name"))
_SGLANG = "--model-path --model"
_LLAMA_CPP = "-hf -hfr --hf-repo -m --model -mu --model-url -dr --docker-repo -mr"
_LLAMA_CPP_ENV = "LLAMA_ARG_HF_REPO LLAMA_ARG_MODEL LLAMA_ARG_MODEL_URL LLAMA_ARG_DOCKER_REPO"
_ALIAS = "-a, --alias,"
_VLLM_METRICS = Metrics("vllm", 8000)
_TRTLLM_METRICS = Metrics("tensorrt_llm", 8000)
_TGI_METRICS = Metrics("tgi", 3000, "--port -p", "PORT")
_HF = "--model_name_or_path model_name_or_path="
_HF_CONFIG = ("model_name_or_path",)

LAUNCHERS: tuple[Launcher, ...] = (
    # --- servers of language models -----------------------------------------------------------------
    Launcher(
        "vllm serve", "inference", "--model @", port=8000, files=_VLLM_CONFIG, served=_SERVED, metrics=_VLLM_METRICS
    ),
    Launcher("vllm run-batch | vllm bench latency | vllm bench throughput", "inference", "--model", served=_SERVED),
    Launcher(
        "-m vllm.entrypoints.openai.api_server | -m vllm.entrypoints.api_server | -m vllm.entrypoints.grpc_server"
        "| -m vllm_ascend.entrypoints.openai.api_server | -m vllm.entrypoints.openai.run_batch",
        "inference",
        "--model",
        port=8000,
        files=_VLLM_CONFIG,
        served=_SERVED,
        metrics=_VLLM_METRICS,
    ),
    Launcher(
        "-m vllm.entrypoints.cli.main serve",
        "inference",
        "--model @",
        port=8000,
        files=_VLLM_CONFIG,
        served=_SERVED,
        metrics=_VLLM_METRICS,
    ),
    Launcher(
        "aphrodite run | aphrodite serve", "inference", "--model @", port=2242, files=_VLLM_CONFIG, served=_SERVED
    ),
    Launcher("-m aphrodite.endpoints.openai.api_server", "inference", "--model", port=2242, served=_SERVED),
    Launcher(
        "-m nim_llm_sdk.entrypoints.openai.api_server | -m vllm_nvext.entrypoints.openai.api_server",
        "inference",
        "--model",
        "NIM_MODEL_NAME",
        port=8000,
        served=_SERVED,
        served_environment="NIM_SERVED_MODEL_NAME",
        metrics=Metrics("nim", 8000, variables="NIM_SERVER_PORT"),
    ),
    Launcher(
        "-m sglang.launch_server | sglang serve | -m sglang.cli.main serve | -m sglang.srt.entrypoints.http_server"
        "| -m sglang_router.launch_server",
        "inference",
        _SGLANG,
        port=30000,
        files=_SGLANG_CONFIG,
        served=_SERVED,
        metrics=Metrics("sglang", 30000),
    ),
    Launcher(
        "-m dynamo.vllm | -m dynamo.sglang | -m dynamo.trtllm | -m dynamo.mocker",
        "inference",
        _SGLANG,
        served=_SERVED,
        metrics=Metrics("dynamo", 0, "", "DYN_SYSTEM_PORT"),
    ),
    Launcher("dynamo-run", "inference", "--model-path @", served="--model-name"),
    Launcher("sglang generate", "inference", _SGLANG),
    Launcher("jpt serve", "inference", "--model_id"),
    Launcher("-m MaxText.maxengine_server | -m MaxText.decode", "inference", served="model_name="),
    Launcher("text-generation-launcher", "inference", "--model-id", "MODEL_ID", 3000, metrics=_TGI_METRICS),
    Launcher("text-generation-server serve", "inference", "@", "MODEL_ID"),
    Launcher(
        "text-generation-router | text-generation-router-v3 | text-generation-router-trtllm",
        "inference",
        metrics=_TGI_METRICS,
    ),
    Launcher("trtllm-serve serve", "inference", "@", port=8000, served=_SERVED, metrics=_TRTLLM_METRICS),
    Launcher("trtllm-serve disaggregated | trtllm-serve mm_embedding_serve", "inference"),
    Launcher("trtllm-serve", "inference", "@", port=8000, served=_SERVED, metrics=_TRTLLM_METRICS),
    Launcher(
        "-m tensorrt_llm.commands.serve serve | -m tensorrt_llm.commands.serve",
        "inference",
        "@",
        port=8000,
        served=_SERVED,
        metrics=_TRTLLM_METRICS,
    ),
    Launcher(
        "lmdeploy serve api_server | -m lmdeploy serve api_server",
        "inference",
        "@",
        port=23333,
        served="--model-name",
        metrics=Metrics("lmdeploy", 23333, "--server-port --port"),
    ),
    Launcher("lmdeploy serve gradio | lmdeploy chat | lmdeploy serve", "inference", "@", served="--model-name"),
    Launcher("-m lightllm.server.api_server", "inference", "--model_dir", port=8000, served="--model_name"),
    Launcher("-m mii.entrypoints.openai_api_server | -m mii.entrypoints.api_server", "inference", "--model", port=8000),
    Launcher(
        "-m fastchat.serve.model_worker | -m fastchat.serve.vllm_worker | -m fastchat.serve.sglang_worker",
        "inference",
        "--model-path",
        served="--model-names,",
    ),
    Launcher("-m fastchat.serve.cli", "inference", "--model-path"),
    Launcher("mlx_lm.server | -m mlx_lm.server | -m mlx_lm server | mlx_lm server", "inference", "--model", port=8080),
    Launcher("mlx_vlm.server | -m mlx_vlm.server | mlx_vlm.generate | -m mlx_vlm.generate", "inference", "--model"),
    Launcher("mlx_lm.generate | -m mlx_lm.generate | mlx_lm generate", "inference", "--model"),
    Launcher("mistralrs-server | mistralrs serve", "inference", "-m --model-id"),
    Launcher("max serve", "inference", "--model --model-path", port=8000, served=_SERVED),
    Launcher(
        "ktransformers | -m ktransformers.server.main", "inference", "--model_path", port=10002, served="--model_name"
    ),
    Launcher("litgpt serve | litgpt generate | litgpt chat", "inference", "@"),
    Launcher(
        "transformers serve | -m transformers.cli.transformers serve",
        "inference",
        "--force-model --force_model @",
        port=8000,
    ),
    Launcher("openllm serve", "inference", "@", port=3000),
    Launcher("tabby serve | tabby-cuda serve", "inference", "--model", "TABBY_MODEL"),
    # --- llama.cpp and its family -------------------------------------------------------------------
    Launcher(
        "llama-server | llama.cpp-server | llama serve",
        "inference",
        _LLAMA_CPP,
        _LLAMA_CPP_ENV,
        port=8080,
        served=_ALIAS,
        served_environment="LLAMA_ARG_ALIAS,",
        metrics=Metrics("llama.cpp", 8080, "--port", "LLAMA_ARG_PORT"),
    ),
    Launcher(
        "llama-cli | llama-bench | llama-batched-bench | llama-embedding | llama-perplexity | llama-mtmd-cli"
        "| llama-simple | llamafile | llamafiler | llama cli | llama bench | llama completion",
        "inference",
        _LLAMA_CPP,
        served=_ALIAS,
    ),
    Launcher("llama-run | llama run", "inference", f"{_LLAMA_CPP} @", served=_ALIAS),
    Launcher(
        "-m llama_cpp.server",
        "inference",
        "--hf_model_repo_id --model",
        "MODEL",
        8000,
        served="--model_alias",
        served_environment="MODEL_ALIAS",
    ),
    Launcher("koboldcpp | koboldcpp-linux-x64 | koboldcpp.py", "inference", "--model --model_param @", port=5001),
    # --- embeddings, speech, classic servers --------------------------------------------------------
    Launcher(
        "text-embeddings-router",
        "inference",
        "--model-id",
        "MODEL_ID",
        served=_SERVED,
        served_environment="SERVED_MODEL_NAME",
        metrics=Metrics("tei", 3000, "--port -p", "PORT"),
    ),
    Launcher("python-text-embeddings-server serve", "inference", "@"),
    Launcher(
        "infinity_emb v2 | infinity_emb",
        "inference",
        "--model-id*",
        "INFINITY_MODEL_ID",
        7997,
        served="--served-model-name*",
    ),
    Launcher("whisper-server | whisper-cli | whisper-stream", "inference", "-m --model"),
    Launcher("whisper | whisperx | whisper-ctranslate2", "inference", "--model"),
    Launcher("faster-whisper-server | speaches", "inference", "", "WHISPER__MODEL", 8000),
    Launcher("wyoming-faster-whisper | -m wyoming_faster_whisper", "inference", "--model"),
    Launcher(
        "tensorflow_model_server",
        "inference",
        "--model_base_path",
        served="--model_name",
        served_environment="MODEL_NAME",
    ),
    Launcher("ovms", "inference", "--source_model --model_path", served="--model_name"),
    Launcher(
        "mlserver start", "inference", files=FileLookup("mlserver", "@"), served_environment="MLSERVER_MODEL_NAME"
    ),
    Launcher("mlflow models serve", "inference", "-m --model-uri"),
    Launcher("-m huggingfaceserver", "inference", "--model_id --model_dir", "MODEL_ID", 8080, served="--model_name"),
    Launcher(
        "-m sklearnserver | -m xgbserver | -m lgbserver | -m pmmlserver | -m paddleserver | -m predictiveserver",
        "inference",
        "--model_dir",
        served="--model_name",
    ),
    Launcher("triton_python_backend_stub", "inference", "@"),
    Launcher(
        "tritonserver",
        "inference",
        files=FileLookup("triton", "--model-repository"),
        served="--load-model*",
        metrics=Metrics("triton", 8002, "--metrics-port"),
    ),
    Launcher("ollama serve", "", metrics=Metrics("ollama", 11434)),
    Launcher("ollama runner | ollama_llama_server", "inference", files=FileLookup("ollama", "--model")),
    Launcher("ray/dashboard/agent.py", "", metrics=Metrics("ray", 0, "--metrics-export-port")),
    Launcher(
        "djl_python_engine.py",
        "inference",
        "",
        "HF_MODEL_ID OPTION_MODEL_ID",
        served_environment="SERVED_MODEL_NAME",
    ),
    Launcher("webservice_starlette.py", "inference", "", "HF_MODEL_ID"),
    Launcher("lm_eval | lm-eval | -m lm_eval", "inference", "--model_args/pretrained"),
    Launcher(
        "yolo predict | yolo detect predict | yolo segment predict | yolo track | yolo val", "inference", "model="
    ),
    # --- training -----------------------------------------------------------------------------------
    Launcher(
        "axolotl train | -m axolotl.cli.train",
        "training",
        "--base-model",
        files=FileLookup("config", "@", ("base_model",)),
    ),
    Launcher(
        "axolotl inference | axolotl vllm-serve",
        "inference",
        "--base-model",
        files=FileLookup("config", "@", ("base_model",)),
    ),
    Launcher(
        "llamafactory-cli train | lmf train | -m llamafactory.cli train",
        "training",
        _HF,
        files=FileLookup("config", "@", _HF_CONFIG),
    ),
    Launcher(
        "llamafactory-cli api | llamafactory-cli chat | llamafactory-cli webchat | lmf api",
        "inference",
        _HF,
        files=FileLookup("config", "@", _HF_CONFIG),
    ),
    Launcher("llamafactory/launcher.py", "training", _HF, files=FileLookup("config", "@", _HF_CONFIG)),
    Launcher("trl vllm-serve", "inference", "--model", port=8000),
    Launcher(
        "trl sft | trl dpo | trl grpo | trl kto | trl orpo | trl reward | trl rloo",
        "training",
        _HF,
        files=FileLookup("config", "--config", _HF_CONFIG),
    ),
    Launcher("swift sft | swift pt | swift rlhf", "training", "--model --model_id_or_path"),
    Launcher("swift deploy | swift infer | swift app", "inference", "--model --ckpt_dir", served=_SERVED),
    Launcher(
        "-m openrlhf.cli.train_sft | -m openrlhf.cli.train_dpo | -m openrlhf.cli.train_rm", "training", "--pretrain"
    ),
    Launcher("-m openrlhf.cli.train_ppo_ray | -m openrlhf.cli.train_ppo", "training", "--pretrain"),
    Launcher(
        "-m verl.trainer.main_ppo | -m verl.trainer.fsdp_sft_trainer",
        "training",
        "actor_rollout_ref.model.path= model.partial_pretrain= model.path=",
    ),
    Launcher("autotrain llm | autotrain", "training", "--model"),
    Launcher("litgpt finetune | litgpt finetune_lora | litgpt finetune_full | litgpt pretrain", "training", "@"),
    Launcher("mlx_lm.lora | -m mlx_lm.lora | -m mlx_lm lora | mlx_lm lora", "training", "--model"),
    Launcher("nemo llm pretrain | nemo llm finetune", "training", served="--factory"),
    Launcher(
        "automodel finetune | automodel pretrain | automodel kd | -m nemo_automodel._cli.app",
        "training",
        "--model.pretrained_model_name_or_path",
    ),
    Launcher("megatron sft | megatron pt | megatron rlhf", "training", "--model --load"),
    Launcher("tune run", "training", "checkpointer.checkpoint_dir="),
    Launcher("oumi train", "training", "--model.model_name", files=FileLookup("config", "-c", ("model_name",))),
    Launcher("fairseq-train", "training", served="--arch -a"),
    Launcher("yolo train | yolo detect train | yolo segment train | yolo classify train", "training", "model="),
)


class Call(NamedTuple):
    """One way to call a launcher: the subcommands that must follow."""

    verbs: tuple[str, ...]
    launcher: Launcher


def _index() -> Mapping[str, Sequence[Call]]:
    calls: defaultdict[str, list[Call]] = defaultdict(list)
    for launcher in LAUNCHERS:
        for call in launcher.calls.split("|"):
            program, *verbs = call.replace("-m ", "-m\0", 1).split()
            calls[program.replace("\0", " ")].append(Call(tuple(verbs), launcher))
    for rows in calls.values():
        rows.sort(key=lambda row: -len(row.verbs))  # the most specific call first
    return calls


CALLS: Mapping[str, Sequence[Call]] = _index()
"""Maps a program, ``-m MODULE`` or script to its calls that run a model."""
