"""A loop of Accelerate goes on from a checkpoint by the lines of the guide."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from manifest.rundir import run_directories

GIVEN = """\
import sys, torch
from accelerate import Accelerator

model = torch.nn.Linear(1, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
loader = torch.utils.data.DataLoader([torch.tensor([float(i)]) for i in range(8)], shuffle=True)
checkpoint = sys.argv[1] if len(sys.argv) > 1 else None
"""
LOOP = """
batches = []
for batch in loader:
    batches.append(batch.item())
    if len(batches) == 3 and not checkpoint:
        accelerator.save_state("saved")
print(batches)
"""


def test_the_lines_of_the_guide_continue_a_loop(
    tmp_path: Path, continued: Callable[..., None]
) -> None:
    continued("Accelerate", GIVEN, LOOP, checkpoint="saved")
    (run,) = run_directories(tmp_path / ".manifest")
    restored = [each for each in run.journals()["main"] if each["kind"] == "restore"]
    assert restored[-1]["what"] == "accelerate.0.0"


TRACKED = """
accelerator.log({"loss": 1.0}, step=0)  # kept by nobody here
run = accelerator.get_tracker("manifest", unwrap=True)
accelerator.end_training()
print(json.dumps([run.id]))
"""


def test_the_configuration_that_trackers_are_given_is_in_the_manifest(
    tmp_path: Path, lines_of: Callable[[str, str], str]
) -> None:
    lines = lines_of("integrations.md", "Trackers of Accelerate")
    command = [sys.executable, "-c", f"import json\n{lines}{TRACKED}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    (run,) = run_directories(tmp_path / ".manifest")
    assert json.loads(done.stdout.splitlines()[-1]) == [run.id]
    assert run.document()["sections"]["config"] == {"lr": 0.1}
