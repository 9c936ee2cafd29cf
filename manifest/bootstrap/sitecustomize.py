"""Begin to record before the first line of the program.

Python imports this file at its start because its folder stands first on PYTHONPATH. It leaves no
trace on `sys.path` and hands over to the `sitecustomize` that it hides, if there is one.
"""

import os
import sys


def _begin() -> None:
    if sys.version_info < (3, 11) or "MANIFEST_RUN_DIR" not in os.environ:
        return
    try:
        _find_manifest()
        from manifest.bootstrapping import begin

        begin()
    except Exception as error:
        os.write(2, f"manifest: this process is not recorded: {error!r}\n".encode())


def _find_manifest() -> None:
    # The program may run in an environment that has no Manifest of its own: use this one, without
    # making anything else of its environment importable.
    import importlib.util

    if importlib.util.find_spec("manifest.bootstrapping") is not None:
        return
    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    spec = importlib.util.spec_from_file_location(
        "manifest", os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
    )
    if spec is None or spec.loader is None:
        raise ImportError(folder)
    module = importlib.util.module_from_spec(spec)
    sys.modules["manifest"] = module
    spec.loader.exec_module(module)


def _hand_over() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [path for path in sys.path if os.path.abspath(path or ".") != here]
    own = sys.modules.pop("sitecustomize", None)
    try:
        import sitecustomize  # type: ignore[import-not-found]  # noqa: F401
    except ImportError:
        if own is not None:
            sys.modules["sitecustomize"] = own


_begin()
_hand_over()
