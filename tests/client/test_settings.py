"""Settings: which value holds, where it came from, and who is sent a token."""

from __future__ import annotations

from pathlib import Path

import pytest

from manifest_client.settings import SettingInvalid, Settings, load_settings, user_file

ADDRESS = "https://runs.example.org"


def write_user_file(text: str, mode: int = 0o600) -> Path:
    path = user_file()
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder below that of a project, which is entered."""
    inner = tmp_path / "project" / "experiments"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    return inner


def test_without_any_there_is_no_service(folder: Path) -> None:
    found = load_settings()
    assert (found.url, found.token, found.mode, found.timeout) == (None, None, "online", 5.0)
    assert found.dir == folder / ".manifest"
    assert set(found.sources.values()) == {"default"}


def test_each_place_comes_before_the_next(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user = write_user_file("timeout = 1\nproject = 'u'\nmode = 'offline'\nurl = 'http://u'")
    project = folder.parent / "pyproject.toml"
    project.write_text("[tool.manifest]\nproject = 'p'\nmode = 'disabled'\nurl = 'http://p'")
    monkeypatch.setenv("MANIFEST_MODE", "online")
    monkeypatch.setenv("MANIFEST_URL", "http://e")

    found = load_settings(url="http://a/")

    assert (found.timeout, found.project, found.mode, found.url) == (1, "p", "online", "http://a")
    assert dict(found.sources) == {
        "timeout": str(user),
        "project": str(project),
        "mode": "MANIFEST_MODE",
        "url": "argument",
        "token": "default",
        "dir": "default",
    }


def test_the_nearest_file_of_a_project_holds_alone(folder: Path) -> None:
    (folder.parent / "manifest.toml").write_text("project = 'far'\ntimeout = 9")
    (folder / "pyproject.toml").write_text("[project]\nname = 'no settings of ours'")
    assert load_settings().project == "far"
    (folder / "manifest.toml").write_text("project = 'near'")
    assert (load_settings().project, load_settings().timeout) == ("near", 5.0)


def test_a_token_is_good_for_its_address_alone(folder: Path) -> None:
    write_user_file(f"[tokens]\n'{ADDRESS}/' = 'mft_secret'")
    assert load_settings(url=ADDRESS).token == "mft_secret"
    assert load_settings(url="https://elsewhere.example.org").token is None
    assert load_settings(url=f"{ADDRESS}:8443").token is None


def test_a_project_does_not_decide_who_is_sent_the_token_of_the_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MANIFEST_TOKEN", "mft_secret")
    (folder / "manifest.toml").write_text(f"url = '{ADDRESS}'")
    assert (load_settings().url, load_settings().token) == (ADDRESS, None)
    monkeypatch.setenv("MANIFEST_URL", ADDRESS)
    assert load_settings().token == "mft_secret"


def test_a_token_is_never_shown_with_the_settings(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MANIFEST_URL", ADDRESS)
    monkeypatch.setenv("MANIFEST_TOKEN", "mft_secret")
    found = load_settings()
    assert found.token == "mft_secret"
    assert "mft_secret" not in repr(found)


def test_a_file_of_tokens_that_others_can_read_is_refused(folder: Path) -> None:
    write_user_file(f"[tokens]\n'{ADDRESS}' = 'mft_secret'", mode=0o644)
    with pytest.raises(SettingInvalid, match="chmod 600"):
        load_settings()


def test_a_token_in_the_file_of_a_project_is_refused(folder: Path) -> None:
    (folder / "manifest.toml").write_text("token = 'mft_secret'")
    with pytest.raises(SettingInvalid, match="manifest login") as refused:
        load_settings()
    assert "mft_secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("url = 5", "an address"),
        ("url = 'ftp://x'", "an address"),
        ("url = 'https://ada:pw@x'", "without a password"),
        ("url = 'https://x:port'", "an address"),
        ("timeout = 'soon'", "seconds"),
        ("timeout = -1", "seconds"),
        ("timeout = true", "seconds"),
        ("mode = 'sometimes'", "one of online, offline, disabled"),
        ("project = []", "a text"),
        ("colour = 'red'", "one of url"),
        ("url = ", "a readable TOML file"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_place(
    folder: Path, line: str, expected: str
) -> None:
    (folder / "manifest.toml").write_text(line)
    with pytest.raises(SettingInvalid, match=expected) as refused:
        load_settings()
    assert str(folder / "manifest.toml") in str(refused.value)


def test_runs_are_delivered_only_where_there_is_a_service_and_the_mode_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded(mode: str) -> Settings:
        monkeypatch.setenv("MANIFEST_MODE", mode)
        return load_settings(url=ADDRESS)

    assert loaded("online").is_delivering
    assert not loaded("offline").is_delivering
    assert not loaded("disabled").is_delivering
