# ruff: noqa: NPY002 -- as most programs draw
"""Whether verdicts can be believed: clean repetitions, and repetitions with one bit changed.

A small training is recorded, then repeated many times, each time clean or with one change at one
step: most of them in this process, and judged as a replay is; some by real replays. What is true is
known independently: the training itself notes plain SHA-256 digests of what it has in each step. A
verdict is right if it is `identical` where all of these are equal, and otherwise names the first
step at which one of them is not, the stream, and the tensor that an update left otherwise.

A change is seen at the first step of which something was observed after it: a weight changed after
an update is seen by the loss of the next step, and after the last step by the end of the process.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

if TYPE_CHECKING:
    from manifest.models import Verdict
    from manifest.rundir import RunDirectory

STEPS = 12
Truth = list[dict[str, str]]


@dataclass
class Training:
    """A training in which one change can be made, by hooks that the training itself offers.

    `noted` holds, for each step, digests of what the streams of a trail are about.
    """

    change: Change | None = None
    noted: Truth = field(default_factory=list)

    def run(self) -> None:
        """Train."""
        torch.set_num_threads(1)
        random.seed(1)
        np.random.seed(2)
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Dropout(0.1), nn.Linear(64, 64))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        self.optimizer, self.model = optimizer, model
        optimizer.register_step_post_hook(lambda *_: self.tell("update"))
        data = TensorDataset(torch.randn(STEPS * 16, 8))
        batches = DataLoader(Samples(data, self), batch_size=16)
        for self.step, (inputs,) in enumerate(batches):
            note = {"batch": digest(inputs)}
            self.tell("start")
            noise = random.random() + np.random.randn() + np.random.rand()
            wide = torch.randn(100_000)  # more than one thread takes at once
            optimizer.zero_grad()
            loss = (
                model(inputs + noise).square().mean()
                + 1e-3 * wide.sum() * next(model.parameters()).sum()
            )
            note["loss"] = digest(loss.detach())
            loss.backward()
            self.tell("gradients")
            note["grad"] = digest(*[p.grad for p in model.parameters()])
            optimizer.step()
            note["param"] = digest(*model.parameters())
            state = np.random.get_state(legacy=False)
            mersenne = state["state"]
            kept = mersenne["pos"], state["has_gauss"], state["gauss"]
            states = repr((random.getstate(), kept)).encode() + mersenne["key"].tobytes()
            states += torch.get_rng_state().numpy().tobytes()
            note["rng"] = hashlib.sha256(states).hexdigest()
            self.noted.append(note)
            self.tell("between")

    def tell(self, moment: str) -> None:
        """Make the change if this is its moment."""
        if self.change and (self.change.moment, self.change.step) == (moment, self.step):
            self.change.make(self)


class Samples(torch.utils.data.Dataset[Any]):
    """The data of a training, which may be changed before it begins."""

    def __init__(self, data: TensorDataset, training: Training) -> None:
        (self.samples,) = data.tensors
        change = training.change
        if change is not None and change.moment == "data":
            training.step = change.step
            change.make(self)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor]:
        return (self.samples[index],)


@dataclass(frozen=True)
class Change:
    """One change at one step."""

    kind: str
    moment: str
    step: int
    make: Callable[[Any], None]
    tensor: str | None = None
    """What an update leaves otherwise, and nothing else."""


def digest(*tensors: Tensor | None) -> str:
    """The SHA-256 of tensors."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(b"" if tensor is None else tensor.detach().numpy().tobytes())
    return found.hexdigest()


def flip(tensor: Tensor, place: int, bit: int) -> None:
    """Flip one bit of a float32."""
    with torch.no_grad():
        tensor.view(-1)[place : place + 1].view(torch.int32).bitwise_xor_(
            torch.tensor([1 << bit], dtype=torch.int32)
        )


NAMES = ("0.weight", "0.bias", "3.weight", "3.bias")


def a_weight(draw: random.Random, step: int, moment: str) -> Change:
    """One bit of one weight: as the update leaves it, or after the step was seen."""
    index = draw.randrange(4)
    place, bit = draw.randrange(64), draw.randrange(23)

    def make(training: Training) -> None:
        flip([*training.model.parameters()][index], place, bit)

    kind = "weight, in the update" if moment == "update" else "weight, between steps"
    return Change(kind, moment, step, make, NAMES[index] if moment == "update" else None)


def a_gradient(draw: random.Random, step: int) -> Change:
    """One bit of one gradient."""
    index, place, bit = draw.randrange(4), draw.randrange(64), draw.randrange(23)

    def make(training: Training) -> None:
        grad = [*training.model.parameters()][index].grad
        assert grad is not None
        flip(grad, place, bit)

    return Change("gradient", "gradients", step, make)


def the_order(_: random.Random, step: int) -> Change:
    """Two batches exchanged."""
    other = step + 1 if step + 1 < STEPS else step - 1

    def make(data: Samples) -> None:
        a, b = (slice(s * 16, s * 16 + 16) for s in (step, other))
        kept = data.samples[a].clone()
        data.samples[a] = data.samples[b]
        data.samples[b] = kept

    return Change("order of batches", "data", step, make)


def an_input(draw: random.Random, step: int) -> Change:
    """The last bit of one input."""
    place = step * 128 + draw.randrange(128)
    return Change("input", "data", step, lambda data: flip(data.samples, place, 0))


def a_draw(draw: random.Random, step: int) -> Change:
    """One more number from one generator."""
    which = draw.choice(("python", "numpy", "numpy, normal", "torch"))
    draws: dict[str, Callable[[], object]] = {
        "python": random.random,
        "numpy": np.random.rand,
        "numpy, normal": np.random.randn,
        "torch": lambda: torch.rand(1),
    }
    moment = draw.choice(("start", "gradients"))

    def make(_: Training) -> None:
        draws[which]()

    return Change(f"draw, {which}", moment, step, make)


def a_rate(_: random.Random, step: int) -> Change:
    """A learning rate of one ulp more."""

    def make(training: Training) -> None:
        group = training.optimizer.param_groups[0]
        group["lr"] = float(np.nextafter(np.float32(group["lr"]), np.float32(1)))

    return Change("learning rate", "start", step, make)


def threads(_: random.Random, step: int) -> Change:
    """Another number of threads."""
    return Change("threads", "start", step, lambda _: torch.set_num_threads(2))


KINDS: tuple[Callable[[random.Random, int], Change], ...] = (
    lambda draw, step: a_weight(draw, step, "update"),
    lambda draw, step: a_weight(draw, step, "between"),
    a_gradient,
    the_order,
    an_input,
    a_draw,
    a_rate,
    threads,
)


def change_of(name: str) -> Change | None:
    """The change of a name such as ``17 of seed 0``; other names mean none."""
    number, _, seed = name.partition(" of seed ")
    if not seed:
        return None
    draw = random.Random(name)
    return KINDS[int(number) % len(KINDS)](draw, draw.randrange(STEPS))


def train(folder: str) -> None:
    """Train with the change that a file in `folder` is named for, and leave there what is true."""
    # Only the name is looked at: what is read, a replay puts back.
    names = [name for name in os.listdir(folder) if change_of(name) is not None]
    training = Training(change_of(names[0]) if names else None)
    training.run()
    Path(folder, "truth.json").write_text(json.dumps(training.noted), encoding="utf-8")


@dataclass
class Campaign:
    """Verdicts, and which of them were right."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def repeat_here(self, names: Sequence[str]) -> None:
        """Record the training again in this process, with the change of each name."""
        from manifest.verdicts import judge

        original, truth = recorded(None)
        for name in names:
            run, noted = recorded(change_of(name))
            self.take("", change_of(name), judge(original, run), truth, noted)
            shutil.rmtree(run.path)

    def replay(self, names: Sequence[str]) -> None:
        """Record the training as a program, and replay it, with the change of each name."""
        from manifest.launching import launch
        from manifest.replaying import replay

        shutil.copy(__file__, "train.py")
        folder = Path(tempfile.mkdtemp(prefix="verdicts-"))
        base = Path.cwd() / ".manifest"
        launched = launch([sys.executable, "train.py", "--train", str(folder)], base=base)
        truth = json.loads((folder / "truth.json").read_bytes())
        for name in names:
            (folder / name).touch()
            verdict = replay(launched.run, base=base)
            (folder / name).unlink()
            noted = json.loads((folder / "truth.json").read_bytes())
            self.take("replay: ", change_of(name), verdict, truth, noted)
        shutil.rmtree(folder)

    def take(
        self, how: str, change: Change | None, verdict: Verdict, before: Truth, after: Truth
    ) -> None:
        """Count a verdict, and whether it is right."""
        kind = how + (change.kind if change is not None else "none")
        problem = mistake(verdict, change, before, after)
        self.outcomes[kind, "wrong" if problem else "right"] += 1
        self.outcomes[kind, "identical"] += verdict.outcome == "identical"
        if problem is not None:
            self.wrong.append(
                f"{kind} at step {change.step if change else '-'}: {problem}: {verdict.sentence}"
            )

    def table(self) -> str:
        """Every kind of change, and how it was judged."""
        lines = [f"{'change':<32} {'right':>6} {'wrong':>6} {'identical':>10}"]
        for kind in sorted({kind for kind, _ in self.outcomes}):
            right, wrong, same = (
                self.outcomes[kind, each] for each in ("right", "wrong", "identical")
            )
            lines.append(f"{kind:<32} {right:>6} {wrong:>6} {same:>10}")
        return "\n".join([*lines, *self.wrong])


def recorded(change: Change | None) -> tuple[RunDirectory, Truth]:
    """Record the training in this process, clean or changed."""
    import manifest
    from manifest.rundir import RunDirectory

    training = Training(change)
    run = manifest.record(project="verdicts")
    training.run()
    run.finish()
    assert run.path is not None
    return RunDirectory(run.path), training.noted


def mistake(verdict: Verdict, change: Change | None, before: Truth, after: Truth) -> str | None:
    """What is wrong with a verdict, given what is true; None if nothing is."""
    step = next((i for i in range(STEPS) if before[i] != after[i]), None)
    found = verdict.comparison.divergence if verdict.comparison is not None else None
    if (
        step is None
        and change is not None
        and (change.moment, change.step) == ("between", STEPS - 1)
    ):
        step, unlike = STEPS, ["param"]  # after all that was noted
    elif step is None:
        return None if verdict.outcome == "identical" else f"clean, called {verdict.outcome}"
    else:
        unlike = [stream for stream in CAUSAL if before[step][stream] != after[step][stream]]
    if verdict.outcome != "diverged" or found is None:
        return f"changed at step {step}, called {verdict.outcome}"
    stream = "rng" if step == 0 and "rng" in unlike else unlike[0]
    if (found.step, found.stream) != (step, stream):
        return f"changed at step {step} in {stream}, located at {found.step} in {found.stream}"
    if change is not None and change.tensor is not None and found.tensors != (change.tensor,):
        return f"{change.tensor} changed, {found.tensors} named"
    return None


CAUSAL = ("batch", "loss", "grad", "param", "rng")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign and print a table.

    Returns:
        The exit code: 1 if any verdict was wrong.
    """
    parser = argparse.ArgumentParser(description=__doc__, prog="verdicts")
    parser.add_argument("--count", type=int, default=200, help="clean ones, and as many changed "
                        "(default: %(default)s)")  # fmt: skip
    parser.add_argument("--replays", type=int, default=20, help="clean ones, and as many changed, "
                        "by real replays (default: %(default)s)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--train", metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.train is not None:
        train(options.train)
        return 0
    changed = [f"{number} of seed {options.seed}" for number in range(options.count)]
    campaign = Campaign()
    folder = tempfile.mkdtemp(prefix="verdicts-")
    os.chdir(folder)
    campaign.repeat_here(["clean"] * options.count + changed)
    if options.replays:
        campaign.replay(["clean"] * options.replays + changed[: options.replays])
    os.chdir("/")
    shutil.rmtree(folder)
    print(campaign.table())
    return 1 if campaign.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
