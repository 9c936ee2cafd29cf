"""Begin to record before the first line of the program.

Python imports this file at its start because its folder stands first on PYTHONPATH. It leaves no
trace on `sys.path` and hands over to the `sitecustomize` that it hides, if there is one.
"""

import os
import sys

TYPE_CHECKING = False  # typing costs milliseconds, and this runs at every start
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def _begin() -> None:
    if sys.version_info < (3, 11) or "MANIFEST_RUN_DIR" not in os.environ:
        return
    try:
        execute_face = _load_manifest()
        try:
            from manifest.bootstrapping import begin

            begin()
        finally:
            _offer_face(execute_face)
    except Exception as error:
        os.write(2, f"manifest: this process is not recorded: {error}\n".encode())


def _load_manifest() -> "Callable[[ModuleType], None]":
    # The Manifest that started the program, not one that its environment may have, and nothing
    # else of the environment that this one lies in.
    import importlib.util

    own = _module_of_program()
    if own is not None:
        raise ImportError(f"it has a module named manifest of its own, {own}")
    spec = importlib.util.spec_from_file_location(
        "manifest",
        os.path.join(_PACKAGE, "__init__.py"),
        submodule_search_locations=[_PACKAGE],
    )
    if spec is None or spec.loader is None:
        raise ImportError(_PACKAGE)
    sys.modules["manifest"] = importlib.util.module_from_spec(spec)
    return spec.loader.exec_module


def _offer_face(execute: "Callable[[ModuleType], None]") -> None:
    # What the package offers is made when the program first asks for it: few processes ever do.
    module = sys.modules["manifest"]

    def __getattr__(name: str) -> object:  # noqa: N807 -- its name
        is_special = name.startswith("__") and name not in ("__all__", "__doc__", "__version__")
        if is_special or _is_module(name):  # else one that imports another would import the face
            raise AttributeError(f"module 'manifest' has no attribute {name!r}")
        vars(module).pop("__getattr__", None)
        execute(module)
        return getattr(module, name)

    module.__getattr__ = __getattr__  # type: ignore[method-assign]


def _is_module(name: str) -> bool:
    path = os.path.join(_PACKAGE, name)
    return os.path.isdir(path) or os.path.exists(f"{path}.py")


def _module_of_program() -> "str | None":
    scripts = [argument for argument in sys.orig_argv[1:] if argument.endswith(".py")]
    folder = os.path.dirname(os.path.abspath(scripts[0])) if scripts else os.getcwd()
    for path in (os.path.join(folder, "manifest.py"), os.path.join(folder, "manifest")):
        if (
            os.path.exists(path)
            and path != _PACKAGE
            and (path.endswith(".py") or os.path.exists(os.path.join(path, "__init__.py")))
        ):
            return path
    return None


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
