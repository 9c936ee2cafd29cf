"""Train with Transformers' Trainer, whole, then again from checkpoints; prints the figures as JSON.

Given are the kinds of trainings, each as name=value pairs with commas between; `of` says from which
checkpoints, by their steps with dots between.
"""

import gc
import json
import os
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset, IterableDataset
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.utils import logging

import manifest
from manifest.integrations.transformers import ManifestCallback

gc.freeze()  # or all that was imported is gone through with each training
logging.set_verbosity_error()
LENGTH = 20


def sample(index, noise):
    return {"x": torch.full((4,), index / LENGTH) + noise, "y": torch.tensor([index / LENGTH])}


class Augmented(Dataset):
    """Draws for each sample anew, from the shared generators and from one of its own."""

    def __init__(self):
        self.rng = np.random.default_rng(5)

    def __len__(self):
        return LENGTH

    def __getitem__(self, index):
        return sample(index, torch.randn(4) / 10 + self.rng.normal() / 10)


class Streamed(IterableDataset):
    """Draws from a generator that begins anew with each pass."""

    def __iter__(self):
        rng = np.random.default_rng(torch.initial_seed() % 1000)
        for index in range(LENGTH):
            yield sample(index, rng.normal() / 10)


class Regression(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 1))
        self.losses = []

    def forward(self, x, y):
        loss = nn.functional.mse_loss(self.net(x), y)
        self.losses.append(loss.item().hex())
        return {"loss": loss}


def train(folder, kind, hook, checkpoint=None):
    stream = bool(kind.get("stream"))
    arguments = TrainingArguments(
        folder,
        per_device_train_batch_size=4,
        num_train_epochs=3,
        max_steps=15 if stream else -1,
        gradient_accumulation_steps=int(kind.get("accumulate", 1)),
        dataloader_num_workers=int(kind.get("workers", 0)),
        save_strategy=kind.get("save", "steps"),
        save_steps=1,
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        max_grad_norm=0,
        learning_rate=0.05,
    )
    data = Streamed() if stream else Augmented()
    model = Regression()
    callbacks = [ManifestCallback()] if hook else []
    trainer = Trainer(model, arguments, train_dataset=data, callbacks=callbacks)
    trainer.train(resume_from_checkpoint=checkpoint)
    bits = [p.detach().numpy().tobytes().hex() for p in model.parameters()]
    return {"losses": model.losses, "bits": "".join(bits)}


def main():
    found = []
    for text in sys.argv[1:]:
        kind = dict(pair.split("=") for pair in text.split(",") if pair)
        with tempfile.TemporaryDirectory() as folder:
            torch.manual_seed(1)
            plain = train(f"{folder}/plain", kind, False)
            torch.manual_seed(1)
            with manifest.record():
                whole = train(f"{folder}/whole", kind, True)
            resumed, alone = {}, {}
            for step in kind["of"].split("."):
                checkpoint = f"{folder}/whole/checkpoint-{step}"
                with manifest.record():
                    resumed[step] = train(f"{folder}/{step}", kind, True, checkpoint)
                alone[step] = train(f"{folder}/alone-{step}", kind, False, checkpoint)
        found.append({"plain": plain, "whole": whole, "resumed": resumed, "alone": alone})
    print(json.dumps(found))


if __name__ == "__main__":
    main()
