"""Word vectors by negative sampling: sparse gradients, SparseAdam beside Adam."""

import numpy as np
import torch
from torch import nn

words = np.random.zipf(1.5, 400) % 50
centre = nn.Embedding(50, 8, sparse=True)
context = nn.EmbeddingBag(50, 8, mode="mean", sparse=True)
scale = nn.Parameter(torch.ones(()))
sparse = torch.optim.SparseAdam([*centre.parameters(), *context.parameters()], lr=0.05)
dense = torch.optim.Adam([scale], lr=0.01)
for _ in range(8):
    places = np.random.randint(2, 398, 32)
    around = torch.from_numpy(np.stack([words[places + shift] for shift in (-2, -1, 1, 2)], 1))
    noise = torch.from_numpy(np.random.choice(words, (32, 4)))
    vectors = centre(torch.from_numpy(words[places])) * scale
    positive = nn.functional.logsigmoid((vectors * context(around)).sum(1))
    negative = nn.functional.logsigmoid(-(vectors * context(noise)).sum(1))
    loss = -(positive + negative).mean()
    sparse.zero_grad()
    dense.zero_grad()
    loss.backward()
    sparse.step()
    dense.step()
