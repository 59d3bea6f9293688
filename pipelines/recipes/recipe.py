"""What one run is: all options of all steps under their plain names, in one checked value."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, field_validator, model_validator
from pydantic.fields import FieldInfo

from regraft_core.backbones.table import find_backbone
from regraft_core.formats.option_parsing import parse_options
from regraft_core.formats.options import (
    ExportOptions,
    FeatureOptions,
    FineTuneOptions,
    GateOptions,
    HeadOptions,
    IngestOptions,
    Options,
    PublishOptions,
    Strategy,
    VerifyOptions,
)
from regraft_core.runtime.errors import InputError


class Recipe(
    IngestOptions,
    FeatureOptions,
    HeadOptions,
    FineTuneOptions,
    GateOptions,
    ExportOptions,
    VerifyOptions,
    PublishOptions,
):
    """A whole run. Options that several steps share (seed, batch_size) stand once."""

    sources: tuple[str, ...] = Field(
        min_length=1,
        description="Folder, archive, link, table, recipe's name or sample; may be given again.",
    )
    strategies: tuple[Strategy, ...] = Field(
        default=("head", "top"),
        min_length=1,
        description="Candidates to train, comma-separated: head, top, full, auto.",
    )
    workers: int = Field(
        default=1, ge=1, le=1024, description="Workers that share the extraction of features."
    )
    model_name: str = Field(
        default="regraft",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        description="Name under which the model is published and served.",
    )
    destination: str = Field(
        default="", description="Folder or bucket below which <model-name>/<version> is published."
    )
    champion: str = Field(
        default="", description="Published model to compare with; default is the destination's."
    )

    @field_validator("strategies")
    @classmethod
    def _no_strategy_twice(cls, strategies: tuple[Strategy, ...]) -> tuple[Strategy, ...]:
        if len(set(strategies)) < len(strategies):
            raise ValueError("each strategy once")
        return strategies

    @model_validator(mode="after")
    def _splits_leave_training_images(self) -> Self:
        if self.validation_fraction + self.test_fraction >= 1.0:
            raise ValueError("validation_fraction + test_fraction below 1")
        return self

    def arguments(self) -> dict[str, Any]:
        """Return the values of the pipeline's parameters, as kfp takes them."""
        values = {name: _plain(getattr(self, name)) for name in PARAMETER_FIELDS}
        if self.destination and not self.champion:
            values["champion"] = f"{self.destination.rstrip('/')}/{self.model_name}"
        return values

    @property
    def shards(self) -> list[int]:
        """The numbers of the workers that share the extraction of features."""
        return list(range(self.workers))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


# The business of a step's Python caller, or set through other fields.
_NOT_OPTIONS = {"strategy", "keep_cut", "poolings"}
# A run's own first, then step by step; pydantic would begin with the last step.
_STEPS: tuple[type[Options], ...] = Recipe.__bases__
_IN_ORDER = dict.fromkeys(
    [*Recipe.__annotations__, *(name for step in _STEPS for name in step.model_fields)]
)
RECIPE_FIELDS = {n: Recipe.model_fields[n] for n in _IN_ORDER if n not in _NOT_OPTIONS}
OPTION_FIELDS = {n: f for n, f in RECIPE_FIELDS.items() if n != "workers"}
_SHARDS = FieldInfo(
    annotation=tuple[int, ...], description="Numbers of the workers that share the extraction."
)
PARAMETER_FIELDS = {**OPTION_FIELDS, "shards": _SHARDS}
DEFAULTS = Recipe(sources=("sample:digits",)).arguments()
FINE_TUNE_FIELDS = {
    name: field for name, field in FineTuneOptions.model_fields.items() if name != "strategy"
}


def make_recipe(**values: Any) -> Recipe:
    """Build and check a recipe before anything is read or sent.

    Raises:
        InputError: an unknown name (near ones are suggested), a value out of range, or no source.
    """
    if not values.get("sources"):
        raise InputError(
            "sources: expected a recipe or --source, got neither; `regraft init FOLDER` writes one "
            "for a folder of images"
        )
    recipe = parse_options(Recipe, **values)
    find_backbone(recipe.backbone).side_px(recipe.image_px)
    if any(not source for source in recipe.sources):
        raise InputError("source: expected a path, link or sample, got an empty text")
    return recipe
