"""Hydra: a callback that records each job as a run, with its configuration and its overrides."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import chdir
from typing import Any, Final

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from manifest import recorder
from manifest.environment.redaction import redact_text
from manifest.recording import Run, record, record_part

_OPTIONS: Final = ("--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd")
_BASIC: Final = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"


class RecordJobs(Callback):
    """Records a run for each job, in RUN and in MULTIRUN mode.

    Under `manifest run` the whole program is one run already, and its jobs are told in that.

    Example:
        ``python train.py -m lr=0.1,0.2
        hydra.callbacks.manifest._target_=manifest.integrations.hydra.RecordJobs``
    """

    def __init__(self) -> None:
        self._run: Run | None = None

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Begin a run before the job does, or tell the one that is recorded of the job."""
        is_joined = recorder.active() is not None
        is_sweep = config.hydra.mode == RunMode.MULTIRUN
        with chdir(config.hydra.runtime.cwd):  # jobs may be told to run in a folder of their own
            run = self._run = record() if is_joined else _begin(config, is_sweep=is_sweep)
        recording = recorder.active()
        if recording is None:
            return
        with recording.guarded("config"):
            told = {**_settings(config), "hydra": {"overrides": list(config.hydra.overrides.task)}}
            is_one_of_many = is_joined and is_sweep
            run.log_config({"jobs": {str(config.hydra.job.num): told}} if is_one_of_many else told)
            recording.links.add("hydra", {"output_dir": config.hydra.runtime.output_dir})

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """End the run of the job."""
        run, self._run = self._run, None
        if run is not None:
            run.finish(_error(job_return))


def _begin(config: DictConfig, *, is_sweep: bool) -> Run:
    name = redact_text(config.hydra.job.override_dirname) or None
    if not is_sweep:
        return record(name=name)
    if config.hydra.launcher._target_ == _BASIC:
        return record_part(_command_of_job(config), name=name)
    run = record(name=name)
    if (recording := recorder.active()) is not None:
        recording.note("hydra", "this launcher starts jobs in its own way: no command repeats one")
    return run


def _command_of_job(config: DictConfig) -> list[str]:
    """What runs this job of a sweep alone: as the sweep was started, with the job's overrides."""
    arguments, job = sys.argv[1:], config.hydra.job
    own = [each for each in config.hydra.overrides.hydra if not each.startswith("hydra.mode=")]
    return [
        sys.executable,
        *sys.orig_argv[1 : len(sys.orig_argv) - len(arguments)],
        *_options(arguments),
        *config.hydra.overrides.task,
        *own,
        "hydra.mode=RUN",
        f"hydra.job.num={job.num}",
        f"hydra.job.id={job.id}",
    ]


def _options(arguments: Sequence[str]) -> list[str]:
    """Those of Hydra's options that say where the configuration is."""
    kept: list[str] = []
    is_value = False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        is_option = not is_value and name in _OPTIONS
        if is_option or is_value:
            kept.append(argument)
        is_value = is_option and not equals
    return kept


def _settings(config: DictConfig) -> dict[str, Any]:
    """The configuration of the job, as the program gets it, and resolved if it can be."""
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    try:
        found = OmegaConf.to_container(own, resolve=True, enum_to_str=True)
    except OmegaConfBaseException as error:
        if (recording := recorder.active()) is not None:
            recording.note("config", error)
        found = OmegaConf.to_container(own, enum_to_str=True)
    return {str(key): value for key, value in found.items()} if isinstance(found, dict) else {}


def _error(job_return: JobReturn) -> str | None:
    if job_return.status != JobStatus.FAILED:
        return None
    error = job_return._return_value  # noqa: SLF001 -- the public one writes to the terminal
    return f"{type(error).__name__}: {error}"[:1000]
