"""Gradients of four micro-batches for each step; losses in float64; two parameter groups; a frozen layer."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

model = nn.Sequential(nn.Linear(4, 16), nn.SiLU(), nn.Linear(16, 16), nn.SiLU(), nn.Linear(16, 1)).double()
model[2].requires_grad_(False)
groups = [{"params": model[0].parameters(), "lr": 0.01}, {"params": model[4].parameters(), "lr": 0.1}]
optimizer = torch.optim.NAdam(groups)
loader = DataLoader(TensorDataset(torch.randn(64, 4).double()), batch_size=4, shuffle=True)
for index, (inputs,) in enumerate(loader):
    (model(inputs).square().mean() / 4).backward()
    if index % 4 == 3:
        optimizer.step()
        optimizer.zero_grad()
