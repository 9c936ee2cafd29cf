"""L-BFGS: the optimizer calls a closure, several times for each step."""

import torch
from torch import nn

inputs = torch.linspace(-1, 1, 64)[:, None]
targets = torch.sin(3 * inputs) + 0.05 * torch.randn(64, 1)
model = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))
optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=5, line_search_fn="strong_wolfe")


def closure():
    optimizer.zero_grad()
    loss = nn.functional.mse_loss(model(inputs), targets)
    loss.backward()
    return loss


for _ in range(5):
    optimizer.step(closure)
