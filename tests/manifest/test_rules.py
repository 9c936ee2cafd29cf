from __future__ import annotations

from typing import Any

import pytest

from manifest.canonical import ABSENT, digest_bytes
from manifest.diffing import diff_sections
from manifest.models import Difference
from manifest.rules import RULES, Blobs

Sections = dict[str, dict[str, Any]]


def impacts(before: Sections, after: Sections, *, blobs: Blobs | None = None) -> dict[str, str]:
    there = diff_sections(before, after, blobs=blobs)
    back = diff_sections(after, before, blobs=blobs)
    found = {each.key: each.impact for each in there}
    assert found == {each.key: each.impact for each in back}
    return {key: str(impact) for key, impact in found.items()}


def only(before: Sections, after: Sections) -> Difference:
    (difference,) = diff_sections(before, after)
    return difference


def seeds(entropy: str, draws: dict[str, int] | None = None, **more: Any) -> Sections:
    return {"seeds": {"entropy": entropy, **({} if draws is None else {"draws": draws}), **more}}


def test_every_rule_says_what_it_is_about() -> None:
    rules = {rule for rules in RULES.values() for rule in rules}
    assert [rule.__name__ for rule in rules if not rule.__doc__] == []


# Randomness that nobody seeded.


def test_entropy_that_was_drawn_from_changes_results_and_can_be_repeated() -> None:
    found = only(seeds("aa", {"numpy.random": 3}), seeds("bb", {"numpy.random": 3}))
    assert found.impact == "certain"
    assert "manifest run --like" in found.reason


@pytest.mark.parametrize("draws", [{}, {"torch": 0, "python.random": 0}])
def test_entropy_that_nobody_drew_from_changes_nothing(draws: dict[str, int]) -> None:
    assert impacts(seeds("aa", draws), seeds("bb", draws)) == {"entropy": "informational"}


def test_entropy_that_only_gave_start_states_matters_unless_the_program_seeds() -> None:
    draws = {"python.random": 1, "numpy.random": 1, "torch": 1}
    assert impacts(seeds("aa", draws), seeds("bb", draws)) == {"entropy": "possible"}
    unseeded = seeds("aa", draws, calls={}), seeds("bb", draws, calls={})
    assert impacts(*unseeded) == {"entropy": "certain"}
    calls = {"t.py:1 torch.manual_seed": 0}
    assert impacts(seeds("aa", draws, calls=calls), seeds("bb", draws, calls=calls)) == {
        "entropy": "possible"
    }


def test_entropy_whose_use_was_not_recorded_can_change_results() -> None:
    assert impacts(seeds("aa"), seeds("bb")) == {"entropy": "possible"}


def test_where_entropy_was_taken_over_from_is_no_difference() -> None:
    assert impacts(seeds("aa", entropy_from=None), seeds("aa", entropy_from="x")) == {}


def test_another_seed_at_one_place_changes_results() -> None:
    assert impacts(seeds("aa", calls={"t.py:3": 1}), seeds("aa", calls={"t.py:3": 2})) == {
        "calls.t.py:3": "certain"
    }


def test_the_same_seed_from_another_line_changes_nothing() -> None:
    found = impacts(seeds("aa", calls={"t.py:3": 1}), seeds("aa", calls={"t.py:4": 1}))
    assert set(found.values()) == {"informational"}


def generators(state: str, digest: str = "d", kind: str = "python") -> Sections:
    return {"generators": {"python": {"kind": kind, "state": {"$bytes": state}, "digest": digest}}}


def test_a_generator_is_its_state_and_not_the_digest_of_it() -> None:
    assert impacts(generators("AA==", "xxh3:1"), generators("AA==", "blake2:2")) == {}
    assert impacts(generators("AA=="), generators("AQ==")) == {"python": "certain"}


def test_a_start_state_matters_less_where_the_program_seeds() -> None:
    seeded = seeds("aa", calls={"t.py:3": 1})
    assert impacts(generators("AA==") | seeded, generators("AQ==") | seeded) == {
        "python": "possible"
    }


# The command and where things lie.


def project(root: str, **sections: Any) -> Sections:
    command = {"root": root, **sections.pop("command", {})}
    return {"command": command, **sections}


def test_a_project_in_another_folder_is_the_same_project() -> None:
    def run(root: str) -> Sections:
        return project(
            root,
            command={"argv": ["python", f"{root}/train.py", f"--data={root}/d"]},
            environment={"python.path": [root, f"{root}/src"], "env.PYTHONPATH": f"{root}/src:/x"},
            inputs={f"{root}/d/a.csv": {"size": 3, "mtime_ns": 1, "digest": "xxh3:1"}},
            seeds={"os_entropy_uses": {f"{root}/train.py:3": 1}},
        )

    assert impacts(run("/home/a/p"), run("/tmp/replay-1")) == {"root": "informational"}


def test_a_path_that_only_looks_like_the_project_is_another_path() -> None:
    before = project("/p", config={"data": "/other/p/d"})
    after = project("/q", config={"data": "/other/q/d"})
    assert impacts(before, after) == {"root": "informational", "data": "possible"}


def test_orig_argv_only_repeats_other_arguments() -> None:
    before = {"command": {"argv": ["t.py", "1"], "orig_argv": ["python", "t.py", "1"]}}
    after = {"command": {"argv": ["t.py", "2"], "orig_argv": ["python", "t.py", "2"]}}
    assert impacts(before, after) == {"argv": "certain", "orig_argv": "informational"}


def test_options_of_the_interpreter_are_a_difference_of_their_own() -> None:
    before = {"command": {"argv": ["t.py"], "orig_argv": ["python", "t.py"]}}
    after = {"command": {"argv": ["t.py"], "orig_argv": ["python", "-O", "t.py"]}}
    assert impacts(before, after) == {"orig_argv": "possible"}


def test_another_interpreter_matters_unless_version_and_packages_are_the_same() -> None:
    def run(executable: str, torch: str) -> Sections:
        return {
            "command": {"executable": executable},
            "environment": {"python.version": "3.11.7"},
            "packages": {"torch": torch},
        }

    assert impacts(run("/a", "2.13.0"), run("/b", "2.13.0")) == {"executable": "informational"}
    assert impacts(run("/a", "2.13.0"), run("/b", "2.13.1"))["executable"] == "possible"


def test_secrets_of_runs_with_different_salts_cannot_be_compared() -> None:
    before = {"command": {"argv": ["t.py", {"$redacted": "aa"}]}}
    after = {"command": {"argv": ["t.py", {"$redacted": "bb"}]}}
    assert impacts(before | seeds("aa", {}), after | seeds("bb", {}))["argv"] == "unknown"
    assert impacts(before | seeds("aa", {}), after | seeds("aa", {})) == {"argv": "certain"}


# Source code.


def test_comments_and_layout_are_no_other_program() -> None:
    texts = [b"x = 1\n", b"# new\nx  =  1  # one\n\n", b"x = 2\n", b"x = (\n", b"x = 1\n\xff"]
    first, *others = map(digest_bytes, texts)
    blobs = dict(zip([first, *others], texts, strict=True)).get

    def files(digest: str) -> Sections:
        return {"code": {"files": {"train.py": digest}}}

    found = [impacts(files(first), files(other), blobs=blobs) for other in others]
    assert [each["files.train.py"] for each in found] == [
        "informational",
        "certain",
        "certain",
        "certain",
    ]


def test_another_indentation_is_another_program() -> None:
    texts = [b"if a:\n  b()\nc()\n", b"if a:\n  b()\n  c()\n", b"if a:\n    b()\nc()\n"]
    nested, other, wider = map(digest_bytes, texts)
    blobs = dict(zip([nested, other, wider], texts, strict=True)).get
    files = [{"code": {"files": {"t.py": digest}}} for digest in (nested, other, wider)]
    assert impacts(files[0], files[1], blobs=blobs) == {"files.t.py": "certain"}
    assert impacts(files[0], files[2], blobs=blobs) == {"files.t.py": "informational"}


def test_a_renamed_file_is_the_same_source() -> None:
    before = {"code": {"files": {"a.py": "sha256:1"}}}
    after = {"code": {"files": {"b.py": "sha256:1"}}}
    assert set(impacts(before, after).values()) == {"informational"}


def test_a_commit_matters_only_where_the_executed_files_are_not_known() -> None:
    before: Sections = {"code": {"git.commit": "1", "files": {"t.py": "sha256:1"}}}
    after: Sections = {"code": {"git.commit": "2", "files": {"t.py": "sha256:1"}}}
    assert impacts(before, after) == {"git.commit": "informational"}
    after["code"]["files"] = {"t.py": "sha256:2"}
    assert impacts(before, after) == {"files.t.py": "certain", "git.commit": "informational"}
    assert impacts({"code": {"git.commit": "1"}}, {"code": {"git.commit": "2"}}) == {
        "git.commit": "possible"
    }


# Versions, variables, hardware.


@pytest.mark.parametrize(
    ("before", "after", "impact"),
    [
        ("2.13.0", "2.14.1", "certain"),
        ("2.13.0", "2.13.1", "possible"),
        ("2.13.0+cpu", "2.13.0+cu130", "possible"),
        ("2.1.0", "2.13.0", "certain"),
    ],
)
def test_releases_of_torch_differ_more_than_builds(before: str, after: str, impact: str) -> None:
    assert impacts({"packages": {"torch": before}}, {"packages": {"torch": after}}) == {
        "torch": impact
    }
    found = impacts({"settings": {"torch.version": before}}, {"settings": {"torch.version": after}})
    assert found == {"torch.version": impact}


def test_a_package_that_neither_run_imported_changes_nothing() -> None:
    def run(version: str, imported: list[str]) -> Sections:
        return {"packages": {"numpy": version}, "code": {"imported": imported}}

    assert impacts(run("1", ["torch"]), run("2", ["torch"])) == {"numpy": "informational"}
    assert impacts(run("1", ["numpy"]), run("2", ["numpy"])) == {"numpy": "certain"}


def threads(variable: Any, count: int) -> Sections:
    return {
        "environment": {"env.OMP_NUM_THREADS": variable},
        "settings": {"torch.num_threads": count},
    }


def test_a_variable_and_the_setting_it_becomes_are_both_kept() -> None:
    found = {each.key: each for each in diff_sections(threads(ABSENT, 2), threads("1", 1))}
    assert found["torch.num_threads"].impact == "certain"
    variable = found["env.OMP_NUM_THREADS"]
    assert variable.impact == "certain"
    assert "torch.num_threads, which differs too" in variable.reason


def test_a_variable_without_effect_on_its_setting_matters_less() -> None:
    assert impacts(threads(ABSENT, 2), threads("2", 2)) == {"env.OMP_NUM_THREADS": "possible"}


def test_the_hash_seed_is_counted_once() -> None:
    def run(seed: str, probe: int) -> Sections:
        return {
            "seeds": {"hash_seed": seed},
            "environment": {"env.PYTHONHASHSEED": seed},
            "settings": {"python.hash_probe": probe},
        }

    assert impacts(run("1", 7), run("2", 8)) == {
        "hash_seed": "possible",
        "env.PYTHONHASHSEED": "informational",
        "python.hash_probe": "informational",
    }
    assert impacts(run("random", 7), run("random", 8)) == {"python.hash_probe": "possible"}


def test_more_processors_matter_only_through_the_number_of_threads() -> None:
    def run(processors: int, count: int) -> Sections:
        return {"hardware": {"cpu.count": processors}, "settings": {"torch.num_threads": count}}

    assert impacts(run(2, 2), run(64, 2)) == {"cpu.count": "informational"}
    assert impacts(run(2, 2), run(64, 32))["cpu.count"] == "certain"


@pytest.mark.parametrize("key", ["gpu.0.name", "gpu.0.multi_processor_count", "gpu.3.mig"])
def test_another_geometry_of_the_gpu_changes_results(key: str) -> None:
    assert impacts({"hardware": {key: "a"}}, {"hardware": {key: "b"}}) == {key: "certain"}


# Loaders and ranks.


def test_another_number_of_workers_changes_results() -> None:
    before = {"loaders": {"loader.0": {"num_workers": 0, "pin_memory": True}}}
    after = {"loaders": {"loader.0": {"num_workers": 2, "pin_memory": False}}}
    assert impacts(before, after) == {
        "loader.0.num_workers": "certain",
        "loader.0.pin_memory": "performance",
    }


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


# Inputs and outputs.


def facts(**known: Any) -> Sections:
    return {"inputs": {"d.csv": known}}


def seen(size: int, mtime_ns: int, digest: str | None = None) -> dict[str, Any]:
    known = {"size": size, "mtime_ns": mtime_ns}
    return known if digest is None else {**known, "digest": digest}


@pytest.mark.parametrize(
    ("before", "after", "impact"),
    [
        (seen(1, 1, "x:1"), seen(1, 2, "x:1"), None),
        (seen(1, 1, "x:1"), seen(1, 1, "x:2"), "certain"),
        (seen(1, 1), seen(2, 1), "certain"),
        (seen(1, 1), seen(1, 1, "x:1"), None),
        (seen(1, 1), seen(1, 2), "possible"),
        (seen(1, 1, "x:1"), seen(1, 2, "y:1"), "possible"),
        (seen(1, 1), {"missing": "No such file"}, "certain"),
        ({"missing": "Permission denied"}, {"missing": "No such file"}, None),
    ],
)
def test_an_input_is_its_content(
    before: dict[str, Any], after: dict[str, Any], impact: str | None
) -> None:
    assert impacts(facts(**before), facts(**after)) == ({} if impact is None else {"d.csv": impact})


def test_the_same_content_under_another_path_changes_nothing() -> None:
    before = {"inputs": {"/data/a.csv": {"size": 1, "digest": "x:1"}}}
    after = {"inputs": {"/mnt/a.csv": {"size": 1, "digest": "x:1"}}}
    assert set(impacts(before, after).values()) == {"informational"}


def test_a_file_that_a_run_also_wrote_is_perhaps_a_result() -> None:
    outputs = {"outputs": {"d.csv": {"size": 1, "mtime_ns": 1}}}
    before, after = facts(size=1, digest="x:1"), facts(size=1, digest="x:2")
    assert impacts(before | outputs, after | outputs) == {"d.csv": "possible"}


def test_what_a_run_wrote_is_a_result() -> None:
    before: Sections = {"outputs": {"w.pt": {"size": 1, "mtime_ns": 1}}}
    after: Sections = {"outputs": {"w.pt": {"size": 1, "mtime_ns": 2}}}
    assert impacts(before, after) == {}
    after["outputs"]["w.pt"]["size"] = 2
    assert impacts(before, after) == {"w.pt": "informational"}


# Doubt.


def test_what_could_not_be_read_has_an_unknown_effect() -> None:
    found = only(
        {"settings": {"torch.num_threads": {"$failed": "OSError: no"}}},
        {"settings": {"torch.num_threads": 2}},
    )
    assert found.impact == "unknown"
    assert "could not be read" in found.reason


def test_a_redacted_value_beside_a_plain_one_has_an_unknown_effect() -> None:
    found = impacts({"config": {"lr": {"$redacted": "aa"}}}, {"config": {"lr": "v"}})
    assert found == {"lr": "unknown"}
