"""Repeats only where its entropy is given again: a seed of the clock, an unseeded generator, the order of a set."""

import random
import time

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from descent import Descent
torch.manual_seed(time.time_ns() % 2**32)
mine = random.Random()
names = list({"age", "colour", "height", "mood", "name", "size"})


class Noisy(Dataset):
    def __init__(self):
        self.noise = np.random.default_rng(0)

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.tensor([self.noise.random() * mine.random() + names.index("mood")]).float()


if __name__ == "__main__":
    model = nn.Linear(1, 1)
    optimizer = Descent(model.parameters(), lr=0.01)
    for batch in DataLoader(Noisy(), num_workers=2):
        optimizer.zero_grad()
        model(batch).square().sum().backward()
        optimizer.step()
