"""Augmentation with NumPy and `random` in two loader workers, in another way in each epoch."""

import random

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler


class Augmented(Dataset):
    def __init__(self):
        self.images = np.random.rand(32, 1, 8, 8).astype("f4")

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        image = self.images[index]
        if random.random() < 0.5:
            image = image[:, :, ::-1]
        image = np.roll(image, np.random.randint(-2, 3), axis=1) + np.random.normal(0, 0.1, image.shape)
        return torch.tensor(image, dtype=torch.float32), index % 2


if __name__ == "__main__":
    sampler = WeightedRandomSampler(np.linspace(1, 3, 32), 32)
    loader = DataLoader(Augmented(), batch_size=8, sampler=sampler, num_workers=2, persistent_workers=True)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        for images, labels in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
