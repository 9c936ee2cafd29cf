"""Gradient descent of one's own: with an optimizer of PyTorch's, half of a short program is to import the compiler."""

import gc

import torch
from torch.optim import Optimizer

gc.freeze()  # or all that was imported is gone through at the end, for a fifth of the time


class Descent(Optimizer):
    # As they are below what keeps the compiler out of them, for which it is imported.
    add_param_group = Optimizer.add_param_group.__wrapped__
    zero_grad = Optimizer.zero_grad.__wrapped__
    state_dict = Optimizer.state_dict.__wrapped__
    load_state_dict = Optimizer.load_state_dict.__wrapped__

    def __init__(self, parameters, lr=0.1):
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter -= group["lr"] * parameter.grad
