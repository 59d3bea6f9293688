"""Values that the shell completes when Tab is pressed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from regraft_core.backbones.backbone_table import BACKBONES

Completion = Callable[[str], list[str]]


def completing(values: Iterable[str]) -> Completion:
    """Return a completion of fixed values."""
    known = list(values)

    def complete(incomplete: str) -> list[str]:
        return [value for value in known if value.startswith(incomplete)]

    return complete


complete_backbones = completing(BACKBONES)


def complete_recipes(incomplete: str) -> list[str]:
    """Return the names of built-in recipes that start with `incomplete`."""
    from pipelines.recipes.recipe_file import known_recipes

    return completing(known_recipes())(incomplete)
