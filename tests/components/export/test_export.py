from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from components.export.export import export
from components.export.signatures import Postprocessing, postprocess
from components.export.warmup import example_of
from regraft_core.formats.fingerprint import check_fingerprint
from regraft_core.formats.manifests.saved_model import SavedModelManifest
from regraft_core.formats.served_thresholds import ServedThresholds
from regraft_core.images.preprocess import load_images, scale
from regraft_core.runtime.errors import InputError, RejectedError
from regraft_core.training.model_files import load_model
from regraft_core.training.ood_detector import OodDetector
from tests.components.export.building import (
    ACCEPTED_CONFIDENCE,
    CLASSES,
    FORMATS,
    PX,
    SET_PROBABILITY,
    THRESHOLD,
    Built,
    image,
    write_evaluation,
)

IMAGES = [image(i, FORMATS[i % len(FORMATS)]) for i in range(7)]
ROOT = Path(__file__).resolve().parents[3]
TEMPERATURE = 1.7
THRESHOLDS = ServedThresholds(SET_PROBABILITY, ACCEPTED_CONFIDENCE)


@pytest.fixture(scope="module")
def logits(built: Built) -> np.ndarray:
    model, manifest = load_model(built.candidate)
    pixels = load_images(tf.constant(IMAGES), PX)
    return np.asarray(model(scale(pixels, manifest.preprocessing.scaling), training=False))


@pytest.fixture(scope="module")
def ood_scores(built: Built) -> np.ndarray:
    model, manifest = load_model(built.candidate)
    pooled = keras.Model(model.input, model.get_layer("head_gap").output)
    pixels = load_images(tf.constant(IMAGES), PX)
    detector = OodDetector.read(built.candidate, manifest.ood_detector)
    assert detector is not None
    features = pooled(scale(pixels, manifest.preprocessing.scaling), training=False)
    return np.asarray(detector.scores([features]))


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("size", [1, 7])
def test_predictions_for_bytes_equal_those_of_the_trained_model(
    loaded: tf.Module, logits: np.ndarray, ood_scores: np.ndarray, size: int
) -> None:
    got = loaded.signatures["serving_default"](image_bytes=tf.constant(IMAGES[:size]))
    expected = softmax(logits[:size] / TEMPERATURE)
    np.testing.assert_allclose(got["probabilities"], expected, atol=1e-5)
    np.testing.assert_allclose(got["confidence"], expected.max(axis=1), atol=1e-5)
    names = [CLASSES[i] for i in expected.argmax(axis=1)]
    assert [name.decode() for name in got["label"].numpy()] == names
    np.testing.assert_allclose(got["familiarity"], ood_scores[:size], rtol=1e-4)
    np.testing.assert_array_equal(got["familiar"], ood_scores[:size] >= THRESHOLD)
    assert len(set((ood_scores >= THRESHOLD).tolist())) == 2
    sets, abstains = THRESHOLDS.label_sets(expected), THRESHOLDS.abstains(expected)
    np.testing.assert_array_equal(got["label_set"], sets)
    np.testing.assert_array_equal(got["abstain"], abstains)


def test_without_thresholds_a_prediction_has_no_more_outputs(built: Built) -> None:
    preprocessing = load_model(built.candidate)[1].preprocessing
    plain = Postprocessing(preprocessing, tuple(CLASSES), temperature=1.0, ood=None)
    outputs = postprocess(tf.zeros([2, len(CLASSES)]), plain)
    assert list(outputs) == ["label", "confidence", "probabilities"]


def test_the_images_have_sets_of_several_sizes_and_some_are_abstained_from(
    logits: np.ndarray,
) -> None:
    probabilities = softmax(logits / TEMPERATURE)
    sets, abstains = THRESHOLDS.label_sets(probabilities), THRESHOLDS.abstains(probabilities)
    assert sets is not None and len(set(sets.sum(axis=1).tolist())) > 1
    assert abstains is not None and len(set(abstains.tolist())) == 2


def test_features_have_the_prediction_of_the_same_forward_pass(loaded: tf.Module) -> None:
    batch = tf.constant(IMAGES[:3])
    expected = loaded.signatures["serving_default"](image_bytes=batch)
    got = loaded.signatures["features"](image_bytes=batch)
    assert set(got) == {*expected, "features"}
    for name, value in expected.items():
        if value.dtype.is_floating:
            np.testing.assert_allclose(got[name], value, rtol=1e-5)
        else:
            np.testing.assert_array_equal(got[name], value)


def test_the_folder_has_signatures_labels_and_model_card(exported: Path, built: Built) -> None:
    manifest = check_fingerprint(exported)
    assert manifest.signatures == [
        "serving_default", "images", "classify", "features", "images_features",
    ]  # fmt: skip
    assert (exported / "assets" / "labels.txt").read_text("utf-8").splitlines() == CLASSES
    card = (exported / "model_card.md").read_text("utf-8")
    assert "Accuracy 0.9000 (95% interval 0.8000 to 0.9500)" in card
    assert "| accuracy | >= 0.5 | 0.9 | yes |" in card


def test_a_damaged_image_blanks_only_its_own_row(loaded: tf.Module) -> None:
    serve, features = loaded.signatures["serving_default"], loaded.signatures["features"]
    batch = [IMAGES[0], IMAGES[1][:-40], IMAGES[2], b"no image"]
    expected = serve(image_bytes=tf.constant([IMAGES[0], IMAGES[3], IMAGES[2], IMAGES[4]]))
    got = {name: value.numpy() for name, value in serve(image_bytes=tf.constant(batch)).items()}
    assert set(got["error"][[0, 2]]) == {b""}
    assert got["error"][1].startswith(b"expected an undamaged image")
    assert got["error"][3].startswith(b"expected an image as JPEG")
    for name, value in got.items():
        assert value.dtype == expected[name].numpy().dtype
        # The other rows are bit for bit those of a batch of the same size.
        np.testing.assert_array_equal(value[[0, 2]], expected[name].numpy()[[0, 2]])
        if name != "error":
            assert not value[[1, 3]].any()
    pooled = features(image_bytes=tf.constant(batch))
    assert [bool(reason) for reason in pooled["error"].numpy()] == [False, True, False, True]
    assert [bool(row.any()) for row in pooled["features"].numpy()] == [True, False, True, False]
    (alone,) = serve(image_bytes=tf.constant(batch[1:2]))["error"].numpy()
    assert alone == got["error"][1]


def test_a_damaged_example_blanks_only_its_own_row(loaded: tf.Module) -> None:
    classify = loaded.signatures["classify"]
    without, of_numbers = tf.train.Example(), tf.train.Example()
    of_numbers.features.feature["image/encoded"].int64_list.value.append(7)
    damaged = [example_of(IMAGES[1][:-40]), without.SerializeToString(),
               of_numbers.SerializeToString(), b"\xff no example"]  # fmt: skip
    got = classify(inputs=tf.constant([example_of(IMAGES[0]), *damaged, example_of(IMAGES[2])]))
    expected = classify(inputs=tf.constant([example_of(image) for image in IMAGES[:6]]))
    classes, scores = got["classes"].numpy(), got["scores"].numpy()
    assert [name.decode() for name in classes[0]] == CLASSES
    assert set(classes[1:5].ravel()) == {b""}
    assert not scores[1:5].any()
    np.testing.assert_array_equal(scores[0], expected["scores"].numpy()[0])


def test_an_empty_batch_is_an_error(loaded: tf.Module) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match="one image or more"):
        loaded.signatures["serving_default"](image_bytes=tf.constant([], tf.string))
    with pytest.raises(tf.errors.InvalidArgumentError, match="one image or more"):
        loaded.signatures["images"](images=tf.zeros([0, 4, 4, 3]))


def test_a_rejected_model_is_not_exported(built: Built, tmp_path: Path) -> None:
    rejected = write_evaluation(tmp_path / "evaluation", built.candidate, verdict="rejected")
    with pytest.raises(RejectedError):
        export(built.candidate, rejected, built.dataset, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_digest": "f" * 64}, "expected the chosen model ffffffffffff"),
        ({"dataset_digest": "f" * 64}, "expected the dataset ffffffffffff, got dddddddddddd"),
        ({"classes": ["cat", "café", "dog"]}, "expected the classes"),
    ],
)
def test_folders_that_do_not_match_are_an_error(
    built: Built, tmp_path: Path, changes: dict, message: str
) -> None:
    evaluation = write_evaluation(tmp_path / "evaluation", built.candidate, **changes)
    with pytest.raises(InputError, match=message):
        export(built.candidate, evaluation, built.dataset, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert SavedModelManifest.file_name not in [p.name for p in tmp_path.rglob("*")]


def test_a_keras_file_that_differs_from_its_manifest_is_an_error(
    built: Built, tmp_path: Path
) -> None:
    foreign = Path(shutil.copytree(built.candidate, tmp_path / "candidate"))
    with open(foreign / "model.keras", "ab") as file:
        file.write(b"more")
    with pytest.raises(InputError, match=r"model\.keras: expected digest"):
        export(foreign, built.evaluation, built.dataset, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.long
@pytest.mark.parametrize("point", ["labels.txt", "model_card", "fingerprint", "regraft"])
def test_a_killed_export_leaves_nothing_visible(built: Built, tmp_path: Path, point: str) -> None:
    out = tmp_path / "out" / "saved_model"
    code = (
        "import os, signal, sys\n"
        "from components.export.export import export\n"
        "candidate, evaluation, dataset, out, point = sys.argv[1:]\n"
        "folder = os.path.dirname(out)\n"
        "def hook(event, arguments):\n"
        "    names = [str(a) for a in arguments]\n"
        "    if event == 'open' and any(folder in n and point in n for n in names):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.addaudithook(hook)\n"
        "export(candidate, evaluation, dataset, out)\n"
    )
    folders = [built.candidate, built.evaluation, built.dataset, out]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, folders), point],
        check=False, timeout=300, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == -9
    assert not out.exists()
    assert all(p.name.startswith(".") for p in out.parent.iterdir())
    export(built.candidate, built.evaluation, built.dataset, out)
    check_fingerprint(out)
