"""Two ranks train one model over gloo; one may be made to differ from a step on, or to be killed.

They may record themselves.
"""

import os
import signal
import sys

import torch
import torch.distributed as dist
from descent import Descent
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def main(spoiler, *how):
    if "record" in how:
        import manifest

        manifest.record(config={"how": how})
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.set_num_threads(1)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
    if "record" not in how:  # for which DistributedDataParallel would import the compiler, too
        model = DistributedDataParallel(model)
    optimizer = Descent(model.parameters(), lr=float(os.environ.get("RATE", "0.5")))
    for step in range(6):
        inputs = torch.rand(8, 4)
        if rank == 1 and step == 3 and os.path.exists(spoiler):
            inputs = inputs * 1.001
        if rank == 1 and step == 3 and "kill" in how:
            os.kill(os.getpid(), signal.SIGKILL)
        optimizer.zero_grad()
        model(inputs).pow(2).mean().backward()
        if "record" in how:
            for parameter in model.parameters():
                dist.all_reduce(parameter.grad)
        optimizer.step()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
