"""Finding the model in service and asking it for labels."""

from __future__ import annotations

import numpy as np
import pytest

from components.evaluate.gate.champion import champion_labels, find_champion, require_same_classes
from regraft_core.formats.manifests import DatasetManifest
from regraft_core.formats.records import read_split
from regraft_core.runtime.errors import InputError, RegraftError


def test_the_newest_version_that_holds_a_model_counts(publish, tmp_path) -> None:
    model = publish(2, knows=True).parent
    newest = publish(10, knows=True)
    (model / "11").mkdir()
    (model / ".12.half").mkdir()
    champion = find_champion(str(model), tmp_path / "work")
    assert champion is not None
    assert champion.folder == newest.resolve() and champion.name == "shapes version 10"
    one = find_champion(str(model / "2"), tmp_path / "work")
    assert one is not None and one.name == "shapes version 2"
    assert find_champion(f"file://{model}", tmp_path / "work") == champion


@pytest.mark.parametrize("place", ["", "nowhere/shapes", "empty"])
def test_no_version_yet_is_no_champion(tmp_path, place) -> None:
    (tmp_path / "empty").mkdir()
    assert find_champion(str(tmp_path / place) if place else "", tmp_path / "work") is None


def test_an_empty_bucket_has_no_champion(bucket, tmp_path) -> None:
    assert find_champion(f"{bucket}/models/shapes", tmp_path / "work") is None


def test_a_file_is_no_champion(tmp_path) -> None:
    (tmp_path / "model").write_text("")
    with pytest.raises(InputError, match="expected a folder"):
        find_champion(str(tmp_path / "model"), tmp_path / "work")


def test_classes_are_compared_by_name_in_whatever_order(publish, dataset, tmp_path) -> None:
    champion = find_champion(str(publish(1, knows=True)), tmp_path / "work")
    assert champion is not None
    classes = DatasetManifest.read(dataset).classes
    assert list(champion.classes) != classes
    require_same_classes(champion, classes)
    with pytest.raises(InputError, match=r"lacks \['star'\] and has \['square'\]"):
        require_same_classes(champion, ["circle", "cross", "star"])


def test_labels_are_the_champions_own_in_order_whatever_the_batch(
    publish, dataset, tmp_path
) -> None:
    champion = find_champion(str(publish(1, knows=True)), tmp_path / "work")
    assert champion is not None
    classes = DatasetManifest.read(dataset).classes
    records = list(read_split(dataset, "test"))
    said = champion_labels(champion, [record.encoded for record in records], 5)
    np.testing.assert_array_equal(said, [classes[record.label] for record in records])


def test_a_champion_that_cannot_be_run_fails_clearly(publish, tmp_path) -> None:
    folder = publish(1, knows=True)
    (folder / "saved_model.pb").write_bytes(b"\xff\xff\xff")
    champion = find_champion(str(folder), tmp_path / "work")
    assert champion is not None
    with pytest.raises(RegraftError, match="cannot be run"):
        champion_labels(champion, [b"-"], 1)


def test_a_champion_without_labels_fails_clearly(publish, tmp_path) -> None:
    folder = publish(1, knows=True)
    (folder / "assets" / "labels.txt").unlink()
    with pytest.raises(InputError, match=r"expected assets/labels\.txt"):
        find_champion(str(folder), tmp_path / "work")
