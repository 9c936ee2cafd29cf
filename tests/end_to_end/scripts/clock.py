"""Trains with seeds from the clock, in every way in which one can be given."""

import os
import random
import subprocess
import sys
import time

import numpy as np
import torch
from descent import Descent
from torch.utils.data import DataLoader

CHILD = "import random, time\nrandom.seed(time.time_ns())\nprint(random.random())"


def seed_worker(worker):
    random.seed(time.time_ns() + worker)


def noisy(items):
    return torch.tensor([item + random.random() for item in items])


def drawn_in_fork():
    reading, writing = os.pipe()
    if os.fork() == 0:
        random.seed(time.time_ns())
        os.write(writing, str(random.random()).encode())
        os._exit(0)
    os.wait()
    return float(os.read(reading, 100))


def main():
    torch.manual_seed(time.time_ns())
    random.seed(str(time.time()))
    np.random.seed([os.getpid(), time.time_ns() % 2**32])
    modern = np.random.default_rng(time.time_ns())
    legacy = np.random.RandomState(int(time.time_ns()) % 2**32)
    python = random.Random(time.time())
    own = torch.Generator()
    own.manual_seed(time.time_ns())
    in_order = []
    for _ in range(3):
        torch.manual_seed(time.time_ns())
        in_order.append(torch.rand(1).item())
    torch.manual_seed(time.time_ns())
    devices = torch.cuda._lazy_seed_tracker.get_calls()[-1][0].__closure__[0].cell_contents
    model = torch.nn.Linear(8, 1)
    optimizer = Descent(model.parameters(), lr=0.1)
    started = float(subprocess.check_output([sys.executable, "-c", CHILD]))
    extra = sum(in_order) + modern.random() + legacy.rand() + python.random() + np.random.rand()
    extra += drawn_in_fork() + started + torch.rand(1, generator=own).item()
    loader = DataLoader(
        range(8), batch_size=4, collate_fn=noisy, num_workers=2, worker_init_fn=seed_worker
    )
    for batch in loader:
        (model(batch.repeat(2).unsqueeze(0)[:, :8]) * extra).sum().backward()
        optimizer.step()
    print(extra, in_order, devices == torch.initial_seed())


if __name__ == "__main__":
    main()
