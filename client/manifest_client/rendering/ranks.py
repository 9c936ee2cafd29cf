"""What the ranks of a run have otherwise than the first."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.text import Text

from manifest.diffing import conclude
from manifest.models import Difference
from manifest_client.rendering.diffs import difference_lines
from manifest_client.rendering.terminal import indented, styled


def ranks_page(found: Mapping[str, tuple[Difference, ...]], *, width: int, is_whole: bool) -> Group:
    """What each rank recorded otherwise than the first; ranks that agree are named together."""
    alike = [name for name, differences in found.items() if not differences]
    others = {name: differences for name, differences in found.items() if differences}
    parts: list[RenderableType] = []
    if alike:
        named = f"{alike[0]} to {alike[-1]}" if len(alike) > 2 else " and ".join(alike)
        verb = "records" if len(alike) == 1 else "record"
        parts.append(indented(styled(f"{named} {verb} the same as the first rank."), 0, width))
    for name, differences in others.items():
        parts += [Text()] if parts else []
        heading = styled((f"{name}: ", "key"), (conclude(differences), "heading"))
        parts.append(indented(heading, 2, width))
        parts += difference_lines(differences, width=width, is_whole=is_whole)
    return Group(*parts)
