"""A user's training loop on plain PyTorch, with DDP over gloo if a launcher has set the ranks."""

import argparse
import os

import torch
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--model_name_or_path", default="")
parser.add_argument("--local_rank", default=0)
parser.parse_known_args()
torch.set_num_threads(1)
model: nn.Module = nn.Sequential(
    nn.Embedding(512, 64), nn.TransformerEncoderLayer(64, 4, 128, batch_first=True), nn.Linear(64, 512)
)
if int(os.environ.get("WORLD_SIZE", "1")) > 1:
    torch.distributed.init_process_group("gloo")
    model = nn.parallel.DistributedDataParallel(model)
optimizer = torch.optim.AdamW(model.parameters())
while True:
    batch = torch.randint(0, 512, (8, 64))
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(batch).flatten(0, 1), batch.flatten()).backward()
    optimizer.step()
    print("step", flush=True)
