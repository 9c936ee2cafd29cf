"""The store of a service: the protocol of `manifest.stores`, over HTTP."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self, TypeVar

from pydantic import TypeAdapter, ValidationError

from manifest.canonical import canonical_bytes
from manifest.errors import DamagedRun, RunNotFound
from manifest.filtering import All, Comparison, Field, Filter, written
from manifest.identity import is_run_id
from manifest.models import Manifest, RunSummary, Verdict
from manifest.sealing import read_sealed
from manifest.summaries import LABEL_LENGTHS, label
from manifest_client.connection import API, Client
from manifest_client.problems import AnswerUnusable

_T = TypeVar("_T")
_LARGEST_PAGE = 500
_IDS_A_REQUEST = 5000
_SUMMARIES = TypeAdapter(list[RunSummary])
_DIGESTS = TypeAdapter(dict[str, str])


class HttpStore:
    """Keeps runs in a service; implements `manifest.stores.Store`."""

    def __init__(self, client: Client) -> None:
        self.client = client

    @property
    def location(self) -> str:
        """Where the store is, for people."""
        return self.client.url

    def close(self) -> None:
        """Close the connections."""
        self.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def put_run(self, manifest: Manifest, verdict: Verdict | None = None) -> None:
        """Keep a run, replacing what was known of it while it was still running.

        Raises:
            DigestMismatch: A sealed run with this id and another digest is already kept.
        """
        self.put_runs([(manifest, verdict)])

    def put_runs(self, runs: Iterable[tuple[Manifest, Verdict | None]]) -> None:
        """Keep many runs in one transaction: all are sent at once."""
        given = [_new_run(manifest, verdict) for manifest, verdict in runs]
        if given:
            body = b'{"runs":[' + b",".join(given) + b"]}"
            self.client.request("POST", f"{API}/runs", body=body)

    def get_run(self, run_id: str) -> Manifest:
        """The whole manifest of one run, whose digests hold.

        Raises:
            RunNotFound: No run has this id, or none that this token may see.
            DamagedRun: What came is not what was sealed.
        """
        path = f"{API}/runs/{self._known_form(run_id)}"
        data = self.client.request("GET", path, reference=run_id).content
        manifest = self._read(TypeAdapter(Manifest), data)
        if manifest.digest:
            read_sealed(data, self.client.url + path)
        if manifest.id != run_id:
            raise AnswerUnusable(self.client.url, f"asked for {run_id}, it gave {manifest.id}")
        return manifest

    def get_verdict(self, run_id: str) -> Verdict | None:
        """The verdict of a replay, or None for any other run."""
        if not is_run_id(run_id):
            return None
        answer = self.client.request("GET", f"{API}/runs/{run_id}/verdict", accepted=(404,))
        if answer.status_code == 404:
            return None
        return self._read(TypeAdapter(Verdict), answer.content)

    def list_runs(
        self,
        *,
        limit: int = 50,
        before: str | None = None,
        project: str | None = None,
        status: str | None = None,
        wanted: Filter | None = None,
    ) -> list[RunSummary]:
        """The newest runs first; `before` continues after the last id of the previous page.

        Raises:
            RunNotFound: `before` is not a run id.
        """
        found: list[RunSummary] = []
        cursor = None if before is None else self._known_form(before)
        condition = _with_status(wanted, status)
        while len(found) < limit:
            page = self.client.json(
                "GET",
                f"{API}/runs",
                params={
                    "limit": min(limit - len(found), _LARGEST_PAGE),
                    "cursor": cursor,
                    "project": label(project, LABEL_LENGTHS["project"]),
                    "filter": None if condition is None else written(condition),
                },
            )
            found += self._summaries(page)
            cursor = page.get("next_cursor")
            if cursor is None:
                break
        return found[:limit]

    def find_runs(self, prefix: str, *, limit: int = 10) -> list[RunSummary]:
        """Runs whose id starts with `prefix` (dashes may be left out), newest first."""
        digits = prefix.replace("-", "").lower()
        if len(digits) > 32 or set(digits) - set("0123456789abcdef"):
            return []
        params = {"prefix": digits, "limit": min(limit, _LARGEST_PAGE)}
        return self._summaries(self.client.json("GET", f"{API}/runs", params=params))

    def list_replays(self, run_id: str) -> list[RunSummary]:
        """Replays of a run, newest first."""
        if not is_run_id(run_id):
            return []
        path = f"{API}/runs/{run_id}/replays"
        answer = self.client.request("GET", path, accepted=(404,))
        return [] if answer.status_code == 404 else self._read(_SUMMARIES, answer.content)

    def digests(self, run_ids: Iterable[str]) -> dict[str, str]:
        """The digest kept for each of these runs that is known; '' for one not sealed yet."""
        ids = [run_id for run_id in run_ids if is_run_id(run_id)]
        found: dict[str, str] = {}
        for start in range(0, len(ids), _IDS_A_REQUEST):
            body = canonical_bytes({"ids": ids[start : start + _IDS_A_REQUEST]})
            answer = self.client.request("POST", f"{API}/runs/digests", body=body)
            known: dict[str, str] = self._read(_DIGESTS, answer.content)
            found |= known
        return found

    def _summaries(self, page: Any) -> list[RunSummary]:
        if not isinstance(page, dict):
            raise AnswerUnusable(self.client.url, "expected a page of runs")
        try:
            return _SUMMARIES.validate_python(page.get("runs"))
        except ValidationError as error:
            raise AnswerUnusable(self.client.url, str(error)) from error

    def _read(self, form: TypeAdapter[_T], data: bytes) -> _T:
        try:
            return form.validate_json(data)
        except ValidationError as error:
            raise AnswerUnusable(self.client.url, str(error)) from error

    def _known_form(self, run_id: str) -> str:
        if is_run_id(run_id):
            return run_id
        raise RunNotFound(run_id, self.client.url)


def manifest_bytes(manifest: Manifest) -> bytes:
    """A manifest as it is sent: the document that was sealed.

    Raises:
        DamagedRun: It has no canonical form.
    """
    try:
        return canonical_bytes(manifest.model_dump(by_alias=True, exclude_unset=True))
    except (ValueError, TypeError) as error:
        raise DamagedRun(manifest.id, f"it has no canonical form: {error}") from error


def _new_run(manifest: Manifest, verdict: Verdict | None) -> bytes:
    said = b"null" if verdict is None else canonical_bytes(verdict.model_dump(mode="json"))
    return b'{"manifest":' + manifest_bytes(manifest) + b',"verdict":' + said + b"}"


def _with_status(wanted: Filter | None, status: str | None) -> Filter | None:
    if status is None:
        return wanted
    condition = Comparison(Field("", "status"), "=", status)
    return condition if wanted is None else All((condition, wanted))
