"""The table of model servers and trainers whose command line names the model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple


class FileLookup(NamedTuple):
    """A `Lookup` in files: its kind and keys, and the place of their path (see `Arguments.find`)."""

    kind: Literal["ollama", "triton", "config"]
    place: str
    keys: tuple[str, ...] = ()


class Launcher(NamedTuple):
    """How a program is called, and the arguments that name its model.

    ``calls`` are separated by ``|``: a program or ``-m MODULE``, and the subcommands that must follow. ``names`` are
    places (see `Arguments.find`), separated by spaces, in order of preference: the name under which a model is served
    comes before that of its files, because it is in the server's own metrics. A place that ends in ``*`` may be
    repeated; different values then name no model. ``environment`` are the variables that are read instead. ``port`` is
    the default port of a server that lists its models at ``/v1/models``.
    """

    calls: str
    phase: str
    names: str = ""
    environment: str = ""
    port: int = 0
    files: FileLookup | None = None


_VLLM = "--served-model-name --model"
_VLLM_CONFIG = FileLookup("config", "--config", ("served-model-name", "served_model_name", "model", "model_tag"))
_SGLANG = "--served-model-name --model-path --model"
_LLAMA_CPP = "-a --alias -hf -hfr --hf-repo -m --model -mu --model-url -mr"
_LLAMA_CPP_ENV = "LLAMA_ARG_ALIAS LLAMA_ARG_HF_REPO LLAMA_ARG_MODEL LLAMA_ARG_MODEL_URL"
_HF = "--model_name_or_path model_name_or_path="

LAUNCHERS: tuple[Launcher, ...] = (
    # --- servers of language models -----------------------------------------------------------------
    Launcher("vllm serve", "inference", f"{_VLLM} @", port=8000, files=_VLLM_CONFIG),
    Launcher("vllm run-batch | vllm bench latency | vllm bench throughput", "inference", _VLLM),
    Launcher(
        "-m vllm.entrypoints.openai.api_server | -m vllm.entrypoints.api_server | -m vllm.entrypoints.grpc_server"
        "| -m vllm_ascend.entrypoints.openai.api_server | -m vllm.entrypoints.openai.run_batch",
        "inference",
        _VLLM,
        port=8000,
        files=_VLLM_CONFIG,
    ),
    Launcher("-m vllm.entrypoints.cli.main serve", "inference", f"{_VLLM} @", port=8000, files=_VLLM_CONFIG),
    Launcher("aphrodite run", "inference", f"{_VLLM} @", port=2242),
    Launcher("-m aphrodite.endpoints.openai.api_server", "inference", _VLLM, port=2242),
    Launcher(
        "-m nim_llm_sdk.entrypoints.openai.api_server | -m vllm_nvext.entrypoints.openai.api_server",
        "inference",
        _VLLM,
        "NIM_SERVED_MODEL_NAME NIM_MODEL_NAME",
        port=8000,
    ),
    Launcher(
        "-m sglang.launch_server | sglang serve | -m sglang.cli.main serve | -m sglang.srt.entrypoints.http_server"
        "| -m sglang_router.launch_server",
        "inference",
        _SGLANG,
        port=30000,
        files=FileLookup("config", "--config", ("served-model-name", "model-path", "model")),
    ),
    Launcher("-m dynamo.vllm | -m dynamo.sglang | -m dynamo.trtllm | -m dynamo.mocker", "inference", _SGLANG),
    Launcher("dynamo-run", "inference", "--model-name --model-path @"),
    Launcher("text-generation-launcher", "inference", "--model-id", "MODEL_ID", 3000),
    Launcher("text-generation-server serve", "inference", "@", "MODEL_ID"),
    Launcher("text-generation-router | text-generation-router-v3", "inference", "--tokenizer-name", "TOKENIZER_NAME"),
    Launcher("text-generation-router-trtllm", "inference", "--tokenizer-name"),
    Launcher("trtllm-serve serve", "inference", "--served_model_name --served-model-name @", port=8000),
    Launcher("trtllm-serve disaggregated | trtllm-serve mm_embedding_serve", "inference"),
    Launcher("trtllm-serve", "inference", "--served_model_name --served-model-name @", port=8000),
    Launcher("-m tensorrt_llm.commands.serve serve | -m tensorrt_llm.commands.serve", "inference", "@", port=8000),
    Launcher("lmdeploy serve api_server | -m lmdeploy serve api_server", "inference", "--model-name @", port=23333),
    Launcher("lmdeploy serve gradio | lmdeploy chat | lmdeploy serve", "inference", "--model-name @"),
    Launcher("-m lightllm.server.api_server", "inference", "--model_name --model_dir", port=8000),
    Launcher("-m mii.entrypoints.openai_api_server | -m mii.entrypoints.api_server", "inference", "--model", port=8000),
    Launcher("-m fastchat.serve.model_worker | -m fastchat.serve.vllm_worker", "inference", "--model-path"),
    Launcher("-m fastchat.serve.sglang_worker | -m fastchat.serve.cli", "inference", "--model-path"),
    Launcher("mlx_lm.server | -m mlx_lm.server | -m mlx_lm server | mlx_lm server", "inference", "--model", port=8080),
    Launcher("mlx_lm.generate | -m mlx_lm.generate | mlx_lm generate", "inference", "--model"),
    Launcher("mistralrs-server | mistralrs serve", "inference", "-m --model-id"),
    Launcher("max serve", "inference", "--served-model-name --model --model-path", port=8000),
    Launcher("ktransformers | -m ktransformers.server.main", "inference", "--model_name --model_path", port=10002),
    Launcher("litgpt serve | litgpt generate | litgpt chat", "inference", "@"),
    Launcher("transformers serve", "inference", "--force-model --force_model @", port=8000),
    Launcher("openllm serve", "inference", "@", port=3000),
    Launcher("tabby serve | tabby-cuda serve", "inference", "--model", "TABBY_MODEL"),
    # --- llama.cpp and its family -------------------------------------------------------------------
    Launcher("llama-server | llama.cpp-server", "inference", _LLAMA_CPP, _LLAMA_CPP_ENV, port=8080),
    Launcher(
        "llama-cli | llama-bench | llama-batched-bench | llama-embedding | llama-perplexity | llama-mtmd-cli"
        "| llama-simple | llama-run | llamafile | llamafiler",
        "inference",
        f"{_LLAMA_CPP} @",
    ),
    Launcher("-m llama_cpp.server", "inference", "--model_alias --hf_model_repo_id --model", "MODEL_ALIAS MODEL", 8000),
    Launcher("koboldcpp | koboldcpp-linux-x64 | koboldcpp.py", "inference", "--model --model_param @", port=5001),
    # --- embeddings, speech, classic servers --------------------------------------------------------
    Launcher(
        "text-embeddings-router",
        "inference",
        "--served-model-name --model-id",
        "SERVED_MODEL_NAME MODEL_ID",
    ),
    Launcher("python-text-embeddings-server serve", "inference", "@"),
    Launcher(
        "infinity_emb v2 | infinity_emb", "inference", "--served-model-name* --model-id*", "INFINITY_MODEL_ID", 7997
    ),
    Launcher("whisper-server | whisper-cli | whisper-stream", "inference", "-m --model"),
    Launcher("whisper | whisperx | whisper-ctranslate2", "inference", "--model"),
    Launcher("faster-whisper-server | speaches", "inference", "", "WHISPER__MODEL", 8000),
    Launcher("wyoming-faster-whisper | -m wyoming_faster_whisper", "inference", "--model"),
    Launcher("tensorflow_model_server", "inference", "--model_name --model_base_path", "MODEL_NAME"),
    Launcher("ovms", "inference", "--model_name --source_model --model_path"),
    Launcher("mlserver start", "inference", "", "MLSERVER_MODEL_NAME"),
    Launcher("mlflow models serve", "inference", "-m --model-uri"),
    Launcher("-m huggingfaceserver", "inference", "--model_name --model_id --model_dir", "MODEL_ID", 8080),
    Launcher(
        "-m sklearnserver | -m xgbserver | -m lgbserver | -m pmmlserver | -m paddleserver | -m predictiveserver",
        "inference",
        "--model_name --model_dir",
    ),
    Launcher("triton_python_backend_stub", "inference", "@"),
    Launcher("tritonserver", "inference", "--load-model*", files=FileLookup("triton", "--model-repository")),
    Launcher("ollama runner | ollama_llama_server", "inference", files=FileLookup("ollama", "--model")),
    Launcher("djl_python_engine.py", "inference", "", "SERVED_MODEL_NAME HF_MODEL_ID OPTION_MODEL_ID"),
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
        files=FileLookup("config", "@", ("model_name_or_path",)),
    ),
    Launcher(
        "llamafactory-cli api | llamafactory-cli chat | llamafactory-cli webchat | lmf api",
        "inference",
        _HF,
        files=FileLookup("config", "@", ("model_name_or_path",)),
    ),
    Launcher("llamafactory/launcher.py", "training", _HF, files=FileLookup("config", "@", ("model_name_or_path",))),
    Launcher("trl vllm-serve", "inference", "--model", port=8000),
    Launcher(
        "trl sft | trl dpo | trl grpo | trl kto | trl orpo | trl reward | trl rloo",
        "training",
        _HF,
        files=FileLookup("config", "--config", ("model_name_or_path",)),
    ),
    Launcher("swift sft | swift pt | swift rlhf", "training", "--model --model_id_or_path"),
    Launcher("swift deploy | swift infer | swift app", "inference", "--served_model_name --model --ckpt_dir"),
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
    Launcher("nemo llm pretrain | nemo llm finetune", "training", "--factory"),
    Launcher("oumi train", "training", "--model.model_name", files=FileLookup("config", "-c", ("model_name",))),
    Launcher("fairseq-train", "training", "--arch -a"),
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
