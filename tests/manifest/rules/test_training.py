"""Loaders and optimizers: what differs by itself, and what only follows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from manifest.canonical import ABSENT
from manifest.diffing import diff_sections

Impacts = Callable[..., dict[str, str]]
Sections = dict[str, dict[str, Any]]


def loader(**facts: Any) -> Sections:
    return {"loaders": {"loader.0": {"batch_size": 8, **facts}}}


def optimizer(**facts: Any) -> Sections:
    adam = {"class": "torch.optim.adam.Adam", **facts}
    return {"training": {"autocast": {}, "optimizer.0": adam}}


def test_another_number_of_workers_changes_results(impacts: Impacts) -> None:
    before = loader(num_workers=0, pin_memory=True, prefetch_factor=None)
    after = loader(num_workers=2, pin_memory=False, prefetch_factor=2)
    assert impacts(before, after) == {
        "loader.0.num_workers": "certain",
        "loader.0.pin_memory": "performance",
        "loader.0.prefetch_factor": "informational",
    }


def test_workers_matter_through_what_they_draw() -> None:
    (found,) = diff_sections(loader(num_workers=1), loader(num_workers=2))
    assert "Random numbers drawn while loading come from other streams" in found.reason


def test_reading_further_ahead_can_matter_by_itself(impacts: Impacts) -> None:
    before = loader(num_workers=2, prefetch_factor=2)
    after = loader(num_workers=2, prefetch_factor=4)
    assert impacts(before, after) == {"loader.0.prefetch_factor": "possible"}


def test_what_a_batch_sampler_was_handed_is_not_told_twice(impacts: Impacts) -> None:
    def run(size: int, inner: int) -> Sections:
        return loader(**{"batch_size": size, "batch_sampler.batch_size": inner})

    assert impacts(run(8, 8), run(4, 4)) == {"loader.0.batch_size": "certain"}
    own = impacts(run(8, 2), run(8, 3))
    assert own == {"loader.0.batch_sampler.batch_size": "certain"}


def test_what_only_one_sampler_has_follows_from_the_sampler(impacts: Impacts) -> None:
    before = loader(**{"sampler": "RandomSampler", "sampler.replacement": False})
    assert impacts(before, loader(sampler="SequentialSampler")) == {
        "loader.0.sampler": "certain",
        "loader.0.sampler.replacement": "informational",
    }
    assert impacts(before, loader(sampler="RandomSampler")) == {
        "loader.0.sampler.replacement": "unknown"
    }


def test_a_loader_of_one_run_is_one_difference() -> None:
    before = loader()
    after: Sections = {
        "loaders": {**before["loaders"], "loader.1": {"batch_size": 1, "place": "x"}}
    }
    (found,) = diff_sections(before, after)
    assert (found.key, found.before, found.impact) == ("loader.1", ABSENT, "possible")
    assert found.reason == "only one of the runs went through this loader"


def test_a_warning_that_only_one_run_had_explains_nothing(impacts: Impacts) -> None:
    once, twice = (
        {"training": {"autocast": {}, "nondeterministic": dict.fromkeys(names, "train.py:3")}}
        for names in (["put_"], ["put_", "cumsum"])
    )
    assert impacts({"training": {"autocast": {}}}, once) == {"nondeterministic": "informational"}
    assert impacts(once, twice) == {"nondeterministic.cumsum": "informational"}


def test_an_optimizer_of_one_run_is_one_difference() -> None:
    (found,) = diff_sections({"training": {"autocast": {}}}, optimizer(lr=0.1))
    assert (found.key, found.impact) == ("optimizer.0", "possible")
    assert found.reason == "only one of the runs stepped this optimizer"


def test_a_run_that_recorded_no_training_does_not_say_that_there_was_none() -> None:
    found = diff_sections({}, optimizer(lr=0.1))
    assert {each.was_captured_before for each in found} == {False}
    assert {each.impact for each in found} == {"unknown"}


def test_options_that_only_one_class_has_follow_from_the_class(impacts: Impacts) -> None:
    before = optimizer(lr=0.1, betas=[0.9, 0.999])
    after = optimizer(lr=0.1, momentum=0.9) | {}
    after["training"]["optimizer.0"]["class"] = "torch.optim.sgd.SGD"
    assert impacts(before, after) == {
        "optimizer.0.class": "certain",
        "optimizer.0.betas": "informational",
        "optimizer.0.momentum": "informational",
    }


def test_the_precision_of_parameters_follows_from_the_default(impacts: Impacts) -> None:
    def run(default: str, own: str) -> Sections:
        return {"settings": {"torch.default_dtype": default}, **optimizer(dtypes=own)}

    assert impacts(
        run("torch.float32", "torch.float32"), run("torch.float64", "torch.float64")
    ) == {
        "torch.default_dtype": "certain",
        "optimizer.0.dtypes": "informational",
    }
    assert impacts(
        run("torch.float32", "torch.float32"), run("torch.float32", "torch.bfloat16")
    ) == {"optimizer.0.dtypes": "certain"}


def test_autocast_that_one_run_did_not_use_is_absent_there() -> None:
    before: Sections = {"training": {"autocast": {}}}
    (found,) = diff_sections(before, {"training": {"autocast": {"cuda": "torch.float16"}}})
    assert (found.key, found.before, found.impact) == ("autocast.cuda", ABSENT, "certain")


def test_how_processes_start_matters_where_some_were_started(impacts: Impacts) -> None:
    def run(method: str | None) -> Sections:
        return {"settings": {"torch.multiprocessing.start_method": method}}

    key = "torch.multiprocessing.start_method"
    assert impacts(run(None), run("fork")) == {key: "informational"}
    assert impacts(run("spawn"), run("fork")) == {key: "possible"}


def test_the_batch_of_all_ranks_is_told() -> None:
    def run(ranks: int, batch: int) -> Sections:
        return {
            "settings": {"torch.distributed.world_size": ranks},
            "loaders": {"loader.0": {"batch_size": batch}},
        }

    same = {each.key: each for each in diff_sections(run(1, 8), run(2, 4))}
    assert "the same, but summed in another order" in same["loader.0.batch_size"].reason
    other = {each.key: each for each in diff_sections(run(1, 8), run(2, 8 * 2))}
    assert "another too" in other["loader.0.batch_size"].reason
    assert {each.impact for each in (*same.values(), *other.values())} == {"certain"}
