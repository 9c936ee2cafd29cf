"""A small training, once as it is; with --sweep once for each choice, each recorded in a fork."""

import gc
import os
import random
import sys
import warnings

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

warnings.filterwarnings("ignore", message=".*pin_memory.*")


class Noisy(Dataset):
    def __init__(self):
        self.images = torch.rand(20, 3, 8, 8)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index] + torch.rand(3, 8, 8), index % 4


def train(*, loader=(), optimizer=(), autocast=False, channels_last=False):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 32), nn.ReLU(), nn.Linear(32, 4))
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    batches = DataLoader(Noisy(), **{"batch_size": 6, "shuffle": True, **dict(loader)})
    optimizer = torch.optim.Adam(model.parameters(), **dict(optimizer))
    for images, labels in batches:
        with torch.autocast("cpu", enabled=autocast):
            loss = nn.functional.cross_entropy(model(images.to(torch.get_default_dtype())), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def train_by_hand():
    """No optimizer, whose import takes a second; no convolution, which hangs under OMP_DYNAMIC."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 32), nn.ReLU(), nn.Linear(32, 4))
    for images, labels in DataLoader(Noisy(), batch_size=6, shuffle=True):
        nn.functional.cross_entropy(model(images), labels).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad
                parameter.grad = None


def set_generic_precision(value):
    torch.backends.fp32_precision = value


def set_mkldnn(value):
    torch.backends.mkldnn.enabled = value


CHOICES = {
    "first": lambda: train(),
    "again": lambda: train(),
    "threads": lambda: (torch.set_num_threads(1), train()),
    "interop": lambda: (torch.set_num_interop_threads(1), train()),
    "mkldnn": lambda: (set_mkldnn(False), train()),
    "medium": lambda: (torch.set_float32_matmul_precision("medium"), train()),
    "bf16": lambda: (set_generic_precision("bf16"), train()),
    "dtype": lambda: (torch.set_default_dtype(torch.float64), train()),
    "deterministic": lambda: (torch.use_deterministic_algorithms(True), train()),
    "fused": lambda: train(optimizer={"fused": True}),
    "foreach": lambda: train(optimizer={"foreach": True}),
    "rate": lambda: train(optimizer={"lr": 0.002}),
    "autocast": lambda: train(autocast=True),
    "channels_last": lambda: train(channels_last=True),
    "workers": lambda: train(loader={"num_workers": 2}),
    "batch_size": lambda: train(loader={"batch_size": 5}),
    "shuffle": lambda: train(loader={"shuffle": False}),
    "in_order": lambda: train(loader={"in_order": False}),
    "drop_last": lambda: train(loader={"drop_last": True}),
    "pin_memory": lambda: train(loader={"pin_memory": True}),
}


def sweep():
    import torch._dynamo  # each fork would, when it makes its optimizer

    import manifest

    for name, choice in CHOICES.items():
        child = os.fork()
        if child == 0:
            random.seed(0)  # else each fork has a start state of its own
            with manifest.record(name=name):
                choice()
            os._exit(0)
        if os.waitpid(child, 0)[1] != 0:
            sys.exit(f"{name} failed")


if __name__ == "__main__":
    gc.freeze()  # or each process goes through all that was imported at its end
    sweep() if "--sweep" in sys.argv else train_by_hand()
