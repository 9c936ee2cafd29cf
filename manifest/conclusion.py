"""The sentence that differences amount to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar, get_args

from manifest.models import Difference, Impact, Variation
from manifest.rules.effects import effect_of
from manifest.texts import cut

_RANK: Final = {impact: rank for rank, impact in enumerate(get_args(Impact))}
_Judged = TypeVar("_Judged", Difference, Variation)

_MOST_NAMES = 5
_SPEAK_FOR_THEMSELVES: Final = frozenset(
    ("environment", "hardware", "inputs", "loaders", "settings", "training")
)


def conclude(differences: Sequence[_Judged]) -> str:
    """Say in one sentence what differences amount to.

    A variable and the setting that it becomes are one thing, named by the setting.
    """
    if not differences:
        return "No recorded difference."
    variables = _variables_of_settings(differences)
    counted = set(map(_key, counted_differences(differences)))
    certain, possible, unknown = (
        [
            _name(each, variables.get(_key(each), ()))
            for each in differences
            if each.impact == impact and _key(each) in counted
        ]
        for impact in ("certain", "possible", "unknown")
    )
    if certain:
        verb = "changes" if len(certain) == 1 else "change"
        others = f"; {len(possible)} more can" if possible else ""
        said = f"{_counted(certain)} {verb} results: {_names(certain)}{others}"
        return f"{said}; the runs cannot be expected to agree."
    if possible:
        said = f"{_counted(possible)} can change results: {_names(possible)}"
        return f"{said}; the runs may not agree."
    if unknown:
        said = f"{_counted(unknown)} of unknown effect: {_names(unknown)}"
        return f"{said}; the runs may not agree."
    return "Nothing that can change results differs."


def counted_differences(differences: Sequence[_Judged]) -> list[_Judged]:
    """Those that are things of their own: not the variables that became a setting in the list."""
    variables = _variables_of_settings(differences)
    merged = {key for keys in variables.values() for key in keys}
    return [each for each in differences if _key(each) not in merged]


_Key = tuple[str, str]


def _key(difference: Difference | Variation) -> _Key:
    return difference.section, difference.key


def _variables_of_settings(differences: Sequence[_Judged]) -> dict[_Key, list[_Key]]:
    """By setting, the variables that differ and became it; never one that weighs more."""
    known = {_key(each): each for each in differences}
    found: dict[_Key, list[_Key]] = {}
    for each in differences:
        process, colon, variable = each.key.rpartition(": ")
        effect = effect_of(variable) if each.section == "environment" else None
        if effect is None:
            continue
        setting = known.get((effect.section, process + colon + effect.key))
        if setting is not None and _RANK[setting.impact] <= _RANK[each.impact]:
            found.setdefault(_key(setting), []).append(_key(each))
    return found


def _counted(names: Sequence[str]) -> str:
    return "1 difference" if len(names) == 1 else f"{len(names)} differences"


def _names(names: Sequence[str]) -> str:
    shown = list(names[:_MOST_NAMES])
    if len(names) > _MOST_NAMES:
        shown.append(f"and {len(names) - _MOST_NAMES} more")
    return ", ".join(shown)


def _name(difference: Difference | Variation, variables: Sequence[_Key]) -> str:
    name = _own_name(difference)
    if not variables:
        return name
    # An inherited variable and what the program made of it have one name.
    names = dict.fromkeys(key.rpartition(".")[2] for _, key in variables)
    return f"{name} ({', '.join(names)})"


def _own_name(difference: Difference | Variation) -> str:
    key = cut(" ".join(difference.key.split()))
    if difference.section == "code":
        return key.removeprefix("files.")
    return key if difference.section in _SPEAK_FOR_THEMSELVES else f"{difference.section}.{key}"
