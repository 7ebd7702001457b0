"""A user's training with transformers.Trainer, its arguments from the command line or from one file."""

import dataclasses
import sys

import torch
import transformers


@dataclasses.dataclass
class ModelArguments:
    """What Hugging Face's examples call it."""

    model_name_or_path: str = ""


parser = transformers.HfArgumentParser((ModelArguments, transformers.TrainingArguments))
if sys.argv[-1].endswith((".json", ".yaml")):
    read = parser.parse_json_file if sys.argv[-1].endswith(".json") else parser.parse_yaml_file
    model_arguments, training_arguments = read(sys.argv[-1])
else:
    model_arguments, training_arguments = parser.parse_args_into_dataclasses()
rows = [{"input_ids": torch.randint(0, 512, (64,)), "labels": torch.randint(0, 512, (64,))} for _ in range(200_000)]
model = transformers.AutoModelForCausalLM.from_pretrained(model_arguments.model_name_or_path)
transformers.Trainer(model=model, args=training_arguments, train_dataset=rows).train()
