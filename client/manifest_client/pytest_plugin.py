"""The plugin of pytest: tests whose training is to compute what the golden beside them says.

Every pytest loads it where Manifest is installed, so it imports nothing until such a test runs.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final

import pytest

MARKER: Final = "manifest_golden"

_OPTION: Final = "--manifest-golden"
_DEFAULT_SEED: Final = 0
_WRITTEN = pytest.StashKey[str]()
_ABOUT: Final = (
    f"{MARKER}(seed=0): the training in this test computes what its golden says, bit for bit; "
    "all generators are seeded first, unless the seed is None"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.getgroup("manifest").addoption(
        _OPTION,
        choices=("compare", "write", "off"),
        default="compare",
        help=f"with tests marked {MARKER}: compare with their goldens, write these, or only run",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", _ABOUT)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Watch the training of a marked test."""
    marker = item.get_closest_marker(MARKER)
    mode = item.config.getoption(_OPTION)
    if marker is None or mode == "off":
        return (yield)
    from manifest.goldens.watching import is_watched, watched
    from manifest_client.goldens import Test, compare, write

    if is_watched():
        pytest.skip("Manifest records this process, which cannot be watched twice")
    _seed(marker)
    test = Test(item.path, item.nodeid, item.config.invocation_params.dir)
    with watched(test.name) as seen:
        result = yield
    complaint = (write if mode == "write" else compare)(test, seen)
    if complaint is not None:
        pytest.fail(complaint, pytrace=False)
    if mode == "write":
        item.stash[_WRITTEN] = test.shown
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let the report say which golden was written, so that workers of xdist tell it too."""
    report = yield
    if call.when == "call" and _WRITTEN in item.stash:
        report.manifest_golden = item.stash[_WRITTEN]  # type: ignore[attr-defined]
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the goldens that were written."""
    reports = [each for group in terminalreporter.stats.values() for each in group]
    paths = sorted({getattr(each, "manifest_golden", "") for each in reports} - {""})
    if paths:
        terminalreporter.section("goldens written")
    for path in paths:
        terminalreporter.write_line(path)


def _seed(marker: pytest.Mark) -> None:
    seed = marker.kwargs.get("seed", _DEFAULT_SEED)
    if seed is not None:
        from manifest.determinism import seed_everything

        seed_everything(seed)
