"""A small training with loader workers; unseeded unless told, ended as told."""

import argparse
import os
import random
import signal
import sys

import numpy as np
import torch
from descent import Descent
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def parsed():
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", default="weights.txt")
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--end", default="return")
    parser.add_argument("--record", action="store_true")
    return parser.parse_args()


def main(options):
    if options.record:
        import manifest

        manifest.record(project="tests", config={"lr": options.lr})
    if options.seed is not None:
        random.seed(options.seed)
        np.random.seed(options.seed)
        torch.manual_seed(options.seed)
    data = TensorDataset(torch.rand(64, 4), torch.rand(64, 1))
    loader = DataLoader(data, batch_size=8, shuffle=True, num_workers=options.workers)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 1))
    optimizer = Descent(model.parameters(), lr=options.lr)
    step = 0
    for _ in range(2):
        for inputs, targets in loader:
            inputs = inputs + random.random() + float(np.random.default_rng().random())
            optimizer.zero_grad()
            nn.functional.mse_loss(model(inputs), targets).backward()
            optimizer.step()
            step += 1
            if step == 10 and options.end == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
    with open(options.weights, "w") as file:
        file.writelines(parameter.detach().numpy().tobytes().hex() + "\n" for parameter in model.parameters())
        file.write(repr((random.getstate(), torch.get_rng_state().tolist())))
    if options.end == "raise":
        raise ValueError("the data ran out")
    if options.end == "exit":
        sys.exit(3)
    if options.end == "os._exit":
        os._exit(0)


if __name__ == "__main__":
    main(parsed())
