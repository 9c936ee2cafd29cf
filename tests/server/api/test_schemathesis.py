"""Every operation against its own description, with inputs that fit it and inputs that do not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from manifest_migrations.upgrade import open_store
from manifest_server.app import create_app
from manifest_server.database import sqlite_url
from manifest_server.intake import Intake
from manifest_server.settings import ServerSettings

_GOLDEN: Final = Path(__file__).parent / "golden" / "openapi.json"
_OPERATIONS: Final = [
    (method, path, bool(operation.get("parameters") or operation.get("requestBody")))
    for path, methods in json.loads(_GOLDEN.read_bytes())["paths"].items()
    for method, operation in methods.items()
]
_EXAMPLES: Final = 12


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The description of a service that is there to be asked."""
    url = sqlite_url(tmp_path_factory.mktemp("described") / "store.db").render_as_string()
    with open_store(url) as store, Intake(store, most_waiting=10) as intake:
        app = create_app(ServerSettings(database_url=url, allowed_hosts=("testserver",)))
        app.state.store, app.state.intake = store, intake
        yield schemathesis.openapi.from_asgi("/api/v1/openapi.json", app)


@pytest.mark.parametrize(("method", "path"), [each[:2] for each in _OPERATIONS])
def test_what_fits_is_answered_as_described(schema: Any, method: str, path: str) -> None:
    check(schema[path][method], GenerationMode.POSITIVE)


@pytest.mark.parametrize(("method", "path"), [each[:2] for each in _OPERATIONS if each[2]])
def test_what_does_not_fit_is_answered_as_described(schema: Any, method: str, path: str) -> None:
    check(schema[path][method], GenerationMode.NEGATIVE)


def check(operation: Any, mode: GenerationMode) -> None:
    @settings(
        max_examples=_EXAMPLES,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: schemathesis.Case[Any]) -> None:
        # A schema cannot say all: a digest that is right, a filter that can be read.
        case.call_and_validate(excluded_checks=[positive_data_acceptance])

    ask()
