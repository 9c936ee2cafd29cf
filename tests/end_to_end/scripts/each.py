"""Run scripts one after the other, each in a child that finds PyTorch imported already."""

import atexit
import gc
import os
import runpy
import sys

import torch._dynamo  # which every optimizer imports

gc.freeze()  # or each child copies what it never changes
for name in sys.argv[1:]:
    if os.fork() == 0:
        sys.argv = [name]
        runpy.run_path(name, run_name="__main__")
        # To end as a program ends, but for taking all that was imported apart, takes a second less.
        atexit._run_exitfuncs()
        sys.stdout.flush()
        os._exit(0)
    if os.wait()[1]:
        sys.exit(f"{name} failed")
