"""What the request log receives of a request, and which signature is run for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import tensorflow as tf

from serving.server.protocol.signature import DEFAULT_SIGNATURE, Signature, TensorSpec

FEATURES = "features"
SELECTED, SELECTED_NAMES = "selected", "selected_names"
# The signature that also has the outputs of another, and the features.
_WITH_FEATURES = {DEFAULT_SIGNATURE: FEATURES, "images": "images_features"}
_CHANNELS = 3
_PREDICTION, _CLASSES = frozenset({"label", "confidence"}), frozenset({"classes", "scores"})


@dataclass(frozen=True)
class Observation:
    """A request for predictions of images, and the outputs by alias.

    `inputs` is a string array [n]: the encoded images or, for the Classify API, the serialized
    examples of them; or the pixels, float32 [n, height, width, 3]. `byte_values` are the byte
    strings in `inputs`, which may be images. With several labels an image, `outputs` also has
    `SELECTED_NAMES`, the names of the labels of each image, tuples in an object array [n].
    """

    signature: str
    inputs: np.ndarray
    byte_values: Sequence[bytes]
    outputs: Mapping[str, np.ndarray]


class Recorder(Protocol):
    """What a servable offers its requests to."""

    def wants_next(self) -> bool:
        """Return whether the next request is a sample."""

    def record(self, observation: Observation) -> None:
        """Take a request that was answered; never waits and never fails."""


@dataclass(frozen=True)
class ObservedSignature:
    """A signature that is recorded, and the one that is run for a recorded request.

    That is the one with the features if it also has all outputs of the signature: one forward pass
    returns the prediction and the features.
    """

    signature: Signature
    run: Signature

    @property
    def feed(self) -> str:
        """The tensor that the inputs are fed to."""
        (spec,) = self.run.inputs.values()
        return spec.tensor

    @property
    def fetches(self) -> list[str]:
        """The tensors of all outputs, in the order of `run.outputs`.

        This is what a warm-up request for `run` fetches, so the session has prepared it.
        """
        return [spec.tensor for spec in self.run.outputs.values()]

    @property
    def aliases(self) -> dict[str, str]:
        """The alias of each output of `signature` by its tensor."""
        return {spec.tensor: alias for alias, spec in self.signature.outputs.items()}


def named_labels(flags: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Return the names of the labels of each image, tuples in an object array [n].

    Args:
        flags: which labels the images have, bool [n, classes].
        classes: names, if they are known; otherwise labels have their numbers.
    """
    named = len(classes) == flags.shape[1]
    names = np.empty(len(flags), object)
    for row, chosen in enumerate(flags):
        places = np.flatnonzero(chosen).tolist()
        names[row] = tuple(classes[k] if named else f"class {k}" for k in places)
    return names


def observed_signatures(signatures: Mapping[str, Signature]) -> dict[str, ObservedSignature]:
    """Return the signatures that predict images, by the tensor of their input."""
    found = {}
    for signature in signatures.values():
        if _is_observed(signature):
            (source,) = signature.inputs.values()
            run = signature
            features = signatures.get(_WITH_FEATURES.get(signature.name, ""))
            if features and _extends(features, signature):
                run = features
            found[source.tensor] = ObservedSignature(signature, run)
    return found


def _is_observed(signature: Signature) -> bool:
    specs, outputs = list(signature.inputs.values()), set(signature.outputs)
    return (
        len(specs) == 1
        and (_holds_strings(specs[0]) or _holds_pixels(specs[0]))
        and (outputs >= _PREDICTION or outputs == _CLASSES)
    )


def _holds_strings(spec: TensorSpec) -> bool:
    return (spec.dtype, spec.shape) == (tf.string, (-1,))


def _holds_pixels(spec: TensorSpec) -> bool:
    shape = spec.shape or ()
    return spec.dtype == tf.float32 and len(shape) == 4 and shape[::3] == (-1, _CHANNELS)


def _extends(features: Signature, signature: Signature) -> bool:
    """Return whether `features` has the inputs and outputs of `signature`, and `features`."""

    def kinds(specs: Mapping[str, TensorSpec]) -> dict[str, tuple[object, object]]:
        return {alias: (spec.dtype, spec.shape) for alias, spec in specs.items()}

    return (
        kinds(features.inputs) == kinds(signature.inputs)
        and kinds(features.outputs).items() >= kinds(signature.outputs).items()
        and FEATURES in features.outputs
    )
