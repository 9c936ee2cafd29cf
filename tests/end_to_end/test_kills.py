"""Nothing is lost or doubled when processes are killed; `benchmarks/kills.py` kills many more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_programs_shippers_and_services_may_be_killed_at_any_moment(checkout: Path) -> None:
    command = [sys.executable, str(checkout / "benchmarks" / "kills.py"), "--kills", "15"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "none lost, none twice" in ended.stdout
