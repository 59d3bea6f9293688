"""The recipe of a run: all options of all steps, as one checked value."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, field_validator, model_validator
from pydantic.fields import FieldInfo

from pipelines.recipes.option_hints import unknown_option
from regraft_core.backbones.backbone_table import AUTO, find_backbone, fixed_px, is_location
from regraft_core.formats.option_parsing import parse_options
from regraft_core.formats.options.evaluate import GateOptions
from regraft_core.formats.options.export import ExportOptions
from regraft_core.formats.options.extract_features import FeatureOptions
from regraft_core.formats.options.fine_tune import FineTuneOptions, Strategy
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.formats.options.option_types import Options
from regraft_core.formats.options.publish import PublishOptions
from regraft_core.formats.options.train_head import HeadOptions
from regraft_core.formats.options.verify import VerifyOptions
from regraft_core.runtime.addresses import refuse_credentials, refuse_signature
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
    """All options of a run. Options that several steps share, such as `seed`, appear once."""

    sources: tuple[str, ...] = Field(
        min_length=1,
        description="Images: a folder, an archive, a URL, a table, a pattern of shards, or a "
        "sample; may be repeated.",
    )
    strategies: tuple[Strategy, ...] = Field(
        default=("head", "top"),
        min_length=1,
        description="Candidates to train, comma-separated: head, top, full or auto.",
    )
    workers: int = Field(
        default=1, ge=1, le=1024, description="Number of workers that share feature extraction."
    )
    model_name: str = Field(
        default="regraft",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        description="Name of the published and served model.",
    )
    destination: str = Field(
        default="",
        description="Folder or bucket URI to publish to, as <destination>/<model-name>/<version>.",
    )
    champion: str = Field(
        default="",
        description="Published model to compare with; empty compares with the latest version at "
        "the destination.",
    )

    @field_validator("strategies")
    @classmethod
    def _no_strategy_twice(cls, strategies: tuple[Strategy, ...]) -> tuple[Strategy, ...]:
        if len(set(strategies)) < len(strategies):
            raise ValueError("expected each strategy once")
        return strategies

    @model_validator(mode="after")
    def _splits_leave_training_images(self) -> Self:
        if self.validation_fraction + self.test_fraction >= 1.0:
            raise InputError(
                "validation_fraction: expected validation_fraction + test_fraction below 1, got "
                f"{self.validation_fraction:g} + {self.test_fraction:g}"
            )
        return self

    def arguments(self) -> dict[str, Any]:
        """Return the values of the pipeline's parameters, in types that kfp accepts."""
        fields = [*OPTION_FIELDS, *(WORKER_FIELDS if self.workers > 1 else ())]
        values = {name: _plain(name, getattr(self, name)) for name in fields}
        if self.destination and not self.champion:
            values["champion"] = f"{self.destination.rstrip('/')}/{self.model_name}"
        return values

    @property
    def is_auto(self) -> bool:
        """Whether the run chooses its backbone or its image size."""
        return AUTO in (self.backbone, self.image_px)

    @property
    def shards(self) -> list[int]:
        """The indices of the workers that share feature extraction."""
        return list(range(self.workers))


def _plain(name: str, value: Any) -> Any:
    """Return a value in the type of its parameter; one that may be a name is text."""
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, int | float) and Recipe.model_fields[name].annotation not in _NUMBERS:
        return repr(value)
    return value


_NUMBERS = (bool, int, float)


# Parameters of a run are shown by Kubeflow, in the process list and in logs.
ADDRESSES = ("sources", "mirrors", "destination", "champion", "weights", "backbone", "ood_images",
             "work_dir", "fixes", "download_cache", "model_registry", "mlflow")  # fmt: skip
# Set by the pipeline, or derived from other fields.
_NOT_OPTIONS = {"strategy", "keep_cut", "poolings", "candidates"}
# The run's own fields first, then step by step; pydantic's order begins with the last step.
_STEPS: tuple[type[Options], ...] = Recipe.__bases__
_IN_ORDER = dict.fromkeys(
    [*Recipe.__annotations__, *(name for step in _STEPS for name in step.model_fields)]
)
RECIPE_FIELDS = {n: Recipe.model_fields[n] for n in _IN_ORDER if n not in _NOT_OPTIONS}
OPTION_FIELDS = {n: f for n, f in RECIPE_FIELDS.items() if n != "workers"}
# Parameters of a pipeline in which several workers share the extraction of features.
WORKER_FIELDS = {
    "workers": Recipe.model_fields["workers"],
    "shards": FieldInfo(
        annotation=tuple[int, ...], description="Numbers of the workers, from 0 to workers - 1."
    ),
}


def make_recipe(**values: Any) -> Recipe:
    """Return a checked recipe; nothing is read or sent yet.

    Raises:
        InputError: a name is unknown (similar ones are suggested), a value is out of range, there
            is no source, or a URL contains a user, a password or a signature.
    """
    if not values.get("sources"):
        raise InputError(
            "sources: expected a folder of images, a recipe or --source, got none; "
            "`regraft run FOLDER` uses the defaults for a folder"
        )
    for name in values:
        if name not in RECIPE_FIELDS:
            raise unknown_option("option", name, RECIPE_FIELDS)
    recipe = parse_options(Recipe, **values)
    _check_backbone(recipe)
    if any(not source for source in recipe.sources):
        raise InputError("source: expected a path, URL or sample, got an empty text")
    for option in ADDRESSES:
        value = getattr(recipe, option)
        for location in (value,) if isinstance(value, str) else value:
            refuse_credentials(option, location)
            refuse_signature(option, location)
    return recipe


def _check_backbone(recipe: Recipe) -> None:
    """Check the backbone, its image size and its cut, as far as their names show."""
    if recipe.backbone == AUTO:
        if recipe.cut != AUTO and not recipe.cut.startswith(("top:", "fraction:")):
            raise InputError(
                "cut: expected auto, top:N or fraction:S with --backbone auto, because each "
                f"backbone has other layers, got {recipe.cut!r}; name the backbone, or pass "
                "--cut auto"
            )
    elif not is_location(recipe.backbone):  # a file may be on the steps' machine only
        find_backbone(recipe.backbone, recipe.scaling).side_px(fixed_px(recipe.image_px))
