"""skorch: an estimator of scikit-learn that trains a module, nothing seeded, and its own split."""

import numpy as np
import torch
from skorch import NeuralNetClassifier
from torch import nn


class Digits(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, width), nn.ReLU(), nn.Dropout(0.5), nn.Linear(width, 2)
        )

    def forward(self, x):
        return self.layers(x)


features = np.random.rand(40, 4).astype(np.float32)
labels = (features.sum(axis=1) > 2).astype(np.int64)
net = NeuralNetClassifier(
    Digits,
    criterion=nn.CrossEntropyLoss,
    optimizer=torch.optim.SGD,
    lr=0.1,
    max_epochs=2,
    batch_size=8,
    iterator_train__shuffle=True,
    verbose=0,
)
net.fit(features, labels)
