"""A character transformer on a text of its own, sampled at random places; AdamW with warm-up."""

import math
import random

import torch
from torch import nn

TEXT = "the quick brown fox jumps over the lazy dog. " * 40
VOCABULARY = sorted(set(TEXT))
CODES = torch.tensor([VOCABULARY.index(letter) for letter in TEXT])
LENGTH = 16


class Model(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        self.embed = nn.Embedding(len(VOCABULARY), width)
        self.place = nn.Parameter(torch.randn(LENGTH, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, 4, 64, dropout=0.1, batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, len(VOCABULARY))

    def forward(self, codes):
        mask = nn.Transformer.generate_square_subsequent_mask(codes.shape[1])
        return self.head(self.body(self.embed(codes) + self.place, mask=mask, is_causal=True))


def batch(size):
    starts = [random.randrange(len(CODES) - LENGTH - 1) for _ in range(size)]
    return (
        torch.stack([CODES[i : i + LENGTH] for i in starts]),
        torch.stack([CODES[i + 1 : i + LENGTH + 1] for i in starts]),
    )


model = Model()
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min(1, (s + 1) / 4) * 0.5 * (1 + math.cos(s / 10)))
for step in range(10):
    inputs, targets = batch(8)
    loss = nn.functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
print(f"{loss.item():.4f}")
