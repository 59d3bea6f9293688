"""What the shell offers for a value when Tab is pressed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from regraft_core.backbones.table import BACKBONES

Completion = Callable[[str], list[str]]


def offered(values: Iterable[str]) -> Completion:
    """Return a completion of fixed values."""
    known = list(values)

    def beginning(incomplete: str) -> list[str]:
        return [value for value in known if value.startswith(incomplete)]

    return beginning


backbones = offered(BACKBONES)


def recipes(incomplete: str) -> list[str]:
    """Return the names of the recipes that come along."""
    from pipelines.recipes.recipe_file import RECIPES

    return offered(sorted(path.stem for path in RECIPES.glob("*.yaml")))(incomplete)
