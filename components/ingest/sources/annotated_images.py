"""Images with boxes of objects: their labels become labels of images, or each box an image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from components.ingest.sources.folders import Crop, LabeledFile
from components.ingest.sources.label_lists import list_text
from components.ingest.sources.labels import class_label
from components.ingest.sources.source_context import SourceContext
from regraft_core.runtime.errors import DataError


class Box(NamedTuple):
    """The label of an object and its edges in pixels, from the upper left corner of the image.

    A crowd is a box of many objects: a label of the image, but not cropped.
    """

    label: str
    left: float
    top: float
    right: float
    bottom: float
    is_crowd: bool = False


@dataclass(frozen=True)
class AnnotatedImage:
    """An image and its boxes; `width` and `height` as annotated, 0 if unknown."""

    file: str
    path: str
    split: str
    width: int
    height: int
    boxes: Sequence[Box]


def have_several(images: Iterable[Sequence[Box]], context: SourceContext) -> bool:
    """Return whether images have several labels: an image has, here or in the sources before.

    Args:
        images: the boxes of each image.
        context: of the source; with `--crops`, each box has one label.
    """
    if context.options.crops:
        return False
    return bool(context.tally.several) or any(
        len({box.label for box in boxes} - {""}) > 1 for boxes in images
    )


def labeled_objects(
    image: AnnotatedImage, context: SourceContext, *, several: bool
) -> Iterator[LabeledFile]:
    """Yield an image with the labels of its objects or, with `--crops`, one image of each box.

    If images have several labels, one may have none. Otherwise an image without a label has a
    problem, and so has one with an object without a name. Images without boxes have no crops.
    """
    try:
        labels = [class_label(box.label) for box in image.boxes]
    except DataError as error:
        yield LabeledFile("", image.path, "", problem=str(error))
        return
    if context.options.crops and all(box.is_crowd for box in image.boxes):
        context.tally.ignored += 1
        return
    if not (labels or several) or not all(labels):
        problem = f"expected objects with a label, found {'one without' if labels else 'none'}"
        yield LabeledFile("", image.path, "", problem=problem)
        return
    if several:
        different = tuple(sorted(set(labels)))
        yield LabeledFile(
            image.file, image.path, list_text(different), image.split, labels=different
        )
        return
    if not context.options.crops:
        yield LabeledFile(image.file, image.path, labels[0], image.split)
        return
    for number, (box, label) in enumerate(zip(image.boxes, labels, strict=True)):
        if box.is_crowd:
            continue
        crop = Crop(box.left, box.top, box.right, box.bottom, image.width, image.height)
        yield LabeledFile(image.file, f"{image.path}#{number}", label, image.split, crop=crop)
