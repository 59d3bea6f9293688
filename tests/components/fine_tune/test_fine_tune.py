"""The strategies: cached steps equal end-to-end steps, frozen statistics, no worse results."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from components.extract_features.extract_features import extract_features
from components.fine_tune.fine_tune import fine_tune
from components.fine_tune.rate_search import LEARNING_RATES
from components.fine_tune.strategies import lr_ratios
from components.train_head.train_head import train_head
from regraft_core.backbones.backbone_table import BACKBONES
from regraft_core.backbones.build import build_backbone
from regraft_core.backbones.cuts import freeze, join, split
from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.manifests.model import Epoch, ModelManifest, Preprocessing
from regraft_core.formats.option_parsing import parse_options
from regraft_core.formats.options.extract_features import FeatureOptions
from regraft_core.formats.options.fine_tune import FineTuneOptions
from regraft_core.formats.options.train_head import HeadOptions
from regraft_core.images.augment import Strength
from regraft_core.runtime.errors import InputError, RegraftError
from regraft_core.training.feature_store import FeatureRows
from regraft_core.training.heads import build_head, pooling_layer
from regraft_core.training.image_source import ImageRows, image_source
from regraft_core.training.loop import Settings, Trainer, class_weights
from regraft_core.training.model_files import load_model, save_model
from regraft_core.training.ood_detector import OodDetector
from regraft_core.training.paired_losses import PairedLosses
from regraft_core.training.training_source import Source
from regraft_core.training.winograd import winograd

if TYPE_CHECKING:
    from tests.conftest import Resumed, Trained

CLASSES = 4
STEPS_TOLERANCE = 2e-5


def source(inputs: NDArray[np.float32], labels: NDArray[np.int32]) -> Source:
    def fetch(
        indices: NDArray[np.int64], epoch: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        return inputs[indices], labels[indices]

    return Source(len(inputs), fetch, tf.TensorSpec([None, *inputs.shape[1:]], tf.float32))


def backbone_and_head(name: str) -> tuple[keras.Model, list[keras.layers.Layer]]:
    """Build a backbone and its head, equal for every call."""
    keras.utils.set_random_seed(0)
    backbone = build_backbone(BACKBONES[name], 48, "random")
    head = build_head(BACKBONES[name].width, CLASSES)
    freeze(backbone)
    return backbone, [pooling_layer("gap"), *head.layers[1:]]


@pytest.mark.parametrize(
    "name",
    [
        "vgg16",
        pytest.param("resnet50", marks=pytest.mark.long),
        pytest.param("efficientnet_lite0", marks=pytest.mark.long),
    ],
)
def test_cached_steps_equal_those_of_end_to_end_training(name: str) -> None:
    """Training from cached activations equals training end to end with a frozen bottom.

    The cached training uses Winograd's convolution, as `fine_tune` does.
    """
    rng = np.random.default_rng(0)
    pixels = rng.uniform(-1, 1, (12, 48, 48, 3)).astype(np.float32)
    labels = rng.integers(0, CLASSES, 12).astype(np.int32)
    settings = Settings(phase="top", epochs=2, batch_size=4, learning_rate=1e-4, seed=1,
                        classes=CLASSES, gradient_clip=1.0, cosine_decay=True)  # fmt: skip
    cut = BACKBONES[name].cut

    def unfrozen(backbone: keras.Model) -> keras.Model:
        _, top = split(backbone, cut)
        for layer in top.layers:
            layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
        return top

    backbone, head = backbone_and_head(name)
    unfrozen(backbone)
    whole = join(backbone, head)
    start = whole.get_weights()
    data = source(pixels, labels), source(pixels, labels)
    Trainer(whole, *data, settings).train(settings)

    backbone, head = backbone_and_head(name)
    bottom, _ = split(backbone, cut)
    cached = bottom(pixels, training=False).numpy()
    top = join(unfrozen(backbone), head)
    with winograd(top.layers):
        data = source(cached, labels), source(cached, labels)
        Trainer(top, *data, settings).train(settings)
    again = join(backbone, head).get_weights()

    moved = [np.abs(mine - before).max() for mine, before in zip(again, start, strict=True)]
    assert max(moved) > 1e-4, "the steps changed nothing, so equality would be meaningless"
    for mine, theirs in zip(again, whole.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=STEPS_TOLERANCE)


def statistics(model: keras.Model) -> dict[str, NDArray[np.float32]]:
    return {
        layer.name: np.concatenate([layer.moving_mean.numpy(), layer.moving_variance.numpy()])
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization) and "head" not in layer.name
    }


def test_without_levels_the_detector_reads_the_pooled_features(
    dataset: Path, tmp_path: Path
) -> None:
    features, head, out = (tmp_path / name for name in ("features", "head", "out"))
    extract_features(dataset, features, FeatureOptions(backbone="tiny", levels="last"))
    train_head([features], head, HeadOptions(levels="last"))
    fine_tune(dataset, [features], head, out, FineTuneOptions(strategy="top", fine_tune_epochs=1))
    detectors = [OodDetector.read(one, ModelManifest.read(one).ood_detector) for one in (head, out)]
    assert all(one is not None and one.layers == ("head_gap",) for one in detectors)
    assert load_model(out)[0].get_layer("head_gap") is not None


@pytest.mark.parametrize("strategy", ["head", "top", "full"])
@pytest.mark.parametrize("batch_norm", ["frozen", "adapt"])
def test_batch_norm_statistics_change_only_in_the_trained_part(
    dataset: Path, trained: Trained, weak_head: Path, tmp_path: Path, strategy: str, batch_norm: str
) -> None:
    before = build_backbone(BACKBONES["tiny"], 32, "imagenet")
    options = FineTuneOptions(
        strategy=strategy, batch_norm=batch_norm, fine_tune_epochs=3, learning_rate=3e-3
    )
    trained_further = fine_tune(dataset, [trained.features], weak_head, tmp_path / "m", options)
    if strategy != "head":
        assert trained_further.validation_loss < np.log(3)
    model, _ = load_model(tmp_path / "m")
    same = {
        name: np.array_equal(values, statistics(before)[name])
        for name, values in statistics(model).items()
    }
    _, top = split(before, BACKBONES["tiny"].cut)
    above = set(statistics(top))
    may_change = {"head": set(), "top": above, "full": set(same)}[strategy]
    assert above
    assert set(same) > above
    for name, unchanged in same.items():
        assert unchanged is not (batch_norm == "adapt" and name in may_change), name


def test_weights_below_the_cut_never_change(
    dataset: Path, trained: Trained, weak_head: Path, tmp_path: Path
) -> None:
    before = build_backbone(BACKBONES["tiny"], 32, "imagenet")
    options = FineTuneOptions(
        strategy="top", batch_norm="adapt", fine_tune_epochs=3, learning_rate=3e-3
    )
    fine_tune(dataset, [trained.features], weak_head, tmp_path / "m", options)
    after, manifest = load_model(tmp_path / "m")
    bottom, top = split(before, BACKBONES["tiny"].cut)
    assert manifest.cut == BACKBONES["tiny"].cut
    for layer in bottom.layers:
        for mine, theirs in zip(
            after.get_layer(layer.name).get_weights(), layer.get_weights(), strict=True
        ):
            np.testing.assert_array_equal(mine, theirs)
    kernels = [layer for layer in top.layers if isinstance(layer, keras.layers.Conv2D)]
    assert any(
        not np.array_equal(after.get_layer(k.name).get_weights()[0], k.get_weights()[0])
        for k in kernels
    )


def scalars(logs: Path, tag: str) -> dict[int, float]:
    """Return a scalar's values by step from the log file of TensorBoard."""
    (path,) = logs.glob("events.out.tfevents.*")
    records = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    events = [tf.compat.v1.Event.FromString(record) for record in records]
    return {event.step: value.simple_value
            for event in events for value in event.summary.value if value.tag == tag}  # fmt: skip


def test_candidates_contain_their_provenance_and_history(trained: Trained) -> None:
    head = ModelManifest.read(trained.head)
    for strategy, folder in trained.candidates.items():
        manifest = ModelManifest.read(folder)
        assert (manifest.kind, manifest.strategy) == ("candidate", strategy)
        assert manifest.weights_digest == head.weights_digest
        assert manifest.validation_loss <= head.validation_loss
        assert manifest.validation_accuracy >= head.validation_accuracy
        assert (folder / "history.csv").read_text().count("\n") == 1 + len(manifest.history)
        phases = {"head", strategy}
        assert {path.name for path in (folder / "logs").iterdir()} == phases
        for phase in phases:
            lines = [line for line in manifest.history if line.phase == phase]
            assert lines
            for tag in ("loss", "validation_accuracy"):
                expected = {line.epoch: getattr(line, tag) for line in lines}
                assert scalars(folder / "logs" / phase, tag) == pytest.approx(expected)
        assert manifest.history[: len(head.history)] == head.history


def test_a_later_run_starts_from_the_layers_of_a_candidate(
    trained: Trained, tmp_path: Path
) -> None:
    candidate, _ = load_model(trained.candidates["top"])
    for layer in candidate.layers:
        layer.set_weights([weight + 0.01 for weight in layer.get_weights()])
    candidate.save(tmp_path / "model.keras")
    backbone = build_backbone(BACKBONES["tiny"], 32, str(tmp_path / "model.keras"))
    for layer in backbone.layers:
        for mine, theirs in zip(
            layer.get_weights(), candidate.get_layer(layer.name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dataset_digest": "other"}, "do not match: different dataset"),
        ({"weights_digest": "0" * 64}, "do not match: different backbone"),
        ({"preprocessing": Preprocessing(image_px=64, scaling="tiny")}, "different image size"),
        ({"kind": "candidate"}, "expected a head in .*, got a candidate"),
    ],
)
def test_a_head_that_does_not_match_is_an_error(
    dataset: Path, trained: Trained, tmp_path: Path, changed: dict[str, object], message: str
) -> None:
    folder = tmp_path / "head"
    folder.mkdir()
    (folder / "model.keras").write_bytes((trained.head / "model.keras").read_bytes())
    ModelManifest.read(trained.head).model_copy(update=changed).write(folder)
    with pytest.raises(InputError, match=message):
        fine_tune(dataset, [trained.features], folder, tmp_path / "m", FineTuneOptions())
    assert not (tmp_path / "m").exists()


def test_a_dataset_that_does_not_match_the_features_is_an_error(
    dataset: Path, trained: Trained, tmp_path: Path
) -> None:
    other = tmp_path / "dataset"
    shutil.copytree(dataset, other)
    DatasetManifest.read(dataset).model_copy(update={"digest": "0" * 64}).write(other)
    with pytest.raises(InputError, match="do not match: different dataset"):
        fine_tune(other, [trained.features], trained.head, tmp_path / "m", FineTuneOptions())


def test_weights_that_do_not_match_the_head_are_an_error(
    dataset: Path, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.fine_tune.fine_tune.weights_digest", lambda model: "1" * 64)
    with pytest.raises(InputError, match=r"expected backbone weights .*, got 111111111111"):
        fine_tune(dataset, [trained.features], trained.head, tmp_path / "m", FineTuneOptions())


def test_class_weights_and_label_smoothing_are_those_of_the_head(
    dataset: Path, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded: list[Settings] = []

    class Recorder(Trainer):
        def train(self, settings: Settings, *others: Any) -> list[Epoch]:
            recorded.append(settings)
            return super().train(settings, *others)

    monkeypatch.setattr("components.fine_tune.part_training.Trainer", Recorder)
    options = HeadOptions(class_weights="balanced", label_smoothing=0.1)
    train_head([trained.features], tmp_path / "head", options)
    labels = FeatureRows([trained.features], "train", "gap").labels
    quick = FineTuneOptions(strategy="top", fine_tune_epochs=1, learning_rate=1e-3)
    for number, head in enumerate((trained.head, tmp_path / "head")):
        fine_tune(dataset, [trained.features], head, tmp_path / f"{number}", quick)
    plain, weighted = recorded
    assert (plain.class_weights, plain.label_smoothing) == (None, 0.0)
    assert weighted.label_smoothing == 0.1
    assert weighted.class_weights == class_weights("balanced", labels, 3)


def test_a_checkpoint_on_activations_is_not_resumed_from_images(
    dataset: Path, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = FeatureOptions(backbone="tiny", cache_gb=1e-6)
    extract_features(dataset, tmp_path / "streamed", small)
    options = FineTuneOptions(
        strategy="top", fine_tune_epochs=1, learning_rate=1e-3, work_dir=str(tmp_path / "work")
    )
    for number, features in enumerate((trained.features, tmp_path / "streamed")):
        fine_tune(dataset, [features], trained.head, tmp_path / f"{number}", options)
    assert "resumes" not in capsys.readouterr().out
    assert len(list((tmp_path / "work").iterdir())) == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [("fine_tune_epochs", 0), ("learning_rate", 0.0), ("learning_rate", float("inf")),
     ("batch_size", 0), ("precision", "half"), ("batch_norm", "off"), ("ema_momentum", 1.0)],
)  # fmt: skip
def test_options_out_of_range_are_an_error(name: str, value: object) -> None:
    with pytest.raises(InputError, match=name):
        parse_options(FineTuneOptions, **{name: value})


def test_a_loss_that_is_not_finite_leaves_no_candidate(
    dataset: Path, trained: Trained, tmp_path: Path
) -> None:
    """NaN weights simulate a failed training."""
    model, manifest = load_model(trained.head)
    model.set_weights([np.full_like(weights, np.nan) for weights in model.get_weights()])
    folder = tmp_path / "head"
    folder.mkdir()
    manifest.model_copy(update={"digest": save_model(model, folder)}).write(folder)
    with pytest.raises(RegraftError, match="top: the validation loss of the head is not finite"):
        fine_tune(dataset, [trained.features], folder, tmp_path / "m", FineTuneOptions())
    assert not (tmp_path / "m").exists()


def test_a_damaged_model_file_is_an_error(dataset: Path, trained: Trained, tmp_path: Path) -> None:
    folder = tmp_path / "head"
    folder.mkdir()
    for path in (trained.head / "model.json", trained.head / "model.keras"):
        (folder / path.name).write_bytes(path.read_bytes())
    content = bytearray((folder / "model.keras").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "model.keras").write_bytes(content)
    with pytest.raises(InputError, match="expected digest"):
        fine_tune(dataset, [trained.features], folder, tmp_path / "m", FineTuneOptions())


def test_top_trains_from_images_without_cached_activations(
    dataset: Path, trained: Trained, weak_head: Path, tmp_path: Path
) -> None:
    """Its steps equal those from cached activations."""
    precise = FeatureOptions(backbone="tiny", feature_dtype="float32")
    extract_features(dataset, tmp_path / "kept", precise)
    small = precise.model_copy(update={"cache_gb": 1e-6})
    extract_features(dataset, tmp_path / "features", small)
    options = FineTuneOptions(
        strategy="top", batch_norm="adapt", fine_tune_epochs=3, learning_rate=3e-3
    )
    fine_tune(dataset, [tmp_path / "kept"], weak_head, tmp_path / "cached", options)
    fine_tune(dataset, [tmp_path / "features"], weak_head, tmp_path / "streamed", options)
    cached, streamed = (load_model(tmp_path / n) for n in ("cached", "streamed"))
    assert streamed[1].cut == cached[1].cut == BACKBONES["tiny"].cut
    for mine, theirs in zip(streamed[0].get_weights(), cached[0].get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-4)
    bottom, top = split(build_backbone(BACKBONES["tiny"], 32, "imagenet"), BACKBONES["tiny"].cut)
    for layer in (one for one in top.layers if one.weights):
        for mine, before in zip(
            streamed[0].get_layer(layer.name).get_weights(), layer.get_weights(), strict=True
        ):
            assert np.abs(mine - before).max() > 1e-3, layer.name
    for layer in bottom.layers:
        for mine, theirs in zip(
            streamed[0].get_layer(layer.name).get_weights(), layer.get_weights(), strict=True
        ):
            np.testing.assert_array_equal(mine, theirs)


@pytest.fixture(scope="module")
def augmented(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of augmented images, without activations at the cut."""
    out = tmp_path_factory.mktemp("augmented") / "features"
    options = FeatureOptions(backbone="tiny", cache_gb=1e-6, augment="strong")
    extract_features(dataset, out, options)
    return out


@pytest.mark.long
def test_the_augmentation_of_images_depends_on_the_seed(
    dataset: Path, trained: Trained, augmented: Path, weak_head: Path, tmp_path: Path
) -> None:
    """Equal seeds give equal images; without augmented features, images are not augmented."""
    losses = {}
    cases = {"mine": (augmented, 0), "again": (augmented, 0), "other": (augmented, 1),
             "plain": (trained.features, 0)}  # fmt: skip
    for name, (features, seed) in cases.items():
        options = FineTuneOptions(
            strategy="full", fine_tune_epochs=2, learning_rate=1e-9, seed=seed
        )
        manifest = fine_tune(dataset, [features], weak_head, tmp_path / name, options)
        losses[name] = [line.loss for line in manifest.history if line.phase == "full"]
    assert losses["mine"] == pytest.approx(losses["again"], rel=1e-5)
    for name in losses.keys() - {"mine", "again"}:
        assert losses["mine"] != pytest.approx(losses[name], rel=1e-4)
    assert losses["mine"][0] != pytest.approx(losses["mine"][1], rel=1e-4)


def test_mixed_activations_depend_on_the_seed(
    dataset: Path, trained: Trained, tmp_path: Path
) -> None:
    """At this rate the weights do not change, so the losses differ by the mixture alone."""
    losses = {}
    for name, mix, seed in (("off", "off", 0), ("mine", "mixup", 0), ("again", "mixup", 0),
                            ("other", "mixup", 1)):  # fmt: skip
        options = FineTuneOptions(
            strategy="top", fine_tune_epochs=1, learning_rate=1e-9, seed=seed, mix=mix
        )
        manifest = fine_tune(dataset, [trained.features], trained.head, tmp_path / name, options)
        losses[name] = manifest.history[-1].loss
        assert manifest.options["mix"] == mix
    assert losses["mine"] == pytest.approx(losses["again"], rel=1e-5)
    for name in ("off", "other"):
        assert losses["mine"] != pytest.approx(losses[name], rel=1e-3)


def test_images_are_augmented_by_epoch_and_seed(dataset: Path, trained: Trained) -> None:
    rows = ImageRows(dataset, "train")
    preprocessing = ModelManifest.read(trained.head).preprocessing
    indices = np.array([3, 1])

    def prepare(strength: Strength, epoch: int, seed: int = 0) -> NDArray[np.float32]:
        source = image_source(rows, preprocessing, strength, seed)
        assert source.prepare is not None
        inputs, _ = source.fetch(indices, epoch)
        pixels: NDArray[np.float32] = source.prepare(inputs).numpy()
        return pixels

    plain, first = prepare("off", 0), prepare("light", 0)
    np.testing.assert_array_equal(plain, prepare("off", 1))
    np.testing.assert_array_equal(first, prepare("light", 0))
    for other in (plain, prepare("light", 1), prepare("light", 0, seed=1)):
        assert np.abs(first - other).max() > 0.01


@pytest.mark.long
@pytest.mark.parametrize("strategy", ["top", "full"])
def test_an_interrupted_fine_tuning_resumes_from_its_last_epoch(
    dataset: Path, augmented: Path, weak_head: Path, tmp_path: Path, strategy: str,
    kill_and_run_again: Callable[[str, str], Resumed],
) -> None:  # fmt: skip
    """With augmented images and adapting statistics, so that all of the state matters."""
    given = {"strategy": strategy, "fine_tune_epochs": 6, "learning_rate": 1e-3,
             "batch_norm": "adapt", "ema_momentum": 0.5}  # fmt: skip
    program = (
        "from regraft_core.formats.options.fine_tune import FineTuneOptions\n"
        "from components.fine_tune.fine_tune import fine_tune\n"
        f"options = FineTuneOptions(**{given!r}, work_dir={str(tmp_path / 'work')!r})\n"
        f"fine_tune({str(dataset)!r}, [{str(augmented)!r}], {str(weak_head)!r}, "
        f"{str(tmp_path / 'killed')!r}, options)\n"
    )
    output = kill_and_run_again(program, f"{strategy} epoch 3/6")
    assert f"{strategy}: resumes after epoch" in output.again
    assert f"{strategy} epoch 2/6" not in output.again
    options = FineTuneOptions(**given)
    whole = fine_tune(dataset, [augmented], weak_head, tmp_path / "whole", options)
    resumed = ModelManifest.read(tmp_path / "killed")
    assert [line.loss for line in resumed.history] == pytest.approx(
        [line.loss for line in whole.history], rel=1e-3
    )
    for mine, theirs in zip(
        load_model(tmp_path / "killed")[0].get_weights(),
        load_model(tmp_path / "whole")[0].get_weights(),
        strict=True,
    ):
        np.testing.assert_allclose(mine, theirs, atol=1e-3)


def test_half_precision_trains_and_saves_a_float32_candidate(
    dataset: Path, trained: Trained, weak_head: Path, tmp_path: Path
) -> None:
    given = {"strategy": "top", "fine_tune_epochs": 3, "learning_rate": 3e-3}
    manifests = {
        name: fine_tune(
            dataset, [trained.features], weak_head, tmp_path / name,
            FineTuneOptions(**given, precision=name),
        )
        for name in ("float32", "mixed")
    }  # fmt: skip
    losses = [[line.loss for line in m.history[1:]] for m in manifests.values()]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    model, _ = load_model(tmp_path / "mixed")
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}
    pixels = np.zeros((1, 32, 32, 3), np.float32)
    assert model(pixels).dtype == "float32"


def test_learning_rates_rise_with_depth() -> None:
    backbone = build_backbone("tiny", 32)
    ratios = lr_ratios(backbone, 0.1)
    assert ratios is not None
    assert len(ratios) == len(backbone.trainable_variables)
    assert (min(ratios), max(ratios)) == (pytest.approx(0.1), 1.0)
    assert list(ratios) == sorted(ratios)
    assert lr_ratios(backbone, 1.0) is None


@pytest.mark.parametrize(("width", "ratio"), [(256, None), (512, 0.5), (5120, 0.05)])
def test_a_wide_head_has_a_lower_learning_rate(width: int, ratio: float | None) -> None:
    inputs = keras.Input((8,))
    backbone = keras.Model(inputs, keras.layers.Dense(width)(inputs))
    model = join(backbone, build_head(width, 3).layers[1:])
    assert lr_ratios(model, 1.0) == (None if ratio is None else (1.0, 1.0, ratio, ratio))


def test_a_finished_fine_tuning_is_restored_from_the_work_folder(
    dataset: Path, trained: Trained, weak_head: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    options = FineTuneOptions(
        strategy="top", fine_tune_epochs=2, learning_rate=1e-3, work_dir=str(tmp_path / "work")
    )
    first = fine_tune(dataset, [trained.features], weak_head, tmp_path / "first", options)
    capsys.readouterr()
    second = fine_tune(dataset, [trained.features], weak_head, tmp_path / "second", options)
    assert "top: resumes after epoch 2" in capsys.readouterr().out
    assert second.history == first.history
    for mine, theirs in zip(
        load_model(tmp_path / "second")[0].get_weights(),
        load_model(tmp_path / "first")[0].get_weights(),
        strict=True,
    ):
        np.testing.assert_array_equal(mine, theirs)


def test_a_learning_rate_is_found_and_recorded(
    dataset: Path, trained: Trained, weak_head: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """A finished search is restored, too."""
    work = str(tmp_path / "work")
    options = FineTuneOptions(strategy="top", fine_tune_epochs=4, work_dir=work)
    found = fine_tune(dataset, [trained.features], weak_head, tmp_path / "first", options)
    chosen = found.options["learning_rate"]
    assert chosen in LEARNING_RATES
    trials = found.measurements["learning_rate"]["trials"]
    assert [one["learning_rate"] for one in trials] == list(LEARNING_RATES)
    assert min(trials, key=lambda one: one["difference"])["learning_rate"] == chosen
    assert f"{chosen:.0e} was chosen" in found.reasoning[-1]
    assert PairedLosses(**found.measurements["against_head"]).better
    assert [line.phase for line in found.history].count("top") == 4
    output = capsys.readouterr().out
    assert f"top at {LEARNING_RATES[0]:.0e} epoch 1/1" in output
    assert "resumes" not in output
    again = fine_tune(dataset, [trained.features], weak_head, tmp_path / "second", options)
    assert capsys.readouterr().out.count("resumes after epoch") == len(LEARNING_RATES) + 1
    assert again.history == found.history
    assert again.measurements["against_head"] == found.measurements["against_head"]


def test_without_a_gain_the_training_ends_after_the_search(
    dataset: Path, trained: Trained, weak_head: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The learning rates are so low that nothing changes."""
    monkeypatch.setattr("components.fine_tune.rate_search.LEARNING_RATES", (1e-12,))
    found = fine_tune(
        dataset, [trained.features], weak_head, tmp_path / "m", FineTuneOptions(strategy="top")
    )
    head = ModelManifest.read(weak_head)
    assert found.history == head.history
    assert (found.validation_loss, found.validation_accuracy) == (
        head.validation_loss, head.validation_accuracy,
    )  # fmt: skip
    assert not PairedLosses(**found.measurements["against_head"]).better
    assert "the training ended there" in found.reasoning[-1]


def test_without_room_on_validation_nothing_is_trained(
    dataset: Path, trained: Trained, tmp_path: Path
) -> None:
    """There are too few validation images to show that a model is better than this head."""
    found = fine_tune(
        dataset, [trained.features], trained.head, tmp_path / "m", FineTuneOptions(strategy="top")
    )
    head = ModelManifest.read(trained.head)
    assert (found.history, found.validation_loss) == (head.history, head.validation_loss)
    assert not PairedLosses(**found.measurements["without_room"]).better
    assert "top was not trained: even a model without any loss" in found.reasoning[-1]
    assert not {"against_head", "learning_rate"} & set(found.measurements)


def test_a_training_with_a_found_rate_ends_without_further_gain(
    dataset: Path, trained: Trained, weak_head: Path, tmp_path: Path
) -> None:
    options = FineTuneOptions(strategy="top", fine_tune_epochs=60)
    found = fine_tune(dataset, [trained.features], weak_head, tmp_path / "m", options)
    losses = [line.validation_loss for line in found.history if line.phase == "top"]
    assert len(losses) < 60
    assert len(losses) - 1 - int(np.argmin(losses)) == 20
    assert found.validation_loss == pytest.approx(min(losses))
