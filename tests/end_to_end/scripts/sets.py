"""The order of a set of strings decides the order of layers and of samples."""

import torch
from torch import nn

heads = {name: i for i, name in enumerate({"age", "colour", "height", "mood", "name", "size", "shape", "weight"})}
body = nn.Linear(4, 8)
layers = nn.ModuleDict({name: nn.Linear(8, 1) for name in heads})
optimizer = torch.optim.SGD([*body.parameters(), *layers.parameters()], lr=0.1)
files = {f"sample-{number:02}" for number in range(12)}
for name in files:
    torch.manual_seed(int(name[-2:]))
    hidden = torch.tanh(body(torch.randn(4, 4)))
    loss = sum((heads[head] + 1) * layer(hidden).square().mean() for head, layer in layers.items())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
