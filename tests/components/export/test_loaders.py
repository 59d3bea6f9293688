"""Every signature with both loaders, at two batch sizes, compared with the trained model."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from components.export.warmup import example_of
from regraft_core.images.preprocess import load_images, scale
from regraft_core.training.model_files import load_model
from regraft_core.training.ood_detector import OodDetector
from serving.server.config import BatchingConfig
from serving.server.models.observation import observed_signatures
from serving.server.models.servable import load_servable
from tests.components.export.building import CLASSES, FORMATS, PX, Built, image

ROOT = Path(__file__).resolve().parents[3]
IMAGES = [image(i, FORMATS[i % len(FORMATS)]) for i in range(7)]
SIZES = (1, 7)
TEMPERATURE = 1.7
ALIASES = {
    "serving_default": "image_bytes",
    "features": "image_bytes",
    "classify": "inputs",
    "images": "images",
    "images_features": "images",
}


@pytest.fixture(scope="module")
def requests() -> dict[str, np.ndarray]:
    """Inputs by `<signature>_<batch size>`."""
    given = {}
    for size in SIZES:
        strings = np.array(IMAGES[:size], object)
        given[f"serving_default_{size}"] = given[f"features_{size}"] = strings
        given[f"classify_{size}"] = np.array([example_of(one) for one in strings], object)
        pixels = load_images(tf.constant(IMAGES[:size]), PX).numpy()
        given[f"images_{size}"] = given[f"images_features_{size}"] = pixels
    return given


@pytest.fixture(scope="module")
def by_session(
    exported: Path, requests: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, np.ndarray]:
    folder = tmp_path_factory.mktemp("session")
    np.savez(folder / "requests.npz", **requests)
    subprocess.run(
        [sys.executable, str(Path(__file__).with_name("run_session.py")), str(exported),
         str(folder / "requests.npz"), str(folder / "out.npz")],
        check=True, timeout=300, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    with np.load(folder / "out.npz", allow_pickle=True) as out:
        return dict(out)


@pytest.fixture(scope="module")
def trained(built: Built) -> dict[str, np.ndarray]:
    model, manifest = load_model(built.candidate)
    both = keras.Model(model.input, [model.get_layer("head_gap").output, model.output])
    pixels = load_images(tf.constant(IMAGES), PX)
    features, logits = both(scale(pixels, manifest.preprocessing.scaling), training=False)
    probabilities = tf.nn.softmax(logits / TEMPERATURE).numpy()
    detector = OodDetector.read(built.candidate, manifest.ood_detector)
    assert detector is not None
    return {
        "features": features.numpy(),
        "probabilities": probabilities,
        "confidence": probabilities.max(axis=1),
        "scores": probabilities,
        "familiarity": detector.scores([features]).numpy(),
    }


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("signature", list(ALIASES))
def test_predictions_of_both_loaders_equal_the_trained_ones(
    loaded: tf.Module,
    requests: dict[str, np.ndarray],
    by_session: dict[str, np.ndarray],
    trained: dict[str, np.ndarray],
    signature: str,
    size: int,
) -> None:
    key = f"{signature}_{size}"
    by_python = loaded.signatures[signature](**{ALIASES[signature]: tf.constant(requests[key])})
    assert {f"{key}/{alias}" for alias in by_python} == {k for k in by_session if k.startswith(key)}
    for alias, value in by_python.items():
        for got in (value.numpy(), by_session[f"{key}/{alias}"]):
            assert len(got) == size
            if alias in trained:
                np.testing.assert_allclose(got, trained[alias][:size], atol=1e-5, rtol=1e-5)
        if value.dtype == tf.string:
            np.testing.assert_array_equal(value.numpy(), by_session[f"{key}/{alias}"])


def test_classify_pairs_each_class_with_its_score(by_session: dict[str, np.ndarray]) -> None:
    classes, scores = by_session["classify_7/classes"], by_session["classify_7/scores"]
    assert classes.shape == scores.shape == (7, len(CLASSES))
    assert [name.decode() for name in classes[3]] == CLASSES


def test_pixels_are_resized_like_encoded_images(loaded: tf.Module) -> None:
    pixels = tf.cast(tf.io.decode_png(IMAGES[1]), tf.float32)[None]
    by_pixels = loaded.signatures["images"](images=pixels)["probabilities"]
    by_bytes = loaded.signatures["serving_default"](image_bytes=tf.constant(IMAGES[1:2]))
    np.testing.assert_allclose(by_pixels, by_bytes["probabilities"], atol=1e-6)


def test_a_damaged_image_costs_no_other_request_of_a_batch(
    exported: Path, by_session: dict[str, np.ndarray]
) -> None:
    config = BatchingConfig(max_batch_size=8, batch_timeout_micros=200_000, num_batch_threads=1)
    servable = load_servable(exported, config)
    signature = servable.signatures["serving_default"]
    feed, fetches = signature.inputs["image_bytes"].tensor, signature.outputs
    fallbacks = []
    run_alone = servable._run

    def counted(names: Any, feeds: Any, tensors: Any) -> list[np.ndarray]:
        fallbacks.extend(name for name in tensors if not name.startswith("batched/"))
        return run_alone(names, feeds, tensors)

    servable._run = counted  # type: ignore[method-assign]

    def send(number: int) -> dict[str, np.ndarray]:
        data = IMAGES[number][:40] if number % 3 == 1 else IMAGES[number]
        values = servable.run({feed: np.array([data], object)},
                              [spec.tensor for spec in fetches.values()])  # fmt: skip
        return dict(zip(fetches, values, strict=True))

    with ThreadPoolExecutor(7) as pool:
        found = list(pool.map(send, range(7)))
    servable.close()
    assert fallbacks == []  # all were run in batches, and no batch failed
    for number, outputs in enumerate(found):
        damaged = number % 3 == 1
        assert bool(outputs["error"][0]) == damaged
        assert (outputs["label"][0] == b"") == damaged
        if not damaged:
            np.testing.assert_allclose(
                outputs["probabilities"][0],
                by_session["serving_default_7/probabilities"][number], atol=1e-6,
            )  # fmt: skip


def test_the_request_log_runs_features_for_predictions(exported: Path) -> None:
    servable = load_servable(exported)
    found = observed_signatures(servable.signatures).values()
    assert {one.signature.name: one.run.name for one in found} == {
        "serving_default": "features",
        "features": "features",
        "classify": "classify",
        "images": "images_features",
        "images_features": "images_features",
    }
    servable.close()
