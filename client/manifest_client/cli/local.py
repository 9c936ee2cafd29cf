"""The runs that a command works on: those of the nearest ``.manifest`` folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from manifest.errors import RunNotFound
from manifest.models import RunSummary
from manifest.rundir import RunDirectory, find_base, run_directories
from manifest.stores import Store
from manifest_client import reading
from manifest_client.embedded import STORE, open_embedded, take_in
from manifest_client.rendering.terminal import err, styled

if TYPE_CHECKING:
    from manifest_client.connection import Client

_ATTEMPTS: Final = 3  # someone waits at the terminal


@dataclass(frozen=True, slots=True)
class Local:
    """The runs of one folder, and the store that indexes them."""

    base: Path
    store: Store

    def find(self, reference: str) -> str:
        """The id of the run that the user means; fetched, if only the service has it.

        Raises:
            RunNotFound: There is no such run.
            AmbiguousReference: It fits several.
        """
        from manifest_client.references import resolve

        try:
            return resolve(reference, self.store, str(self.base))
        except RunNotFound:
            run = fetched(reference, self.base)
            if run is None:
                raise
            take_in(self.store, [run], warn)
            return run.id

    def directory(self, reference: str) -> RunDirectory:
        """The run directory of the run that the user means.

        Raises:
            RunNotFound: There is no such run, or its directory was deleted.
            AmbiguousReference: It fits several.
        """
        run = RunDirectory(self.base / "runs" / self.find(reference))
        if not run.path.is_dir():
            raise RunNotFound(run.id, f"{run.path.parent}: its directory was deleted")
        return run


@contextmanager
def local_runs(reference: str) -> Iterator[Local]:
    """Open the runs of this folder; `reference` is what the user looks for in it.

    Raises:
        RunNotFound: Nothing was recorded here.
        StoreUnusable: The store cannot be opened.
    """
    base = find_base()
    if not is_anything_kept(base) and fetched(reference, base) is None:
        raise RunNotFound(reference, str(base))
    with opened(base) as local:
        yield local


def fetched(reference: str, base: Path) -> RunDirectory | None:
    """Fetch a run that is not here; None where no service is set up.

    Raises:
        RunNotFound: The service has no such run, either.
        ServiceUnreachable: It does not answer.
    """
    from manifest_client.pulling import find_remote, pull

    with service_for(reference) as client:
        if client is None:
            return None
        run = pull(find_remote(reference, client), client, base)
    warn(f"fetched run {run.id} from {client.url}")
    return run


@contextmanager
def service_for(reference: str) -> Iterator[Client | None]:
    """The service to ask for a run that is not here, if one is set up.

    What is counted from the newest run, as ``@latest``, is meant among the runs that are here.
    """
    from manifest_client.settings import load_settings

    settings = load_settings()
    if not settings.is_delivering or settings.url is None or reference.startswith("@"):
        yield None
        return
    from manifest_client.connection import Client

    with Client(settings.url, token=settings.token, attempts=_ATTEMPTS) as client:
        yield client


@contextmanager
def opened(base: Path, *, newest: int | None = None) -> Iterator[Local]:
    """Open the runs of `base`, which is there: all, or only the newest."""
    with open_embedded(base, warn, newest=newest) as store:
        yield Local(base, store)


def newest_runs(base: Path, limit: int) -> list[RunSummary]:
    """The newest runs of `base`: from its store, else from as many run directories.

    A list needs no store, and reading a few directories is quicker than making one.
    """
    if has_store(base):
        with opened(base, newest=limit) as local:
            return local.store.list_runs(limit=limit)
    return reading.newest_runs(run_directories(base), limit, warn)


def has_store(base: Path) -> bool:
    """Whether the runs of this folder were indexed."""
    return (base / STORE).is_file()


def is_anything_kept(base: Path) -> bool:
    """Whether this folder ever kept a run; only then may a reader write its store there."""
    return (base / "runs").is_dir() or has_store(base)


def warn(what: str) -> None:
    """Say one sentence that does not stop the command."""
    err().print(styled(("manifest: ", "warning"), what), soft_wrap=True)
