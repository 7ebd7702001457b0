"""A training on the CPU whose steps and layers are regions, and whose last steps are profiled. Python 3.9, PyTorch.

Arguments: seconds, and where to write the trace. Prints when the steps begin and end, and waits for a line each time.
"""

import contextlib
import json
import platform
import sys
import time
from collections.abc import Callable
from typing import Any

import torch  # type: ignore[import-not-found, unused-ignore]
from torch import nn  # type: ignore[import-not-found, unused-ignore]

from exporter.regions import region
from exporter.regions.frameworks import layers

SECONDS, TRACE = float(sys.argv[1]), sys.argv[2]


class Net(nn.Module):  # type: ignore[misc, unused-ignore]
    """Two layers of unlike size, and a small head."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Linear(512, 4096)
        self.narrow = nn.Linear(4096, 512)
        self.head = nn.Linear(512, 10)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Forward."""
        return self.head(torch.relu(self.narrow(torch.relu(self.wide(batch)))))


def train(seconds: float, mark: Callable[[str], Any] = region) -> int:
    """Steps for so long; the batch size varies, so that regions are in no fixed proportion. Returns their number."""
    until, count = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        with mark("step"):
            with mark("data"):
                size = int(torch.randint(32, 257, ()).item())
                batch, labels = torch.randn(size, 512), torch.randint(0, 10, (size,))
            with mark("forward"):
                loss = loss_of(model(batch), labels)
            with mark("backward"):
                loss.backward()
            with mark("optimizer"):
                optimizer.step()
                optimizer.zero_grad()
            region("step").add(samples=size)
        count += 1
    return count


def say(**words: object) -> None:
    """One line, answered by one."""
    print(json.dumps(words), flush=True)
    sys.stdin.readline()


torch.manual_seed(1)
torch.set_num_threads(1)
model, loss_of = Net(), nn.CrossEntropyLoss()
optimizer = torch.optim.AdamW(model.parameters())
train(1.0, contextlib.nullcontext)
hooks = layers(model)
say(torch=torch.__version__, python=platform.python_version())
steps = train(SECONDS)
say(steps=steps)
for hook in hooks:
    hook.remove()
with torch.profiler.profile(with_stack=True, with_modules=True) as profile:
    train(3.0, contextlib.nullcontext)
profile.export_chrome_trace(TRACE)
say(trace=TRACE)
