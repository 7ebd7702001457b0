"""A user's training with Ray Train, two workers."""

import argparse

import ray
import torch
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer, prepare_model


def loop() -> None:
    """What each worker runs."""
    torch.set_num_threads(1)
    model = prepare_model(torch.nn.Linear(256, 256))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    while True:
        optimizer.zero_grad()
        model(torch.rand(64, 256)).sum().backward()
        optimizer.step()


parser = argparse.ArgumentParser()
parser.add_argument("--model_name_or_path")
parser.add_argument("--address", default="local")
arguments = parser.parse_args()
if arguments.address == "local":
    ray.init(num_cpus=4, object_store_memory=100_000_000, include_dashboard=False)
else:
    ray.init(address=arguments.address)
print("step", flush=True)
TorchTrainer(loop, scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1})).fit()
