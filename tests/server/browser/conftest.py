"""A real browser, a real service, and runs that were really recorded."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import pytest
from playwright.sync_api import Browser, BrowserContext, CDPSession, Page, sync_playwright

from manifest_server.database import sqlite_url

MANIFEST: Final = str(Path(sysconfig.get_path("scripts"), "manifest"))
_TRAIN: Final = Path(__file__).with_name("train.py")
_BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")

Open = Callable[..., Page]
Serve = Any  # the class is that of the fixture
Theme = Literal["dark", "light"]


@pytest.fixture(scope="module")  # while it is there, other tests cannot run an event loop
def browser() -> Iterator[Browser]:
    """Chromium: the system's, or else the one that Playwright installs."""
    found = next(filter(None, map(shutil.which, _BROWSERS)), None)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=found, args=["--no-sandbox"] if os.getuid() == 0 else []
        )
        yield opened
        opened.close()


def _environ(home: Path, **more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MANIFEST_", "GIT_"))}
    people = {
        f"GIT_{who}_{what}": "ada@example.org"
        for who in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    return {**kept, **people, "HOME": str(home), "OMP_NUM_THREADS": "1", **more}


def _run(*words: str, folder: Path, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, check=False, cwd=folder, env=environ, capture_output=True, text=True
    )


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory, descent: Path) -> Path:
    """A folder with four runs: two that differ, a replay of the second, and one that failed."""
    folder = tmp_path_factory.mktemp("pages") / "forecast"
    folder.mkdir()
    # Whatever lies in the folders above is none of ours.
    environ = _environ(folder.parent, MANIFEST_DIR=str(folder / ".manifest"))

    def call(*words: str, code: int = 0) -> None:
        done = _run(*words, folder=folder, environ=environ)
        assert done.returncode == code, done.stderr

    for script in (_TRAIN, descent):
        shutil.copy(script, folder)
    call("git", "init", "--quiet")
    call("git", "add", "train.py", "descent.py")
    call("git", "commit", "--quiet", "--message", "Train")
    call(MANIFEST, "run", "--name", "first", "--", sys.executable, "train.py", "0.1", "1")
    train = folder / "train.py"
    train.write_text(train.read_text().replace("range(4)", "range(3)"))
    call(MANIFEST, "run", "--name", "second", "--", sys.executable, "train.py", "0.2", "1")
    call(MANIFEST, "replay", "@latest")
    call(
        MANIFEST,
        "run",
        "--name",
        "broken",
        "--",
        sys.executable,
        "train.py",
        "0.2",
        "1",
        "No!",
        code=1,
    )
    return folder


@dataclass(frozen=True)
class Service:
    """A service that answers."""

    url: str
    ids: Mapping[str, str]
    """Runs by name."""
    database: str


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def service(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    project: Path,
    serve: Serve,
) -> Iterator[Service]:
    """A service of a team, which the runs were delivered to, on each kind of database in turn."""
    home = tmp_path_factory.mktemp("service")
    if request.param == "sqlite":
        database = sqlite_url(home / "store.db").render_as_string()
    else:
        database = request.getfixturevalue("module_postgresql_url")
    with serve(home, database) as url:
        environ = _environ(home, MANIFEST_DIR=str(project / ".manifest"), MANIFEST_URL=url)
        done = _run(MANIFEST, "sync", "--all", folder=project, environ=environ)
        assert done.returncode == 0, done.stderr
        yield Service(url, _ids(project), request.param)


def _ids(project: Path) -> dict[str, str]:
    documents = [
        json.loads(path.read_text()) for path in project.glob(".manifest/runs/*/manifest.json")
    ]
    named = {d["name"]: d["id"] for d in documents if not d.get("replay_of")}
    return {**named, "replay": next(d["id"] for d in documents if d.get("replay_of"))}


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Open a page; at the end nothing may have gone wrong in it, nor left the service."""
    visits: list[tuple[BrowserContext, list[str]]] = []

    def opened(url: str, *, width: int = 1280, theme: Theme = "light", **options: Any) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=theme, **options
        )
        wrong: list[str] = []
        visits.append((context, wrong))
        page = context.new_page()
        _note_what_goes_wrong(page, "/".join(url.split("/", 3)[:3]), wrong)
        page.goto(url)
        return page

    yield opened
    for context, wrong in visits:
        context.close()
        assert wrong == []


@pytest.fixture(scope="module")
def window(service: Service, browser: Browser) -> Iterator[tuple[Page, CDPSession, list[str]]]:
    """A window that is there for all tests, and a list of what goes wrong in it."""
    context = browser.new_context()
    page, wrong = context.new_page(), list[str]()
    _note_what_goes_wrong(page, service.url, wrong)
    yield page, context.new_cdp_session(page), wrong
    context.close()


@pytest.fixture
def look_at(service: Service, window: tuple[Page, CDPSession, list[str]]) -> Iterator[Open]:
    """Open a page as `open_page` does, in a window that is there: to make one costs more."""
    page, session, wrong = window

    def opened(url: str) -> Page:
        # Of pages before it keeps nothing.
        everything = {"origin": service.url, "storageTypes": "all"}
        session.send("Storage.clearDataForOrigin", everything)
        session.send("Network.setCacheDisabled", {"cacheDisabled": True})
        page.set_viewport_size({"width": 1280, "height": 800})
        page.emulate_media(color_scheme="light")
        page.goto(url)
        return page

    yield opened
    said = wrong.copy()
    wrong.clear()
    assert said == []


def _note_what_goes_wrong(page: Page, origin: str, wrong: list[str]) -> None:
    page.on("console", lambda message: _note(wrong, message.type, message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(f"a dialog: {dialog.message}"))
    page.on(
        "request",
        lambda request: (
            wrong.append(f"asked {request.url}") if not request.url.startswith(origin) else None
        ),
    )


def _note(wrong: list[str], kind: str, text: str) -> None:
    if kind in ("error", "warning") and "the server responded with a status of 4" not in text:
        wrong.append(f"{kind}: {text}")
