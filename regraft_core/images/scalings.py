"""How pixels in 0..255 become a backbone's input, by name; without TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Sequence

from regraft_core.runtime.errors import InputError, unknown_name

SCALINGS = {
    "vgg16": "caffe",
    "vgg19": "caffe",
    "resnet": "caffe",
    "resnet_v2": "unit",
    "densenet": "torch",
    "inception_v3": "unit",
    "inception_resnet_v2": "unit",
    "xception": "unit",
    "mobilenet": "unit",
    "mobilenet_v2": "unit",
    "mobilenet_v3": "none",
    "nasnet": "unit",
    "efficientnet": "none",
    "efficientnet_v2": "none",
    "convnext": "none",
    "efficientnet_lite0": "lite",
    "tiny": "unit",
}
KINDS = ("none", "unit", "fraction", "torch", "caffe", "lite")
"""What `--scaling` accepts: 0..255, -1..1, 0..1, and the statistics of three families."""
_AFFINE = "affine"


def find_scaling(name: str) -> str | tuple[list[float], list[float]]:
    """Return one of `KINDS`, or the factors and offsets of an affine scaling.

    Raises:
        InputError: unknown name.
    """
    if name in KINDS:
        return name
    kind, *parts = name.split(":")
    if kind == _AFFINE and len(parts) == 2:
        factors, offsets = (_numbers(part) for part in parts)
        if factors and offsets:
            return factors, offsets
    if name in SCALINGS:
        return SCALINGS[name]
    raise unknown_name("scaling", name, KINDS)


def affine_scaling(factors: Sequence[float], offsets: Sequence[float]) -> str:
    """Return the name of the scaling `pixels * factors + offsets`; one value or one per channel.

    Raises:
        InputError: the values are not finite numbers, or of another count.
    """
    name = ":".join([_AFFINE, *(",".join(f"{one:.9g}" for one in part)
                                for part in (factors, offsets))])  # fmt: skip
    find_scaling(name)
    return name


def _numbers(text: str) -> list[float]:
    """Return one or three finite numbers; none if the text is another."""
    try:
        values = [float(one) for one in text.split(",")]
    except ValueError:
        return []
    return values if len(values) in (1, 3) and all(map(math.isfinite, values)) else []


def check_scaling(name: str) -> str:
    """Return the name of a known scaling.

    Raises:
        InputError: it is unknown.
    """
    try:
        find_scaling(name)
    except InputError as error:
        raise InputError(f"scaling: {error}") from error
    return name
