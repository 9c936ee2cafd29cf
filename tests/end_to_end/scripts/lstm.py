"""An LSTM over sequences of different lengths, padded by a collate function and packed."""

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence
from torch.utils.data import DataLoader, Dataset


class Waves(Dataset):
    def __init__(self, count):
        rng = np.random.default_rng()
        self.waves = [np.sin(rng.random() * np.arange(rng.integers(5, 20))).astype("f4") for _ in range(count)]

    def __len__(self):
        return len(self.waves)

    def __getitem__(self, index):
        return torch.from_numpy(self.waves[index])


def collate(waves):
    lengths = torch.tensor([len(wave) - 1 for wave in waves])
    return pad_sequence(waves, batch_first=True), lengths


class Forecaster(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(1, 16, num_layers=2, dropout=0.2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(32, 1)

    def forward(self, waves, lengths):
        packed = pack_padded_sequence(waves[:, :-1, None], lengths, batch_first=True, enforce_sorted=False)
        _, (hidden, _) = self.lstm(packed)
        return self.head(torch.cat([hidden[-2], hidden[-1]], 1)).squeeze(1)


loader = DataLoader(Waves(40), batch_size=8, shuffle=True, collate_fn=collate)
model = Forecaster()
optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-2)
for _ in range(2):
    for waves, lengths in loader:
        targets = waves[torch.arange(len(waves)), lengths]
        loss = nn.functional.huber_loss(model(waves, lengths), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
