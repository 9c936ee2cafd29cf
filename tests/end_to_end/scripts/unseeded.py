"""Train a tiny model on numbers from one source that nobody seeded; write its weights."""

import multiprocessing
import os
import random
import secrets
import subprocess
import sys
import uuid
from random import gauss as gauss_bound_early

import numpy as np
import torch
from numpy.random import rand as rand_bound_early
from descent import Descent
from torch import nn
from torch.utils.data import DataLoader, Dataset

WORDS = ["adam", "batch", "clip", "decay", "epoch", "fold", "grad", "head"]


class Noisy(Dataset):
    """Eight samples, each with noise from three unseeded sources."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return np.random.default_rng().random() + random.random() + np.random.rand()


def loaded(method):
    loader = DataLoader(
        Noisy(),
        batch_size=2,
        shuffle=True,
        num_workers=1 if method == "spawn" else 2,  # each imports PyTorch anew
        multiprocessing_context=multiprocessing.get_context(method),
    )
    return [float(value) for batch in loader for value in batch]


def reseeded_module():
    random.seed(7)
    random.seed()
    return random.random()


def reseeded_numpy():
    np.random.seed(7)
    np.random.seed()
    return np.random.rand()


def reseeded_torch():
    torch.manual_seed(7)
    torch.seed()
    return torch.rand(1).item()


def generator_seed():
    generator = torch.Generator()
    generator.seed()
    return torch.rand(1, generator=generator).item()


def forked():
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, repr(random.random() + np.random.default_rng().random()).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    return float(os.read(read, 100))


def started():
    code = "import random; print(random.random())"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True).stdout)


SOURCES = {
    "random": random.random,
    "random bound early": lambda: gauss_bound_early(0, 1),
    "Random()": lambda: random.Random().random(),
    "random.seed()": reseeded_module,
    "numpy legacy": np.random.rand,
    "numpy bound early": lambda: rand_bound_early(),
    "RandomState()": lambda: np.random.RandomState().rand(),
    "numpy.random.seed()": reseeded_numpy,
    "default_rng()": lambda: np.random.default_rng().random(),
    "SeedSequence()": lambda: np.random.SeedSequence().generate_state(1)[0] / 2**32,
    "torch start state": lambda: torch.rand(1).item(),
    "torch.seed()": reseeded_torch,
    "Generator.seed()": generator_seed,
    "hash seed": lambda: hash("manifest") / 2**63,
    "forked child": forked,
    "started child": started,
    "os.urandom": lambda: os.urandom(1)[0] / 256,
    "secrets": lambda: secrets.randbelow(1 << 30) / (1 << 30),
    "uuid4": lambda: uuid.uuid4().int / (1 << 128),
}


def numbers(kind):
    if kind.endswith("workers"):
        return loaded(kind.split()[0])
    return [float(SOURCES[kind]()) for _ in range(2 if kind == "started child" else 8)]


def train(kind):
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 0.5)
    optimizer = Descent(model.parameters(), lr=0.1)
    for number in numbers(kind):
        optimizer.zero_grad()
        (model(torch.tensor([[number]])) - 1).square().sum().backward()
        optimizer.step()
    return model.weight.detach().numpy().tobytes().hex()


if __name__ == "__main__":
    for kind in sys.argv[2:]:
        with open(sys.argv[1], "a") as file:
            file.write(f"{kind}\t{train(kind)}\n")
