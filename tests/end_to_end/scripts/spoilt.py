"""Trains, and does what the names of the files in a folder tell it: what a replay may meet."""

import os
import resource
import sys
from collections import UserDict
from itertools import islice

import torch
from descent import Descent
from torch import nn
from torch.utils.data import DataLoader

torch.set_num_threads(1)
told = set(os.listdir(sys.argv[1]))


class Batch(UserDict):
    def items(self):
        if "an opaque batch" in told:
            raise RuntimeError("these items are not for show")
        return super().items()


def fill_disk():
    folder = os.path.join(os.environ["MANIFEST_RUN_DIR"], "journal")
    size = max(entry.stat().st_size for entry in os.scandir(folder)) + 8192
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def train(steps):
    model = nn.Linear(4, 1)
    optimizer = Descent(model.parameters(), lr=0.01)
    loader = DataLoader(torch.randn(1240, 4), batch_size=2, collate_fn=lambda rows: Batch(x=torch.stack(rows)))
    for step, batch in enumerate(islice(loader, steps)):
        optimizer.zero_grad()
        model(batch["x"]).square().mean().backward()
        optimizer.step()
        if step == 9 and "a full disk" in told:
            fill_disk()


train(580 if "an early end" in told else 620 if "a late end" in told else 600)
if "a child" in told:
    pid = os.fork()
    if pid == 0:
        train(3)
        os._exit(0)
    os.waitpid(pid, 0)
if "a failure" in told:
    raise RuntimeError("no more memory")
if "a silent end" in told:
    os._exit(0)
