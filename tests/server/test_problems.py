"""Every error has its status and a code of its own."""

from __future__ import annotations

from collections.abc import Iterator

from manifest.errors import ManifestError
from manifest_server.problems import STATUSES, code_of


def errors(kind: type[ManifestError] = ManifestError) -> Iterator[type[ManifestError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from errors(child)


def test_every_error_of_the_core_has_a_status() -> None:
    assert {kind for kind in errors() if kind.__module__ == "manifest.errors"} == set(STATUSES)


def test_a_code_is_the_name_of_its_error() -> None:
    assert code_of(ManifestError) == "manifest-error"
