"""Writes tiny random weights below the working directory: a Llama and a BERT in Hugging Face's form, and a data set."""

import json
import pathlib

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEXT = "the quick brown fox jumps over the lazy dog. energy is measured in joules, power in watts. "


def tokenizer(folder: str, **special: str) -> None:
    """A byte-level tokenizer, trained on one sentence."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=512, initial_alphabet=alphabet, special_tokens=[*special.values()])
    inner.train_from_iterator([TEXT * 20], trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=inner, **special)
    made.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant: "
    made.save_pretrained(folder)
    written = pathlib.Path(folder, "tokenizer_config.json")
    config = json.loads(written.read_text(encoding="utf-8"))
    # Release 5 of transformers writes a name that release 4 (Infinity, LLaMA-Factory) does not know.
    written.write_text(json.dumps(config | {"tokenizer_class": "PreTrainedTokenizerFast"}), encoding="utf-8")


torch.manual_seed(0)
tokenizer("acme/tiny-llama", bos_token="<s>", eos_token="</s>", pad_token="<pad>")
LlamaForCausalLM(
    LlamaConfig(
        vocab_size=512, hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=512, bos_token_id=0, eos_token_id=1, pad_token_id=2,
        tie_word_embeddings=False,
    )
).to(torch.float32).save_pretrained("acme/tiny-llama")  # fmt: skip
tokenizer(
    "acme/tiny-bert", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", mask_token="[M]"
)
BertModel(
    BertConfig(
        vocab_size=512, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=128,
    )
).save_pretrained("acme/tiny-bert")  # fmt: skip
rows = "\n".join(json.dumps({"text": TEXT * 4, "prompt": "hi", "completion": TEXT}) for _ in range(2000))
pathlib.Path("json_data").mkdir(exist_ok=True)
pathlib.Path("json_data/train.jsonl").write_text(rows + "\n", encoding="utf-8")
