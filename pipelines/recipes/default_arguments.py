"""The default of each parameter of a pipeline."""

from __future__ import annotations

from pipelines.recipes.recipe import Recipe

DEFAULTS = Recipe(sources=("sample:digits",), workers=2).arguments()
