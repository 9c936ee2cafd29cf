"""Where a run is kept elsewhere: told, searched, and no difference."""

from __future__ import annotations

from manifest.canonical import Json
from manifest.diffing import diff_sections
from manifest.links import Links


class Written:
    """What a recorder would write."""

    def __init__(self) -> None:
        self.sections: dict[str, dict[str, Json]] = {}

    def section(self, name: str, values: dict[str, Json]) -> None:
        self.sections.setdefault(name, {}).update(values)


def test_what_is_known_is_recorded_under_the_name_of_its_keeper() -> None:
    written = Written()
    Links(written).add("mlflow", {"run_id": "6afb", "experiment_id": 0, "url": None})
    assert written.sections == {"links": {"mlflow.run_id": "6afb", "mlflow.experiment_id": "0"}}


def test_several_runs_elsewhere_are_a_list_and_one_that_is_told_twice_is_one() -> None:
    written = Written()
    links = Links(written)
    for name in ("a", "b", "a"):
        links.add("mlflow", {"run_id": name, "experiment_id": "0"})
    assert written.sections["links"] == {"mlflow.run_id": ["a", "b"], "mlflow.experiment_id": "0"}


def test_ten_thousand_runs_elsewhere_stay_a_short_list() -> None:
    written = Written()
    links = Links(written)
    for number in range(10_000):
        links.add("mlflow", {"run_id": number})
    assert written.sections["links"]["mlflow.run_id"] == [str(number) for number in range(32)]


def test_passwords_of_addresses_stay_out() -> None:
    written = Written()
    Links(written).add("mlflow", {"tracking_uri": "https://me:s3cret@tracker/api?token=abcd1234X"})
    assert written.sections["links"] == {
        "mlflow.tracking_uri": "https://tracker/api?token=[redacted]"
    }


def test_where_a_run_is_kept_elsewhere_is_no_difference() -> None:
    one: dict[str, dict[str, Json]] = {"links": {"mlflow.run_id": "a"}, "config": {"lr": 1}}
    other: dict[str, dict[str, Json]] = {"links": {"wandb.run_id": "b"}, "config": {"lr": 2}}
    assert [each.key for each in diff_sections(one, other)] == ["lr"]
