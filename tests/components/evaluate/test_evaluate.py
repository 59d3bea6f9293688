"""The step on real candidates and images: its files, choice, errors and comparisons."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import binomtest

from components.evaluate.evaluate import evaluate
from components.evaluate.predict import build_runner, predict
from components.evaluate.report.report_data import ReportData
from regraft_core.formats.manifest_storage import digest_file
from regraft_core.formats.manifests.dataset import DatasetManifest, Shard
from regraft_core.formats.manifests.evaluation import EvaluationManifest
from regraft_core.formats.manifests.model import ModelManifest
from regraft_core.formats.options.evaluate import GateOptions
from regraft_core.formats.records import read_split, write_records
from regraft_core.formats.served_thresholds import ServedThresholds
from regraft_core.images.preprocess import load_images, scale
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.object_stores import open_store_uri
from regraft_core.training.model_files import load_model, save_model
from regraft_core.training.ood_detector import SCORE, OodDetector
from regraft_core.training.paired_losses import PairedLosses

# The model is no better than a constant prediction.
UNCHECKED = GateOptions(baseline_rule="off")


@pytest.fixture(scope="module")
def evaluated(dataset, trained, tmp_path_factory) -> tuple[EvaluationManifest, Path]:
    out = tmp_path_factory.mktemp("evaluated") / "evaluation"
    folders = list(trained.candidates.values())
    return evaluate(folders, dataset, out, UNCHECKED), out


def test_it_writes_manifest_predictions_and_report(evaluated, dataset) -> None:
    result, out = evaluated
    assert EvaluationManifest.read(out) == result
    assert {path.name for path in out.iterdir()} == {
        "evaluation.json", "predictions.npz", "report.html", "report.json"}  # fmt: skip
    data = DatasetManifest.read(dataset)
    assert (result.dataset_digest, result.classes) == (data.digest, data.classes)
    records = list(read_split(dataset, "test"))
    with np.load(out / "predictions.npz") as saved:
        assert saved["ids"].tolist() == [record.id for record in records]
        assert saved["true_labels"].tolist() == [record.label for record in records]
        assert saved["probabilities"].shape == (len(records), len(data.classes))
        np.testing.assert_allclose(saved["probabilities"].sum(axis=1), 1, rtol=1e-5)
        accuracy = np.mean(saved["probabilities"].argmax(axis=1) == saved["true_labels"])
    assert result.metrics["test_accuracy"] == pytest.approx(accuracy)
    assert np.sum(result.confusion) == len(records)


def test_the_choice_is_made_on_validation(evaluated, trained) -> None:
    result, _ = evaluated
    manifests = {name: ModelManifest.read(path) for name, path in trained.candidates.items()}
    compared = PairedLosses(**manifests["top"].measurements["against_head"])
    (chosen,) = (row for row in result.candidates if row.chosen)
    assert chosen.strategy == ("top" if compared.better else "head")
    assert result.notes[0].startswith("head kept: top took") is (chosen.strategy == "head")
    assert (result.strategy, result.model_digest) == (chosen.strategy, chosen.digest)
    assert result.model_digest == manifests[result.strategy].digest


def test_predictions_equal_those_of_the_model_with_the_same_preprocessing(
    evaluated, dataset, trained
) -> None:
    result, out = evaluated
    model, manifest = load_model(trained.candidates[result.strategy])
    encoded = [record.encoded for record in read_split(dataset, "test")][:5]
    pixels = load_images(tf.constant(encoded), manifest.preprocessing.image_px)
    logits = model(scale(pixels, manifest.preprocessing.scaling), training=False)
    with np.load(out / "predictions.npz") as saved:
        np.testing.assert_allclose(saved["logits"][:5], logits, atol=1e-4)
        expected = tf.nn.softmax(logits / result.temperature)
        np.testing.assert_allclose(saved["probabilities"][:5], expected, atol=1e-5)


def test_the_manifest_contains_the_ood_threshold(evaluated) -> None:
    details = evaluated[0].details["ood"]
    assert details["score"] == SCORE and np.isfinite(details["threshold"])
    assert details["validation_fraction"] >= 0.95


@pytest.mark.parametrize("strategy", ["head", "top"])
def test_the_scores_of_cached_features_are_those_of_the_complete_model(
    dataset, trained, strategy
) -> None:
    """The detector of `top` is fitted to cached levels below the cut and new features above it."""
    model, manifest = load_model(trained.candidates[strategy])
    detector = OodDetector.read(trained.candidates[strategy], manifest.ood_detector)
    assert detector is not None and len(detector.layers) > 1
    runner = build_runner(model, manifest.preprocessing, detector)
    (validation,) = predict(runner, dataset, ["validation"], 32)
    # Features are cached in float16.
    np.testing.assert_allclose(validation.ood_scores, detector.validation_scores, atol=0.01)


def test_the_report_shows_errors_with_their_evidence(evaluated) -> None:
    data = ReportData.model_validate_json((evaluated[1] / ReportData.file_name).read_bytes())
    assert data.gallery and data.gallery_note.startswith("Explained at")
    for item in data.gallery:
        assert item.image.startswith("data:image/webp;base64,")
        assert item.overlay.startswith("data:image/webp;base64,")
    assert len({model.strategy for model in data.models}) == 2


def test_equal_inputs_give_an_equal_verdict_and_no_champion_yet(
    evaluated, dataset, trained, tmp_path
) -> None:
    folders = list(trained.candidates.values())
    location = str(tmp_path / "models" / "shapes")
    again = evaluate(folders, dataset, tmp_path / "e", UNCHECKED, location)
    assert again.digest == evaluated[0].digest
    assert again.verdict == "accepted" and again.details["champion"] is None
    assert any("no champion yet" in check.received for check in again.checks)


def with_slices(dataset: Path, folder: Path) -> Path:
    """Copy a dataset, with cameras that alternate from image to image."""
    shutil.copytree(dataset, folder)
    data = DatasetManifest.read(dataset)
    splits = {}
    for split, info in data.splits.items():
        numbered = enumerate(read_split(dataset, split))
        records = [one._replace(slices=(f"camera {k % 2}",)) for k, one in numbered]
        write_records(folder / "all.tfrecord", records)
        file = (folder / "all.tfrecord").rename(folder / f"{split}.tfrecord")
        shard = Shard(file=file.name, count=len(records), sha256=digest_file(file))
        splits[split] = info.model_copy(update={"shards": [shard]})
    changed = {"splits": splits, "slices": {"camera": {"camera 0": 1, "camera 1": 1}}}
    data.model_copy(update=changed).write(folder)
    return folder


def check_optional_results(result: EvaluationManifest, folder: Path) -> None:
    """Compare the results of slices, sets, abstention and corruptions with the predictions."""
    with np.load(folder / "predictions.npz") as saved:
        probabilities, labels = saved["probabilities"].astype(float), saved["true_labels"]
    correct = probabilities.argmax(axis=1) == labels
    by_camera = {one["value"]: one for one in result.details["slices"]}
    for k in range(2):
        found = by_camera[f"camera {k}"]
        assert (found["correct"], found["images"]) == (correct[k::2].sum(), len(correct[k::2]))
    thresholds = ServedThresholds.of(result.details)
    inside, abstains = thresholds.label_sets(probabilities), thresholds.abstains(probabilities)
    assert inside is not None and abstains is not None
    sets, abstention = result.details["prediction_sets"], result.details["abstention"]
    assert sets["scores"] == abstention["scores"] == "out-of-fold"
    assert sets["covered"] == inside[np.arange(len(labels)), labels].sum()
    assert (abstention["accepted"], abstention["correct"]) == (
        (~abstains).sum(), correct[~abstains].sum(),
    )  # fmt: skip
    corruptions = result.details["corruptions"]
    assert len(corruptions) == 15 and {one["images"] for one in corruptions} == {7}
    assert len({one["clean_accuracy"] for one in corruptions}) == 1


def test_a_rejected_model_has_a_report_too(dataset, trained, tmp_path) -> None:
    ood = tmp_path / "ood"
    ood.mkdir()
    random = np.random.default_rng(0)
    for k in range(6):
        noise = tf.constant(random.integers(0, 256, (40, 40, 3), np.uint8))
        (ood / f"{k}.png").write_bytes(tf.io.encode_png(noise).numpy())
    (ood / "broken.png").write_bytes(b"not an image")
    chosen = {"coverage": 0.8, "abstain_precision": 0.4, "corruption_images": 7}
    wanted = {"min_accuracy": 0.9999, "min_accuracy_by_slice": 0.05, "ood_images": str(ood)}
    options = UNCHECKED.model_copy(update=chosen | wanted)
    data = with_slices(dataset, tmp_path / "sliced")
    result = evaluate([trained.candidates["head"]], data, tmp_path / "e", options)
    assert result.verdict == "rejected"
    assert [check.name for check in result.checks if not check.passed] == ["accuracy"]
    page = (tmp_path / "e" / "report.html").read_text()
    assert "Rejected" in page
    for section in ("slices", "corruptions", "prediction-sets", "abstention"):
        assert f'id="{section}"' in page
    check_optional_results(result, tmp_path / "e")
    # OOD images were measured, except the one that cannot be decoded.
    assert result.details["ood"]["ood_images"] == 6
    # Noise is none of the shapes, on which the model was trained.
    assert result.metrics["ood_auroc"] > 0.95
    assert result.details["ood"]["rejected_fraction"] > 0.9
    assert result.details["ood"]["test_fraction"] > 0.5


def test_a_significantly_worse_model_is_rejected(dataset, trained, tmp_path, publish):
    publish(1, correct=False)
    folder = publish(2, correct=True).parent
    publish(10, correct=True)
    candidate, options = [trained.candidates["head"]], UNCHECKED
    result = evaluate(candidate, dataset, tmp_path / "e", options, str(folder))
    comparison = result.details["champion"]
    assert comparison["name"] == "shapes version 10" and comparison["champion_accuracy"] == 1.0
    # The champion makes no errors, so each error of the candidate is a loss.
    significant = 0.5 ** comparison["losses"] < 0.05
    assert (result.verdict == "rejected") == significant
    report = (tmp_path / "e" / "report.html").read_text()
    assert "Against shapes version 10" in report


@pytest.mark.parametrize("bucket", ["s3"], indirect=True)
def test_the_champion_may_be_in_a_bucket(dataset, trained, tmp_path, publish, bucket) -> None:
    files, path = open_store_uri(f"{bucket}/shapes")
    folders = list(trained.candidates.values())
    for version in (1, 2):
        folder = publish(version, correct=version == 1)
        for file in folder.rglob("*"):
            if file.is_file():
                files.put_file(str(file), f"{path}/{version}/{file.relative_to(folder)}")
    files.pipe_file(f"{path}/labels.json", b'{"stable": 1}')
    result = evaluate(folders, dataset, tmp_path / "out", GateOptions(), f"{bucket}/shapes")
    comparison = result.details["champion"]
    assert (comparison["name"], comparison["champion_accuracy"]) == ("shapes version 1", 1.0)


def test_a_single_version_can_be_the_champion(dataset, trained, tmp_path, publish):
    weak = publish(1, correct=False)
    publish(2, correct=True)
    options = GateOptions(champion_policy="better")
    result = evaluate([trained.candidates["top"]], dataset, tmp_path / "e", options, str(weak))
    assert result.details["champion"]["name"] == "shapes version 1"
    comparison = result.details["champion"]
    assert comparison["champion_accuracy"] == pytest.approx(1 / 3)
    # By the one-sided exact test of scipy.
    wins, losses = comparison["wins"], comparison["losses"]
    significant = binomtest(wins, wins + losses, alternative="greater").pvalue < 0.05
    (check,) = [check for check in result.checks if check.name == "champion"]
    assert check.passed == significant
    assert (result.verdict == "accepted") == all(check.passed for check in result.checks)


def changed(candidate: Path, out: Path, **changes) -> Path:
    shutil.copytree(candidate, out)
    ModelManifest.read(candidate).model_copy(update=changes).write(out)
    return out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ["square", "cross", "circle"]}, "expected the classes"),
        ({"dataset_digest": "0" * 64}, "expected training on dataset"),
        ({"kind": "head"}, "expected a complete candidate"),
        ({"digest": "0" * 64}, "expected digest"),
    ],
)
def test_candidates_that_do_not_match_the_dataset_are_an_error(
    dataset, trained, tmp_path, changes, message
) -> None:
    candidate = changed(trained.candidates["head"], tmp_path / "changed", **changes)
    with pytest.raises(InputError, match=message):
        evaluate([candidate], dataset, tmp_path / "e", GateOptions())
    assert not (tmp_path / "e").exists()


def test_a_model_like_a_constant_prediction_is_rejected_by_default(
    dataset, trained, tmp_path, capsys
) -> None:
    model, manifest = load_model(trained.candidates["head"])
    constant = model.get_layer("logits")
    constant.set_weights([0 * constant.kernel.numpy(), np.arange(len(manifest.classes))])
    folder = tmp_path / "constant"
    folder.mkdir()
    changed = {"digest": save_model(model, folder), "head": manifest.head | {"refit": None},
               "ood_detector": None}  # fmt: skip
    manifest.model_copy(update=changed).write(folder)
    result = evaluate([folder], dataset, tmp_path / "e", GateOptions())
    assert result.verdict == "rejected"
    (check,) = (check for check in result.checks if not check.passed)
    assert check.name == "baseline"
    assert result.metrics["objective_score_low"] < result.metrics["constant_score"]
    lines = capsys.readouterr().out.splitlines()
    (failed,) = (line for line in lines if "evaluate: baseline" in line)
    assert "of always predicting" in failed
    (passed,) = (line for line in lines if "evaluate: recall floor" in line)
    assert "(" not in passed and len(passed.removeprefix("[regraft] ")) <= 80


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"min_recall_by_class": {"star": 0.5}},
            r"min_recall_by_class: expected names among .* got \['star'\]",
        ),
        ({"min_accuracy_by_slice": 0.9}, "min_accuracy_by_slice: expected a dataset with slices"),
    ],
)
def test_a_minimum_of_an_unknown_class_or_slice_is_an_error(
    dataset, trained, tmp_path, options, message
):
    with pytest.raises(InputError, match=message):
        evaluate([trained.candidates["head"]], dataset, tmp_path / "e", GateOptions(**options))
