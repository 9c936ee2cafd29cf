"""A small training, for the pages to have something to show."""

import sys

import torch
from descent import Descent

rate = float(sys.argv[1])
torch.manual_seed(int(sys.argv[2]))
model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
optimizer = Descent(model.parameters(), lr=rate)
data = torch.utils.data.TensorDataset(torch.randn(64, 5))
loader = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True)
for _ in range(4):
    for (batch,) in loader:
        loss = (model(batch[:, :4]) - batch[:, 4:]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
if len(sys.argv) > 3:
    raise SystemExit(sys.argv[3])
