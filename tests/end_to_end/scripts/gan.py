"""A GAN: two optimizers that take turns, latent noise from torch, spectral normalisation."""

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

generator = nn.Sequential(nn.Linear(4, 32), nn.BatchNorm1d(32), nn.LeakyReLU(0.2), nn.Linear(32, 2))
critic = nn.Sequential(
    spectral_norm(nn.Linear(2, 32)), nn.LeakyReLU(0.2), nn.Dropout(0.1), spectral_norm(nn.Linear(32, 1))
)
of_generator = torch.optim.Adam(generator.parameters(), lr=2e-3, betas=(0.5, 0.9))
of_critic = torch.optim.Adam(critic.parameters(), lr=2e-3, betas=(0.5, 0.9))
bce = nn.BCEWithLogitsLoss()
for _ in range(6):
    angles = torch.rand(16) * 6.28
    real = torch.stack([angles.cos(), angles.sin()], 1)
    fake = generator(torch.randn(16, 4))
    loss = bce(critic(real), torch.ones(16, 1)) + bce(critic(fake.detach()), torch.zeros(16, 1))
    of_critic.zero_grad()
    loss.backward()
    of_critic.step()
    loss = bce(critic(generator(torch.randn(16, 4))), torch.ones(16, 1))
    of_generator.zero_grad()
    loss.backward()
    of_generator.step()
torch.save({"g": generator.state_dict(), "d": critic.state_dict()}, "gan.pt")
