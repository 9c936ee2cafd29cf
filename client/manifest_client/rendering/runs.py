"""A list of runs, and one run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from rich.console import Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from manifest import ranks
from manifest.canonical import Json
from manifest.describing import (
    command_line,
    describe,
    in_reading_order,
    is_absent,
    shortened_command,
    shown,
)
from manifest.doubts import doubts
from manifest.identity import short_id
from manifest.models import SECTIONS, Manifest, Process, RunSummary, Verdict
from manifest.times import age, duration, local_time
from manifest_client.rendering.doubts import doubt_lines
from manifest_client.rendering.terminal import folded, indented, styled

STATUS_STYLES: Final = {
    "finished": "good",
    "identical": "good",
    "within tolerance": "good",
    "running": "key",
    "failed": "bad",
    "crashed": "bad",
    "diverged": "bad",
    "not replayable": "warning",
}
_MOST_KEYS = 8
_MOST_NOTES = 3
_MOST_RANKS = 8
_NAME_WIDTH = 18
_WIDEST_KEY = 34


def no_runs(where: str) -> Text:
    """What to say where nothing was recorded yet."""
    return Text("\n").join(
        [
            styled(f"No runs in {where} yet. Record the first:"),
            Text(),
            styled("    ", ("manifest run -- python train.py", "heading")),
            Text(),
            styled("Nothing in your code has to change. Then `manifest ls` shows it here, and"),
            styled("`manifest replay @latest` runs it again and compares every step."),
        ]
    )


def runs_table(runs: Sequence[RunSummary]) -> Table:
    """A line for each run; columns that would be empty or all the same are left out."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="quiet", pad_edge=False)
    names = [_name(run, runs) for run in runs]
    columns = {
        "RUN": [Text(short_id(run.id), "key") for run in runs],
        "AGE": [Text(age(run.started_at)) for run in runs],
        "STATUS": [_state(run.outcome or run.status) for run in runs],
        **({"NAME": [Text(folded(name, _NAME_WIDTH)) for name in names]} if any(names) else {}),
        "STEPS": [Text("" if run.steps is None else str(run.steps)) for run in runs],
        "COMMAND": [_what_ran(run) for run in runs],
    }
    for title, cells in columns.items():
        # Where there is no room for all, only the commands are cut: the one column that may wrap,
        # of cells that do not.
        is_cut = title == "COMMAND"
        width = None if is_cut else max(len(title), *(cell.cell_len for cell in cells))
        justify: JustifyMethod = "right" if title in ("AGE", "STEPS") else "left"
        table.add_column(title, no_wrap=not is_cut, min_width=width, justify=justify)
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    return table


def run_page(
    manifest: Manifest,
    verdict: Verdict | None,
    replays: Sequence[RunSummary],
    *,
    width: int,
    is_whole: bool = False,
) -> Group:
    """One run: first what came of it, then its sections."""
    parts: list[RenderableType] = list(
        _conclusion(manifest, verdict, replays, width, is_whole=is_whole)
    )
    parts += _notes(manifest, width, is_whole=is_whole)
    if manifest.status != "running":
        parts += doubt_lines(doubts(manifest), width=width, is_whole=is_whole)
    names = [*SECTIONS, *sorted(set(manifest.sections) - set(SECTIONS))]
    hidden = 0
    for name in names:
        values = manifest.sections.get(name)
        if values:
            parts += [Text(), section(name, values, width=width, is_whole=is_whole)]
            hidden += max(0, len(values) - _MOST_KEYS) if not is_whole else 0
    if hidden:
        run_id = short_id(manifest.id)
        more = f"manifest show {run_id} --all", "key"
        parts += [Text(), styled((f"{hidden} more keys: ", "quiet"), more)]
    return Group(*parts)


def section(
    name: str, values: Mapping[str, Json], *, width: int, is_whole: bool, most: int = _MOST_KEYS
) -> Text:
    """The keys and values of one section."""
    count = f"{len(values)} key" + ("s" if len(values) != 1 else "")
    lines = [styled((name, "heading"), (f"  {count}", "quiet"))]
    pairs = in_reading_order("" if is_whole else name, values)
    visible = pairs if is_whole else pairs[:most]
    key_width = min(_WIDEST_KEY, max(len(shown(key)) for key, _ in visible))
    for key, value in visible:
        lines += _pair(key, value, key_width, width, is_whole=is_whole)
    if len(visible) < len(pairs):
        lines.append(styled((f"  … {len(pairs) - len(visible)} more", "quiet")))
    return Text("\n").join(lines)


def recorded_lines(document: Mapping[str, Json], run_id: str) -> Text:
    """What to say when a recorded program has ended: how, and what to type next."""
    status = str(document["status"])
    parts: list[str | tuple[str, str]] = [
        ("manifest: ", "quiet"),
        (status, STATUS_STYLES.get(status, "")),
    ]
    if document.get("ended_at"):
        parts.append(f" after {duration(document['started_at'], document['ended_at'])}")
    steps = _steps(document)
    if steps:
        parts.append(f", {steps} steps")
    if document.get("notes"):
        count = len(document["notes"])
        parts.append(f", {count} note{'s' if count != 1 else ''}")
    return Text("\n").join(
        [
            styled(*parts),
            styled(("manifest: ", "quiet"), "run it again and compare: ", _replay(run_id)),
        ]
    )


def _state(state: str) -> Text:
    return Text(shown(state), STATUS_STYLES.get(state, ""))


def _name(run: RunSummary, runs: Sequence[RunSummary]) -> str:
    if len({other.project for other in runs}) == 1:
        return run.name or ""
    return f"{run.project}/{run.name}" if run.name else run.project


def _what_ran(run: RunSummary) -> Text:
    if run.replay_of is not None:
        return Text(f"replay of {short_id(run.replay_of)}", "quiet", no_wrap=True)
    return Text(shown(shortened_command(run.command)), no_wrap=True)


def _conclusion(
    manifest: Manifest,
    verdict: Verdict | None,
    replays: Sequence[RunSummary],
    width: int,
    *,
    is_whole: bool,
) -> Iterator[RenderableType]:
    label = f"{manifest.project} / {manifest.name}" if manifest.name else manifest.project
    yield styled((manifest.id, "key"), "  ", (label, "heading"))
    yield _ending(manifest)
    yield indented(styled(("$ ", "quiet"), command_line(manifest)), 2, width)
    yield from _ranks(manifest, is_whole=is_whole)
    if manifest.error:
        yield indented(styled((manifest.error, "bad")), 2, width)
    entropy_from = manifest.sections.get("seeds", {}).get("entropy_from")
    if manifest.replay_of is not None:
        yield from _replayed(manifest.replay_of, verdict, width)
    elif isinstance(entropy_from, str):
        yield styled(f"  Draws the same randomness as {short_id(entropy_from)}.")
    yield from _replays(manifest, replays)


def _ranks(manifest: Manifest, *, is_whole: bool) -> Iterator[Text]:
    names = ranks.names(manifest)
    if len(names) < 2:
        return
    launcher = manifest.sections.get("environment", {}).get("launcher.name")
    is_known = isinstance(launcher, str) and launcher != "other"
    yield styled(f"  {len(names)} ranks" + (f", started by {launcher}:" if is_known else ":"))
    visible = list(names.items())[: None if is_whole else _MOST_RANKS]
    for process, name in visible:
        facts = manifest.processes[process]
        yield styled((f"    {name}", "key"), (f"  {_trained(facts)} · {process}", "quiet"))
    if len(visible) < len(names):
        yield styled((f"    … {len(names) - len(visible)} more", "quiet"))


def _trained(facts: Process) -> str:
    steps = facts.trail.steps if facts.trail is not None else 0
    return "1 step" if steps == 1 else f"{steps} steps"


def _notes(manifest: Manifest, width: int, *, is_whole: bool) -> list[Text]:
    visible = manifest.notes if is_whole else manifest.notes[:_MOST_NOTES]
    lines = [
        indented(styled(("note  ", "warning"), f"{note.where}: {note.what}"), 2, width)
        for note in visible
    ]
    if len(visible) < len(manifest.notes):
        lines.append(styled((f"  … {len(manifest.notes) - len(visible)} more notes", "quiet")))
    return lines


def _ending(manifest: Manifest) -> Text:
    how = [(manifest.status, STATUS_STYLES.get(manifest.status, ""))]
    parts: list[str | tuple[str, str]] = [*how]
    if manifest.exit_signal:
        parts.append(f" by {manifest.exit_signal}")
    elif manifest.exit_code:
        parts.append(f" with exit code {manifest.exit_code}")
    if manifest.ended_at:
        parts.append(f" after {duration(manifest.started_at, manifest.ended_at)}")
    steps = max((p.trail.steps for p in manifest.processes.values() if p.trail), default=None)
    if steps is not None:
        parts.append(f" · {steps} steps")
    parts.append(f" · {local_time(manifest.started_at)} ({age(manifest.started_at)} ago)")
    return styled(*parts)


def _replayed(original: str, verdict: Verdict | None, width: int) -> Iterator[Text]:
    outcome = verdict.outcome if verdict else "no verdict"
    line = styled(
        f"Replay of {short_id(original)}: ", (outcome, STATUS_STYLES.get(outcome, "warning"))
    )
    yield indented(line, 2, width)
    if verdict:
        yield indented(styled(verdict.sentence), 2, width)


def _replay(run_id: str) -> tuple[str, str]:
    return f"manifest replay {run_id}", "key"


def _steps(document: Mapping[str, Json]) -> int | None:
    trails = [process.get("trail") for process in document["processes"].values()]
    return max((trail["steps"] for trail in trails if trail), default=None)


def _replays(manifest: Manifest, replays: Sequence[RunSummary]) -> Iterator[Text]:
    if not replays and manifest.replay_of is None and manifest.status != "running":
        yield styled("  Not replayed yet: ", _replay(short_id(manifest.id)))
    for replay in replays:
        state = replay.outcome or replay.status
        yield styled(
            f"  Replayed {age(replay.started_at)} ago: ",
            (state, STATUS_STYLES.get(state, "")),
            (f"  {short_id(replay.id)}", "quiet"),
        )


def _pair(key: str, value: Json, key_width: int, width: int, *, is_whole: bool) -> list[Text]:
    said = describe(value)
    key_text = shown(key) if is_whole else folded(key, key_width)
    style = "quiet" if is_absent(value) else ""
    line = styled(("  " + key_text.ljust(key_width) + "  ", "key"), (said, style))
    if not is_whole:
        space = max(10, width - key_width - 4)
        return [
            styled(("  " + key_text.ljust(key_width) + "  ", "key"), (folded(said, space), style))
        ]
    if line.cell_len <= width:
        return [line]
    return [styled(("  " + key_text, "key")), indented(styled((said, style)), 6, width)]
