"""Finding the champion and its predictions."""

from __future__ import annotations

import numpy as np
import pytest

from components.evaluate.gate.champion import (
    Champion,
    champion_labels,
    check_classes,
    find_champion,
)
from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.records import read_split
from regraft_core.runtime.errors import InputError, RegraftError


def test_the_champion_is_the_latest_version_with_a_model(publish, tmp_path) -> None:
    model = publish(2, correct=True).parent
    latest = publish(10, correct=True)
    (model / "11").mkdir()
    (model / ".12.half").mkdir()
    champion = find_champion(str(model), tmp_path / "work")
    assert champion is not None
    assert champion.folder == latest.resolve() and champion.name == "shapes version 10"
    one = find_champion(str(model / "2"), tmp_path / "work")
    assert one is not None and one.name == "shapes version 2"
    assert find_champion(f"file://{model}", tmp_path / "work") == champion


@pytest.mark.parametrize("location", ["", "nowhere/shapes", "empty"])
def test_without_a_version_there_is_no_champion(tmp_path, location) -> None:
    (tmp_path / "empty").mkdir()
    assert find_champion(str(tmp_path / location) if location else "", tmp_path / "work") is None


def test_an_empty_bucket_has_no_champion(bucket, tmp_path) -> None:
    assert find_champion(f"{bucket}/models/shapes", tmp_path / "work") is None


def test_a_file_is_not_a_champion(tmp_path) -> None:
    (tmp_path / "model").write_text("")
    with pytest.raises(InputError, match="expected a folder"):
        find_champion(str(tmp_path / "model"), tmp_path / "work")


def test_classes_are_compared_by_name_in_any_order(publish, dataset, tmp_path) -> None:
    champion = find_champion(str(publish(1, correct=True)), tmp_path / "work")
    assert champion is not None
    classes = DatasetManifest.read(dataset).classes
    assert list(champion.classes) != classes
    check_classes(champion, classes)
    with pytest.raises(InputError, match=r"\(missing: \['star'\]; extra: \['square'\]\)"):
        check_classes(champion, ["circle", "cross", "star"])


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["cat"], r"\(missing: none; extra: \['dog'\]\)"),
        (["dog", "cat", "owl"], r"\(missing: \['owl'\]; extra: none\)"),
    ],
)
def test_one_class_more_or_less_is_an_error(tmp_path, classes, message) -> None:
    champion = Champion(tmp_path / "pets" / "3", ("cat", "dog"), None)
    check_classes(champion, ["dog", "cat"])
    with pytest.raises(InputError, match=f"champion pets version 3 has .* {message}"):
        check_classes(champion, classes)


def test_labels_are_the_champions_predictions_for_any_batch_size(
    publish, dataset, tmp_path
) -> None:
    champion = find_champion(str(publish(1, correct=True)), tmp_path / "work")
    assert champion is not None
    classes = DatasetManifest.read(dataset).classes
    records = list(read_split(dataset, "test"))
    predicted = champion_labels(champion, [record.encoded for record in records], 5)
    np.testing.assert_array_equal(predicted, [classes[record.label] for record in records])


def test_a_champion_that_cannot_be_run_is_an_error(publish, tmp_path) -> None:
    folder = publish(1, correct=True)
    (folder / "saved_model.pb").write_bytes(b"\xff\xff\xff")
    champion = find_champion(str(folder), tmp_path / "work")
    assert champion is not None
    with pytest.raises(RegraftError, match="cannot be run"):
        champion_labels(champion, [b"-"], 1)


def test_a_champion_without_labels_is_an_error(publish, tmp_path) -> None:
    folder = publish(1, correct=True)
    (folder / "assets" / "labels.txt").unlink()
    with pytest.raises(InputError, match=r"expected assets/labels\.txt"):
        find_champion(str(folder), tmp_path / "work")
