"""Transformers' Trainer fine-tunes a tiny, randomly made GPT-2 on random tokens, offline."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments


class Tokens(Dataset):
    def __init__(self, count):
        self.tokens = torch.randint(0, 32, (count, 12))

    def __len__(self):
        return len(self.tokens)

    def __getitem__(self, index):
        return {"input_ids": self.tokens[index], "labels": self.tokens[index]}


model = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_positions=16, n_embd=16, n_layer=1, n_head=2))
arguments = TrainingArguments(
    "out",
    per_device_train_batch_size=4,
    num_train_epochs=2,
    gradient_accumulation_steps=2,
    warmup_steps=2,
    logging_steps=1,
    save_steps=3,
    use_cpu=True,
    report_to=[],
    disable_tqdm=True,
)
Trainer(model, arguments, train_dataset=Tokens(32)).train()
