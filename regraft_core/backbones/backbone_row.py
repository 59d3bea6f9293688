"""What describes a backbone: its input, its layers and its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from regraft_core.formats.backbone_names import short_name
from regraft_core.runtime.errors import InputError

KERAS = "ImageNet, downloaded once by Keras"
LARGEST_PX = 2048


@dataclass(frozen=True)
class Backbone:
    """A backbone and its pretrained weights: a row of the table, a preset, or a file.

    `scaling` is a name that `scalings.find_scaling` knows, for a Keras model the module of
    `keras.applications` with its `preprocess_input`. `image_px` is the default size, 0 if there is
    none. `width` is the number of channels of the last feature map, 0 if only the network shows
    it. `cut` is the layer up to which strategy `top` freezes by default, the end of a late stage
    through which every path goes. `has_top` states whether it has a classification head for the
    1000 ImageNet classes. `license` is that of the pretrained weights, as their publisher states
    it. `package` is the Python package with the weights, if Keras does not download them.
    `stage_ends` are cut points at the ends of earlier stages, as far as they are listed.

    `location` is what the user wrote for a backbone outside the table, and `source` what is there.
    Sizes are multiples of `step_px`; with `one_size`, only the default. `positions_px` is the size
    for which the weights have position embeddings, 0 without any.
    """

    constructor: str
    scaling: str
    image_px: int
    min_px: int
    width: int
    cut: str
    license: str
    weights_from: str = KERAS
    imported_from: str = "keras.applications"
    has_top: bool = True
    package: str = ""
    stage_ends: tuple[str, ...] = ()
    source: Literal["table", "preset", "keras", "saved_model"] = "table"
    location: str = ""
    step_px: int = 1
    one_size: bool = False
    positions_px: int = 0

    @property
    def known_cuts(self) -> tuple[str, ...]:
        """Cut points that tests check, so that nobody has to build the backbone to check them."""
        return (*self.stage_ends, self.cut)

    @property
    def name(self) -> str:
        """The name that users write: the constructor's in lower case, or the location."""
        return self.location or self.constructor.lower()

    @property
    def label(self) -> str:
        """The name without the folders on this machine."""
        return short_name(self.name)

    def side_px(self, image_px: int) -> int:
        """Return the input size: `image_px`, or the backbone's default if it is 0.

        Raises:
            InputError: the backbone does not accept it, or has no default.
        """
        side = image_px or self.image_px
        if not side:
            raise InputError(f"image_px: {self.label} accepts any size; name one with --image-px")
        if self.one_size and side != self.image_px:
            raise InputError(f"image_px: {self.label} expects {self.image_px}, got {side}")
        if side < self.min_px:
            raise InputError(f"image_px: {self.label} expects at least {self.min_px}, got {side}")
        if side > LARGEST_PX:
            raise InputError(f"image_px: expected at most {LARGEST_PX}, {self.label} has {side}")
        if side % self.step_px:
            raise InputError(
                f"image_px: {self.label} expects a multiple of {self.step_px}, got {side}"
            )
        return side

    def position_note(self, image_px: int) -> str:
        """Return that the position embeddings are resized for an image size, "" if not."""
        if image_px == self.positions_px or not self.positions_px:
            return ""
        before, after = self.positions_px // self.step_px, image_px // self.step_px
        return (
            f"The position embeddings of {self.label} are resized from {before} x {before} to "
            f"{after} x {after} patches, because the images have {image_px} px instead of "
            f"{self.positions_px}."
        )
