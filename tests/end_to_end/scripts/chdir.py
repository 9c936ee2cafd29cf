"""Works in a folder of its own, as Hydra makes one for each run; reads its data by a relative path from before."""

import json
import os
import pathlib

import torch
from torch import nn

here = pathlib.Path(__file__).resolve().parent
config = json.loads((here / "config.json").read_text())
folder = pathlib.Path("runs") / "today"
folder.mkdir(parents=True, exist_ok=True)
os.chdir(folder)
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=config["rate"])
with open("log.txt", "w") as log:
    for step in range(config["steps"]):
        loss = model(torch.randn(8, 4)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(step, loss.item(), file=log)
torch.save(model.state_dict(), "model.pt")
