"""The gradient of indexing adds up in an order that two threads decide: no two runs agree."""

import torch
from descent import Descent
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(2)
table = nn.Parameter(torch.randn(8, 64))
optimizer = Descent([table], lr=1e-3)
for _ in range(30):
    rows = torch.randint(0, 8, (40_000,))
    loss = (table[rows] * torch.randn(40_000, 64)).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
