"""`manifest server`, `manifest token` and `manifest db`: for those who run the service."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from manifest.errors import ManifestError, RunNotFound
from manifest_client.cli.arguments import JsonOption, examples

if TYPE_CHECKING:
    from sqlalchemy import URL

    from manifest.filtering import Filter
    from manifest.models import Scope
    from manifest_server.sqlstore import SqlStore

_LOOK_EVERY_SECONDS = 10.0
_PAGE = 500

DatabaseOption = Annotated[
    str | None,
    typer.Option(
        "--database",
        envvar="MANIFEST_SERVER_DATABASE_URL",
        metavar="URL",
        help="sqlite:///path or postgresql://user@host/name. Default: the runs of this folder.",
        show_default=False,
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        "server",
        epilog=examples(
            "manifest server",
            "manifest server --database postgresql://manifest@db/runs --auth tokens --host 0.0.0.0",
        ),
    )(server)
    token = typer.Typer(help="Make, list and revoke the tokens of a service.", no_args_is_help=True)
    token.command(
        "create", epilog=examples("manifest token create cluster --scope write --days 90")
    )(create_token)
    token.command("ls")(list_tokens)
    token.command("revoke")(revoke_token)
    app.add_typer(token, name="token")
    database = typer.Typer(help="Look after the database of a service.", no_args_is_help=True)
    database.command("upgrade")(upgrade_database)
    database.command("check")(check_database)
    database.command("backup", epilog=examples("manifest db backup runs-monday.db"))(back_up)
    database.command(
        "prune",
        epilog=examples(
            "manifest db prune",
            "manifest db prune --database postgresql://manifest@db/runs --older-than 180 --dry-run",
            "manifest db prune --database sqlite:///runs.db 'tags.keep is null' --yes",
        ),
    )(prune)
    app.add_typer(database, name="db")


def server(
    *,
    host: Annotated[
        str | None, typer.Option(help="The address to listen at. Default: 127.0.0.1.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="The port; 0 takes a free one. Default: 8765.")
    ] = None,
    database: DatabaseOption = None,
    auth: Annotated[
        str | None, typer.Option(metavar="tokens|none", help="Whether requests need a token.")
    ] = None,
    allowed_hosts: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Names it may be called by, with commas between."),
    ] = None,
    workers: Annotated[int | None, typer.Option(help="How many processes serve.")] = None,
) -> None:
    """Serve runs over HTTP: this folder's, or those of a database.

    By default to this machine alone. Every option is also a variable, MANIFEST_SERVER_ and its
    name.
    """
    try:
        from manifest_server.serve import serve
        from manifest_server.settings import load_settings
    except ImportError as error:
        raise typer.BadParameter(
            f"the service needs packages that are not installed ({error.name}): "
            "pip install 'manifest-replay[server]'",
            param_hint="manifest server",
        ) from error
    options = {
        "host": host,
        "port": port,
        "auth": auth,
        "allowed_hosts": allowed_hosts,
        "workers": workers,
    }
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    address = database or _embedded_url().render_as_string()
    settings = load_settings(database_url=address, **given)
    with _kept_up_to_date(database):
        serve(settings, lambda url: typer.echo(f"Serving {_told(address)} at {url}"))


def create_token(
    name: Annotated[str, typer.Argument(help="Whose it is, or what it is for.")],
    *,
    scope: Annotated[
        list[str] | None,
        typer.Option(help="What it may: read, write, admin; again for more. Default: read."),
    ] = None,
    project: Annotated[str | None, typer.Option(help="The one project it is good for.")] = None,
    days: Annotated[
        int | None, typer.Option(min=1, max=3650, help="When it expires. Default: never.")
    ] = None,
    database: DatabaseOption = None,
) -> None:
    """Make a token and print it, this once; only its digest is kept."""
    from typing import get_args

    from manifest.models import Scope

    scopes = scope or ["read"]
    wrong = sorted(set(scopes) - set(get_args(Scope)))
    if wrong:
        raise typer.BadParameter(
            f"expected {', '.join(get_args(Scope))}, found {wrong[0]!r}", param_hint="--scope"
        )
    if not 1 <= len(name) <= 200:
        raise typer.BadParameter("expected 1 to 200 characters", param_hint="NAME")
    lifetime = timedelta(days=days) if days is not None else None
    with _store(database) as store:
        token, secret = store.create_token(
            name=name, scopes=cast("list[Scope]", scopes), project=project, lifetime=lifetime
        )
        _audit(store, "create token", token.id)
    typer.echo(secret)


def list_tokens(*, database: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """List the tokens, the newest first; never the tokens themselves."""
    from manifest_client.rendering.terminal import out, print_json
    from manifest_client.rendering.tokens import tokens_table

    with _store(database) as store:
        found = store.list_tokens()
    if as_json:
        print_json([token.model_dump(mode="json") for token in found])
    elif found:
        out().print(tokens_table(found))
    else:
        typer.echo("There are no tokens. Make one: manifest token create NAME --scope write")


def revoke_token(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="As `manifest token ls` shows it.")],
    *,
    database: DatabaseOption = None,
) -> None:
    """Let a token be of no use any more, from the next request on."""
    with _store(database) as store:
        store.revoke_token(token_id)
        _audit(store, "revoke token", token_id)
    typer.echo(f"revoked {token_id}")


def upgrade_database(*, database: DatabaseOption = None) -> None:
    """Bring the database to the schema of this version.

    It may be called any number of times.
    """
    with _store(database) as store:
        typer.echo(f"{store.location} has the newest schema")


def check_database(*, database: DatabaseOption = None) -> None:
    """Check that the database is whole and of this version."""
    from manifest_server.sqlstore import SqlStore
    from manifest_server.upkeep import check

    address = _existing(database)
    check(address)
    with SqlStore.open(address) as store:
        typer.echo(f"{store.location} is whole and has the newest schema")


def back_up(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="The copy; must not exist yet.")],
    *,
    database: DatabaseOption = None,
) -> None:
    """Copy a SQLite database while it is in use."""
    from manifest_server.upkeep import back_up as copy

    copy(database or _embedded_url(), target)
    typer.echo(f"copied to {target}")


def prune(
    wanted: Annotated[
        str | None,
        typer.Argument(metavar="FILTER", help="Only runs that this holds of.", show_default=False),
    ] = None,
    *,
    days: Annotated[
        int | None,
        typer.Option(
            "--older-than", min=1, metavar="DAYS", help="Only runs that began longer ago."
        ),
    ] = None,
    is_trial: Annotated[
        bool, typer.Option("--dry-run", help="Say how many runs it would be, and delete nothing.")
    ] = False,
    is_agreed: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    database: DatabaseOption = None,
) -> None:
    """Delete runs, and everything that no run refers to.

    It may be called while the service runs. With neither a filter nor an age no run is deleted,
    only what earlier ones have left.
    """
    chosen = _chosen(wanted, days)
    if chosen is not None and database is None:
        raise typer.BadParameter(
            "expected --database: the runs of a folder are its run directories, and come back as "
            "long as those are there",
            param_hint="FILTER, --older-than",
        )
    _existing(database)
    with _store(database) as store:
        run_ids = [] if chosen is None else _found(store, chosen)
        count = f"{len(run_ids)} run{'s' if len(run_ids) != 1 else ''}"
        if is_trial:
            typer.echo(f"would delete {count}")
            return
        if run_ids and not is_agreed:
            typer.confirm(f"Delete {count} for good?", abort=True, err=True)
        for run_id in run_ids:
            with suppress(RunNotFound):  # somebody else was quicker
                store.delete_run(run_id)
                _audit(store, "delete run", run_id)
        parts = store.collect()
    typer.echo(f"deleted {count}, and of what no run refers to: {parts}")


def _chosen(wanted: str | None, days: int | None) -> Filter | None:
    """Which runs are meant; None if none are."""
    from manifest.filtering import All, parse_filter

    texts = [] if wanted is None else [wanted]
    if days is not None:
        oldest = datetime.now(UTC) - timedelta(days=days)
        texts.append(f"started_at < '{oldest.isoformat()}'")
    parts = tuple(parse_filter(text) for text in texts)
    return All(parts) if parts else None


def _found(store: SqlStore, wanted: Filter) -> list[str]:
    found: list[str] = []
    while page := store.list_runs(limit=_PAGE, before=found[-1] if found else None, wanted=wanted):
        found += [run.id for run in page]
    return found


def _embedded_url() -> URL:
    from manifest.rundir import find_base
    from manifest_client.embedded import STORE
    from manifest_server.database import sqlite_url

    return sqlite_url(find_base() / STORE)


def _existing(database: str | None) -> str | URL:
    from sqlalchemy import make_url

    from manifest.errors import StoreUnusable

    address = database or _embedded_url()
    url = make_url(address)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        raise StoreUnusable(f"there is no database at {url.database}.")
    return address


@contextmanager
def _store(database: str | None) -> Iterator[SqlStore]:
    """The store of a service, its schema made or upgraded."""
    from manifest_migrations.upgrade import open_store

    address = database or _embedded_url()
    if database is None:
        _make_base()
    with open_store(address) as store:
        yield store


def _make_base() -> None:
    from manifest.rundir import find_base

    find_base().mkdir(parents=True, exist_ok=True)


def _audit(store: SqlStore, action: str, subject: str) -> None:
    from manifest_server.auditing import Change

    store.put_change(Change("operator", None, action, subject))


@contextmanager
def _kept_up_to_date(database: str | None) -> Iterator[None]:
    """A database with the newest schema; that of this folder gets every run that is recorded."""
    with _store(database) as store:
        if database is not None:
            store.close()
            yield
            return
        is_over = threading.Event()
        _take_in(store)
        looking = threading.Thread(target=_keep_looking, args=(store, is_over), daemon=True)
        looking.start()
        try:
            yield
        finally:
            is_over.set()
            looking.join()


def _keep_looking(store: SqlStore, is_over: threading.Event) -> None:
    whole: set[str] = set()
    while not is_over.is_set():
        try:
            _take_in(store)
            _take_in_contents(store, whole, is_over)
        except (ManifestError, OSError) as error:
            typer.echo(f"manifest: runs were not taken in: {error}", err=True)
        is_over.wait(_LOOK_EVERY_SECONDS)


def _take_in(store: SqlStore) -> None:
    from manifest.rundir import find_base, run_directories
    from manifest_client.cli.local import warn
    from manifest_client.embedded import take_in

    take_in(store, run_directories(find_base()), warn)


def _take_in_contents(store: SqlStore, whole: set[str], is_over: threading.Event) -> None:
    """Blobs and trails of the runs of this folder, but for those that are in whole already."""
    from manifest.rundir import find_base, run_directories
    from manifest_client.contents import put_contents

    runs = [run for run in run_directories(find_base()) if run.id not in whole]
    known = store.digests(run.id for run in runs) if runs else {}
    for run in runs:
        if is_over.is_set():
            return
        if run.id not in known:
            continue  # it could not be read, which was said
        try:
            put_contents(store, run)
        except (ManifestError, OSError) as error:
            typer.echo(f"manifest: not all of run {run.id} was taken in: {error}", err=True)
            whole.add(run.id)
        if known[run.id]:
            whole.add(run.id)


def _told(address: str) -> str:
    from sqlalchemy import make_url

    from manifest_server.database import location

    return location(make_url(address))
