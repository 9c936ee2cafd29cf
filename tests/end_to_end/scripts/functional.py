"""Functional training with `torch.func`: no optimizer and no backward pass, so there is nothing to see."""

import torch
from torch import nn
from torch.func import functional_call, grad

model = nn.Linear(4, 1)
parameters = {name: value.detach().clone() for name, value in model.named_parameters()}


def loss(parameters, inputs):
    return (functional_call(model, parameters, (inputs,)) - inputs.sum(1, keepdim=True)).square().mean()


for _ in range(8):
    gradients = grad(loss)(parameters, torch.randn(16, 4))
    parameters = {name: value - 0.05 * gradients[name] for name, value in parameters.items()}
