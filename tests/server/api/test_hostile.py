"""Whatever strangers send: no fault of the service, and nothing that they should not know.

Requests are put together below any client, which would mend many of them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
from starlette.types import Message

from manifest.canonical import digest_value
from manifest.models import Manifest
from manifest_migrations.upgrade import open_store
from manifest_server.app import create_app
from manifest_server.database import sqlite_url
from manifest_server.intake import Intake
from manifest_server.settings import ServerSettings
from manifest_server.sqlstore import SqlStore

MakeManifest = Callable[..., Manifest]

HERE = Path(__file__).parent
DESCRIPTION = json.loads((HERE / "golden/openapi.json").read_text(encoding="utf-8"))
EXAMPLES = {name: each["value"] for name, each in DESCRIPTION["components"]["examples"].items()}
RUN: str = EXAMPLES["Manifest"]["id"]
SECRET = "mft_" + "5ecret" * 7
TELLTALE = (
    "Traceback", 'File "', "site-packages", "sqlalchemy", "psycopg", "sqlite3", "SELECT ",
    "INSERT ", "pydantic", str(HERE.parents[2]), "/tmp/", SECRET,
)  # fmt: skip

TEXTS = (
    "", " ", "\0", "a\0b", "%00", "../../etc/passwd", "..%2f..%2fetc%2fpasswd", "....//", "/", "\\",
    "' OR 1=1 --", "'; DROP TABLE runs; --", '" UNION SELECT * FROM tokens --', "1) OR (1=1", "%",
    "_", "%' ESCAPE '", "{{7*7}}", "${7*7}", "#{7*7}", "<script>alert(1)</script>", "%s%n%x",
    "$(id)", "`id`", "|id", "\r\nX-Evil: 1", "\u202e", "\U0001f600" * 50, "é", "\ufeff", "\x1b[31m",
    "null", "true", "-1", "0", "1e999", "NaN", "9" * 400, "a" * 5000, "[" * 3000, "(" * 3000,
    "not " * 900 + "a = 1", 'name ~ "' + "%" * 900 + '"', RUN.upper(), RUN + "0", RUN[:-1] + "g",
    "settings.a = 'x' or " * 90 + "name = 'y'", "name in (" + "'a'," * 500 + "'b')",
    "config.a = 1e999", "config.a < " + "9" * 400, "name = '\0'", "id = '\0'", "id ~ '\0'",
    "name < '\0'", "config.\0 < '\0'", "config.a ~ '\0'", "steps > " + "9" * 400, "settings.\0 = 1",
    "started_at > '9999999-01-01'", SECRET,
)  # fmt: skip

VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 2**63, -(2**63) - 1, 10**400, 1e308, "", "\0", "x" * 70_000, [], {}, [[]],
    [None], {"": ""}, {"\0": "\0"}, {"$absent": True}, {"$int": "9" * 5000}, {"$int": "0x"},
    {"$float": "nan"}, {"$repr": []}, {"$failed": 1}, {"a": {"b": [{"c": "\0"}]}}, "\u2028<script>",
    "../../etc/passwd", "'; DROP TABLE runs; --", "9999-12-31T23:59:59.999999Z", "0000-00-00",
    SECRET, [0] * 5000, {str(number): number for number in range(6000)},
)  # fmt: skip

BODIES = (
    b"", b" ", b"\0", b"null", b"true", b"0", b'""', b"[]", b"{}", b"[" * 200_000,
    b'{"a":' * 200_000, b"[" * 190 + b"]" * 190, b'{"sections":' * 150 + b"{}" + b"}" * 150,
    b"9" * 100_000, b'{"schema":' + b"9" * 100_000 + b"}", b"NaN", b"[NaN,Infinity,-Infinity]",
    b'"\\ud800"', b'{"\\ud800":1}', b'{"name":"\\udfff\\ud800"}', b'{"tags":{"\\ud800":"\\ud800"}}',
    b"\xff\xfe", b"\xef\xbb\xbf{}", '{"a":1}'.encode("utf-16"), '{"a":1}'.encode("utf-32"),
    b"\xc0\x80", b"{'a':1}", b'{"a":1,}', b'{"a":1}{"b":2}', b'{"id":1,"id":2}',
    b'{"__proto__":{"a":1}}', b"<xml/>", b"!!python/object/apply:os.system [id]", b"\x80\x04\x95",
    b"\x1f\x8b\x08", b"(\xb5/\xfd", b'{"ids":["' + RUN.encode() + b'","' + RUN.encode() + b'"]}',
    b'{"ids":' + json.dumps([RUN] * 101).encode() + b"}", b'{"ids":["\\u0000","a"]}',
    b'{"name":"\\u0000","scopes":["read"]}', b'{"name":"a","scopes":["root"]}',
    b'{"name":"a","scopes":["read"],"days":1e400}', b'{"name":"a","scopes":["read"],"days":true}',
    b'{"name":"a","scopes":["read"],"project":"\\u0000"}', b'{"name":"a","scopes":"read"}',
    b'{"name":"a","scopes":["read"],"admin":true}', b'{"name":"\\ud800","scopes":["read"]}',
    b'{"tags":{"":""}}', b'{"tags":{"a":"\\u0000"},"note":"\\u0000"}',
    b'{"note":"' + b"x" * 30_000 + b'"}', b'{"version":9999999999999999999999}',
    b'{"tags":' + b'{"a":' * 150 + b"1" + b"}" * 151,
)  # fmt: skip

HEADERS = (
    "accept", "accept-encoding", "authorization", "content-type", "content-length",
    "content-encoding", "cookie", "expect", "forwarded", "host", "if-match", "if-none-match",
    "origin", "range", "te", "traceparent", "transfer-encoding", "upgrade", "x-forwarded-for",
    "x-forwarded-host", "x-http-method-override", "x-original-url", "x-request-id",
)  # fmt: skip
HEADER_VALUES = (
    b"", b"\0", b"\xff\xfe", b"*", b"a" * 20_000, b"\r\nX-Evil: 1", b'"1"', b'W/"1"', b'"', b'"-1"',
    b'"99999999999999999999"', "²".encode(), b"bytes=0-", b"gzip;q=nan", b"; charset=utf-7",
    b"application/json; charset=no-such", b"multipart/form-data; boundary=", b"Bearer \0",
    b"Basic =", b"localhost:99999", b"evil.example", b"1,1", b"chunked",
    b"Bearer " + SECRET.encode(),
)  # fmt: skip

PATHS = (
    "/..", "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/..%2f..%2fetc%2fpasswd",
    "//evil.example", "/api/v1/../v1/runs", "/api/v1/runs/", "/api/v1//runs", "/api/v1/runs/%00",
    "/api/v1/runs/..", "/api/v1/runs;a=b", "/API/V1/RUNS", "/api/v1/runs/%ff",
    "/api/v1/runs/" + "a" * 9000, "/docs/..%2f..", "/docs/%2e%2e%2fcore.py", "/docs/../core.py",
    "/.env", "/.git/config", "/manifest.db", "/store.db", "/%252e%252e", "/\\..\\..",
    "/api/v1/openapi.json/..", "/favicon.ico", "/server-status", "*", "",
)  # fmt: skip
METHODS = (
    "HEAD", "OPTIONS", "TRACE", "CONNECT", "PATCH", "BREW", "get", "PROPFIND", "\0", "A" * 500,
)  # fmt: skip


@dataclass(frozen=True)
class Request:
    """A request, down to its bytes."""

    method: str
    target: str
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    query: str = ""


@dataclass
class Answer:
    """What came back."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass
class Service:
    """A service that holds one run, and the loop that it works on."""

    app: Any
    runner: asyncio.Runner
    store: SqlStore
    place: str

    def ask(self, request: Request) -> Answer:
        """Send one request, its body in two parts."""
        return self.runner.run(self._ask(request))

    def faults(self, requests: Iterable[Request]) -> tuple[int, list[str]]:
        """Send many; gives how many, and what is wrong with their answers."""
        found, count = [], 0
        for request in requests:
            count += 1
            wrong = judged(request, self.ask(request), self.place)
            if wrong:
                found.append(f"{str(request)[:300]}: {wrong}")
        return count, found

    async def _ask(self, request: Request) -> Answer:
        answer, half = Answer(), len(request.body) // 2
        parts = [request.body[:half], request.body[half:]]

        async def receive() -> Message:
            if not parts:
                return {"type": "http.disconnect"}
            part = parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(parts)}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                for name, value in message["headers"]:
                    assert b"\n" not in value
                    answer.headers[name.decode()] = value.decode("latin-1")
            else:
                answer.body += message.get("body", b"")

        is_named = any(name == b"host" for name, _ in request.headers)
        host = () if is_named else ((b"host", b"localhost"),)
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": "http",
            "path": unquote(request.target),
            "raw_path": request.target.encode("utf-8", "replace"),
            "query_string": request.query.encode(),
            "root_path": "",
            "headers": [*host, *request.headers],
            "client": ("203.0.113.9", 4242),
            "server": ("127.0.0.1", 8765),
            "state": {},
        }
        await self.app(scope, receive, send)
        return answer


def judged(request: Request, answer: Answer, place: str) -> str:
    """What is wrong with an answer; nothing if it is as it should be."""
    if not 200 <= answer.status < 500:
        return f"status {answer.status}: {answer.body[:300]!r}"
    if "x-evil" in answer.headers or len(answer.headers.get("x-request-id", "")) == 0:
        return f"headers {answer.headers}"
    if answer.status < 400:
        return ""
    if answer.headers.get("content-type") != "application/problem+json":
        return f"no problem document: {answer.status} {answer.headers} {answer.body[:300]!r}"
    said = json.loads(answer.body)
    if said["status"] != answer.status or not said["code"] or not said["detail"]:
        return f"{said}"
    sent = request.target + request.query + request.body.decode("latin-1")
    text = answer.body.decode()
    leaks = [told for told in (*TELLTALE, place) if told in text and told not in unquote(sent)]
    return f"leaks {leaks}: {text[:500]}" if leaks else ""


def started(url: str, runner: asyncio.Runner, place: str, **settings: Any) -> Service:
    store = open_store(url)
    app = create_app(ServerSettings(database_url=url, most_manifest_bytes=2**20, **settings))
    app.state.store, app.state.intake = store, Intake(store, most_waiting=1000)
    return Service(app, runner, store, place)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def service(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A service with one run in it, on each kind of database in turn."""
    place = tmp_path_factory.mktemp("hostile")
    if request.param == "sqlite":
        url = sqlite_url(place / "store.db").render_as_string()
    else:
        url = request.getfixturevalue("module_postgresql_url")
    with asyncio.Runner() as runner:
        made = started(url, runner, str(place))
        with made.store, made.app.state.intake:
            made.store.put_run(Manifest.model_validate(EXAMPLES["Manifest"]))
            yield made


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in DESCRIPTION["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


FITTING = {
    "run_id": RUN,
    "name": "config",
    "a": RUN,
    "b": RUN,
    "field": "project",
    "process": "main",
    "suffix": "final",
    "start": "0",
    "digest": "sha256:" + "0" * 64,
}


def test_nothing_in_a_parameter_does_harm(service: Service) -> None:
    def requests() -> Iterator[Request]:
        for method, path, operation in operations():
            if method == "DELETE":
                continue  # one that fits would take away what the others look for
            named = [each for each in operation.get("parameters", ()) if each["in"] != "header"]
            for chosen in named:
                for text in TEXTS:
                    yield with_parameter(method, path, named, chosen["name"], text)

    count, wrong = service.faults(requests())
    assert wrong == []
    assert count > 1000


def with_parameter(
    method: str, path: str, named: list[dict[str, Any]], chosen: str, text: str
) -> Request:
    """A request that fits, but for one parameter."""
    given = {each["name"]: FITTING[each["name"]] for each in named if each["required"]}
    given[chosen] = text
    query = "&".join(
        f"{each['name']}={quote(given[each['name']], safe='')}"
        for each in named
        if each["in"] == "query" and each["name"] in given
    )
    for each in named:
        if each["in"] == "path":
            path = path.replace(f"{{{each['name']}}}", quote(given[each["name"]], safe=""))
    return Request(method, path, query=query)


def body_targets() -> list[tuple[str, str]]:
    return [
        (method, path.format(**FITTING))
        for method, path, operation in operations()
        if "requestBody" in operation
    ]


def test_nothing_in_a_body_does_harm(service: Service) -> None:
    headers = ((b"content-type", b"application/json"), (b"if-match", b'"0"'))
    count, wrong = service.faults(
        Request(method, target, headers, body)
        for method, target in body_targets()
        for body in BODIES
    )
    assert wrong == []
    assert count > 200


def test_no_value_in_a_manifest_does_harm(service: Service) -> None:
    # The id is that of a run that is not there, so that each is new to the service.
    base = {**EXAMPLES["Manifest"], "id": RUN[:-1] + "f", "digest": "", "digests": {}}
    headers = ((b"content-type", b"application/json"),)

    def requests() -> Iterator[Request]:
        for value in VALUES:
            for key in base:
                yield put(base | {key: value})
            for name in base["sections"]:
                yield put(base | {"sections": {name: {"key": value}}})
                yield put(base | {"sections": {name: value}})
            yield put(sealed(base | {"sections": {"config": {"key": value}}}))
            yield put(base | {"processes": {"main.x0": {"sections": {"seeds": {"a": value}}}}})

    def put(document: Any) -> Request:
        body = json.dumps(document).encode()
        return Request("PUT", f"/api/v1/runs/{base['id']}", headers, body)

    count, wrong = service.faults(requests())
    assert wrong == []
    assert count > 1000
    # What was accepted can be read again, searched and counted.
    for target in (f"/api/v1/runs/{base['id']}", "/api/v1/runs", "/api/v1/fields"):
        assert service.ask(Request("GET", target)).status in (200, 404)


def sealed(document: dict[str, Any]) -> dict[str, Any]:
    """With digests that are right, so far as there are any of such values."""
    try:
        digests = {name: digest_value(each) for name, each in document["sections"].items()}
        whole = {key: each for key, each in document.items() if key != "digest"}
        whole["digests"] = digests
        return {**whole, "digest": digest_value(whole)}
    except Exception:  # noqa: BLE001 -- has no canonical form
        return {**document, "digest": "sha256:" + "0" * 64}


def test_a_wrong_digest_is_found_out(service: Service) -> None:
    good = sealed({**EXAMPLES["Manifest"], "id": RUN[:-1] + "e"})

    def put(document: dict[str, Any]) -> Answer:
        target = f"/api/v1/runs/{document['id']}"
        return service.ask(Request("PUT", target, body=json.dumps(document).encode()))

    for spoilt in (
        good | {"digest": "sha256:" + "0" * 64},
        good | {"digest": "md5:x"},
        good | {"digests": dict.fromkeys(good["digests"], "sha256:" + "0" * 64)},
        good | {"sections": {**good["sections"], "config": {"lr": 0.5}}},
    ):
        assert 400 <= put(spoilt).status < 500
    assert put(good).status == 200
    changed = sealed(good | {"sections": {"config": {"lr": 0.5}}})
    assert put(changed).status == 409


def test_nothing_in_a_header_does_harm(service: Service) -> None:
    targets = [
        ("GET", f"/api/v1/runs/{RUN}"),
        ("PUT", f"/api/v1/runs/{RUN}/annotations"),
        ("POST", "/api/v1/diff"),
    ]
    count, wrong = service.faults(
        Request(method, target, ((name.encode(), value),), b"{}" if method != "GET" else b"")
        for method, target in targets
        for name in HEADERS
        for value in HEADER_VALUES
    )
    assert wrong == []
    assert count > 1500


def test_no_path_and_no_method_does_harm(service: Service) -> None:
    paths = [path.replace("{run_id}", RUN) for path in DESCRIPTION["paths"]]
    count, wrong = service.faults(
        [
            *(Request("GET", path) for path in PATHS),
            *(Request(method, path) for method in METHODS for path in (*paths, "/docs", *PATHS)),
        ]
    )
    assert wrong == []
    assert count > 400


def test_a_token_of_another_project_finds_nothing(
    tmp_path: Path, make_manifest: MakeManifest
) -> None:
    with asyncio.Runner() as runner:
        url = sqlite_url(tmp_path / "store.db").render_as_string()
        guarded = started(url, runner, str(tmp_path), auth="tokens", requests_per_second=0)
        with guarded.store as store, guarded.app.state.intake:
            theirs, mine = make_manifest(project="dogs"), make_manifest(project="cats")
            for manifest in (theirs, mine):
                store.put_run(manifest)
            _, secret = store.create_token(name="x", scopes=["read", "write"], project="cats")
            headers = ((b"authorization", f"Bearer {secret}".encode()), (b"if-match", b'"0"'))
            for method, path, operation in operations():
                asked = path.format(**{**FITTING, "run_id": theirs.id, "name": "settings"})
                query = f"a={mine.id}&b={theirs.id}&field=name&project=dogs&limit=500&start=0"
                body = {"ids": [mine.id, theirs.id], **json.loads(theirs.model_dump_json())}
                request = Request(method, asked, headers, json.dumps(body).encode(), query)
                answer = guarded.ask(request)
                if "{run_id}" in path or path.endswith(("/diff", "/divergence")):
                    assert answer.status in (403, 404, 422), (method, path)
                else:
                    assert theirs.id.encode() not in answer.body, (method, path)
                assert b"dogs" not in answer.body, (method, path)
                assert judged(request, answer, str(tmp_path)) == "", operation["operationId"]
            assert store.get_run(theirs.id).project == "dogs"
