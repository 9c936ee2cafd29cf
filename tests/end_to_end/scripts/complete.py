"""Two ranks train, and everything that a manifest should hold of a run plays a part."""

import argparse
import random

import numpy as np
import torch
import torch.distributed as dist
from helper import WIDTH
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import manifest


def main(options):
    random.seed(11)
    np.random.seed(12)
    torch.manual_seed(13)
    manifest.record(config={"lr": options.lr})
    torch.use_deterministic_algorithms(True)
    dist.init_process_group("gloo")
    values = torch.tensor(np.fromfile("data.bin", dtype=np.uint8), dtype=torch.float32)
    data = TensorDataset(values.reshape(-1, WIDTH))
    sampler = DistributedSampler(data, seed=14)
    loader = DataLoader(data, batch_size=4, sampler=sampler, generator=torch.Generator().manual_seed(15))
    model = nn.Linear(WIDTH, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=options.lr)
    for (inputs,) in loader:
        optimizer.zero_grad()
        model(inputs).mean().backward()
        optimizer.step()
    dist.destroy_process_group()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float)
    main(parser.parse_args())
