"""Whether this processor computes a backbone faster in bfloat16: both precisions are measured.

Processors with AMX compute some backbones five times as fast in bfloat16, those without are slower,
and which backbone gains is not in any table. So long work is preceded by a measurement, whose
result is kept for this kind of machine, so that the next run has the same features.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.extract_features.forward_pass import constant_call
from regraft_core.backbones.backbone_table import Backbone
from regraft_core.formats.manifest_storage import digest_of
from regraft_core.formats.options import FeatureOptions
from regraft_core.runtime.machine import machine_kind
from regraft_core.runtime.safe_files import replaced_file
from regraft_core.runtime.step_reports import log_progress
from regraft_core.training.mixed_precision import (
    HalfPrecision,
    accelerate,
    choose_half_precision,
    gpu_capabilities,
)
from regraft_core.training.winograd import winograd

KEPT_FILE = Path("~/.cache/regraft/precision.json")
LEAST_PIXELS = 500 * 224**2
"""Pixels of all inputs below which no backbone takes long, so that measuring would not pay."""
LEAST_S = 30.0
"""Seconds in float32 below which measuring does not pay."""
LEAST_GAIN = 1.1
LARGEST_ERROR = 0.01
"""Largest norm of the features' difference relative to that of the features in float32."""
RUNS = 3
CHOICES: tuple[HalfPrecision, ...] = ("", "bfloat16")


Forward = Callable[[], NDArray[np.float32]]
"""Computes one batch of features, always of the same images."""


@dataclass(frozen=True)
class Work:
    """The forward passes of a step: the network, by what decides its speed, and what to compute."""

    network: tuple[Any, ...]
    images: int
    image_px: int
    batch_size: int


def choose_precision(
    model: keras.Model, extractor: keras.Model, backbone: Backbone, options: FeatureOptions,
    images: int, *, alone: bool,
) -> HalfPrecision:  # fmt: skip
    """Return the half precision of an extraction, "" for float32.

    Args:
        model: the backbone.
        extractor: the backbone with the outputs that are extracted.
        backbone: its row of the table.
        options: the options of the step; `auto` measures if there is no GPU.
        images: number of images, counted once for each view.
        alone: no other worker extracts a part of the same features, which belong together.
    """
    capabilities = gpu_capabilities()
    if options.precision != "auto" or capabilities or not alone:
        return choose_half_precision(options.precision, capabilities)
    work = Work(
        (backbone.name, sorted(extractor.output)), images, int(extractor.input.shape[1]),
        options.batch_size,
    )  # fmt: skip
    return faster_precision(
        work, lambda half: prepare_forward(model, extractor, backbone, work.batch_size, half)
    )


def prepare_forward(
    model: keras.Model, extractor: keras.Model, backbone: Backbone, images: int, half: HalfPrecision
) -> Forward:
    """Return the forward pass of a batch of noise, in a precision, which gives all its features.

    Args:
        model, extractor, backbone: as for `choose_precision`.
        images: the images of the batch.
        half: the precision.
    """
    shape = (images, *extractor.input.shape[1:])
    pixels = tf.constant(np.random.default_rng(0).uniform(0, 255, shape), tf.float32)
    with accelerate(model.layers, half), winograd([] if half else model.layers):
        compute = constant_call(extractor, backbone).get_concrete_function()

    def forward() -> NDArray[np.float32]:
        rows = [tf.reshape(array, [images, -1]) for array in compute(pixels).values()]
        return np.concatenate([row.numpy().astype(np.float32) for row in rows], axis=1)

    return forward


def faster_precision(work: Work, prepare: Callable[[HalfPrecision], Forward]) -> HalfPrecision:
    """Return the precision in which the work takes less time on this processor.

    Args:
        work: the work.
        prepare: from a precision to a forward pass of one batch in it.

    Returns:
        "bfloat16" if it is faster by more than a tenth and its features agree, otherwise "".
    """
    if work.images * work.image_px**2 < LEAST_PIXELS:
        return ""
    key = digest_of([work.network, work.image_px, work.batch_size, machine_kind(), os.cpu_count()])
    kept = _read_kept()
    if (chosen := kept.get(key)) in CHOICES:
        return chosen
    exact, exact_s = _measure(prepare(""))
    if exact_s / work.batch_size * work.images < LEAST_S:
        return ""
    rounded, rounded_s = _measure(prepare("bfloat16"))
    error = float(np.linalg.norm(rounded - exact) / max(float(np.linalg.norm(exact)), 1e-30))
    faster = rounded_s * LEAST_GAIN < exact_s and error <= LARGEST_ERROR
    chosen = "bfloat16" if faster else ""
    log_progress(
        f"extract_features: float32 computes {work.batch_size / exact_s:.1f} images/s, bfloat16 "
        f"{work.batch_size / rounded_s:.1f} with a difference of {error:.2%}: "
        f"{chosen or 'float32'} is used"
    )
    _keep(kept | {key: chosen})
    return chosen


def _measure(forward: Forward) -> tuple[NDArray[np.float32], float]:
    """Return a batch's features and the shortest of some times, in seconds, after a warm-up."""
    features, seconds = forward(), []
    for _ in range(RUNS):
        start = time.perf_counter()
        forward()
        seconds.append(time.perf_counter() - start)
    return features, min(seconds)


def _read_kept() -> dict[str, HalfPrecision]:
    """Return the precision by work, empty if there is no readable file."""
    try:
        kept = json.loads(KEPT_FILE.expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _keep(kept: dict[str, HalfPrecision]) -> None:
    """Write the results; a machine without a writable home measures again."""
    path = KEPT_FILE.expanduser()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with replaced_file(path) as file:
            file.write(json.dumps(kept, indent=2).encode())
