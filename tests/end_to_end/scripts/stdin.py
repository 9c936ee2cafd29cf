"""Learns from numbers that come through a pipe."""

import sys

import torch
from descent import Descent
from torch import nn

model = nn.Linear(1, 1)
optimizer = Descent(model.parameters(), lr=0.01)
for line in sys.stdin:
    x, y = map(float, line.split())
    optimizer.zero_grad()
    (model(torch.tensor([x])) - y).square().sum().backward()
    optimizer.step()
