"""A compiled model with dropout: the compiler's own generators and code."""

import torch
from torch import nn

model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Dropout(0.25), nn.Linear(16, 1))
step_model = torch.compile(model)
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
for step in range(6):
    inputs = torch.randn(16, 8)
    loss = step_model(inputs).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
