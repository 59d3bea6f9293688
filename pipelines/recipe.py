"""What one run is: all options of all steps under their plain names, in one checked value."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from components.core.artifacts import digest_of
from components.core.backbones import find_backbone
from components.core.errors import InputError
from components.core.options import (
    FeatureOptions,
    FineTuneOptions,
    GateOptions,
    HeadOptions,
    IngestOptions,
    Strategy,
    VerifyOptions,
    checked,
)


class Recipe(
    IngestOptions, FeatureOptions, HeadOptions, FineTuneOptions, GateOptions, VerifyOptions
):
    """A whole run. Options that several steps share (seed, batch_size) stand once."""

    sources: tuple[str, ...] = Field(min_length=1)
    strategies: tuple[Strategy, ...] = Field(default=("head", "top"), min_length=1)
    workers: int = Field(default=1, ge=1, le=1024)
    model_name: str = Field(default="regraft", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    destination: str = ""
    champion: str = ""

    @field_validator("strategies")
    @classmethod
    def _no_strategy_twice(cls, strategies: tuple[Strategy, ...]) -> tuple[Strategy, ...]:
        if len(set(strategies)) < len(strategies):
            raise ValueError("each strategy once")
        return strategies

    @model_validator(mode="after")
    def _splits_leave_training_pictures(self) -> Self:
        if self.validation_fraction + self.test_fraction >= 1.0:
            raise ValueError("validation_fraction + test_fraction below 1")
        return self

    def arguments(self) -> dict[str, Any]:
        """Return the values of the pipeline's parameters, as kfp takes them."""
        names = set(PIPELINE_FIELDS)
        plain = {name: _plain(value) for name, value in self.model_dump(include=names).items()}
        return plain | {"shards": list(range(self.workers))}

    @property
    def digest(self) -> str:
        """SHA-256 of all values."""
        return digest_of(self.model_dump(mode="json"))


# Set by other fields, or the business of one step's Python caller alone.
_NOT_PARAMETERS = {"workers", "strategy", "keep_cut", "poolings"}
PIPELINE_FIELDS = tuple(name for name in Recipe.model_fields if name not in _NOT_PARAMETERS)


def make_recipe(**values: Any) -> Recipe:
    """Build and check a recipe before anything is read or sent.

    Raises:
        InputError: an unknown name (near ones are suggested) or a value out of range.
    """
    recipe = checked(Recipe, **values)
    find_backbone(recipe.backbone)
    if any(not source for source in recipe.sources):
        raise InputError("source: expected a path, link or sample, got an empty text")
    return recipe


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
