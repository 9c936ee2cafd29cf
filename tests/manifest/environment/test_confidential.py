"""Files that may hold secrets are told from those that a replay needs."""

from __future__ import annotations

import pytest

from manifest.environment.confidential import is_confidential


@pytest.mark.parametrize(
    ("path", "content"),
    [
        (".env", b"A=1"),
        ("app/.env.production", b"A=1"),
        (".netrc", b""),
        ("keys/id_ed25519", b""),
        ("server.pem", b""),
        ("my_credentials.json", b"{}"),
        ("hf_token.txt", b"x"),
        ("conf/config.yaml", b"db:\n  password: swordfish7\n"),
        ("config.json", b'{"api_key": "swordfish7"}'),
        ("urls.txt", b"https://me:swordfish@host/x\n"),
    ],
)
def test_a_file_that_may_hold_a_secret_is_not_kept(path: str, content: bytes) -> None:
    assert is_confidential(path, content)


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("config.json", b'{"lr": 0.1, "eos_token": "<eos>", "seed": 3}'),
        ("train.py", b'PASSWORD = "swordfish7"'),
        ("tokenizer.json", b'{"token": 5}'),
        ("vocab.txt", b"password\nsecret\n"),
        ("data.bin", b"\0password=swordfish7"),
        ("large.csv", b"password=swordfish7," * 10_000),
        ("configs/keyboard.yaml", b"layout: us\n"),
    ],
)
def test_source_settings_and_data_are_kept(path: str, content: bytes) -> None:
    assert not is_confidential(path, content)
