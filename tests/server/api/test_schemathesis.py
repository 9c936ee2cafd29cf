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

from manifest_migrations.upgrade import open_store
from manifest_server.app import create_app
from manifest_server.database import sqlite_url
from manifest_server.settings import ServerSettings

_PATHS: Final = json.loads((Path(__file__).parent / "golden" / "openapi.json").read_bytes())["paths"]


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The description of a service that is there to be asked."""
    url = sqlite_url(tmp_path_factory.mktemp("described") / "store.db").render_as_string()
    with open_store(url) as store:
        app = create_app(ServerSettings(database_url=url, allowed_hosts=("testserver",)))
        app.state.store = store
        yield schemathesis.openapi.from_asgi("/api/v1/openapi.json", app)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["fitting", "unfitting"])
@pytest.mark.parametrize(
    ("method", "path"), [(method, path) for path, each in _PATHS.items() for method in each]
)
def test_every_answer_is_as_described(schema: Any, method: str, path: str, mode: Any) -> None:
    @settings(max_examples=12, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(case=schema[path][method].as_strategy(generation_mode=mode))
    def check(case: schemathesis.Case) -> None:
        case.call_and_validate()

    check()
