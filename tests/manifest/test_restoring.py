"""Reports of what was put back: complete only if everything is as it was."""

from __future__ import annotations

from manifest.restoring import RestoredItem, RestoreReport, counted, put_back, together

ITEMS = (
    RestoredItem("torch.num_threads", "restored"),
    RestoredItem("python", "equal already"),
    RestoredItem("torch.cpu", "equal already"),
    RestoredItem("hash seed", "skipped", "it was random"),
)


def test_a_report_is_complete_if_nothing_was_left_out() -> None:
    assert RestoreReport("id", ITEMS[:3]).is_complete
    assert not RestoreReport("id", ITEMS).is_complete
    assert not RestoreReport("id", [RestoredItem("python", "failed", "broken")]).is_complete


def test_a_report_tells_what_was_not_equal_already() -> None:
    report = RestoreReport("id", ITEMS, ["own"])
    assert str(report).splitlines() == [
        "run id: 1 restored, 2 equal already, 1 skipped",
        "  torch.num_threads: restored",
        "  hash seed: skipped (it was random)",
        "  own: when the program tracks it",
    ]
    assert repr(report) == "<RestoreReport id: 1 restored, 2 equal already, 1 skipped>"


def test_what_comes_later_is_counted_and_no_failure() -> None:
    report = RestoreReport("id", [*ITEMS[:3], RestoredItem("train", "pending", "when iterated")])
    assert report.is_complete
    assert repr(report) == "<RestoreReport id: 1 restored, 2 equal already, 1 pending>"


def test_what_is_equal_already_is_one_item() -> None:
    items = together("state", ITEMS)
    assert items[-1] == RestoredItem("state", "equal already", number=2)
    assert counted(items) == counted(ITEMS)
    assert counted([]) == "nothing"


def test_where_all_was_equal_nothing_had_to_be_put_back() -> None:
    equal = [RestoredItem("state", "equal already", number=2), RestoredItem("x", "equal already")]

    assert put_back(equal) == "nothing, as all 3 were equal already"
    assert put_back(ITEMS) == counted(ITEMS)
    assert put_back([]) == "nothing"
