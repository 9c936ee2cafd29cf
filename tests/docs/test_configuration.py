"""docs/configuration.md knows every variable, and describes those of the service as they are.

A change that is meant: REWRITE_GOLDEN=1 pytest tests/docs/test_configuration.py
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from manifest_client.settings import load_settings, user_file
from manifest_server.settings import PREFIX, ServerSettings

HEAD = "| variable | default | what it decides |\n| --- | --- | --- |\n"
PACKAGES = ("manifest", "client", "server", "alembic")
BESIDE = ("Dockerfile", "docker-compose.yml")


@pytest.fixture
def page(checkout: Path) -> str:
    return (checkout / "docs" / "configuration.md").read_text(encoding="utf-8")


def of_the_service() -> Iterator[str]:
    for name, field in ServerSettings.model_fields.items():
        default = field.default
        if isinstance(default, tuple):
            default = ",".join(default)
        shown = "–" if default is None else f"`{default}`"
        yield f"| `{PREFIX}{name.upper()}` | {shown} | {field.description} |\n"


def test_the_table_of_the_service_is_what_its_settings_say(checkout: Path, page: str) -> None:
    whole = re.sub(f"(?<={re.escape(HEAD)})(\\|.*\n)*", lambda _: "".join(of_the_service()), page)
    if os.environ.get("REWRITE_GOLDEN"):
        (checkout / "docs" / "configuration.md").write_text(whole, encoding="utf-8")
        page = whole
    assert page == whole


def test_every_variable_of_the_source_is_on_the_page_and_no_other(
    checkout: Path, page: str
) -> None:
    files = [path for name in PACKAGES for path in (checkout / name).rglob("*.py")]
    texts = [path.read_text(encoding="utf-8") for path in (*files, *map(checkout.joinpath, BESIDE))]
    written = set(re.findall(r"\bMANIFEST_[A-Z_]*[A-Z]\b", "\n".join(texts)))
    made = {f"{PREFIX}{name.upper()}" for name in ServerSettings.model_fields}
    assert written | made == set(re.findall(r"\bMANIFEST_[A-Z_]*[A-Z]\b", page))


def test_the_files_that_are_shown_are_read(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = {
        name: block for block in re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
        for name in re.findall(r"^# (\S+)", block)
    }  # fmt: skip
    assert shown.keys() == {"manifest.toml", "config.toml"}
    monkeypatch.chdir(tmp_path)
    Path("manifest.toml").write_text(shown["manifest.toml"], encoding="utf-8")
    own = user_file()
    own.parent.mkdir(parents=True)
    own.write_text(shown["config.toml"], encoding="utf-8")
    own.chmod(stat.S_IRUSR | stat.S_IWUSR)
    settings = load_settings()
    assert settings.project == "digits"
    assert settings.token == tomllib.loads(shown["config.toml"])["tokens"][settings.url]
