"""What a program looks up in its environment is noticed, and it does not notice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NOTICE = """
import json, os, sys
sys.path.insert(0, {project!r})
from manifest.environment.lookups import Lookups
found = {{}}
lookups = Lookups()
lookups.begin({project!r}, lambda: b"salt", found.__setitem__)
lookups.install()
import program
print(json.dumps([found, program.RESULT]))
"""


@pytest.fixture
def noticed(tmp_path: Path) -> Any:
    """Run the source of a module, with variables; what was noticed, and its RESULT."""

    def run(source: str, **variables: str) -> Any:
        (tmp_path / "program.py").write_text(source)
        done = subprocess.run(
            [sys.executable, "-c", NOTICE.format(project=str(tmp_path))],
            env={"PATH": os.environ["PATH"], **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.mark.parametrize(
    "expression",
    [
        'os.environ["SEED"]',
        'os.environ.get("SEED")',
        'os.environ.get("SEED", "1")',
        'os.getenv("SEED")',
        '"SEED" in os.environ',
        'os.environ.setdefault("SEED", "1")',
        'os.environ.pop("SEED")',
        'os.environb[b"SEED"]',
        'os.path.expandvars("$SEED")',
        'getenv("SEED")',
        '[os.environ[name] for name in ["SEED"] * 3]',
    ],
)
def test_every_way_to_ask_by_name_is_noticed(noticed: Any, expression: str) -> None:
    source = f"import os\nfrom os import getenv\nRESULT = str({expression})\n"
    found, result = noticed(source, SEED="42", OTHER="1")
    assert found == {"SEED": "42"}
    assert "42" in result or result == "True"


@pytest.mark.parametrize(
    "expression",
    [
        "dict(os.environ)",
        "{**os.environ}",
        "os.environ.copy()",
        "sorted(os.environ.items())",
        "list(os.environ.values())",
        "[name for name in os.environ]",
        "os.environ | {}",
        "subprocess.run(['true'], env=os.environ).returncode",
        "[f() for i in range(50)][-1]",
        "repr(os.environ)",
        "len(os.environ)",
        "os.path.expanduser('~/x')",
    ],
)
def test_going_through_the_whole_environment_asks_for_nothing(
    noticed: Any, expression: str
) -> None:
    source = (
        f"import os, subprocess\ndef f(): return dict(os.environ)\nRESULT = str({expression})\n"
    )
    found, _ = noticed(source, SEED="42", USER_NAME="me")
    assert found == {}


def test_what_libraries_look_up_is_not_the_programs(noticed: Any, tmp_path: Path) -> None:
    library = tmp_path / "site-packages" / "library.py"
    library.parent.mkdir()
    library.write_text("import os\ndef load(): return os.environ.get('OF_LIBRARY')\n")
    source = (
        "import os, sys\n"
        f"sys.path.insert(0, {str(library.parent)!r})\n"
        "import library, tempfile, getpass\n"
        "RESULT = [library.load(), tempfile.gettempdir(), os.environ.get('MINE')]\n"
    )
    found, _ = noticed(source, OF_LIBRARY="1")
    assert found.keys() == {"MINE"}


def test_what_was_found_at_the_start_counts_not_what_the_program_made_of_it(noticed: Any) -> None:
    source = (
        "import os\n"
        "os.environ['SEED'] = '7'; os.environ['MADE'] = 'x'\n"
        "RESULT = [os.environ['SEED'], os.environ['MADE'], os.environ.get('MISSING')]\n"
    )
    found, result = noticed(source, SEED="42")
    assert found == {"SEED": "42", "MADE": {"$absent": True}, "MISSING": {"$absent": True}}
    assert result == ["7", "x", None]


def test_the_environment_behaves_as_it_did(noticed: Any) -> None:
    source = (
        "import copy, os, traceback\n"
        "RESULT = [type(os.environ).__name__, os.environ['SEED'], os.environb[b'SEED'].decode()]\n"
        "os.environ['NEW'] = '1'\n"
        "RESULT += [os.environb[b'NEW'].decode(), os.popen('echo $NEW').read()]\n"
        "del os.environ['NEW']\n"
        "RESULT += ['NEW' in os.environ, os.popen('echo $NEW').read()]\n"
        "try: os.environ['MISSING']\n"
        "except KeyError: RESULT.append(traceback.format_exc())\n"
        "RESULT += [copy.deepcopy(dict(os.environ)) == dict(os.environ), len(os.environ) > 0]\n"
    )
    found, result = noticed(source, SEED="42")
    assert result[:7] == ["_Environ", "42", "42", "1", "1\n", False, "\n"]
    assert "lookups.py" not in result[7]
    assert result[8:] == [True, True]
    assert found.keys() == {"SEED", "NEW", "MISSING"}


def test_a_thousand_names_are_not_kept(noticed: Any) -> None:
    source = "import os\nRESULT = [os.environ.get(f'N{i}') for i in range(1000)]\n"
    assert len(noticed(source)[0]) == 256
