"""The drift reference of an export: which validation images it contains, and as what class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from components.export.reference import write_reference
from components.export.signatures import Built as Graphs
from components.export.signatures import Postprocessing
from regraft_core.formats.drift_reference import REFERENCE_FILE, DriftReference
from regraft_core.formats.manifests.model import Preprocessing
from regraft_core.formats.manifests.saved_model import SavedModelManifest
from regraft_core.formats.records import read_split
from regraft_core.training.linear_head.refitted_head import RefittedHead
from tests.components.export.building import CLASSES, Built, write_dataset

PLAIN = Postprocessing(Preprocessing(image_px=8, scaling="tiny"), tuple(CLASSES), 1.0, None)


@dataclass(frozen=True)
class Recorded:
    """A signature whose features are the lengths of the images; those of some are not finite."""

    def __call__(self, encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        lengths = tf.cast(tf.strings.length(encoded), tf.float32)[:, None]
        features = tf.concat([lengths, tf.math.log(lengths - float(MIN_LENGTH))], axis=1)
        return {
            "features": features,
            "probabilities": tf.one_hot(tf.zeros_like(lengths[:, 0], tf.int32), len(CLASSES)),
            "error": tf.fill([tf.shape(encoded)[0]], ""),
        }


MIN_LENGTH = 400


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("many") / "dataset", per_split=45)


def test_a_sample_of_valid_images_is_described(many: Path, tmp_path: Path) -> None:
    graphs = Graphs(None, Recorded(), 2, None)
    lengths = [len(record.encoded) for record in read_split(many, "validation")]
    info = write_reference(tmp_path, graphs, PLAIN, many, 1000, None)
    found = DriftReference.read(tmp_path)
    kept = [length for length in lengths if length > MIN_LENGTH]
    assert 0 < len(kept) < len(lengths)
    np.testing.assert_array_equal(found.features[:, 0], np.float16(kept))  # in this order
    assert info is not None
    assert (info.images, info.width) == (len(kept), 2)
    assert info.bytes == (tmp_path / REFERENCE_FILE).stat().st_size
    assert found.class_counts.tolist() == [15, 15, 15] and np.isnan(found.familiarity).all()
    assert set(found.predicted.tolist()) == {0}
    few = write_reference(tmp_path, graphs, PLAIN, many, 20, None)
    assert few is not None and 0 < few.images <= 20


def test_a_refitted_head_counts_by_what_it_predicted_before(many: Path, tmp_path: Path) -> None:
    labels = np.array([record.label for record in read_split(many, "validation")])
    none = np.zeros(0, np.float32)
    before = RefittedHead(none, none, np.eye(len(CLASSES), dtype=np.float32)[labels], labels)
    write_reference(tmp_path, Graphs(None, Recorded(), 2, None), PLAIN, many, 1000, before)
    lengths = np.array([len(record.encoded) for record in read_split(many, "validation")])
    found = DriftReference.read(tmp_path)
    assert found.predicted.tolist() == labels[lengths > MIN_LENGTH].tolist()


def test_no_images_are_no_reference(many: Path, tmp_path: Path) -> None:
    graphs = Graphs(None, Recorded(), 2, None)
    assert write_reference(tmp_path, graphs, PLAIN, many, 0, None) is None
    assert not (tmp_path / REFERENCE_FILE).exists()


def test_the_export_has_what_its_signature_computes(
    built: Built, exported: Path, loaded: tf.Module
) -> None:
    records = list(read_split(built.dataset, "validation"))
    batch = tf.constant([record.encoded for record in records])
    expected = loaded.signatures["features"](image_bytes=batch)
    found = DriftReference.read(exported)
    np.testing.assert_allclose(found.features, expected["features"], rtol=2e-3, atol=1e-5)
    np.testing.assert_allclose(found.familiarity, expected["familiarity"], rtol=1e-4)
    assert [CLASSES[k].encode() for k in found.predicted] == expected["label"].numpy().tolist()
    info = SavedModelManifest.read(exported).drift_reference
    assert info is not None and (info.images, info.width) == found.features.shape
    size = (exported / REFERENCE_FILE).stat().st_size
    assert info.bytes == size
