"""The head: poolings and sizes, class weights, the search, and errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from components.extract_features.extract_features import extract_features
from components.train_head.train_head import train_head
from regraft_core.formats.manifests import FeatureShard, FeaturesManifest, ModelManifest, Split
from regraft_core.formats.option_parsing import parse_options
from regraft_core.formats.options import FeatureOptions, HeadOptions
from regraft_core.runtime.errors import InputError
from regraft_core.training.feature_store import LABELS, FeatureRows, array_file
from regraft_core.training.loop import class_weights
from regraft_core.training.model_files import load_model

if TYPE_CHECKING:
    from tests.conftest import Resumed, Trained

CLASSES, WIDTH, SIDE = 3, 32, 4
QUICK = HeadOptions(head_epochs=2)


@pytest.fixture(scope="module")
def features(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of every pooling."""
    out = tmp_path_factory.mktemp("features") / "features"
    options = FeatureOptions(backbone="tiny", poolings=("gap", "gmp", "flatten"), keep_cut=False)
    extract_features(dataset, out, options)
    return out


@pytest.mark.parametrize("kind", ["gap", "gmp", "flatten"])
@pytest.mark.parametrize("dense_width", [0, 8])
def test_heads_by_pooling_and_their_parameters(
    features: Path, tmp_path: Path, kind: str, dense_width: int
) -> None:
    options = QUICK.model_copy(update={"pooling": kind, "dense_width": dense_width})
    manifest = train_head([features], tmp_path / "head", options)
    width = WIDTH * SIDE * SIDE if kind == "flatten" else WIDTH
    model, read = load_model(tmp_path / "head")
    assert read == manifest
    assert (model.input_shape, model.output_shape) == ((None, width), (None, CLASSES))
    inner = (width + 1) * dense_width + (dense_width + 1) * CLASSES
    expected = inner if dense_width else (width + 1) * CLASSES
    assert manifest.head_parameters[kind] == manifest.parameters.trainable == expected
    assert manifest.head_parameters["flatten"] > manifest.head_parameters["gap"]


def test_balanced_weights_are_inverse_to_frequency() -> None:
    labels = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 2], np.int32)
    weights = np.array(class_weights("balanced", labels, 3))
    np.testing.assert_allclose(weights * np.bincount(labels), 10 / 3)
    assert weights[labels].mean() == pytest.approx(1.0)


@pytest.fixture
def imbalanced(features: Path, tmp_path: Path) -> Path:
    """Features of two numbers; classes overlap, and the last one is rare in training only."""
    folder = tmp_path / "imbalanced"
    folder.mkdir()
    rng = np.random.default_rng(0)
    centers = np.array([[0, 0], [2, 0], [1, 1]])
    counts: dict[Split, list[int]] = {"train": [90, 90, 6], "validation": [40, 40, 40]}
    shards = []
    for split, each in counts.items():
        labels = np.repeat(np.arange(CLASSES, dtype=np.int32), each)
        shard = FeatureShard(stem=f"{split}-0.view0", split=split, view=0, count=len(labels))
        values = centers[labels] + rng.normal(0, 0.7, (len(labels), 2))
        np.save(array_file(folder, shard.stem, "gap"), values.astype(np.float32))
        np.save(array_file(folder, shard.stem, LABELS), labels)
        shards.append(shard)
    changed = {"arrays": {"gap": [2]}, "shards": shards, "dtype": "float32"}
    FeaturesManifest.read(features).model_copy(update=changed).write(folder)
    return folder


def recall_of_the_rare(head: Path, features: Path) -> float:
    rows = FeatureRows([features], "validation", "gap")
    predicted = load_model(head)[0](rows.rows(np.flatnonzero(rows.labels == 2))).numpy().argmax(1)
    return float((predicted == 2).mean())


def test_balanced_weights_raise_the_recall_of_a_rare_class(
    imbalanced: Path, tmp_path: Path
) -> None:
    options = HeadOptions(head_epochs=15, head_learning_rate=0.05, dropout=0.0)
    recalls = []
    for name in ("off", "balanced"):
        train_head([imbalanced], tmp_path / name, options.model_copy(
            update={"class_weights": name}))  # fmt: skip
        recalls.append(recall_of_the_rare(tmp_path / name, imbalanced))
    assert recalls[1] > recalls[0] + 0.2


def test_heads_in_the_grid_are_trained_with_class_weights(imbalanced: Path, tmp_path: Path) -> None:
    """Without dropout, one ends like a single head, and better than without class weights."""
    options = HeadOptions(head_epochs=6, head_learning_rate=0.02, dropout=0.0)
    losses = []
    for name, changes in {
        "search": {"class_weights": "balanced", "head_search": True},
        "alone": {"class_weights": "balanced"},
        "unweighted": {},
    }.items():
        manifest = train_head([imbalanced], tmp_path / name, options.model_copy(update=changes))
        losses.append(manifest.validation_loss)
        trials = manifest.measurements.get("head_search", [])
        losses += [
            trial["validation_loss"] for trial in trials
            if (trial["dense_width"], trial["dropout"]) == (0, 0.0)
            and trial["head_learning_rate"] == options.head_learning_rate
        ]  # fmt: skip
    _, in_grid, alone, unweighted = losses
    assert in_grid == pytest.approx(alone, rel=1e-4)
    assert in_grid < unweighted - 0.05


def test_a_pooling_that_was_not_extracted_is_an_error(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected features of pooling 'gmp', got gap, cut"):
        train_head([trained.features], tmp_path / "head", HeadOptions(pooling="gmp"))
    assert not (tmp_path / "head").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [("head_epochs", 0), ("head_learning_rate", 0.0), ("head_learning_rate", float("nan")),
     ("batch_size", 0), ("dropout", 1.0), ("pooling", "gapp"), ("patience", 0)],
)  # fmt: skip
def test_options_out_of_range_are_an_error(name: str, value: object) -> None:
    with pytest.raises(InputError, match=name):
        parse_options(HeadOptions, **{name: value})


def test_the_search_keeps_the_best_head(features: Path, tmp_path: Path) -> None:
    options = HeadOptions(head_epochs=4, head_search=True, dropout=0.0)
    manifest = train_head([features], tmp_path / "head", options)
    trials = manifest.measurements["head_search"]
    assert {trial["pooling"] for trial in trials} == {"gap", "gmp", "flatten"}
    assert len(trials) == 3 * 2 * 2 * 2
    losses = [trial["validation_loss"] for trial in trials]
    assert losses == sorted(losses)
    assert np.isfinite(losses).all()
    for name in ("pooling", "dense_width", "dropout"):
        assert manifest.head[name] == trials[0][name]
    assert manifest.options["head_learning_rate"] == trials[0]["head_learning_rate"]
    assert f", {trials[0]['pooling']} with width" in manifest.reasoning[0]


def test_the_search_skips_a_pooling_that_does_not_fit_in_memory(
    features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Here a row of `flatten` is as long as 16 rows of the others."""
    fits = FeatureRows([features], "train", "gap").nbytes
    options = QUICK.model_copy(update={"head_search": True, "dropout": 0.0})
    monkeypatch.setattr("components.train_head.head_search.RESIDENT_BYTES", fits)
    manifest = train_head([features], tmp_path / "head", options)
    assert {trial["pooling"] for trial in manifest.measurements["head_search"]} == {"gap", "gmp"}
    assert f"skips flatten, its features exceed {fits} bytes" in capsys.readouterr().out
    assert "heads (gap, gmp; " in manifest.reasoning[0]
    monkeypatch.setattr("components.train_head.head_search.RESIDENT_BYTES", fits - 1)
    with pytest.raises(InputError, match=f"expected features up to {fits - 1} bytes, got more"):
        train_head([features], tmp_path / "none", options)
    assert not (tmp_path / "none").exists()


def test_a_head_in_the_grid_trains_like_a_single_head(features: Path, tmp_path: Path) -> None:
    """Without dropout, so that nothing is random: the same order gives the same steps."""
    search = HeadOptions(head_epochs=3, head_search=True, patience=3, l2=1e-3)
    trials = train_head([features], tmp_path / "s", search).measurements["head_search"]
    for rate in (1e-3, 4e-3):
        alone = HeadOptions(
            head_epochs=3, patience=3, l2=1e-3, dropout=0.0, pooling="gmp", head_learning_rate=rate
        )
        manifest = train_head([features], tmp_path / f"{rate}", alone)
        (trial,) = [t for t in trials if (t["pooling"], t["dense_width"], t["dropout"]) ==
                    ("gmp", 0, 0.0) and t["head_learning_rate"] == rate]  # fmt: skip
        assert trial["validation_loss"] == pytest.approx(manifest.validation_loss, rel=1e-4)


def program(features: Path, out: Path, work: Path, options: HeadOptions) -> str:
    """Return Python code that trains a head and keeps its state in `work`."""
    given = options.model_copy(update={"work_dir": str(work)}).model_dump()
    return (
        "from regraft_core.formats.options import HeadOptions\n"
        "from components.train_head.train_head import train_head\n"
        f"train_head([{str(features)!r}], {str(out)!r}, HeadOptions(**{given!r}))\n"
    )


def assert_same(resumed: Path, whole: Path) -> None:
    """Check that a resumed training ended like an uninterrupted one."""
    mine, theirs = ModelManifest.read(resumed), ModelManifest.read(whole)
    assert [line.epoch for line in mine.history] == [line.epoch for line in theirs.history]
    assert mine.validation_loss == pytest.approx(theirs.validation_loss, rel=1e-3)
    for one, other in zip(
        load_model(resumed)[0].get_weights(), load_model(whole)[0].get_weights(), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=2e-3)


def test_an_interrupted_step_resumes_from_its_last_epoch(
    features: Path, tmp_path: Path, kill_and_run_again: Callable[[str, str], Resumed]
) -> None:
    options = HeadOptions(head_epochs=300, patience=300)
    killed = tmp_path / "killed"
    output = kill_and_run_again(
        program(features, killed, tmp_path / "work", options), "head epoch 5/"
    )
    assert "head: resumes after epoch" in output.again
    assert "head epoch 4/" not in output.again
    train_head([features], tmp_path / "whole", options)
    assert len(ModelManifest.read(killed).history) == 300
    assert_same(killed, tmp_path / "whole")


@pytest.mark.long
def test_an_interrupted_search_resumes_from_its_last_epoch(
    features: Path, tmp_path: Path, kill_and_run_again: Callable[[str, str], Resumed]
) -> None:
    options = HeadOptions(head_epochs=12, patience=12, head_search=True)
    killed = tmp_path / "killed"
    output = kill_and_run_again(
        program(features, killed, tmp_path / "work", options), "head search epoch 5/"
    )
    assert "head search: resumes after epoch" in output.again
    assert "head search epoch 4/" not in output.again
    train_head([features], tmp_path / "whole", options)
    assert_same(killed, tmp_path / "whole")
    mine, theirs = (ModelManifest.read(tmp_path / name).measurements["head_search"]
                    for name in ("killed", "whole"))  # fmt: skip
    for one, other in zip(mine, theirs, strict=True):
        assert one["validation_loss"] == pytest.approx(other["validation_loss"], rel=1e-3)
        assert one["epoch"] == other["epoch"]


@pytest.mark.long
def test_a_damaged_state_of_a_search_is_an_error(features: Path, tmp_path: Path) -> None:
    options = QUICK.model_copy(update={"head_search": True, "work_dir": str(tmp_path / "work")})
    train_head([features], tmp_path / "head", options)
    (state,) = (tmp_path / "work").glob("head_search-*/epoch-2.npz")
    state.write_bytes(state.read_bytes()[:-1])
    with pytest.raises(InputError, match="damaged checkpoint"):
        train_head([features], tmp_path / "again", options)
    assert not (tmp_path / "again").exists()
