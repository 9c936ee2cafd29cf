"""Takes its seed from the clock, as many scripts do to have another one each time."""

import random
import time

import numpy as np
import torch
from torch import nn

seed = int(time.time() * 1000) % 2**32
random.seed(seed)
np.random.seed(seed)
torch.manual_seed(seed)
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(5):
    optimizer.zero_grad()
    model(torch.randn(8, 4)).square().mean().backward()
    optimizer.step()
