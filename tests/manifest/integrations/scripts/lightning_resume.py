"""Fit a model whole, then again from each of its checkpoints; prints what each fit computed as JSON.

Given are the kinds of fits, each as name=value pairs with commas between; `of` says from which
checkpoints, by their steps with dots between.
"""

import gc
import json
import logging
import random
import sys
import tempfile
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset

import manifest
from manifest.integrations.lightning import ManifestCallback

gc.freeze()  # or all that was imported is gone through with each fit
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
warnings.filterwarnings("ignore")


class Augmented(Dataset):
    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        noise = torch.randn(4) / 10 + random.random() / 10
        return torch.full((4,), index / self.length) + noise, torch.tensor([index / self.length])


class Streamed(IterableDataset):
    """Draws from a generator that begins anew with each pass."""

    def __iter__(self):
        rng = random.Random(torch.initial_seed())
        for index in range(20):
            yield torch.full((4,), index / 20) + rng.random() / 10, torch.tensor([index / 20])


class Regression(pl.LightningModule):
    def __init__(self, draws):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 1))
        self.draws = draws
        self.losses = {}

    def training_step(self, batch, index):
        loss = nn.functional.mse_loss(self.net(batch[0]), batch[1])
        self.losses[int(self.global_step)] = loss.item().hex()
        return loss

    def validation_step(self, batch, index):
        self.log("val", nn.functional.mse_loss(self.net(batch[0]), batch[1]))

    def on_train_start(self):
        if self.draws:
            torch.rand(1)

    def on_train_epoch_start(self):
        if self.draws:
            torch.rand(1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


def fit(folder, kind, hook, ckpt_path=None):
    model = Regression(kind.get("draws"))
    workers = int(kind.get("workers", 0))
    options = {"num_workers": workers, "multiprocessing_context": "fork" if workers else None}
    if kind.get("persistent"):
        options["persistent_workers"] = True
    data = Augmented(20)
    order = {"shuffle": True}
    if kind.get("distributed"):
        order = {"sampler": DistributedSampler(data, 1, 0)}
    if kind.get("stream"):
        data, order = Streamed(), {}
    train = DataLoader(data, 4, **order, **options)
    validation = [DataLoader(Augmented(8), 4, **options)] if kind.get("val") else []
    saved = ModelCheckpoint(
        dirpath=folder,
        filename="{step}",
        save_top_k=-1,
        every_n_train_steps=int(kind.get("every", 0)) or None,
    )
    epochs, steps = int(kind.get("epochs", 3)), int(kind.get("max_steps", -1))
    trainer = pl.Trainer(
        max_epochs=epochs if steps < 0 else None,
        max_steps=steps,
        accelerator="cpu",
        devices=int(kind.get("devices", 1)),
        strategy="ddp" if "devices" in kind else "auto",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        val_check_interval=float(kind.get("val") or 1),
        callbacks=[saved, *([ManifestCallback()] if hook else [])],
    )
    trainer.fit(model, train, *validation, ckpt_path=ckpt_path)
    bits = [p.detach().numpy().tobytes().hex() for p in model.parameters()]
    return {"losses": model.losses, "bits": "".join(bits)}


def attempt(*arguments):
    try:
        return fit(*arguments)
    except manifest.ManifestError as error:
        return {"error": str(error)}


def main():
    found = []
    for text in sys.argv[1:]:
        kind = dict(pair.split("=") for pair in text.split(",") if pair)
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as aside:
            pl.seed_everything(1)
            plain = fit(f"{folder}/plain", kind, hook=False)
            pl.seed_everything(1)
            with manifest.record():
                whole = fit(f"{folder}/whole", kind, hook=True)
            resumed, alone = {}, {}
            for step in kind["of"].split("."):
                path = Path(folder, "whole", f"step={step}.ckpt")
                with manifest.record():
                    resumed[step] = attempt(f"{aside}/{step}", kind, True, str(path))
                alone[step] = attempt(f"{aside}/alone-{step}", kind, False, str(path))
        found.append({"plain": plain, "whole": whole, "resumed": resumed, "alone": alone})
    print(json.dumps(found))


if __name__ == "__main__":
    main()
