"""Train a small network on handwritten digits. No seed is set anywhere."""

import argparse
import hashlib
import random

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset


class Digits(Dataset[tuple[Tensor, Tensor]]):
    """Images of 8 by 8 pixels; those to train on are shifted and get noise."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, *, is_augmented: bool) -> None:
        self.images = (images / 16).astype(np.float32)
        self.labels = labels
        self.is_augmented = is_augmented

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = self.images[index]
        if self.is_augmented:
            shift = random.choice([(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)])
            image = np.roll(image, shift, axis=(0, 1))
            noise = np.random.normal(0, 0.05, image.shape)  # noqa: NPY002, as most code has it
            image = image + noise.astype(np.float32)
        return torch.from_numpy(image).unsqueeze(0), torch.tensor(self.labels[index])


def build_network() -> nn.Module:
    """One convolution, dropout, two linear layers."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.25),
        nn.Linear(16 * 4 * 4, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def accuracy(network: nn.Module, loader: DataLoader[tuple[Tensor, Tensor]]) -> float:
    """The share of images that the network names right."""
    network.eval()
    with torch.no_grad():
        hits = [network(images).argmax(1) == labels for images, labels in loader]
    network.train()
    return torch.cat(hits).float().mean().item()


def main() -> None:
    """Train, and say after each epoch how well it goes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=3e-3)
    args = parser.parse_args()

    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8)
    train = Digits(images[:1500], labels[:1500], is_augmented=True)
    test = Digits(images[1500:], labels[1500:], is_augmented=False)
    train_loader = DataLoader(train, batch_size=50, shuffle=True, num_workers=2)
    test_loader = DataLoader(test, batch_size=297)

    network = build_network()
    optimizer = torch.optim.Adam(network.parameters(), lr=args.lr)
    for epoch in range(args.epochs):
        for batch, targets in train_loader:
            loss = nn.functional.cross_entropy(network(batch), targets)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        score = accuracy(network, test_loader)
        print(f"epoch {epoch}  loss {loss.item():.6f}  test accuracy {score:.1%}", flush=True)

    weights = b"".join(p.detach().numpy().tobytes() for p in network.parameters())
    print(f"weights {hashlib.sha256(weights).hexdigest()[:16]}")


if __name__ == "__main__":
    main()
