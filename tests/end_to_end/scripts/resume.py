"""Trains on from its last checkpoint if there is one; writes one after each epoch."""

import os

import torch
from torch import nn

os.makedirs("checkpoints", exist_ok=True)
PATH = os.path.join("checkpoints", "last.pt")
model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
start = 0
if os.path.exists(PATH):
    state = torch.load(PATH)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["rng"])
    start = state["epoch"] + 1
for epoch in range(start, start + 3):
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save({**state, "rng": torch.get_rng_state(), "epoch": epoch}, PATH)
print(f"trained epochs {start} to {epoch}")
