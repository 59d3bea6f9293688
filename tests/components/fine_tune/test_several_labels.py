"""From images with several labels to candidates: features, head, `top`, thresholds, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from components.extract_features.extract_features import extract_features
from components.fine_tune.fine_tune import fine_tune
from components.train_head.train_head import train_head
from regraft_core.formats.label_arrays import label_array
from regraft_core.formats.manifests.dataset import DatasetManifest, Split
from regraft_core.formats.manifests.model import ModelManifest
from regraft_core.formats.option_parsing import parse_options
from regraft_core.formats.options.extract_features import FeatureOptions
from regraft_core.formats.options.fine_tune import FineTuneOptions
from regraft_core.formats.options.train_head import HeadOptions
from regraft_core.formats.records import read_split
from regraft_core.images.preprocess import load_images, scale
from regraft_core.runtime.errors import InputError
from regraft_core.training.feature_store import FeatureRows
from regraft_core.training.linear_head.refitted_head import RefittedHead
from regraft_core.training.model_files import load_model
from regraft_core.training.multilabel_head.binary_regressions import binary_losses
from regraft_core.training.multilabel_head.label_thresholds import served_probabilities

if TYPE_CHECKING:
    from tests.conftest import Trained

CLASSES = ["circle", "cross", "square"]


def predict(folder: Path, dataset: Path, split: Split) -> tuple[Any, Any, NDArray[Any]]:
    """Return a candidate's manifest, its logits of a split, and the labels."""
    model, manifest = load_model(folder)
    records = list(read_split(dataset, split))
    encoded = np.array([record.encoded for record in records], object)
    pixels = scale(load_images(encoded, manifest.preprocessing.image_px), "tiny")
    labels = label_array(records, DatasetManifest.read(dataset))
    return manifest, model(pixels, training=False).numpy(), labels


def macro_f1(manifest: ModelManifest, logits: NDArray[Any], labels: NDArray[Any]) -> float:
    predicted = served_probabilities(logits) >= np.array(manifest.thresholds, np.float32)
    return float(f1_score(labels, predicted, average="macro"))


def test_features_have_the_labels_of_the_records(
    several_dataset: Path, several_trained: Trained
) -> None:
    data = DatasetManifest.read(several_dataset)
    rows = FeatureRows([several_trained.features], "train", "gap")
    expected = label_array(list(read_split(several_dataset, "train")), data)
    assert rows.labels.dtype == np.uint8
    np.testing.assert_array_equal(rows.labels, expected)


def test_the_head_serves_probabilities_and_thresholds(
    several_dataset: Path, several_trained: Trained
) -> None:
    head = ModelManifest.read(several_trained.head)
    assert (head.activation, len(head.thresholds)) == ("sigmoid", 3)
    candidate, logits, labels = predict(several_trained.candidates["head"], several_dataset, "test")
    assert (candidate.activation, candidate.thresholds) == ("sigmoid", head.thresholds)
    frequencies = np.broadcast_to(labels.mean(axis=0), labels.shape)
    chance = f1_score(labels, np.ones_like(labels), average="macro")
    prior = np.log(frequencies / (1 - frequencies))
    assert macro_f1(candidate, logits, labels) > chance + 0.1
    assert binary_losses(logits, labels).mean() < 0.8 * binary_losses(prior, labels).mean()
    refitted = RefittedHead.of_candidate(several_trained.candidates["head"], candidate)
    assert refitted is not None
    assert refitted.validation_logits.shape == refitted.validation_labels.shape
    assert refitted.held_out_labels.shape[1] == 3
    loss = binary_losses(refitted.validation_logits, refitted.validation_labels).mean()
    assert loss == pytest.approx(head.validation_loss, rel=1e-4)


def test_top_chooses_its_thresholds_on_validation(
    several_dataset: Path, several_trained: Trained
) -> None:
    head = ModelManifest.read(several_trained.head)
    folder = several_trained.candidates["top"]
    candidate, logits, labels = predict(folder, several_dataset, "validation")
    assert candidate.validation_loss <= head.validation_loss
    assert [epoch.phase for epoch in candidate.history] == ["head", *["top"] * 6]
    # The temperature was chosen after training, by the same images.
    assert binary_losses(logits, labels).mean() <= candidate.validation_loss + 1e-4
    best = [
        max(f1_score(labels[:, k], logits[:, k] >= one) for one in logits[:, k]) for k in range(3)
    ]
    assert macro_f1(candidate, logits, labels) == pytest.approx(np.mean(best))
    assert f"macro F1 {np.mean(best):.4f}" in candidate.reasoning[-1]


@pytest.mark.parametrize("changed", [{"optimize": "macro-f1"}, {"class_weights": "balanced"},
                                     {"label_smoothing": 0.1}])  # fmt: skip
def test_options_of_one_label_are_refused_by_the_head(
    several_trained: Trained, tmp_path: Path, changed: dict[str, Any]
) -> None:
    (name,) = changed
    with pytest.raises(InputError, match=f"{name.replace('_', '-')}: not available with several"):
        train_head(
            [several_trained.features], tmp_path / "h", parse_options(HeadOptions, **changed)
        )
    assert not (tmp_path / "h").exists()


def test_choices_by_one_label_are_refused(
    several_dataset: Path, several_trained: Trained, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"backbone: not available .* name one"):
        extract_features(several_dataset, tmp_path / "f", FeatureOptions(backbone="auto"))
    folders = [several_trained.features]
    for changed in ({"strategy": "auto"}, {"strategy": "top", "budget": "1m"}):
        options = parse_options(FineTuneOptions, **changed)
        with pytest.raises(InputError, match="not available with several labels an image"):
            fine_tune(several_dataset, folders, several_trained.head, tmp_path / "c", options)
    assert list(tmp_path.iterdir()) == []
