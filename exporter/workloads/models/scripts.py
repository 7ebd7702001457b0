"""Recognises a user's own Python program by its name and by arguments that only models have."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence

from .arguments import Arguments
from .commandline import Command
from .evidence import NO_ARGUMENT, NO_PLACE, NOTHING, Evidence, Lookup
from .names import chosen_name, looks_like_weights, place_name
from .variants import of_arguments

_MAX_NAME = 255
_WORD = r"(?:\A|[^a-z])(?:{})(?![a-z])"
_TRAINING = re.compile(
    _WORD.format(
        "(?:pre)?train(?:er|ing)?|fine_?tun(?:e|er|ing)|sft|dpo|grpo|kto|orpo|ppo|rlhf|q?lora|distill(?:ation)?"
    )
)
_INFERENCE = re.compile(_WORD.format("serv(?:e|er|ing)|infer(?:ence)?|predict(?:or)?|generat(?:e|ion)|api|chat|webui"))
_CLIENT = re.compile(_WORD.format("bench|benchmark|client|eval|evaluate|test|load|download|convert|export|prepare"))

_ANYWHERE = ("--model_name_or_path", "--pretrained_model_name_or_path", "model_name_or_path=", "--base_model")
"""Arguments that always name a model: those of the Hugging Face examples and of scripts modelled on them."""

_IN_TRAINING = (
    *("--model_id", "--model_name", "--model_path", "--model", "--arch", "--pretrained_model", "--model.name"),
    *(
        "model.restore_from_path=",
        "restore_from_path=",
        "model.name=",
        "model_name=",
        "policy.model_name=",
        "--pretrained-checkpoint",
        "--load",
    ),
)
"""Arguments of trainings from which weights come; where they go to (Megatron's ``--save``) is no model's name."""

_IN_INFERENCE = ("--model_id", "--model_name", "--model_path", "--model", "--ckpt", "--checkpoint")
_SERVED = "--served-model-name"

_TRAINING_OPTIONS = (
    *("--num_train_epochs", "--per_device_train_batch_size", "--do_train", "--learning_rate", "--max_train_steps"),
    *(
        "--gradient_accumulation_steps",
        "--train_batch_size",
        "--train-iters",
        "--lr-decay-iters",
        "--global-batch-size",
    ),
    *("--train_file", "--train_data_dir", "--lora_r", "--lora_rank", "--warmup_ratio", "--num_epochs", "--epochs"),
)


def recognise_script(command: Command) -> Evidence:
    """Evidence of a ``.py`` script or a module that is not in the table of launchers."""
    program = command.program
    if program.startswith("-m "):
        name = program[3:]
        if name.partition(".")[0] in sys.stdlib_module_names:
            return NOTHING
    elif program.endswith(".py"):
        name = program.removesuffix(".py").rpartition("/")[2]
    else:
        return NOTHING
    name = name.lower()
    if len(name) > _MAX_NAME or _CLIENT.search(name):
        return NOTHING
    arguments = Arguments(command.arguments)
    serving = _INFERENCE.search(name) is not None
    training = not serving and (
        command.ranks or _TRAINING.search(name) is not None or any(map(arguments.has, _TRAINING_OPTIONS))
    )
    phase = "training" if training else "inference" if serving else ""
    if serving and (found := chosen_name(arguments.find(_SERVED) or "")):
        return Evidence(found, phase, "command", variant=of_arguments(arguments, arguments.find("--model") or ""))
    why = NO_ARGUMENT
    for place in (*_ANYWHERE, *(_IN_TRAINING if training else ()), *(_IN_INFERENCE if serving else ())):
        value = arguments.find(place)
        # The client of a remote server has the same form: python chat.py --model gpt-4o
        if value and (training or place in _ANYWHERE or looks_like_weights(value)):
            if found := place_name(value):
                variant = of_arguments(arguments, value)
                folder = value if value.startswith("/") and not variant else ""
                return Evidence(found, phase, "command", variant=variant, weights=folder)
            why = NO_PLACE
    lookups = tuple(_arguments_file(command.arguments, arguments.find("--config")))
    return Evidence(phase=phase, lookups=lookups, why=why) if phase or lookups else NOTHING


def _arguments_file(words: Sequence[str], config: str | None) -> Iterator[Lookup]:
    """The file from which a script of Hugging Face's kind takes its arguments.

    ``HfArgumentParser`` reads the first word (``run_clm.py args.json``), ``TrlParser`` the value of ``--config``.
    """
    for path in (words[0] if words else "", config or ""):
        if path.endswith((".json", ".yaml", ".yml")):
            yield Lookup("config", path, ("model_name_or_path",))
            return
