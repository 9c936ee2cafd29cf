"""Mixed precision on the processor: bfloat16 autocast, a gradient scaler that skips a step, EMA weights."""

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.LayerNorm(32), nn.Linear(32, 1))
averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3)
for step in range(8):
    inputs = torch.randn(16, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(inputs).float().square().mean()
    optimizer.zero_grad()
    scaler.scale(loss * (float("inf") if step == 4 else 1)).backward()
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_value_(model.parameters(), 0.5)
    scaler.step(optimizer)
    scaler.update()
    averaged.update_parameters(model)
