"""The catalogue is whole, finds what is asked of it, and its two forms agree."""

from __future__ import annotations

import subprocess
import sys
from importlib.resources import files
from typing import get_args

import pytest

from manifest import catalogue, models
from manifest.catalogue import (
    Setting,
    all_settings,
    ignored_names,
    lookup,
    process_settings_json,
    settings_of,
)


def test_every_setting_says_why_and_where() -> None:
    assert [setting.key for setting in all_settings() if not _is_whole(setting)] == []


def _is_whole(setting: Setting) -> bool:
    return (
        setting.section in models.SECTIONS
        and setting.impact in get_args(catalogue.Impact)
        and setting.when in get_args(catalogue.When)
        and setting.scope in get_args(catalogue.Scope)
        and setting.evidence in {"measured", "documented"}
        and setting.reason.endswith(".")
        and bool(setting.source)
    )


def test_no_setting_is_hidden_by_an_earlier_pattern() -> None:
    hidden = [
        setting.key
        for setting in all_settings()
        if lookup(setting.section, setting.key.replace("*", "0")) is not setting
    ]

    assert hidden == []


def test_no_key_is_there_twice() -> None:
    keys = [(setting.section, setting.key) for setting in all_settings()]

    assert len(keys) == len(set(keys))


def test_impacts_are_those_of_a_difference() -> None:
    assert get_args(catalogue.Impact) == get_args(models.Impact)


def test_only_what_depends_on_the_program_is_of_unknown_impact() -> None:
    unknown = {(each.section, each.key) for each in all_settings() if each.impact == "unknown"}

    assert unknown == {("packages", "*"), ("environment", "env.*")}


@pytest.mark.parametrize("setting", settings_of("process"), ids=lambda setting: setting.key)
def test_process_settings_can_be_read_and_say_how_they_are_checked(setting: Setting) -> None:
    compile(setting.read, setting.key, "eval")
    compile(setting.needs or "True", setting.key, "eval")
    compile(setting.set, setting.key, "exec")
    assert setting.section == "settings"
    assert not setting.is_pattern
    assert setting.kind in get_args(catalogue.Kind)
    assert bool(setting.kind) == bool(setting.set)
    assert (setting.kind in {"bool", "permutation", ""}) == (not setting.allowed)


@pytest.mark.parametrize(
    ("section", "key", "impact"),
    [
        ("settings", "torch.num_threads", "certain"),
        ("environment", "env.OMP_NUM_THREADS", "certain"),
        ("environment", "env.NCCL_ALGO", "certain"),
        ("environment", "env.NCCL_SOMETHING_NEW", "possible"),
        ("environment", "env.SLURM_PROCID", "possible"),
        ("environment", "env.SLURM_JOB_ID", "informational"),
        ("environment", "env.EDITOR", "unknown"),
        ("environment", "python.version", "possible"),
        ("hardware", "cpu.model", "certain"),
        ("hardware", "gpu.0.sm_count", "certain"),
        ("hardware", "gpu.0.uuid", "informational"),
        ("hardware", "gpu.driver", "possible"),
        ("packages", "torch", "certain"),
        ("packages", "nvidia-cudnn-cu12", "certain"),
        ("packages", "requests", "unknown"),
        ("seeds", "entropy", "certain"),
        ("seeds", "hash_seed", "possible"),
        ("command", "argv", "certain"),
        ("code", "files/train.py", "certain"),
        ("inputs", "data/train.csv", "certain"),
        ("generators", "python", "certain"),
        ("loaders", "loader.0.num_workers", "certain"),
        ("loaders", "loader.0.sampler.rank", "informational"),
        ("training", "optimizer.0.fused", "certain"),
        ("training", "optimizer.0.an_option_of_its_own", "possible"),
        ("training", "autocast.cpu", "certain"),
    ],
)
def test_lookup_finds_what_is_known_of_a_key(section: str, key: str, impact: str) -> None:
    setting = lookup(section, key)

    assert setting is not None
    assert setting.impact == impact


def test_lookup_knows_nothing_of_a_setting_that_is_not_listed() -> None:
    assert lookup("settings", "torch.no_such_switch") is None
    assert lookup("no such section", "torch") is None


def test_ignored_switches_say_why() -> None:
    assert all(name and reason for name, reason in ignored_names().items())


def test_the_form_for_training_processes_is_written_from_the_catalogue() -> None:
    shipped = files("manifest").joinpath("settings.json").read_text(encoding="utf-8")

    assert shipped == process_settings_json(), "run `python -m manifest.catalogue`"


def test_a_training_process_does_not_parse_the_catalogue() -> None:
    program = (
        "import sys\n"
        "from manifest.settings import capture_settings, restore_settings\n"
        "restore_settings(capture_settings())\n"
        "print(sorted({'tomllib', 'pydantic', 'manifest.catalogue'} & set(sys.modules)))\n"
    )

    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert result.stdout == "[]\n"
