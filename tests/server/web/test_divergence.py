"""The page on where two runs part says and draws what their trails hold."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from starlette.testclient import TestClient

from manifest.models import Manifest
from manifest.segments import SEGMENT_STEPS
from manifest.streams import ROW_SIZE, STREAMS, UNOBSERVED
from manifest.trail import Ending, TrailWriter
from manifest_server.app import create_app
from manifest_server.settings import ServerSettings
from manifest_server.sqlstore import SqlStore

MakeManifest = Callable[..., Manifest]
PutRun = Callable[..., str]
Changes = Mapping[tuple[int, str], bytes]

OTHER = b"other bits here!"
LAYERS = ("encoder.0.weight", "encoder.0.bias", "encoder.1.weight", "head.weight", "head.bias")


@pytest.fixture
def client(store_url: str) -> Iterator[TestClient]:
    app = create_app(ServerSettings(database_url=store_url))
    with TestClient(app, base_url="http://localhost") as opened:
        yield opened


@pytest.fixture
def put_run(client: TestClient, make_manifest: MakeManifest, tmp_path: Path) -> PutRun:
    """A function that puts a run with the trail it describes, and gives its id."""
    store: SqlStore = client.app.state.store  # type: ignore[attr-defined]

    def put(
        steps: int = 10,
        *,
        changes: Changes | None = None,
        leaves: Collection[str] = (),
        process: str = "main",
        names: tuple[str, ...] = LAYERS,
        losses: Callable[[int], float] | None = None,
        final: Ending | None = None,
        algorithm: bytes = b"",
        **manifest: object,
    ) -> str:
        run = make_manifest(**manifest)
        store.put_run(run)
        path = tmp_path / run.id / f"{process}.bin"
        path.parent.mkdir()
        writer = TrailWriter(path)
        writer.append_leaves(0, "rng", ("python",), [bytes(16)])
        for step in range(steps):
            if leaves:
                for stream in ("grad", "param"):
                    kept = [OTHER if n in leaves and step >= 7 else n.encode() for n in names]
                    writer.append_leaves(step, stream, names, [each[:8].ljust(8) for each in kept])
            row = [(changes or {}).get((step, s), digest(step, s)) for s in STREAMS]
            writer.append(*row, number=None if losses is None else losses(step))
        writer.close(final)
        _put_trail(store, run.id, path, algorithm)
        return run.id

    return put


def digest(step: int, stream: str) -> bytes:
    return hashlib.md5(f"{stream} {step}".encode()).digest()


def _put_trail(store: SqlStore, run_id: str, path: Path, algorithm: bytes) -> None:
    content = path.read_bytes()
    header, rows = content.split(b"\n", 1)
    if algorithm:
        header = json.dumps({**json.loads(header), "algorithm": algorithm.decode()}).encode()
    portion = 60 * SEGMENT_STEPS
    store.trails.put_rows(run_id, path.stem, header + b"\n", start=0)
    for start in range(0, len(rows) // ROW_SIZE, portion):
        part = rows[start * ROW_SIZE : (start + portion) * ROW_SIZE]
        body = part if start else header + b"\n" + part
        store.trails.put_rows(run_id, path.stem, body, start=start)
    for beside in path.parent.iterdir():
        if beside != path:
            found = store.blobs.put(beside.read_bytes())
            store.trails.put_file(run_id, path.stem, beside.suffix[1:], found)


def shown(client: TestClient, a: str, b: str) -> str:
    answer = client.get("/divergence", params={"a": a, "b": b})
    assert answer.status_code == 200, answer.text
    assert "style=" not in answer.text
    assert "<script>" not in answer.text
    return answer.text


def words(page: str) -> str:
    """What a reader without pictures reads."""
    text = re.sub(r"<svg.*?</svg>|<[^>]+>", " ", page, flags=re.DOTALL)
    return " ".join(text.split())


def drawn(page: str, number: int = 0) -> dict[str, list[tuple[str, float, float]]]:
    """The bars of each lane of a picture: state, and from where to where."""
    figures = re.findall(r'<figure class="lanes".*?</figure>', page, flags=re.DOTALL)
    svg = re.search(r"<svg.*?</svg>", figures[number], flags=re.DOTALL)
    assert svg is not None
    picture = ET.fromstring(svg.group())
    lanes: dict[str, list[tuple[str, float, float]]] = {stream: [] for stream in STREAMS}
    for rect in picture.iter("rect"):
        middle = float(rect.attrib["y"]) + float(rect.attrib["height"]) / 2
        stream = STREAMS[round((middle - 31) / 27)]
        x, width = (float(rect.attrib[name].rstrip("%")) for name in ("x", "width"))
        state = rect.attrib["class"].removeprefix("bar-")
        lanes[stream].append((state, round(x, 1), round(x + width, 1)))
    return lanes


def test_ten_steps_are_drawn_one_by_one(client: TestClient, put_run: PutRun) -> None:
    changes = {(step, stream): OTHER for step in range(7, 10) for stream in ("grad", "param")}
    a, b = put_run(), put_run(changes=changes)

    page = shown(client, a, b)

    lanes = drawn(page)
    assert lanes["batch"] == lanes["rng"] == lanes["loss"] == [("equal", 0, 100)]
    assert lanes["grad"] == lanes["param"] == [("equal", 0, 70), ("differs", 70, 100)]
    said = words(page)
    assert (
        "Equal to step 6; at step 7 the batch and the loss are equal and the gradients differ: "
        "compute, not data." in said
    )
    assert "gradients steps 7 to 9 differs" in said  # the table in place of the picture
    assert "First of all the gradients differ, which speaks for compute, not data" in said
    assert f"loss = equal {digest(7, 'loss').hex()[:8]} {digest(7, 'loss').hex()[:8]}" in said
    assert f"gradients ≠ differs {digest(7, 'grad').hex()[:8]} {OTHER.hex()[:8]}" in said
    for run_id in (a, b):
        assert f'href="/runs/{run_id}"' in page
    assert f'href="/compare?ids={a}%2C{b}"' in page
    assert f"manifest verify {a[:13]} {b[:13]}" in said
    assert f"manifest replay {a[:13]} --dense" in said


def test_a_long_trail_is_drawn_whole_and_close_up(client: TestClient, put_run: PutRun) -> None:
    steps, parting = 5 * SEGMENT_STEPS, 3000
    changes = {(step, "batch"): OTHER for step in range(parting, steps)}

    page = shown(client, put_run(steps), put_run(steps, changes=changes))

    whole, closeup = drawn(page, 0)["batch"], drawn(page, 1)["batch"]
    assert [state for state, _, _ in whole] == ["equal", "differs"]
    assert whole[0][2] == pytest.approx(100 * parting / steps, abs=0.5)
    assert closeup == [("equal", 0, 48.8), ("differs", 48.8, 100)]
    assert drawn(page, 1)["loss"] == [("equal", 0, 100)]
    assert page.count("step 3,000</text>") == 2
    assert "data, before any computation" in words(page)


def test_what_only_one_run_has_seen_is_told_from_what_none_has(
    client: TestClient, put_run: PutRun
) -> None:
    unseen = {(step, "loss"): UNOBSERVED for step in range(10)}
    half = {(step, "param"): UNOBSERVED for step in range(5, 10)}

    lanes = drawn(shown(client, put_run(changes=unseen), put_run(8, changes=unseen | half)))

    assert lanes["loss"] == [("not-observed", 0, 100)]
    assert lanes["param"] == [("equal", 0, 50), ("one-side", 50, 100)]
    assert lanes["batch"] == [("equal", 0, 80), ("one-side", 80, 100)]


def test_tensors_that_differ_stand_in_a_tree_with_counts(
    client: TestClient, put_run: PutRun
) -> None:
    changes = {(7, "grad"): OTHER}
    leaves = {"encoder.0.weight", "encoder.0.bias", "head.bias"}
    a = put_run(leaves={"none"})
    b = put_run(leaves=leaves, changes=changes, names=(*LAYERS, "extra.<b>"))

    said = words(shown(client, a, b))

    assert "Gradients 3 differ · 2 equal · 1 in one run only" in said
    assert "encoder 2 of 3 0 2 of 2 weight bias head 1 of 2 bias" in said
    assert "encoder.1" not in said


def test_where_no_tensor_differs_nothing_looks_as_if(client: TestClient, put_run: PutRun) -> None:
    a = put_run(leaves={"none"})
    b = put_run(leaves={"none"}, changes={(7, "grad"): OTHER})

    page = shown(client, a, b)

    assert "0 differ · 5 equal" in words(page)
    assert '"compared differs">0 differ' not in page


def test_tensors_seen_later_say_so(client: TestClient, put_run: PutRun) -> None:
    names = tuple(f"layer.{number}" for number in range(3000))
    a = put_run(changes={(5, "grad"): OTHER}, leaves={"none"}, names=names)
    b = put_run(leaves=set(names), names=names)

    page = shown(client, a, b)

    assert "Gradients at step 7, the next where they were kept" in words(page)
    assert "3,000 differ · 0 equal" in words(page)
    assert page.count('class="leaf"') == 1000  # as many as fit a page


def test_names_and_values_of_strangers_are_harmless(client: TestClient, put_run: PutRun) -> None:
    bad = "<script>alert(1)</script>\x1b[31m"
    names = (bad, "a." * 2000 + "deep")
    a = put_run(leaves={"none"}, names=names, name=bad)
    b = put_run(leaves=set(names), changes={(7, "grad"): OTHER}, names=names, name=bad)

    page = shown(client, a, b)

    assert "<script>alert" not in page
    assert "\x1b" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_losses_are_drawn_with_gaps_where_there_is_no_number(
    client: TestClient, put_run: PutRun
) -> None:
    a = put_run(losses=float)
    b = put_run(losses=lambda step: float("nan") if step in (3, 4) else float(step))

    page = shown(client, a, b)

    first, *others = re.findall(r'<polyline class="curve-(.)" points="([^"]+)"', page)
    assert [kind for kind, _ in (first, *others)] == ["a", "b", "b"]
    assert first[1].split()[0] == "50.0,96.0"
    assert first[1].split()[-1] == "950.0,4.0"
    assert [len(points.split()) for _, points in others] == [3, 5]
    assert "from 0 to 9" in page


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e308, 0.0])
def test_losses_of_any_value_break_no_picture(
    client: TestClient, put_run: PutRun, value: float
) -> None:
    a = put_run(losses=lambda step: value if step else -1e308)
    b = put_run(losses=lambda _: value)

    page = shown(client, a, b)

    points = " ".join(re.findall(r'points="([^"]+)"', page))
    assert not {"nan", "inf"} & set(re.findall(r"[a-z]+", points))


def test_equal_runs_are_said_to_be_equal(client: TestClient, put_run: PutRun) -> None:
    a = put_run(60)

    page = shown(client, a, put_run(60, replay_of=a))

    assert "Equal in all 60 steps: the generators, the batch, the loss" in words(page)
    assert "verdict good" in page
    assert "--dense" not in page


def test_a_difference_at_the_end_alone_is_named(client: TestClient, put_run: PutRun) -> None:
    ends = [Ending(tensors={"w": "aa", "b": "bb"}), Ending(tensors={"w": "ab", "b": "bb"})]
    a, b = (put_run(final=end) for end in ends)

    said = words(shown(client, a, b))

    assert "equal in every step; at the end of the process the parameter w differs" in said.lower()
    assert "At the end of the process" in said


def test_what_can_explain_it_is_said(client: TestClient, put_run: PutRun) -> None:
    settings = {f"torch.setting_{number}": number for number in range(40)}
    a = put_run(sections={"settings": {**settings, "torch.num_threads": 4}})
    b = put_run(
        sections={"settings": {**settings, "torch.num_threads": 8}}, changes={(7, "grad"): OTHER}
    )

    assert "torch.num_threads" in words(shown(client, a, b))


def test_processes_of_one_name_are_drawn_side_by_side(client: TestClient, put_run: PutRun) -> None:
    a, b = put_run(process="rank1"), put_run(process="rank2")

    assert "The runs have no process in common" in words(shown(client, a, b))
    assert "in rank1" in words(shown(client, a, put_run(process="rank1")))


def test_without_anything_to_compare_the_page_says_why_and_what_to_do(
    client: TestClient, put_run: PutRun, make_manifest: MakeManifest
) -> None:
    store: SqlStore = client.app.state.store  # type: ignore[attr-defined]
    bare = make_manifest()
    store.put_run(bare)
    whole, older = put_run(), put_run(algorithm=b"md5")
    unseen = {(step, stream): UNOBSERVED for step in range(10) for stream in STREAMS}
    pages = {
        "Neither run has a trail here": (bare.id, bare.id),
        "One run has no trail here": (whole, bare.id),
        "The fingerprints were made in different ways": (whole, older),
        "No fingerprint was taken in both runs": (whole, put_run(changes=unseen)),
    }
    for said, pair in pages.items():
        page = words(shown(client, *pair))
        assert said in page
        assert f"manifest replay {pair[0][:13]}" in page


def test_a_trail_that_grows_is_drawn_anew(
    client: TestClient, put_run: PutRun, tmp_path: Path
) -> None:
    store: SqlStore = client.app.state.store  # type: ignore[attr-defined]
    a, b = put_run(20), put_run(10)
    assert "Equal in the 10 steps that both runs have" in words(shown(client, a, b))

    content = (tmp_path / a / "main.bin").read_bytes()
    store.trails.put_rows(b, "main", content, start=0)

    assert "Equal in all 20 steps" in words(shown(client, a, b))


def test_what_cannot_be_read_is_refused_in_words(client: TestClient, put_run: PutRun) -> None:
    store: SqlStore = client.app.state.store  # type: ignore[attr-defined]
    a, b = put_run(), put_run(changes={(3, "grad"): OTHER})
    bad = store.blobs.put(b"N\0\0\0\2\0\0\0\0\0\0\0\0\0\0\0[]")
    store.trails.put_file(a, "main", "tensors", bad)

    answer = client.get("/divergence", params={"a": a, "b": b}, headers={"Accept": "text/html"})

    assert answer.status_code == 422
    assert "These trails cannot be compared" in answer.text


@pytest.mark.parametrize("other", ["", "x", "01990000-0000-7000-8000-00000000000f"])
def test_runs_that_are_not_there_are_no_page(
    client: TestClient, put_run: PutRun, other: str
) -> None:
    answer = client.get(
        "/divergence", params={"a": put_run(), "b": other}, headers={"Accept": "text/html"}
    )
    assert answer.status_code in (404, 422)
    assert "text/html" in answer.headers["content-type"]


def test_runs_of_other_projects_are_not_there(
    store_url: str, client: TestClient, put_run: PutRun
) -> None:
    store: SqlStore = client.app.state.store  # type: ignore[attr-defined]
    a, b = put_run(), put_run(project="secret")
    _, secret = store.create_token(name="reader", scopes=["read"], project="digits")
    app = create_app(ServerSettings(database_url=store_url, auth="tokens"))
    with TestClient(app, base_url="http://localhost") as guarded:
        parameters = {"a": a, "b": b}
        page = {"Accept": "text/html"}
        answer = guarded.get("/divergence", params=parameters, headers=page, follow_redirects=False)
        assert answer.headers["location"].startswith("/login?next=%2Fdivergence")
        guarded.cookies.set("manifest_token", secret)
        assert guarded.get("/divergence", params=parameters, headers=page).status_code == 404
        assert guarded.get("/divergence", params={"a": a, "b": a}, headers=page).status_code == 200
