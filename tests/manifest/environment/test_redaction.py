"""Secrets are replaced, and nothing else is."""

from __future__ import annotations

import json

import pytest

from manifest.canonical import redacted
from manifest.environment.redaction import is_secret_name, redact_argv, redact_url, redact_value

SALT = b"salt of a run"
HEX_40 = "0123456789abcdef0123456789abcdef01234567"
BASE62 = "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0eF3hJ"

SECRET_COMMANDS = [
    ["--password", "1234"],
    ["--db-pass", "hunter2"],
    ["--pwd", "hunter2"],
    ["--token", "abc"],
    ["--token=abc"],
    ["-token", "abc"],
    ["--hf_token", "abc"],
    ["--my-token", "hunter2"],
    ["--api-key", "abc"],
    ["--apikey", "abc"],
    ["--wandb-key", HEX_40],
    ["--key", HEX_40],
    ["--secret", "abc"],
    ["--client_secret=abc"],
    ["--credential", "abc123"],
    ["--auth", "user:pass"],
    ["WANDB_API_KEY=abc"],
    ["++wandb.key=abc"],
    ["apiKey=abc"],
    ["login", HEX_40],
    ["AKIAIOSFODNN7EXAMPLE"],
    ["--note", "ghp_" + "a1" * 18],
    ["--note", "github_pat_" + "a1" * 20],
    ["--note", "hf_" + "aB1" * 11],
    ["--note", "sk-proj-" + BASE62],
    ["--note", "xoxb-123456789012-abcdef"],
    ["--note", "eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.c2lnbmF0dXJl"],
    ["--note", "-----BEGIN RSA PRIVATE KEY-----\nMII"],
    ["--db", "postgresql://user:pw@host/db"],
    ["--db", "postgresql://user:p/w@host/db"],
    ["--db", "host=db user=me password=hunter2"],
    ["--index", f"https://{BASE62}@host/simple"],
    ["--data", "https://x.blob.core.windows.net/c/b?sv=1&sig=" + BASE62 + "%3D"],
    ["--data", "https://b.s3.amazonaws.com/k?X-Amz-Signature=" + "0a" * 32],
    ["--header", "Authorization: Bearer abcdef123456"],
    ["--config", '{"api_key": "hunter2"}'],
]

PLAIN_COMMANDS = [
    ["--checkpoint", "sha256-" + "0a" * 32],
    ["--checkpoint", "sha256:" + "0a" * 32],
    ["--commit", HEX_40],
    ["--revision=" + HEX_40],
    ["--run-id", "0198c0de-0000-7000-8000-000000000000"],
    ["--tokenizer", "gpt2"],
    ["--tokenizer=meta-llama/Llama-3.1-8B-Instruct"],
    ["--token-dim", "64"],
    ["--token", "64"],
    ["--max_tokens", "100"],
    ["--tokens", "1000000000"],
    ["--eos-token", "</s1>"],
    ["--pad_token", "<|endoftext1|>"],
    ["--placeholder-token", "<cat-2>"],
    ["--initializer_token", "toy"],
    ["--key-padding", "1"],
    ["--sort-key", "length2"],
    ["--image_key", "jpg;png"],
    ["--key", "val_loss"],
    ["--author", "Ada Lovelace"],
    ["--auth", "basic"],
    ["--authenticate"],
    ["--no-auth", "train2.yaml"],
    ["--use-auth-token", "True"],
    ["--password-file", "/run/secrets/p1"],
    ["--ssh-key", "~/.ssh/id_ed25519"],
    ["--credentials", "creds2.json"],
    ["--pwd", "/data/run1"],
    ["--token", "--verbose"],
    ["--password="],
    ["--api-key", "$API_KEY"],
    ["--forward-pass", "2"],
    ["--monkey", "bars1"],
    ["--secret-name", "prod1"],
    ["--lr=1e-3", "data.path=/data/a=b", "model.key_dim=64"],
    ["--url", "http://localhost:8080/a@b"],
    ["--remote", "ssh://git@github.com/o/r.git"],
    ["--image", "docker://torch:2.13@sha256:" + "0a" * 32],
    ["--name", "sk-learn-random-forest-baseline-run"],
    ["--data", "s3://bucket/AbCdEfGh1234/part-00001.parquet"],
    ["-c", "import os; password = os.environ['P']; print(sorted(x, key=len), token)"],
    ["-c", "run(password=args.password, api_key=get_key())"],
    ["train.py", "x=1", "+experiment=base2"],
]


@pytest.mark.parametrize("command", SECRET_COMMANDS, ids=" ".join)
def test_a_secret_on_the_command_line_is_replaced(command: list[str]) -> None:
    kept = redact_argv(["python", "train.py", *command, "--epochs", "3"], SALT)
    secret = command[-1]
    assert kept[-3] == redacted(secret, SALT)
    assert kept[:2] == ["python", "train.py"]
    assert kept[-2:] == ["--epochs", "3"]
    assert secret not in json.dumps(kept)


@pytest.mark.parametrize("command", PLAIN_COMMANDS, ids=" ".join)
def test_a_plain_argument_is_kept(command: list[str]) -> None:
    assert redact_argv(["python", *command], SALT) == ["python", *command]


def test_equal_secrets_of_one_run_have_equal_stand_ins() -> None:
    first, second, other = (redact_argv(["--token", t], SALT)[1] for t in ("a1", "a1", "b2"))
    assert first == second != other
    assert redact_argv(["--token", "a1"], b"another run")[1] != first


def test_an_argument_that_is_no_text_is_redacted_without_an_error() -> None:
    assert "$redacted" in redact_argv(["--password", "\udcff"], SALT)[1]


def test_values_inside_a_config_are_judged_by_their_own_names() -> None:
    config = {
        "lr": 0.1,
        "hub": {"hf_token": "abc", "repo": "o/r"},
        "tokens": [1, 2],
        "password": 12,
    }
    kept = redact_value("config", config, SALT)
    assert kept["lr"] == 0.1
    assert kept["hub"] == {"hf_token": redacted("abc", SALT), "repo": "o/r"}
    assert kept["tokens"] == [1, 2]
    assert "$redacted" in kept["password"]


@pytest.mark.parametrize(
    "value",
    [
        ":4096:8",
        "GPU-8f6d2a3e-1c2b-4d5e-9f00-112233445566",
        "expandable_segments:True,max_split_size_mb:128",
        "/home/Ada/.cache/torch2/kernels3/AbC4",
        HEX_40,
        "0a" * 32,
        "Llama-3-8B-Instruct-finetuned-on-Everything-v2",
    ],
)
def test_ordinary_values_of_variables_are_kept(value: str) -> None:
    assert redact_value("CUDA_SOMETHING", value, SALT) == value


def test_a_long_random_text_is_taken_for_a_secret_whatever_its_name() -> None:
    assert redact_value("CUDA_SOMETHING", BASE62, SALT) == redacted(BASE62, SALT)


@pytest.mark.parametrize(
    ("url", "stripped"),
    [
        ("https://user:pw@host/o/r.git", "https://host/o/r.git"),
        ("https://u:p@ss@host:8443/o/r.git", "https://host:8443/o/r.git"),
        ("https://oauth2@host/o/r.git", "https://host/o/r.git"),
        ("ssh://git:pw@host/o/r.git", "ssh://git@host/o/r.git"),
        ("git+ssh://git@host/o/r.git", "git+ssh://git@host/o/r.git"),
        ("git@github.com:o/r.git", "git@github.com:o/r.git"),
        (
            "https://host/r.git?private_token=abc&ref=main",
            "https://host/r.git?private_token=[redacted]&ref=main",
        ),
        ("https://host/c?sv=1&sig=abc", "https://host/c?sv=1&sig=[redacted]"),
        ("/srv/git/r.git", "/srv/git/r.git"),
    ],
)
def test_an_address_loses_its_credentials_only(url: str, stripped: str) -> None:
    assert redact_url(url) == stripped


def test_names_of_secrets_are_told_from_names_about_them() -> None:
    secret = [
        "PGPASSWORD",
        "AWS_SECRET_ACCESS_KEY",
        "HF_TOKEN",
        "OPENAI_API_KEY",
        "apiKey",
        "DB_PWD",
    ]
    other = [
        "TOKENIZERS_PARALLELISM",
        "max_tokens",
        "key_padding_mask",
        "author",
        "monkey",
        "passes",
    ]
    assert [name for name in secret if not is_secret_name(name)] == []
    assert [name for name in other if is_secret_name(name)] == []
