"""Deliver one run directory to a service: idempotent, resumable, and nothing is ever deleted.

Only what the service lacks is sent: blobs first, then the manifest, to which they belong, then the
trail and the verdict, which belong to the run. Cut off anywhere, it goes on from what the service
has by then. Once all of it is there, that is written down beside the run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, Final, TypeVar

from pydantic import TypeAdapter, ValidationError

from manifest.blobs import blobs_of
from manifest.canonical import canonical_bytes
from manifest.delivered import acknowledge, contents, is_delivered
from manifest.errors import SectionsLacking, SegmentsLacking
from manifest.models import KeptTrail, Manifest, Verdict
from manifest.rundir import RunDirectory
from manifest.segments import SEGMENT_STEPS
from manifest.streams import ROW_SIZE
from manifest_client.connection import API, Client, pieces
from manifest_client.contents import beside
from manifest_client.httpstore import manifest_bytes
from manifest_client.problems import AnswerUnusable
from manifest_client.reading import read

_BYTES: Final = {"Content-Type": "application/octet-stream"}
_SEGMENT_BYTES: Final = SEGMENT_STEPS * ROW_SIZE
_SEGMENTS_A_REQUEST: Final = 64
_NAMES_A_REQUEST: Final = 4096
"""How many segments are sent, and how many are named, at once."""
_KEPT_TRAILS = TypeAdapter(list[KeptTrail])
_T = TypeVar("_T")


def deliver(run: RunDirectory, client: Client) -> bool:
    """Send what a service lacks of a run.

    Args:
        run: One that goes on is sent as it is by now; one whose processes have died is sealed.
        client: Sends to the service.

    Returns:
        Whether the run was over, and everything is acknowledged.

    Raises:
        ServiceUnreachable: The service does not answer.
        ManifestError: It refuses, or the run directory cannot be read.
        OSError: The run directory cannot be read or written.
    """
    if is_delivered(run, client.url):
        return True
    # Before it is read: what is written meanwhile is sent at most, but not acknowledged.
    what = contents(run)
    manifest, verdict = read(run)
    _Delivery(run, client, manifest).send(verdict)
    if not manifest.digest:
        return False
    acknowledge(run, client.url, what or {"manifest": manifest.digest, "verdict": ""})
    return True


def is_there(run: RunDirectory) -> bool:
    """Whether there is a run to send; of one that cannot be read, who sends it says why."""
    try:
        return run.has_begun()
    except OSError:
        return True


class _Delivery:
    def __init__(self, run: RunDirectory, client: Client, manifest: Manifest) -> None:
        self.run = run
        self.client = client
        self.manifest = manifest
        self.path = f"{API}/runs/{run.id}"

    def send(self, verdict: Verdict | None) -> None:
        lacking = self._send_blobs()
        self._send_manifest(lacking)
        self._send_trails()
        if verdict is not None:
            body = canonical_bytes(verdict.model_dump(mode="json"))
            self._put("/verdict", body)

    def _send_blobs(self) -> set[str]:
        digests = sorted(blobs_of(self.manifest))
        first, *others = list(_portions(digests)) or [[]]
        asked = self._lacking(sections=self.manifest.digests, blobs=first)
        blobs = set(asked["blobs"])
        for portion in others:
            blobs |= set(self._lacking(blobs=portion)["blobs"])
        for digest in digests:
            if digest not in blobs:
                continue
            try:
                data = self.run.get_blob(digest)
            except KeyError:
                continue  # never kept here, or in another run's directory alone
            path = f"{API}/blobs/{digest}"
            self.client.request("PUT", path, body=data, headers=_BYTES)
        return set(asked["sections"])

    def _send_manifest(self, lacking: set[str]) -> None:
        if not self.manifest.digest:
            self._put("", manifest_bytes(self.manifest))
            return
        sections = self.manifest.sections
        sent = {name: each for name, each in sections.items() if name in lacking}
        try:
            self._put("", manifest_bytes(self.manifest.model_copy(update={"sections": sent})))
        except SectionsLacking:  # they were collected in the meantime
            self._put("", manifest_bytes(self.manifest))

    def _send_trails(self) -> None:
        answer = self.client.request("GET", f"{self.path}/trails", reference=self.run.id)
        kept = {each.process: each for each in self._read_trails(answer.content)}
        for process in self.run.trail_paths():
            self._send_rows(process, kept.get(process))
            if self.manifest.digest:
                self._send_beside(process, kept.get(process))

    def _send_rows(self, process: str, kept: KeptTrail | None) -> None:
        with self.run.trail_path(process).open("rb") as file:
            header = file.readline()
            if not header.endswith(b"\n"):
                return  # torn before its first row
            if kept is None:
                self._put(f"/trails/{process}", header, start=0, is_binary=True)
            first = 0 if kept is None else kept.steps // SEGMENT_STEPS
            file.seek(len(header) + first * _SEGMENT_BYTES)
            while segments := _read_segments(file):
                steps = first * SEGMENT_STEPS + sum(map(len, segments)) // ROW_SIZE
                if kept is None or steps > kept.steps:
                    self._send_segments(process, segments, first, header)
                first += len(segments)
                if not _is_whole(segments[-1]):
                    return  # what is written meanwhile goes along the next time

    def _send_segments(
        self, process: str, segments: Sequence[bytes], first: int, header: bytes
    ) -> None:
        keys = [hashlib.sha256(segment).hexdigest()[:32] for segment in segments]
        whole = [key for key, each in zip(keys, segments, strict=True) if _is_whole(each)]
        lacking = set(self._lacking(segments=whole)["segments"]) if whole else set()
        known = 0
        while known < len(whole) and keys[known] not in lacking:
            known += 1
        if known:
            body = canonical_bytes({"segments": keys[:known]})
            try:
                self._put(f"/trails/{process}/segments", body, start=first * SEGMENT_STEPS)
            except SegmentsLacking:  # collected in the meantime
                known = 0
        rows = b"".join(segments[known:])
        if rows:
            start = (first + known) * SEGMENT_STEPS
            content = rows if start else header + rows
            self._put(f"/trails/{process}", content, start=start, is_binary=True)

    def _send_beside(self, process: str, kept: KeptTrail | None) -> None:
        known = {} if kept is None else kept.files
        for suffix, path in beside(self.run.trail_path(process)).items():
            with path.open("rb") as file:
                digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
            if known.get(suffix) != digest:
                path_there = f"{self.path}/trails/{process}/files/{suffix}"
                self.client.request("PUT", path_there, body=pieces(path), headers=_BYTES)

    def _lacking(self, **named: Any) -> dict[str, Any]:
        body = canonical_bytes(named)
        found = self.client.json("POST", f"{API}/lacking", body=body)
        if not isinstance(found, dict):
            raise AnswerUnusable(self.client.url, "expected what is lacking")
        return {"sections": {}, "blobs": [], "segments": [], **found}

    def _read_trails(self, data: bytes) -> list[KeptTrail]:
        try:
            return _KEPT_TRAILS.validate_json(data)
        except ValidationError as error:
            raise AnswerUnusable(self.client.url, str(error)) from error

    def _put(
        self, path: str, body: bytes, *, start: int | None = None, is_binary: bool = False
    ) -> None:
        self.client.request(
            "PUT",
            self.path + path,
            params={"start": start},
            body=body,
            headers=_BYTES if is_binary else None,
            reference=self.run.id,
        )


def _read_segments(file: BinaryIO) -> list[bytes]:
    found: list[bytes] = []
    while len(found) < _SEGMENTS_A_REQUEST:
        segment = file.read(_SEGMENT_BYTES)
        segment = segment[: len(segment) // ROW_SIZE * ROW_SIZE]  # a torn row was never written
        if segment:
            found.append(segment)
        if not _is_whole(segment):
            break
    return found


def _is_whole(segment: bytes) -> bool:
    return len(segment) == _SEGMENT_BYTES


def _portions(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), _NAMES_A_REQUEST):
        yield items[start : start + _NAMES_A_REQUEST]
