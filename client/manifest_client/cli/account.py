"""`manifest login`, `logout`, `whoami` and `config`: which service, and as whom."""

from __future__ import annotations

import getpass
import sys
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from manifest_client.cli.arguments import JsonOption, examples

if TYPE_CHECKING:
    from manifest_client.settings import Settings

_HIDDEN = "••••••••"


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        "login",
        epilog=examples(
            "manifest login https://manifest.example.org",
            "manifest login https://manifest.example.org < token.txt",
        ),
    )(login)
    app.command("logout")(logout)
    app.command("whoami")(whoami)
    app.command("config", epilog=examples("manifest config", "manifest config --json"))(config)


UrlArgument = Annotated[
    str | None, typer.Argument(metavar="URL", help="The address of the service.")
]


def login(url: UrlArgument = None) -> None:
    """Keep a token for a service, after it was shown to be good."""
    from manifest_client.connection import identity
    from manifest_client.problems import ServiceRefused
    from manifest_client.rendering.terminal import out, styled
    from manifest_client.tokenfile import put_token

    chosen = _chosen_url(url)
    token = None
    try:
        found = identity(chosen, None)
    except ServiceRefused as refused:
        if not refused.is_about_the_token:
            raise
        _warn_of_listeners(chosen)
        token = _asked_token()
        found = identity(chosen, token)
    path = put_token(chosen, token)
    said = "asks for no token" if token is None else f"knows you as {found['name']}"
    out().print(styled(f"{chosen} {said}; kept in {path}"), soft_wrap=True)


def logout(url: UrlArgument = None) -> None:
    """Forget the token of a service."""
    from manifest_client.rendering.terminal import out, styled
    from manifest_client.tokenfile import remove_token

    chosen = _chosen_url(url)
    said = "is forgotten" if remove_token(chosen) else "was not kept"
    out().print(styled(f"the token of {chosen} {said}"), soft_wrap=True)


def whoami(*, as_json: JsonOption = False) -> None:
    """Say as whom the service knows you, and what you may."""
    from manifest_client.connection import identity
    from manifest_client.rendering.terminal import out, print_json, styled

    settings = _settings()
    url = _chosen_url(None)
    found = {"url": url, **identity(url, settings.token)}
    if as_json:
        print_json(found)
        return
    project = found.get("project")
    within = "all projects" if project is None else f"the project {project}"
    scopes = ", ".join(map(str, found["scopes"]))
    out().print(styled(f"{found['name']} at {url}: {scopes}; {within}"), soft_wrap=True)


def config(*, as_json: JsonOption = False) -> None:
    """Show each setting, and where it comes from."""
    from manifest_client.rendering.terminal import out, print_json, styled

    settings = _settings()
    rows = {
        name: (_shown(name, getattr(settings, name)), source)
        for name, source in sorted(settings.sources.items())
    }
    if as_json:
        print_json({name: {"value": row[0], "source": row[1]} for name, row in rows.items()})
        return
    console, width = out(), max(map(len, rows))
    for name, (value, source) in rows.items():
        shown = "–" if value is None else str(value)
        line = styled((name.ljust(width), "key"), f"  {shown}  ", (f"({source})", "quiet"))
        console.print(line, soft_wrap=True)


def _settings() -> Settings:
    from manifest_client.settings import load_settings

    return load_settings()


def _chosen_url(url: str | None) -> str:
    from manifest_client.settings import load_settings

    chosen = load_settings(url=url).url
    if chosen is None:
        raise typer.BadParameter("which service? Give its address", param_hint="URL")
    return chosen


def _asked_token() -> str:
    token = getpass.getpass("Token: ") if sys.stdin.isatty() else sys.stdin.readline()
    if not token.strip() or not token.strip().isascii():
        raise typer.BadParameter("expected a token, as `manifest token create` prints it")
    return token.strip()


def _warn_of_listeners(url: str) -> None:
    from manifest_client.cli.local import warn

    parts = urlsplit(url)
    if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        warn(f"{url} is not encrypted: whoever listens on the way can read the token")


def _shown(name: str, value: Any) -> Any:
    if name == "token":
        return None if value is None else _HIDDEN
    return str(value) if name == "dir" else value
