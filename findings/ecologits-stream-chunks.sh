#!/bin/sh
# Expected: the same 500 words of an answer have the same energy, however the server sends them.
# Happens:  of a streamed answer the pieces are counted and taken for tokens. Sent as 500 pieces it is 0.88 Wh, as 5
#           pieces 0.009 Wh (a slow server adds a little to both): a server that batches its stream looks 100 times
#           as good, and so does every answer whose pieces are longer than a token. Answers that are not streamed are
#           computed from the token count that the server reports.
# Package:  ecologits 0.11.3 with openai 3.57.0 (PyPI), against a local stand-in for the server
# Source:   https://github.com/genai-impact/ecologits/blob/main/ecologits/tracers/openai_tracer.py
# Date:     2026-11-28
# Output:
#> words: 500 in 500 pieces, 500 in 5 pieces
#> energy in 500 pieces: more than 50 times that in 5 pieces
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"
"$dir/v/bin/pip" install -q --disable-pip-version-check ecologits==0.11.3 openai==3.57.0

"$dir/v/bin/python" - >"$dir/seen" 2>"$dir/log" <<'PY'
import http.server
import json
import sys
import threading

import openai
from ecologits import EcoLogits


class Server(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        pieces = int(request["user"])
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        words = {"content": "word " * (500 // pieces)}
        for delta, reason in [({"role": "assistant"}, None), *[(words, None)] * pieces, ({}, "stop")]:
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
            chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o", "choices": [choice]}
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")


server = http.server.HTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
EcoLogits.init(providers=["openai"])
client = openai.OpenAI(base_url=f"http://127.0.0.1:{server.server_port}/v1", api_key="none")
words, watt_hours = [], []
for pieces in (500, 5):
    question = [{"role": "user", "content": "Say word."}]
    chunks = list(client.chat.completions.create(model="gpt-4o", messages=question, stream=True, user=str(pieces)))
    words.append(len("".join(chunk.choices[0].delta.content or "" for chunk in chunks).split()))
    watt_hours.append(chunks[-1].impacts.energy.value.mean * 1000)
print(f"{watt_hours[0]:.4f} Wh, {watt_hours[1]:.4f} Wh", file=sys.stderr)
print(f"words: {words[0]} in 500 pieces, {words[1]} in 5 pieces")
verdict = "more" if watt_hours[0] > 50 * watt_hours[1] else "not more"
print(f"energy in 500 pieces: {verdict} than 50 times that in 5 pieces")
PY
sed -n 's/^#> //p' "$0" | diff -u - "$dir/seen"
