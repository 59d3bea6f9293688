"""Options that do not fit the number of labels of an image, so that a run stops before any work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from regraft_core.formats.manifests.dataset import LabelsPerImage
from regraft_core.runtime.errors import InputError

# Choices by the accuracy of one label.
_NOT_AUTO = ("backbone", "image_px", "augment", "strategy", "strategies")
# Options whose default alone is available, with it and what to do instead.
_ONLY_DEFAULT: dict[str, tuple[Any, str]] = {
    "fixes": ("", "correct the labels in the table"),
    "optimize": ("accuracy", "the thresholds of the labels maximize F1"),
    "label_smoothing": (0.0, "leave it out"),
    "class_weights": ("off", "each label has a threshold of its own"),
    "budget": ("", "use --strategies"),
    "min_accuracy": (0.0, "use --min-map or --min-macro-f1"),
    "min_accuracy_by_slice": (0.0, "use --min-recall-by-class"),
    "corruption_images": (0, "leave it out"),
    "coverage": (0.0, "leave it out"),
    "abstain_precision": (0.0, "leave it out"),
}
_ONLY_SEVERAL = ("min_map", "min_macro_f1")


def check_label_options(
    options: BaseModel | Mapping[str, Any], labels_per_image: LabelsPerImage
) -> None:
    """Check that options of a step or a run fit the number of labels of an image.

    Raises:
        InputError: an option is not available for so many.
    """
    given = options.model_dump() if isinstance(options, BaseModel) else options
    if labels_per_image == "one":
        for name in _ONLY_SEVERAL:
            if value := given.get(name):
                raise InputError(
                    f"{name.replace('_', '-')}: not available with one label an image, got "
                    f"{value}; use --min-accuracy"
                )
        return
    for name in _NOT_AUTO:
        value = given.get(name)
        if value == "auto" or (isinstance(value, list | tuple) and "auto" in value):
            _refuse(name, "auto", "name one")
    if slices := given.get("slices"):
        _refuse("slices", ", ".join(slices), "leave it out")
    for name, (default, fix) in _ONLY_DEFAULT.items():
        if given.get(name, default) != default:
            _refuse(name, given[name], fix)


def _refuse(name: str, value: Any, fix: str) -> None:
    option = "strategies" if name == "strategy" else name.replace("_", "-")
    raise InputError(f"{option}: not available with several labels an image, got {value!r}; {fix}")
