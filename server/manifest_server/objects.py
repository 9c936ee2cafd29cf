"""Blobs outside the database: in a bucket that speaks S3, or in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final
from urllib.parse import unquote, urlsplit

from manifest.canonical import checked_digest
from manifest.errors import StoreUnusable

if TYPE_CHECKING:
    from obstore.store import LocalStore, S3Config, S3Store

_PART_BYTES: Final = 5 * 2**20


class Objects:
    """Keeps bytes under their digests; opened by `open_objects`."""

    def __init__(self, store: LocalStore | S3Store, location: str, folder: Path | None) -> None:
        self._store = store
        self.location = location
        """Where the bytes are, for people: no credentials."""
        self._folder = folder

    def put(self, digest: str, file: BinaryIO, size: int) -> None:
        """Keep the bytes of a blob, if they are not there yet.

        Raises:
            StoreUnusable: They cannot be kept.
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError

        path = _path(digest)
        with self._reporting():
            if size <= _PART_BYTES:
                try:
                    obstore.put(self._store, path, file.read(), mode="create")
                except AlreadyExistsError:
                    if self._has(path, size):
                        return
                    file.seek(0)  # what is there was torn by a crash
                    obstore.put(self._store, path, file.read())
            elif not self._has(path, size):
                # In parts, which cannot be told to create alone; whoever else writes this path
                # writes the same bytes.
                obstore.put(self._store, path, file, chunk_size=_PART_BYTES)
            if self._folder is not None:
                _flush(self._folder / path)

    def read(self, digest: str, start: int, length: int) -> bytes:
        """Some bytes of a blob.

        Raises:
            StoreUnusable: They cannot be read.
        """
        import obstore

        with self._reporting():
            return bytes(obstore.get_range(self._store, _path(digest), start=start, length=length))

    def delete(self, digests: Sequence[str]) -> None:
        """Forget blobs; those that are not there are none the less forgotten.

        Raises:
            StoreUnusable: They cannot be deleted.
        """
        import obstore

        for digest in digests:
            with self._reporting(), _missing_is_fine():
                obstore.delete(self._store, _path(digest))

    def _has(self, path: str, size: int) -> bool:
        import obstore

        try:
            return obstore.head(self._store, path)["size"] == size
        except FileNotFoundError:
            return False

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, OSError) as error:
            reason = str(error).strip().split("\n", maxsplit=1)[0][:300]
            raise StoreUnusable(
                f"blobs in {self.location} cannot be used: {reason}. Check that it exists and that "
                "these credentials may read and write it."
            ) from error


def open_objects(url: str, *, endpoint: str | None = None) -> Objects:
    """Open the place that an address names; connects to nothing yet.

    Args:
        url: ``s3://bucket/prefix``, with credentials from the usual variables of AWS, or
            ``file:///folder``.
        endpoint: The address of a server other than Amazon's.

    Raises:
        StoreUnusable: The address is of another kind, or the library is not installed.
    """
    parts = urlsplit(url)
    try:
        from obstore.store import LocalStore, S3Store
    except ImportError as error:
        raise StoreUnusable(
            "blobs outside the database need a library: pip install 'manifest-replay[blobs]'"
        ) from error
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        folder = Path(unquote(parts.path))
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreUnusable(f"blobs cannot be kept in {folder}: {error.strerror}") from error
        return Objects(LocalStore(folder, mkdir=True), str(folder), folder)
    if parts.scheme == "s3" and parts.netloc and not parts.query:
        config: S3Config = {}
        if endpoint is not None:
            # A server at an address of its own answers for every bucket under one name.
            config = {"endpoint": endpoint, "virtual_hosted_style_request": False}
        store = S3Store(
            parts.netloc,
            prefix=parts.path.strip("/") or None,
            config=config,
            client_options={"allow_http": (endpoint or "").startswith("http://")},
        )
        return Objects(store, f"s3://{parts.netloc}{parts.path}", None)
    raise StoreUnusable(
        f"blobs are kept in s3://bucket/prefix or file:///folder, not in '{url[:200]}'"
    )


@contextmanager
def _missing_is_fine() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        return


def _path(digest: str) -> str:
    digits = checked_digest(digest).removeprefix("sha256:")
    return f"sha256/{digits[:2]}/{digits[2:4]}/{digits}"


def _flush(path: Path) -> None:
    # The library renames into place, but leaves it to the kernel when that reaches the disk.
    for place in (path, *list(path.parents)[:3]):
        fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
