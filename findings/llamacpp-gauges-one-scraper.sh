#!/bin/sh
# Expected: reading /metrics changes nothing: two scrapers see the same tokens per second.
# Happens:  the gauges predicted_tokens_seconds and prompt_tokens_seconds are means since the last read of the page, and
#           the read clears them. A second Prometheus, a health check or a curl takes the window away from the first; at
#           rest they are 0, and they move only when a request ends. The counters with _total are not touched by reads.
# Package:  xllamacpp 2026.10.11549 (PyPI; llama.cpp's server as a library), gguf 0.19.0
# Source:   https://github.com/ggml-org/llama.cpp/issues/27364 and https://github.com/ggml-org/llama.cpp/pull/27760
# Date:     2026-11-28
# Output:
#> first reader: predicted_tokens_seconds above 0: True, tokens_predicted_total 20
#> second reader: predicted_tokens_seconds above 0: False, tokens_predicted_total 20
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"
"$dir/v/bin/pip" install -q --disable-pip-version-check xllamacpp==2026.10.11549 gguf==0.19.0

cat >"$dir/serve.py" <<'PY'
import json
import socket
import urllib.request

import gguf
import numpy as np
import xllamacpp

WIDTH, TOKENS = 64, 260
random = np.random.default_rng(0)
model = gguf.GGUFWriter("model.gguf", "llama")  # a model of random numbers with bytes for tokens
model.add_tokenizer_model("llama")
BYTES = [f"<0x{byte:02X}>".encode() for byte in range(256)]
model.add_token_list([b"<unk>", b"<s>", b"</s>", "\u2581".encode(), *BYTES])
model.add_token_scores([0.0] * TOKENS)
model.add_token_types([2, 3, 3, 1, *[6] * 256])
model.add_context_length(128)
model.add_embedding_length(WIDTH)
model.add_block_count(1)
model.add_feed_forward_length(WIDTH)
model.add_head_count(1)
model.add_layer_norm_rms_eps(1e-5)
for name, shape in {
    "token_embd": (TOKENS, WIDTH), "output": (TOKENS, WIDTH), "output_norm": (WIDTH,), "blk.0.attn_norm": (WIDTH,),
    "blk.0.ffn_norm": (WIDTH,), **{f"blk.0.{part}": (WIDTH, WIDTH) for part in (
        "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")},
}.items():  # fmt: skip
    model.add_tensor(f"{name}.weight", random.standard_normal(shape, dtype=np.float32))
for write in (model.write_header_to_file, model.write_kv_data_to_file, model.write_tensors_to_file, model.close):
    write()

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
options = xllamacpp.CommonParams()
options.model.path, options.hostnames, options.port, options.endpoint_metrics = "model.gguf", ["127.0.0.1"], port, True
options.n_ctx, options.warmup = 128, False
server = xllamacpp.Server(options)
ask = json.dumps({"prompt": "hello", "n_predict": 20, "ignore_eos": True}).encode()
urllib.request.urlopen(f"http://127.0.0.1:{port}/completion", ask).read()
with open("seen", "w") as seen:
    for reader in ("first", "second"):
        lines = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode().splitlines()
        value = dict(line.removeprefix("llamacpp:").split() for line in lines if not line.startswith("#"))
        print(f"{reader} reader: predicted_tokens_seconds above 0: {float(value['predicted_tokens_seconds']) > 0}, "
              f"tokens_predicted_total {value['tokens_predicted_total']}", file=seen)
PY
(cd "$dir" && v/bin/python serve.py >log 2>&1)
sed -n 's/^#> //p' "$0" | diff -u - "$dir/seen"
