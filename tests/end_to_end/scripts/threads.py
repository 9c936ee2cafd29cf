"""Threads prepare batches ahead, each drawing from generators of its own; a queue for each keeps their order."""

import queue
import random
import threading

import numpy as np
import torch
from torch import nn


def prepare(number, into):
    mine = random.Random(number)
    arrays = np.random.default_rng(number)
    tensors = torch.Generator().manual_seed(number)
    for _ in range(6):
        batch = torch.from_numpy(arrays.standard_normal((8, 3)).astype("f4"))
        into.put(batch * mine.random() + torch.rand(8, 3, generator=tensors))


queues = [queue.Queue(maxsize=2) for _ in range(3)]
threads = [threading.Thread(target=prepare, args=pair, daemon=True) for pair in enumerate(queues)]
for thread in threads:
    thread.start()
model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(0.1), nn.Linear(8, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(18):
    loss = model(queues[step % 3].get()).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
