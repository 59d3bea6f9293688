"""A first recipe for a folder of images: what is there decides the options, comments say why."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from components.ingest.sources.folders import LabeledFile, Tally, labeled_files
from pipelines.recipes.recipe_file import read_recipe
from regraft_core.backbones.table import find_backbone
from regraft_core.formats.manifest_storage import write_text
from regraft_core.runtime.errors import DataError, InputError

BACKBONE = "efficientnet_lite0"
SIZES_READ = 200
CLASSES_SHOWN = 12
UNEVEN = 3.0
"""From this ratio of the largest to the smallest class on, classes are weighted."""
FEW = 20
"""Below this many images of a class in the test split, its recall means little."""


@dataclass(frozen=True)
class Folder:
    """What was seen of a folder: images by class, by split (empty is not split), short sides."""

    path: Path
    classes: Counter[str]
    splits: Counter[str]
    short_side_px: int


def scan_folder(folder: Path) -> Folder:
    """Look at a folder of class folders, or a split one; a sample of images tells the size.

    Raises:
        InputError: it is no folder.
        DataError: there are fewer than two classes with images.
    """
    if not folder.is_dir():
        raise InputError(f"expected a folder of class folders, got {folder}")
    items = list(labeled_files(folder, Tally()))
    classes = Counter(item.label for item in items)
    if len(classes) < 2:
        found = ", ".join(f"{name}: {count}" for name, count in classes.items()) or "none"
        raise DataError(f"{folder}: expected two classes with images or more, found {found}")
    splits = Counter(item.split for item in items)
    return Folder(folder, classes, splits, _short_side_px(items))


def draft(folder: Folder) -> str:
    """Return the text of a recipe for a folder."""
    images, smallest = folder.classes.total(), min(folder.classes.values())
    ratio = max(folder.classes.values()) / smallest
    share = max(folder.classes.values()) / images
    own_px = find_backbone(BACKBONE).image_px
    px = min(own_px, max(64, 32 * math.ceil(folder.short_side_px / 32)))
    weights = "balanced" if ratio >= UNEVEN else "off"
    lines = [
        f"# {images} images of {len(folder.classes)} classes: {_listed(folder.classes)}.",
        f"# The median of the shorter sides is {folder.short_side_px} px.",
        "#",
        "#   regraft run THIS_FILE --out runs/first",
        "#",
        "# Options given to the command stand in place of these; `regraft run --help` explains all",
        "# that there are.",
        "",
        "# Relative paths are seen from where `regraft` is started.",
        f"sources: [{json.dumps(str(folder.path))}]",
        f"model_name: {json.dumps(_model_name(folder.path))}",
        "",
        *_split_lines(folder),
        "",
        "# Its weights come as a package; vgg16 and the others of Keras are downloaded once.",
        f"backbone: {BACKBONE}",
        f"image_px: {px}  # {'the size of the backbone' if px == own_px else 'near the images'}"
        f"{'' if px == own_px else f'; {own_px} is the size of the backbone'}",
        "",
        "# Candidates, of which validation chooses: the new head alone, and with it the top of the",
        "# backbone. `full` trains all layers; `auto` decides by the number of images and their",
        "# likeness to those of the backbone.",
        "strategies: [head, top]",
        "",
        f"# The largest class has {ratio:.1f} times the images of the smallest.",
        f"class_weights: {weights}",
        "",
        "# What the lower bound of the 95 % interval of the test accuracy must reach. This is what",
        "# always naming the largest class would get: set what you need.",
        f"min_accuracy: {math.ceil(100 * share) / 100:.2f}",
        "# min_class_recall: 0.5",
    ]
    return "\n".join(lines) + "\n"


def write_draft(folder: Path, output: Path, *, overwrite: bool = False) -> Folder:
    """Write a recipe for a folder and prove that it can be read.

    Raises:
        InputError: the file exists, or the folder cannot be used.
    """
    if output.suffix not in (".yaml", ".yml"):
        raise InputError(f"output: expected a .yaml or .yml file, got {output.name!r}")
    if output.exists() and not overwrite:
        raise InputError(f"{output} exists already; --force writes over it")
    seen = scan_folder(folder)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, draft(seen))
    read_recipe(str(output))
    return seen


def _split_lines(folder: Folder) -> list[str]:
    """Return the options of the splits; those that the folder lacks are drawn."""
    test_share = 0.2
    given = [name for name in ("train", "validation", "test") if folder.splits[name]]
    lines = []
    if given:
        counts = ", ".join(f"{folder.splits[name]} {name}" for name in given)
        lines.append(f"# The folder is split: {counts}.")
        missing = [name for name in ("validation", "test") if name not in given]
        if not missing:
            return lines
        lines.append(f"# {' and '.join(missing)} is drawn from train.")
    else:
        lines.append("# Shares of the images for the splits; the rest is for training.")
        missing = ["validation", "test"]
    if "validation" in missing:
        lines.append("validation_fraction: 0.15")
    if "test" in missing:
        lines.append(f"test_fraction: {test_share}")
        smallest = min(folder.classes, key=lambda name: folder.classes[name])
        expected = round(folder.classes[smallest] * test_share)
        if expected < FEW:
            lines.append(f"# About {expected} images of {_plain(smallest)} to test with: too few "
                         "to trust its recall.")  # fmt: skip
    return lines


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
            continue  # `ingest` tells which files are damaged
    if not sides:
        raise DataError("expected images, found files that none can be read of")
    return round(statistics.median(sides))


def _listed(classes: Counter[str]) -> str:
    shown = [f"{_plain(name)} {count}" for name, count in sorted(classes.items())[:CLASSES_SHOWN]]
    rest = len(classes) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")


def _plain(name: str) -> str:
    """Return a folder's name as it may stand in a comment."""
    return "".join(c if c.isprintable() else "?" for c in name)


def _model_name(folder: Path) -> str:
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.resolve().name)
    return re.sub(r"^[^A-Za-z0-9]+|[-.]+$", "", name) or "model"
