"""The first recipe for a folder of images: options that fit its contents, with comments."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.ingest.sources.folders import LabeledFile, Tally, labeled_files
from pipelines.recipes.recipe_file import read_recipe
from regraft_core.backbones.backbone_table import find_backbone
from regraft_core.formats.manifest_storage import write_text
from regraft_core.runtime.errors import DataError, InputError
from regraft_core.runtime.printable import one_line

BACKBONE = "efficientnet_lite0"
VALIDATION_FRACTION, TEST_FRACTION = 0.15, 0.2
SIZES_READ = 200
CLASSES_SHOWN = 12
FEW_TEST_IMAGES = 20
"""Number of test images of a class below which its recall is not reliable."""


@dataclass(frozen=True)
class Folder:
    """The contents of a folder: images by class, by split (empty: not split), median short side."""

    path: Path
    classes: Counter[str]
    splits: Counter[str]
    short_side_px: int


def scan_folder(folder: Path) -> Folder:
    """Return the contents of a folder of class folders, which may already be split.

    Raises:
        InputError: it is not a folder.
        DataError: fewer than two classes have images.
    """
    if not folder.is_dir():
        raise InputError(f"expected a folder of class folders, got {folder}")
    items = list(labeled_files(folder, Tally()))
    classes = Counter(item.label for item in items)
    if len(classes) < 2:
        found = ", ".join(f"{name}: {count}" for name, count in classes.items()) or "none"
        raise DataError(f"{folder}: expected two or more classes with images, found {found}")
    splits = Counter(item.split for item in items)
    return Folder(folder, classes, splits, _short_side_px(items))


def draft_options(folder: Folder) -> dict[str, Any]:
    """Return the options for a folder, as recipe keys."""
    counts = folder.classes.values()
    own_px = find_backbone(BACKBONE).image_px
    options: dict[str, Any] = {"sources": [str(folder.path)], "model_name": name_for(folder.path)}
    if not folder.splits["validation"]:
        options["validation_fraction"] = VALIDATION_FRACTION
    if not folder.splits["test"]:
        options["test_fraction"] = TEST_FRACTION
    return options | {
        "backbone": BACKBONE,
        "image_px": min(own_px, max(64, 32 * math.ceil(folder.short_side_px / 32))),
        "strategies": ["head", "top"],
        # The accuracy of a model that always predicts the largest class.
        "min_accuracy": math.ceil(100 * max(counts) / folder.classes.total()) / 100,
    }


def draft_recipe(folder: Folder) -> str:
    """Return the text of a commented recipe for a folder."""
    options = draft_options(folder)
    lines = {name: f"{name}: {json.dumps(value)}" for name, value in options.items()}
    own_px, px = find_backbone(BACKBONE).image_px, options["image_px"]
    size = "the backbone's own" if px == own_px else f"near the images; the backbone's is {own_px}"
    ratio = max(folder.classes.values()) / min(folder.classes.values())
    text = [
        f"# {folder.classes.total()} images of {len(folder.classes)} classes: "
        f"{_listed(folder.classes)}.",
        f"# The median of their shorter sides is {folder.short_side_px} px.",
        "#",
        "#   regraft run THIS_FILE --out runs/first",
        "#",
        "# Options of the command override these. `regraft run --help` explains all options.",
        "",
        "# Relative paths start at the folder in which `regraft` is started.",
        lines["sources"],
        lines["model_name"],
        "",
        *_split_comments(folder),
        *(lines[name] for name in ("validation_fraction", "test_fraction") if name in lines),
        "",
        "# The weights of efficientnet_lite0 are installed; Keras downloads those of other",
        "# backbones once.",
        f"backbone: {BACKBONE}",
        f"image_px: {px}  # {size}",
        "",
        "# Candidates: `head` trains the new head only, `top` also the late layers of the",
        "# backbone, and `full` all layers. The head is chosen unless another is significantly",
        "# better on validation. `auto` decides by the number of images and their similarity to",
        "# ImageNet.",
        "strategies: [head, top]",
        "",
        f"# The largest class has {ratio:.1f} times as many images as the smallest. If rare",
        "# classes count as much as others: balanced-accuracy or macro-f1.",
        "# optimize: balanced-accuracy",
        "",
        "# The lower bound of the 95% interval of the test accuracy must reach this value. It is",
        "# set to the accuracy of always predicting the largest class; raise it to what you need.",
        f"min_accuracy: {options['min_accuracy']:.2f}",
        "# min_class_recall: 0.5",
    ]
    return "\n".join(text) + "\n"


def write_draft(folder: Path, output: Path, *, overwrite: bool = False) -> Folder:
    """Write a recipe for a folder and check that it can be read.

    Raises:
        InputError: the output exists, or the folder cannot be used.
    """
    if output.suffix not in (".yaml", ".yml"):
        raise InputError(f"output: expected a .yaml or .yml file, got {output.name!r}")
    if output.exists() and not overwrite:
        raise InputError(f"{output} exists already; --force overwrites it")
    contents = scan_folder(folder)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, draft_recipe(contents))
    read_recipe(str(output))
    return contents


def name_for(path: Path) -> str:
    """Return a model name made from the name of a folder or file."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", path.resolve().name)
    return re.sub(r"^[^A-Za-z0-9]+|[-.]+$", "", name) or "model"


def _split_comments(folder: Folder) -> list[str]:
    """Return the comments on the splits: which exist, and which are sampled."""
    splits = [name for name in ("train", "validation", "test") if folder.splits[name]]
    missing = [name for name in ("validation", "test") if name not in splits]
    comments = []
    if splits:
        counts = ", ".join(f"{folder.splits[name]} {name}" for name in splits)
        comments.append(f"# The folder is already split: {counts}.")
        if missing:
            comments.append(f"# Images for {' and '.join(missing)} are sampled from train.")
    else:
        comments.append("# Fractions of the images; the rest is for training.")
    if "test" in missing:
        smallest = min(folder.classes, key=lambda name: folder.classes[name])
        expected = round(folder.classes[smallest] * TEST_FRACTION)
        if expected < FEW_TEST_IMAGES:
            comments.append(f"# Only about {expected} test images of {one_line(smallest)}: its "
                            "recall is not reliable.")  # fmt: skip
    return comments


def _short_side_px(items: Sequence[LabeledFile]) -> int:
    """Return the median of the shorter sides of a sample, from the files' headers."""
    from PIL import Image

    step = max(1, len(items) // SIZES_READ)
    sides = []
    for item in items[::step]:
        try:
            with Image.open(item.file) as image:
                sides.append(min(image.size))
        except (OSError, ValueError, Image.DecompressionBombError):
            continue  # `ingest` reports invalid images
    if not sides:
        raise DataError("found no readable image")
    return round(statistics.median(sides))


def _listed(classes: Counter[str]) -> str:
    shown = [f"{one_line(name)} {n}" for name, n in sorted(classes.items())[:CLASSES_SHOWN]]
    rest = len(classes) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")
