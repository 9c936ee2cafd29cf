"""A stream of samples from two spawned workers, each with its share; no length is known."""

import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info


class Stream(IterableDataset):
    def __iter__(self):
        worker = get_worker_info()
        for number in range(worker.id, 40, worker.num_workers):
            yield torch.tensor([number / 40, torch.rand(()).item()]), torch.rand(1)


def main():
    loader = DataLoader(Stream(), batch_size=5, num_workers=2, multiprocessing_context="spawn", prefetch_factor=3)
    model = nn.Linear(2, 1)
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.1)
    for inputs, targets in loader:
        optimizer.zero_grad()
        nn.functional.l1_loss(model(inputs), targets).backward()
        optimizer.step()


if __name__ == "__main__":
    main()
