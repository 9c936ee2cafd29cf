"""Hogwild: two processes train one shared model without locks, so each run ends elsewhere."""

import torch
import torch.multiprocessing as mp
from descent import Descent
from torch import nn


def train(model, number):
    torch.manual_seed(number)
    optimizer = Descent(model.parameters(), lr=0.05)
    for _ in range(400):
        inputs = torch.randn(16, 4)
        optimizer.zero_grad()
        nn.functional.mse_loss(model(inputs), inputs.sum(1, keepdim=True)).backward()
        optimizer.step()


if __name__ == "__main__":
    torch.set_num_threads(1)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1))
    model.share_memory()
    context = mp.get_context("fork")
    workers = [context.Process(target=train, args=(model, number)) for number in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
