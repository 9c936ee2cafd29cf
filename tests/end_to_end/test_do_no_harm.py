"""A program under `manifest run` does what it does alone: the published guarantee.

Each program here runs twice, alone and recorded, and must print the same bytes and end the
same way.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zipapp
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Script = Callable[[str, str], Path]

Both = Callable[..., Any]

MANIFEST = "from manifest_client.cli.main import main; main()"

PROGRAMS = {
    "success": "print('trained')",
    "exception": "def f(): raise ValueError('no data')\nf()",
    "chained exception": (
        "try: {}['a']\nexcept KeyError as error: raise RuntimeError('wrapped') from error"
    ),
    "missing variable": "import os\nos.environ['NOT_SET_ANYWHERE']",
    "syntax error": "print('a'",
    "sys.exit": "import sys\nprint('before')\nsys.exit(3)",
    "sys.exit with text": "import sys\nsys.exit('a message')",
    "os._exit": "import os, sys\nprint('lost'); sys.stderr.write('seen\\n')\nos._exit(4)",
    "killed": "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)",
    "aborted": "import os\nos.abort()",
    "a handler of SIGTERM": (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('saving'), sys.exit(7)))\n"
        "os.kill(os.getpid(), signal.SIGTERM)"
    ),
    "a handler of SIGINT": (
        "import os, signal\n"
        "print(signal.getsignal(signal.SIGINT))\n"
        "try: os.kill(os.getpid(), signal.SIGINT)\n"
        "except KeyboardInterrupt: print('stopped')"
    ),
    "keyboard interrupt": "raise KeyboardInterrupt",
    "an exception hook of its own": (
        "import sys\n"
        "sys.excepthook = lambda kind, error, trace: print('hook', kind.__name__, error)\n"
        "raise ValueError('x')"
    ),
    "standard input": "import sys\nprint([line.rstrip() for line in sys.stdin], input)",
    "input()": "print(input('name? ')[::-1])",
    "its own file": "print(open(__file__).read(), __file__, __name__, __spec__, __builtins__)",
    "arguments": "import sys\nprint(sys.argv, sys.orig_argv[1:], sys.executable)",
    "pickling": (
        "import pickle\n"
        "class Net: pass\n"
        "net = Net(); net.size = 3\n"
        "data = pickle.dumps(net)\n"
        "print(data, pickle.loads(data).size, type(pickle.loads(data)))"
    ),
    "fork": (
        "import multiprocessing as m\n"
        "def f(x): return x * x\n"
        "if __name__ == '__main__':\n"
        "    with m.get_context('fork').Pool(2) as pool: print(pool.map(f, range(5)))"
    ),
    "spawn": (
        "import multiprocessing as m\n"
        "def f(x): return x * x\n"
        "if __name__ == '__main__':\n"
        "    with m.get_context('spawn').Pool(1) as pool: print(pool.map(f, range(5)))"
    ),
    "forkserver": (
        "import multiprocessing as m\n"
        "def f(x): return x * x\n"
        "if __name__ == '__main__':\n"
        "    with m.get_context('forkserver').Pool(1) as pool: print(pool.map(f, range(5)))"
    ),
    "os.fork": (
        "import os, sys\n"
        "pid = os.fork()\n"
        "if pid == 0: print('child'); sys.stdout.flush(); sys.exit(5)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    ),
    "asyncio": (
        "import asyncio\n"
        "async def f(x):\n"
        "    await asyncio.sleep(0)\n"
        "    return x + 1\n"
        "async def main():\n"
        "    print(await asyncio.gather(*map(f, range(3))))\n"
        "    p = await asyncio.create_subprocess_exec('echo', 'hi', stdout=-1)\n"
        "    print(await p.communicate(), p.returncode)\n"
        "asyncio.run(main())"
    ),
    "threads": (
        "import threading\n"
        "def f(): print('thread', threading.active_count())\n"
        "t = threading.Thread(target=f); t.start(); t.join()\n"
        "def g(): raise ValueError('in a thread')\n"
        "t = threading.Thread(target=g, name='named'); t.start(); t.join()"
    ),
    "an empty environment": (
        "import subprocess, sys\n"
        "command = [sys.executable, '-c', 'import os; print(sorted(os.environ))']\n"
        "print(subprocess.run(command, env={}, capture_output=True, text=True))\n"
        "print(subprocess.run(['env'], env={'A': '1'}, capture_output=True, text=True))"
    ),
    "a program that it starts": (
        "import subprocess, sys\n"
        "command = [sys.executable, '-c', 'import sys; print(sys.argv); sys.exit(6)', 'a']\n"
        "print(subprocess.run(command, capture_output=True, text=True))"
    ),
    "exec": "import os, sys\nos.execv(sys.executable, [sys.executable, '-c', 'print(1)'])",
    "runpy": (
        "import runpy\n"
        "open('other.py', 'w').write('print(__name__, __file__); x = 1')\n"
        "print(runpy.run_path('other.py', run_name='__main__')['x'])"
    ),
    "warnings": (
        "import warnings\nwarnings.warn('careful')\nwarnings.warn('old', DeprecationWarning)"
    ),
    "exit handlers": (
        "import atexit, threading\n"
        "atexit.register(print, 'first'); atexit.register(print, 'second')\n"
        "print('end')"
    ),
    "an exit handler that fails": "import atexit\natexit.register(int, 'x')\nprint('end')",
    "an import hook": (
        "import sys, importlib.abc\n"
        "class F(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'fractions': print('asked for', name)\n"
        "sys.meta_path.insert(0, F())\n"
        "import fractions\n"
        "print(fractions.Fraction(1, 2), fractions.__spec__.name, type(fractions.__loader__))"
    ),
    "a missing module": "import no_such_module",
    "an unseeded import": "import random\nr = random.Random(3)\nprint(r.random(), random.Random)",
    "a seeded draw": "import random as r\nr.seed(5)\nprint(r.random(), r.getstate()[1][:3])",
    "a closed standard output": "import sys\nsys.stdout.close()\nsys.exit(0)",
    "a closed standard error": "import os\nos.close(2)\nprint('quiet')",
    "deep recursion": (
        "def f(n): return f(n + 1)\ntry: f(0)\nexcept RecursionError as error: print(error)"
    ),
    "the environment": (
        "import os\n"
        "os.environ['NEW'] = '1'\n"
        "print(type(os.environ), 'NEW' in os.environ, os.getenv('NEW'))\n"
        "print(os.popen('echo $NEW').read())\n"
        "del os.environ['NEW']\n"
        "print(os.environ.get('NEW'), os.environb.get(b'NEW'), os.popen('echo $NEW').read())\n"
        "try: os.environ[1]\nexcept TypeError as error: print(error)"
    ),
    "a number of threads that is decided after torch was imported": (
        "import ctypes, os, torch\n"
        "maps = [line.split()[-1] for line in open('/proc/self/maps')]\n"
        "omp = ctypes.CDLL(next(path for path in maps if 'omp' in path.rpartition('/')[2]))\n"
        "for change in (\n"
        "    lambda: None,\n"
        "    lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),\n"
        "    lambda: os.environ.update(MKL_NUM_THREADS='1', OMP_NUM_THREADS='1'),\n"
        "    lambda: omp.omp_set_num_threads(1),\n"
        "):\n"
        "    if os.fork() == 0:\n"
        "        change()\n"
        "        torch.ones(10).sum()\n"
        "        print(torch.get_num_threads(), flush=True)\n"
        "        os._exit(0)\n"
        "    os.wait()"
    ),
    "a time that jumps back": (
        "import time\n"
        "now = time.time()\n"
        "time.time = lambda: now - 86400; time.time_ns = lambda: int((now - 86400) * 1e9)\n"
        "import fractions\n"
        "print(fractions.Fraction(1))"
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_prints_and_ends_as_it_does_alone(name: str, both: Both, script: Script) -> None:
    script("program.py", PROGRAMS[name] + "\n")
    pair = both("program.py", stdin=b"first\nsecond\n")
    assert pair.recorded == pair.alone
    assert pair.run.document()["status"] != "running"


@pytest.mark.parametrize(
    "arguments",
    [
        ("-c", "import sys; print(sys.argv, __name__)", "a"),
        ("-m", "package", "a"),
        ("-m", "package.module"),
        ("program.pyz", "a"),
        ("package",),
        ("-",),
        ("-u", "-X", "utf8", "-W", "error", "package/module.py"),
        ("-O", "package/module.py"),
        ("-B", "package/module.py"),
        ("-P", "package/module.py"),
        ("-s", "package/module.py"),
        ("-V",),
    ],
    ids=" ".join,
)
def test_every_way_to_start_python_is_as_it_is_alone(
    arguments: tuple[str, ...], both: Both, script: Script
) -> None:
    shown = (
        "import sys\nprint(__name__, __package__, type(__spec__), sys.argv, sys.path, sys.flags)\n"
    )
    script("package/__init__.py", "")
    script("package/__main__.py", shown)
    script("package/module.py", shown + "assert not __debug__ or True\n")
    zipapp.create_archive("package", "program.pyz")
    pair = both(*arguments, stdin=b"print('from standard input')\n")
    assert pair.recorded == pair.alone


def test_a_process_that_keeps_manifest_out_is_left_alone_and_said(
    both: Both, script: Script, base: Path
) -> None:
    script("program.py", "import sys\nprint(sys.flags.isolated, 'manifest' in sys.modules)\n")
    pair = both("-I", "program.py")
    assert pair.recorded == pair.alone
    (note,) = pair.run.document()["notes"]
    assert "-I" in note["what"]
    done = subprocess.run(
        [sys.executable, "-c", MANIFEST, "run", "--", sys.executable, "-I", "-c", ""],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.count("no Python process recorded itself") == 1


STATE = """
import sys
before = set(sys.modules)
import atexit, builtins, gc, json, locale, os, signal, site, threading, warnings

def state():
    return {
        "path": sys.path, "argv": sys.argv, "flags": repr(sys.flags), "options": sys._xoptions,
        "filters": repr(warnings.filters), "warn options": sys.warnoptions,
        "signals": {n.name: str(signal.getsignal(n)) for n in sorted(signal.valid_signals())
                    if isinstance(n, signal.Signals)},
        "threads": [thread.name for thread in threading.enumerate()],
        "gc": [gc.get_threshold(), gc.isenabled(), gc.get_debug()],
        "recursion": sys.getrecursionlimit(), "switch": sys.getswitchinterval(),
        "trace": [sys.gettrace(), sys.getprofile(), threading.gettrace()],
        "locale": locale.setlocale(locale.LC_ALL), "folder": os.getcwd(), "umask": os.umask(18),
        "environ": {k: v for k, v in os.environ.items()
                    if k[:8] != "MANIFEST" and k[:6] not in ("PYTHON", "PYTEST")},
        "builtins": sorted(vars(builtins)), "path hooks": len(sys.path_hooks),
        "main": sorted(vars(sys.modules["__main__"])), "site": site.getsitepackages(),
        "nice": os.nice(0), "affinity": sorted(os.sched_getaffinity(0)),
        "display": sys.displayhook is sys.__displayhook__,
        "streams": [(s.name, s.mode, s.encoding, s.errors, s.line_buffering) for s in
                    (sys.stdin, sys.stdout, sys.stderr)],
        "hash": hash("text"), "unraisable": sys.unraisablehook is sys.__unraisablehook__,
    }

first = json.dumps(state(), sort_keys=True, default=str)
import random, fractions, logging, subprocess
print(first)
print(json.dumps(state(), sort_keys=True, default=str))
sys.stderr.write(json.dumps([sorted(before), sorted(sys.modules)]))
"""

DRAWING = {"random", "secrets", "uuid", "tempfile", "numpy", "torch", "socket", "ssl", "asyncio"}


def test_flags_handlers_threads_and_imports_are_those_of_a_plain_run(
    both: Both, script: Script
) -> None:
    script("program.py", STATE)
    pair = both("program.py")
    for alone, recorded in zip(
        pair.alone.out.splitlines(), pair.recorded.out.splitlines(), strict=True
    ):
        found, expected = json.loads(recorded), json.loads(alone)
        assert {key: found[key] for key in found if found[key] != expected[key]} == {}
    assert pair.recorded.code == pair.alone.code == 0
    for alone, recorded in zip(
        json.loads(pair.alone.err), json.loads(pair.recorded.err), strict=True
    ):
        added = set(recorded) - set(alone)
        assert not set(alone) - set(recorded)
        foreign = {name.partition(".")[0] for name in added} - set(sys.stdlib_module_names)
        assert foreign <= {"manifest", "xxhash", "sitecustomize"}
        assert not added & DRAWING
