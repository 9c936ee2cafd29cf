"""Variables that a program asked for: what is kept, and what a replay may be given."""

from __future__ import annotations

import pytest

from manifest.canonical import ABSENT
from manifest.environment.asked import is_kept, is_restorable, kept, not_restored, restore_asked

SALT = b"salt"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SEED", "42"),
        ("DROPOUT", "0.1"),
        ("MODEL", "meta-llama/Llama-2-7b-hf"),
        ("MAX_TOKENS", "4096"),
        ("TOKENS", "1e6"),
        ("USE_AUTH", "false"),
        ("KEYPOINTS", "17"),
        ("N_PASSES", "three"),
        ("DATASET", "/data/imagenet"),
        ("EMPTY", ""),
    ],
)
def test_a_plain_value_is_kept(name: str, value: str) -> None:
    assert kept(name, value, SALT) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("API_TOKEN", "swordfish"),
        ("my_password", "swordfish"),
        ("PASSPHRASE", "swordfish"),
        ("DB_PWD", "swordfish"),
        ("PIN", "1234"),
        ("LICENSE_KEY", "123456789012"),
        ("SENTRY_DSN", "swordfish"),
        ("SESSION", "swordfish"),
        ("DATABASE_URL", "postgres://me:pw@host/db"),
        ("WEBHOOK_URL", "https://hooks.example/T0/B0/abcdef"),
        ("ENDPOINT", "https://host/path?sig=abc"),
        ("ANYTHING", "hf_" + "aB3" * 12),
        ("LONG", "x" * 5000),
    ],
)
def test_what_may_be_a_secret_is_a_stand_in_that_tells_equal_from_other(
    name: str, value: str
) -> None:
    stand_in = kept(name, value, SALT)
    assert stand_in.keys() == {"$redacted"}
    assert kept(name, value, SALT) == stand_in != kept(name, value + "2", SALT)


@pytest.mark.parametrize(
    "name", ["OMP_NUM_THREADS", "HOME", "PATH ", "MANIFEST_TOKEN", "USER", "TERM", "_", "", "ÄB"]
)
def test_what_is_recorded_anyway_or_says_who_sits_where_is_not_kept(name: str) -> None:
    assert not is_kept(name)


@pytest.mark.parametrize(
    "name",
    [
        "LD_PRELOAD",
        "LD_AUDIT",
        "PATH",
        "PYTHONPATH",
        "PYTHONSTARTUP",
        "CLASSPATH",
        "GIT_SSH_COMMAND",
        "BASH_ENV",
        "ENV",
        "IFS",
        "NODE_OPTIONS",
        "JAVA_TOOL_OPTIONS",
        "EDITOR",
        "http_proxy",
        "MY_TOKENS_SECRET",
        "MANIFEST_DIR",
        "OMP_NUM_THREADS",
        "A=B",
        "A\0B",
        "A" * 200,
    ],
)
def test_a_manifest_may_not_set_what_can_run_or_load_something(name: str) -> None:
    assert not is_restorable(name)
    assert restore_asked({f"asked.{name}": "evil"}, {"SAFE": "1"}) == {"SAFE": "1"}
    mine = {name: "mine"}
    assert restore_asked({f"asked.{name}": ABSENT}, mine) == mine


@pytest.mark.parametrize(
    "value",
    ["/etc/x", "~/x", "a/../../b", "../b", "a\0b", "a\nb", "x" * 5000, "a://b", "back\\slash"],
)
def test_a_value_that_leads_elsewhere_is_not_given_to_a_replay(value: str) -> None:
    assert restore_asked({"asked.RATE": value}, {"RATE": "0.5"}) == {"RATE": "0.5"}


def test_a_replay_finds_what_the_program_found() -> None:
    recorded = {
        "asked.SEED": "42",
        "asked.DEBUG": ABSENT,
        "asked.MODEL": "org/model",
        "asked.API_TOKEN": {"$redacted": "00"},
        "env.OTHER": "1",
        "python.version": "3.11",
    }
    present = {"SEED": "7", "DEBUG": "1", "API_TOKEN": "mine", "OTHER": "2"}
    assert restore_asked(recorded, present) == {
        "SEED": "42",
        "MODEL": "org/model",
        "API_TOKEN": "mine",
        "OTHER": "2",
    }


def test_what_cannot_be_given_is_named_unless_it_is_there() -> None:
    recorded = {"asked.DATASET": "/data/a", "asked.API_TOKEN": {"$redacted": "00"}, "asked.S": "1"}
    assert not_restored(recorded, {}).keys() == {"DATASET", "API_TOKEN"}
    assert not_restored(recorded, {"DATASET": "/data/a", "API_TOKEN": "any"}) == {}
    assert "/data/a" in not_restored(recorded, {"DATASET": "/data/b"})["DATASET"]
