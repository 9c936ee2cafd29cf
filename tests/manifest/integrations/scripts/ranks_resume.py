"""Train with a framework, whole, then again from checkpoints; writes the figures as JSON.

Given are the kinds of trainings, each as name=value pairs with commas between; `of` says from which
checkpoints, by their steps with dots between. Started alone or by torchrun.
"""

import gc
import json
import os
import random
import sys

os.environ["PL_GLOBAL_SEED"] = "1"  # of which distributed samplers make their order

import torch
from accelerate import Accelerator, DataLoaderConfiguration
from accelerate.utils import set_seed
from lightning_fabric import Fabric
from torch import nn
from torch.utils.data import DataLoader, Dataset

import manifest
from manifest.integrations import accelerate, fabric

gc.freeze()  # or all that was imported is gone through whenever Accelerate frees memory
RANK, RANKS = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
EPOCHS = 3


class Augmented(Dataset):
    def __len__(self):
        return 20

    def __getitem__(self, index):
        noise = torch.randn(4) / 10 + random.random() / 10
        return torch.full((4,), index / 20) + noise, torch.tensor([index / 20])


def parts(kind):
    workers = int(kind.get("workers", 0))
    context = "fork" if workers else None
    options = {"num_workers": workers, "multiprocessing_context": context}
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    return net, optimizer, DataLoader(Augmented(), 2, shuffle=True, **options)


def train_accelerate(folder, kind, hook, done=0):
    Accelerator._shared_state = {}
    stateful = bool(kind.get("stateful"))
    configuration = DataLoaderConfiguration(
        use_seedable_sampler=bool(kind.get("seedable")), use_stateful_dataloader=stateful
    )
    accelerator = Accelerator(cpu=True, dataloader_config=configuration)
    model, optimizer, loader = accelerator.prepare(*parts(kind))
    if hook:
        accelerator.register_for_checkpointing(accelerate.ManifestState(accelerator))
    if done:
        accelerator.load_state(f"{folder}/whole-{hook}/{done}")
    epoch, passed = divmod(done, len(loader))
    first = loader
    if passed and not hook and not stateful:
        first = accelerator.skip_first_batches(loader, passed)
    losses = []
    for each in range(epoch, EPOCHS):
        for inputs, targets in first if each == epoch else loader:
            loss = nn.functional.mse_loss(model(inputs), targets)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item().hex())
            if not done:
                save(accelerator, f"{folder}/whole-{hook}/{len(losses)}", kind, len(losses))
    found = described(losses, model)
    del first, loader, model, optimizer
    accelerator.free_memory()
    return found


def save(accelerator, path, kind, step):
    if str(step) in kind["of"].split("."):
        accelerator.save_state(path)


def train_fabric(folder, kind, hook, done=0):
    lightning = Fabric(accelerator="cpu", devices=RANKS)
    lightning.launch()
    net, optimizer, loader = parts(kind)
    model, optimizer = lightning.setup(net, optimizer)
    loader = lightning.setup_dataloaders(loader)
    state = {"model": model, "optimizer": optimizer, "epoch": 0}
    if hook:
        state["manifest"] = fabric.ManifestState(loader)
    if done:
        lightning.load(f"{folder}/whole-{hook}-{done}", state)
    losses = []
    for epoch in range(state["epoch"], EPOCHS):
        state["epoch"] = epoch
        for inputs, targets in loader:
            loss = nn.functional.mse_loss(model(inputs), targets)
            lightning.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item().hex())
            if not done and str(len(losses)) in kind["of"].split("."):
                lightning.save(f"{folder}/whole-{hook}-{len(losses)}", state)
    return described(losses, model)


def train_lightning(folder, kind, hook, done=0):
    import lightning_resume
    torch.manual_seed(1 + RANK + done)
    kind = {**kind, "devices": RANKS}
    checkpoint = f"{folder}/whole-{hook}/step={done}.ckpt" if done else None
    found = lightning_resume.fit(f"{folder}/{done or 'whole'}-{hook}", kind, hook, checkpoint)
    return {**found, "losses": list(found["losses"].values())}


def train_transformers(folder, kind, hook, done=0):
    import transformers_resume

    checkpoint = f"{folder}/whole-{hook}/checkpoint-{done}" if done else None
    return transformers_resume.train(f"{folder}/{done or 'whole'}-{hook}", kind, hook, checkpoint)


def described(losses, model):
    bits = [p.detach().numpy().tobytes().hex() for p in model.parameters()]
    return {"losses": losses, "bits": "".join(bits)}


def seeded(kind, seed):
    set_seed(seed + RANK)
    if kind["with"] == "accelerate":
        torch.manual_seed(seed)  # of which samplers that can be seeded make their order


def main():
    folder = os.environ["CHECKPOINTS"]
    kinds, found = [], []
    for text in sys.argv[1:]:
        kind = dict(pair.split("=") for pair in text.split(",") if pair)
        kinds.append((kind, f"{folder}/{text}", kind["of"].split(".")))
        os.makedirs(kinds[-1][1], exist_ok=True)
    for kind, within, steps in kinds:
        seeded(kind, 1)
        plain, alone = TRAIN[kind["with"]](within, kind, False), {}
        for step in steps:
            seeded(kind, 1)
            alone[step] = TRAIN[kind["with"]](within, kind, False, int(step))
        found.append({"plain": plain, "alone": alone, "resumed": {}})
    manifest.record()
    for each, (kind, within, steps) in zip(found, kinds):
        seeded(kind, 1)
        each["whole"] = TRAIN[kind["with"]](within, kind, True)
        for step in steps:
            seeded(kind, 2)  # as another process would be, which draws otherwise
            each["resumed"][step] = TRAIN[kind["with"]](within, kind, True, int(step))
    with open(f"{folder}/found-{RANK}.json", "w") as file:
        json.dump(found, file)


TRAIN = {
    "accelerate": train_accelerate,
    "fabric": train_fabric,
    "lightning": train_lightning,
    "transformers": train_transformers,
}

if __name__ == "__main__":
    main()
