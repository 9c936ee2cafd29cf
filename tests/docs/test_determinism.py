"""docs/determinism.md does what it says, typed in from top to bottom."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path


def test_the_page_runs_and_prints_what_it_says(checkout: Path, tmp_path: Path) -> None:
    text = (checkout / "docs" / "determinism.md").read_text(encoding="utf-8")
    program = "import torch\n" + "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    (said,) = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
    (tmp_path / "page.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "page.py"], check=False, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    # Where PyTorch is built for CUDA, its seed waits for that.
    printed = re.sub(r"^  torch\.cuda: pending.*\n", "", done.stdout, flags=re.MULTILINE)
    assert printed.startswith(said)
    assert "index_add_cuda_ may give other bits" in done.stdout
