"""The blobs of a store: bytes under their digests, in its database or beside it."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator
from typing import BinaryIO, Final

from sqlalchemy import Engine

from manifest.canonical import Digest, digest_bytes
from manifest.errors import BlobNotFound, DigestMismatch, StoreUnusable
from manifest_server import blobs as queries
from manifest_server.blobs import PIECE_BYTES, KeptBlob
from manifest_server.database import transaction
from manifest_server.objects import Objects

_LONGEST_TEXT: Final = 2**20


class Blobs:
    """Keeps blobs; a part of `SqlStore`."""

    def __init__(self, engine: Engine, objects: Objects | None) -> None:
        self._engine = engine
        self._objects = objects

    def put(self, content: bytes) -> Digest:
        """Keep bytes, any number of times; gives their digest.

        Raises:
            StoreUnusable: They cannot be kept.
        """
        digest = digest_bytes(content)
        self.put_checked(digest, io.BytesIO(content), len(content))
        return digest

    def put_checked(self, digest: str, file: BinaryIO, size: int) -> None:
        """Keep the bytes of a file, which need not fit into memory.

        Args:
            digest: Of the bytes, as they were digested when they came.
            file: What is read from where it stands.
            size: How many bytes there are.

        Raises:
            StoreUnusable: They cannot be kept.
        """
        with transaction(self._engine, is_writing=True) as connection:
            if queries.announce(connection, digest, size):
                return
            if self._objects is None:
                queries.put_pieces(connection, digest, file)
                queries.settle(connection, digest, "database")
                return
        # Announced first: whoever collects leaves the object alone that is written now.
        self._objects.put(digest, file, size)
        with transaction(self._engine, is_writing=True) as connection:
            queries.settle(connection, digest, "objects")

    def find(self, digest: str, *, project: str | None = None) -> KeptBlob:
        """What is known of a blob, if a run of the project refers to it.

        Raises:
            BlobNotFound: There is none.
        """
        with transaction(self._engine) as connection:
            return queries.get_blob(connection, digest, project=project)

    def read(self, blob: KeptBlob) -> Iterator[bytes]:
        """The bytes of a blob, piece by piece; nothing is held between two of them."""
        for ordinal, start in enumerate(range(0, blob.size, PIECE_BYTES)):
            if blob.place == "database":
                with transaction(self._engine) as connection:
                    piece = queries.get_piece(connection, blob.digest, ordinal)
            else:
                length = min(PIECE_BYTES, blob.size - start)
                piece = self._known_objects().read(blob.digest, start, length)
            yield piece

    def get(self, digest: str) -> bytes:
        """All bytes of a blob.

        Raises:
            BlobNotFound: There is none.
            DigestMismatch: They were changed where they are kept.
        """
        content = b"".join(self.read(self.find(digest)))
        if digest_bytes(content) != digest:
            raise DigestMismatch(digest, digest_bytes(content), "a blob in the store")
        return content

    def text(self, digest: str) -> bytes | None:
        """The bytes of a blob that is small enough to be compared line by line, if it is kept."""
        try:
            blob = self.find(digest)
            return self.get(digest) if blob.size <= _LONGEST_TEXT else None
        except (BlobNotFound, DigestMismatch):
            return None

    def lacking(self, digests: Collection[str], *, project: str | None = None) -> list[str]:
        """Those that must be put before a run that refers to them."""
        with transaction(self._engine) as connection:
            return queries.lacking_blobs(connection, digests, project=project)

    def _known_objects(self) -> Objects:
        if self._objects is None:
            raise StoreUnusable(
                "this blob is kept outside the database: set MANIFEST_SERVER_BLOB_URL to where"
            )
        return self._objects
