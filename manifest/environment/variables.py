"""Environment variables that can change a run: an allow-list, captured and given to a replay.

Many are read once, when a process starts or a library is loaded. So what counts is the environment
that the process was started with; what the program has changed in it since is kept beside that.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Final

from manifest.canonical import ABSENT, Json
from manifest.environment.redaction import redact_value

_EXEC_ENVIRON = "/proc/self/environ"
_LONGEST = 4096


def _set(names: str) -> frozenset[str]:
    return frozenset(names.split())


# Their absence is recorded too, so that a diff can tell "unset" from "not looked at".
_CONSEQUENTIAL: Final = _set(
    """
    ATEN_CPU_CAPABILITY CUBLAS_WORKSPACE_CONFIG CUDA_DEVICE_ORDER CUDA_LAUNCH_BLOCKING
    CUDA_VISIBLE_DEVICES DNNL_MAX_CPU_ISA MKL_CBWR MKL_NUM_THREADS NCCL_ALGO NCCL_PROTO
    NVIDIA_TF32_OVERRIDE OMP_DYNAMIC OMP_NUM_THREADS OMP_THREAD_LIMIT ONEDNN_DEFAULT_FPMATH_MODE
    ONEDNN_MAX_CPU_ISA OPENBLAS_CORETYPE OPENBLAS_NUM_THREADS PYTHONHASHSEED PYTHONOPTIMIZE
    PYTORCH_CUDA_ALLOC_CONF TORCHDYNAMO_DISABLE TORCH_ALLOW_TF32_CUBLAS_OVERRIDE
    TORCH_COMPILE_DISABLE TORCH_CUDNN_V8_API_DISABLED
    """
)
_LISTED: Final = _CONSEQUENTIAL | _set(
    """
    DISABLE_ADDMM_CUDA_LT DISABLE_PTXAS_OPT FBGEMM_ENABLE_INSTRUCTIONS
    FLASH_ATTENTION_DETERMINISTIC GLIBC_TUNABLES HF_DATASETS_OFFLINE HF_HUB_OFFLINE LANG LC_ALL
    LC_CTYPE LC_NUMERIC LOCAL_RANK LOCAL_WORLD_SIZE MANIFEST_CALLBACKS RANK TOKENIZERS_PARALLELISM
    TRANSFORMERS_OFFLINE TZ VECLIB_MAXIMUM_THREADS NUMEXPR_NUM_THREADS WORLD_SIZE
    """
)
# Read to explain a difference. What they name is run, loaded, written or someone else's to give.
_ONLY_RECORDED: Final = _set(
    """
    GROUP_RANK HF_DATASETS_CACHE HF_HOME HOME LD_LIBRARY_PATH LD_PRELOAD MASTER_ADDR MASTER_PORT
    TRANSFORMERS_CACHE
    """
)
_PREFIX: Final = re.compile(
    r"(?:TORCH|PYTORCH|ATEN|CUDA|CUDNN|CUBLAS|NCCL|NVIDIA|NVTE|OMP|GOMP|KMP|MKL|ONEDNN|DNNL"
    r"|OPENBLAS|NPY|TRITON|HIP|HSA|ROC|MIOPEN|XLA|PYTHON|SLURM)[A-Z0-9_]*"
)
# Kept only as a stand-in where the prefix alone, not the list, admits the name.
_SECRET: Final = re.compile(r"TOKEN|KEY|SECRET|PASS|CRED|AUTH|JWT")

# Python's own decide what is imported and run, so only these are safe to take over.
_PYTHON: Final = _set(
    """
    PYTHONASYNCIODEBUG PYTHONCOERCECLOCALE PYTHONDEVMODE PYTHONDONTWRITEBYTECODE
    PYTHONFAULTHANDLER PYTHONHASHSEED PYTHONINTMAXSTRDIGITS PYTHONIOENCODING PYTHONMALLOC
    PYTHONNOUSERSITE PYTHONOPTIMIZE PYTHONSAFEPATH PYTHONTRACEMALLOC PYTHONUNBUFFERED PYTHONUTF8
    PYTHON_CPU_COUNT PYTHON_GIL
    """
)
_NOT_RESTORED: Final = re.compile(
    r"SLURM.*|TORCHELASTIC_.*|(?:.*_)?(?:PATH|PATHS|DIR|DIRS|FILE|FILES|FILENAME|HOME|ROOT|PREFIX"
    r"|LIB|LIBS|LIBRARY|LIBRARIES|PLUGIN|PLUGINS|TOOL|TOOLS|INJECTION\d*|PRELOAD|CMD"
    r"|COMMAND|COMPILER|CC|CXX|DUMP|LOG|LOGS|LOGDEST|OUT|HOOK|HOOKS|PROXY|URL"
    r"|ADDR|HOST|PORT|SOCKET)(?:_.*)?"
)
# No path: a value must not make a library read, write, load or run what the manifest names.
_SAFE_VALUE: Final = re.compile(r"[^\x00-\x1f\x7f/\\]*")
_TIME_ZONE: Final = re.compile(r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+)*")


def capture_variables(
    environ: Mapping[str, str],
    *,
    exec_environ: Mapping[str, str] | None = None,
    salt: bytes = b"",
) -> dict[str, Json]:
    """Read the variables that are on the list.

    Args:
        environ: The environment now.
        exec_environ: The environment that the process was started with; read from the system when
            left out.
        salt: For the stand-ins of secrets.

    Returns:
        ``env.NAME`` as it was at the start and, only where that differs, ``env_now.NAME``.
    """
    if exec_environ is None:
        exec_environ = read_exec_environ(environ)
    started = {name: exec_environ[name] for name in list(exec_environ) if is_recorded(name)}
    present = {name: environ.get(name) for name in list(environ) if is_recorded(name)}
    captured: dict[str, Json] = {f"env.{name}": ABSENT for name in _CONSEQUENTIAL}
    captured |= {f"env.{name}": _kept(name, value, salt) for name, value in started.items()}
    for name in started.keys() | present.keys():
        now = present.get(name)
        if now != started.get(name):
            captured[f"env_now.{name}"] = ABSENT if now is None else _kept(name, now, salt)
    return captured


def restore_variables(recorded: Mapping[str, Json], environ: Mapping[str, str]) -> dict[str, str]:
    """Build the environment of a child that replays a run.

    Variables that are restored at all are taken from `recorded` alone; all others, such as the
    paths, from `environ` alone.

    Args:
        recorded: The ``environment`` section of an untrusted manifest; keys other than
            ``env.NAME`` are passed over.
        environ: The present environment.
    """
    child = {name: value for name, value in environ.items() if not is_restorable(name)}
    for key, value in recorded.items():
        name = key.removeprefix("env.")
        if name == key or not is_restorable(name):
            continue
        if isinstance(value, str) and _is_safe(name, value):
            child[name] = value
        elif value != ABSENT and name in environ:
            child[name] = environ[name]
    return child


def not_restored(recorded: Mapping[str, Json], environ: Mapping[str, str]) -> list[str]:
    """Name the recorded variables that a child of `restore_variables` has otherwise or not."""
    child = restore_variables(recorded, environ)
    pairs = ((key.removeprefix("env."), value) for key, value in recorded.items())
    return sorted(
        name
        for name, value in pairs
        if f"env.{name}" in recorded and child.get(name) != (None if value == ABSENT else value)
    )


def is_recorded(name: str) -> bool:
    """Whether a variable is on the list."""
    return name in _LISTED or name in _ONLY_RECORDED or _PREFIX.fullmatch(name) is not None


def is_restorable(name: str) -> bool:
    """Whether a replay may take this variable from a manifest."""
    if name in _LISTED:
        return True
    if name.startswith("PYTHON"):
        return name in _PYTHON
    if _PREFIX.fullmatch(name) is None or _SECRET.search(name):
        return False
    return _NOT_RESTORED.fullmatch(name) is None


def read_exec_environ(default: Mapping[str, str]) -> Mapping[str, str]:
    """The environment that this process was started with; `default` where that cannot be told."""
    try:
        with open(_EXEC_ENVIRON, "rb") as file:
            entries = file.read().removesuffix(b"\0").split(b"\0")
    except OSError:
        return default
    # Programs that set their own title write it over these bytes.
    if not all(b"=" in entry for entry in entries):
        return default
    pairs = (os.fsdecode(entry).partition("=") for entry in entries)
    return {name: value for name, _, value in pairs}


def _kept(name: str, value: str, salt: bytes) -> Json:
    if name not in _LISTED and _SECRET.search(name):
        return redact_value("secret", value, salt)
    return redact_value(name, value, salt)


def _is_safe(name: str, value: str) -> bool:
    if len(value) > _LONGEST:
        return False
    return (_TIME_ZONE if name == "TZ" else _SAFE_VALUE).fullmatch(value) is not None
