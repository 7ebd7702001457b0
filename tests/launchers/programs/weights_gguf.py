"""Writes a tiny random-weight llama GGUF with a byte tokenizer of its own: real tokens, no meaning."""

import pathlib

import gguf
import numpy as np

out, name = "models/Tiny-4M.F32.gguf", "tiny-random"
pathlib.Path("models").mkdir(exist_ok=True)
rng = np.random.default_rng(0)
D, L, H, FF, CTX = 256, 4, 4, 512, 2048
w = gguf.GGUFWriter(out, "llama")
w.add_name(name)
toks = [b"<unk>", b"<s>", b"</s>"] + [b"<0x%02X>" % i for i in range(256)]
types = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL] + [gguf.TokenType.BYTE] * 256
for i in range(256):
    toks.append(f"\u2581w{i}".encode())
    types.append(gguf.TokenType.NORMAL)
for c in map(chr, list(range(33, 127))):
    toks.append(c.encode())
    types.append(gguf.TokenType.NORMAL)
toks.append("\u2581".encode())
types.append(gguf.TokenType.NORMAL)
V = len(toks)
w.add_tokenizer_model("llama")
w.add_token_list(toks)
w.add_token_scores([-float(i) for i in range(V)])
w.add_token_types(types)
w.add_bos_token_id(1)
w.add_eos_token_id(2)
w.add_unk_token_id(0)
w.add_add_bos_token(True)
w.add_chat_template("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant: ")
w.add_context_length(CTX)
w.add_embedding_length(D)
w.add_block_count(L)
w.add_feed_forward_length(FF)
w.add_head_count(H)
w.add_head_count_kv(H)
w.add_layer_norm_rms_eps(1e-5)
w.add_rope_dimension_count(D // H)
w.add_vocab_size(V)
w.add_file_type(gguf.LlamaFileType.ALL_F32)


def t(n, *s):
    w.add_tensor(n, (rng.standard_normal(s) * 0.05).astype(np.float32))


t("token_embd.weight", V, D)
t("output.weight", V, D)
w.add_tensor("output_norm.weight", np.ones(D, np.float32))
for i in range(L):
    b = f"blk.{i}."
    w.add_tensor(b + "attn_norm.weight", np.ones(D, np.float32))
    w.add_tensor(b + "ffn_norm.weight", np.ones(D, np.float32))
    for n in ("attn_q", "attn_k", "attn_v", "attn_output"):
        t(b + n + ".weight", D, D)
    t(b + "ffn_gate.weight", FF, D)
    t(b + "ffn_up.weight", FF, D)
    t(b + "ffn_down.weight", D, FF)
w.write_header_to_file()
w.write_kv_data_to_file()
w.write_tensors_to_file()
w.close()
