"""A model for several labels an image, from its candidates to served sets of labels."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser

import regraft
from components.evaluate.evaluate import evaluate
from components.evaluate.report.report_data import PREDICTIONS_FILE, ReportData
from components.export.export import export
from components.export.int8 import is_correct
from components.verify.parity import compare, failure
from components.verify.parity_sample import select_sample
from components.verify.verify import _predict_trained, _send
from regraft.cli.main import main
from regraft.explore.inspection import _head_facts
from regraft_client.grpc import GrpcClient
from regraft_client.rest import RestClient
from regraft_client.results import Prediction
from regraft_core.curation.image_selection import label_uncertainties
from regraft_core.formats.label_arrays import label_array
from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.manifests.evaluation import EvaluationManifest
from regraft_core.formats.manifests.model import ModelManifest
from regraft_core.formats.manifests.saved_model import SavedModelManifest
from regraft_core.formats.options.evaluate import GateOptions
from regraft_core.formats.options.export import ExportOptions
from regraft_core.formats.records import read_split
from regraft_core.formats.served_thresholds import ServedThresholds
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.step_reports import ProgressReporter
from serving.running.runner import Addresses, started_server
from tests.command_line import Regraft
from tests.conftest import CLASSES, Trained

UNCHECKED = GateOptions(baseline_rule="off", recall_floor=0.0)


@dataclass(frozen=True)
class Judged:
    evaluation: Path
    candidate: Path
    exported: Path


@pytest.fixture(scope="module")
def judged(
    several_dataset: Path, several_trained: Trained, tmp_path_factory: pytest.TempPathFactory
) -> Judged:
    out = tmp_path_factory.mktemp("judged")
    evaluate([*several_trained.candidates.values()], several_dataset, out / "evaluation", UNCHECKED)
    chosen = EvaluationManifest.read(out / "evaluation").strategy
    candidate = several_trained.candidates[chosen]
    exported = out / "models" / "shapes" / "1"
    options = ExportOptions(warmup_batch_size=2, drift_images=20)
    export(candidate, out / "evaluation", several_dataset, exported, options)
    return Judged(out / "evaluation", candidate, exported)


@pytest.fixture(scope="module")
def images(several_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    for number, record in enumerate(read_split(several_dataset, "test")):
        (folder / f"{number:02}.png").write_bytes(record.encoded)
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def here(judged: Judged, images: list[Path]) -> list[Prediction]:
    """The predictions of the exported model in this process."""
    return regraft.load(judged.exported).predict(images)


@pytest.fixture(scope="module")
def server(judged: Judged) -> Iterator[Addresses]:
    base = judged.exported.parent
    with started_server(["--model_name=shapes", f"--model_base_path={base}", "--page"]) as found:
        yield found


def test_metrics_are_those_of_the_stored_predictions(judged: Judged, several_dataset: Path) -> None:
    found = EvaluationManifest.read(judged.evaluation)
    thresholds = ModelManifest.read(judged.candidate).thresholds
    assert ServedThresholds.of(found.details).by_label == tuple(thresholds)
    with np.load(judged.evaluation / PREDICTIONS_FILE) as saved:
        selected = saved["probabilities"] >= np.array(thresholds, np.float32)
        true_labels = saved["true_labels"]
    records = list(read_split(several_dataset, "test"))
    expected = label_array(records, DatasetManifest.read(several_dataset))
    np.testing.assert_array_equal(true_labels, expected)
    assert found.metrics["exact_match"] == pytest.approx((selected == true_labels).all(1).mean())
    for row, hits, positives in zip(
        found.per_class, (selected & (true_labels == 1)).sum(0), true_labels.sum(0), strict=True
    ):
        assert row.support == positives and row.recall == pytest.approx(hits / positives)
    report = ReportData.model_validate_json((judged.evaluation / "report.json").read_bytes())
    assert [*report.precision_recall] == [*CLASSES] and not report.gallery
    wrong = int((selected != true_labels).sum())
    assert len(report.label_errors) == wrong or len(report.label_errors) >= 6
    assert all(error.image.startswith("data:image/webp") for error in report.label_errors)


def test_served_labels_are_those_of_the_trained_model(
    judged: Judged, several_dataset: Path, server: Addresses
) -> None:
    verdict, sample = EvaluationManifest.read(judged.evaluation), select_sample(several_dataset, 9)
    cases = _predict_trained(judged.candidate, verdict, sample)
    clients = {"grpc": GrpcClient(server.grpc, "shapes"), "rest": RestClient(server.rest, "shapes")}
    served = {}
    for name, client in clients.items():
        with client:
            encoded = [record.encoded for record in sample]
            served[name] = _send(client, encoded, ProgressReporter("images sent", len(sample)))
    rows = compare(cases, served, ServedThresholds.of(verdict.details))
    assert failure(rows, 1e-4) is None
    true_labels = {row.true_label for row in rows}
    assert any(", " in names for names in true_labels) and "circle" in true_labels


def test_the_same_labels_by_both_protocols_and_in_this_process(
    judged: Judged, images: list[Path], here: list[Prediction], server: Addresses
) -> None:
    encoded = [image.read_bytes() for image in images]
    thresholds = np.array(ModelManifest.read(judged.candidate).thresholds, np.float32)
    for prediction in here:
        probabilities = np.array(prediction.probabilities, np.float32)
        assert prediction.selected == tuple(probabilities >= thresholds)
        assert prediction.label == CLASSES[probabilities.argmax()]
        assert prediction.label_set is None and prediction.abstain is None
    assert {len(one.selected_names(CLASSES)) for one in here} > {1}
    for client in (GrpcClient(server.grpc, "shapes"), RestClient(server.rest, "shapes")):
        with client:
            served = client.predict(encoded)
            scores = client.classify(encoded[:1])
        assert [one.selected for one in served] == [one.selected for one in here]
        assert [score.label for score in scores[0]] == list(CLASSES)
        values = [score.score for score in scores[0]]
        np.testing.assert_allclose(values, here[0].probabilities, atol=1e-6)
    candidate = regraft.load(judged.candidate).predict(images)
    assert [one.selected for one in candidate] == [one.selected for one in here]


def test_predict_prints_all_labels_of_an_image(
    images: list[Path], here: list[Prediction], server: Addresses,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def predict(*options: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["predict", *map(str, images), "--server", f"grpc://{server.grpc}", "--model",
                  "shapes", *options])  # fmt: skip
        assert not ended.value.code
        return capsys.readouterr().out

    expected = [one.selected_names(CLASSES) for one in here]
    rows = json.loads(predict("--json"))
    assert [row["selected"] for row in rows] == expected
    listed = list(csv.DictReader(io.StringIO(predict("--csv"))))
    assert [json.loads(row["selected"]) for row in listed] == expected
    table = predict()
    assert "confidence" not in table
    for image, names in zip(images, expected, strict=True):
        [line] = [line for line in table.splitlines() if image.name in line]
        assert all(name in line for name in names or ["none"])


def test_the_page_and_the_report_show_all_labels_on_a_phone(
    judged: Judged, images: list[Path], here: list[Prediction], server: Addresses, browser: Browser
) -> None:
    index = max(range(len(images)), key=lambda k: sum(here[k].selected or ()))
    names = here[index].selected_names(CLASSES)
    page = browser.new_page(viewport={"width": 360, "height": 640})
    page.goto(f"http://{server.rest}/")
    page.set_input_files("#files", [str(images[index])])
    page.wait_for_selector("#results .bar")
    assert page.inner_text("#results .label") == ", ".join(names)
    assert page.inner_text("#results .meta").startswith(f"{len(names)} of 3 labels")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.goto(judged.evaluation.joinpath("report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.close()


def test_a_model_is_compared_with_the_champion_before_it(
    judged: Judged, several_dataset: Path, several_trained: Trained, tmp_path: Path
) -> None:
    head = [several_trained.candidates["head"]]
    base = judged.exported.parent
    found = evaluate(head, several_dataset, tmp_path / "again", UNCHECKED, str(base))
    champion = found.details["champion"]
    assert champion["champion_map"] == pytest.approx(
        EvaluationManifest.read(judged.evaluation).metrics["mean_average_precision"], abs=1e-3
    )
    assert champion["difference_low"] <= champion["difference"] <= champion["difference_high"]


def test_what_needs_one_label_is_refused(
    judged: Judged, several_dataset: Path, trained: Trained, dataset: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="coverage: not available with several labels"):
        evaluate([judged.candidate], several_dataset, tmp_path / "a", GateOptions(coverage=0.9))
    one_label = shutil.copytree(judged.exported, tmp_path / "models" / "shapes" / "1").parent
    with pytest.raises(InputError, match="predicts several labels an image"):
        evaluate([trained.candidates["head"]], dataset, tmp_path / "b", UNCHECKED, str(one_label))


def test_images_with_an_uncertain_label_are_suggested(
    judged: Judged, images: list[Path], here: list[Prediction], regraft: Regraft, tmp_path: Path
) -> None:
    found = regraft("suggest", judged.exported, images[0].parent, "--count", 3, "--json").json
    thresholds = ModelManifest.read(judged.candidate).thresholds
    names = {str(path): one.selected_names(CLASSES) for path, one in zip(images, here, strict=True)}
    for image in found["images"]:
        assert json.loads(image["predicted"]) == names[image["path"]]
    uncertain = label_uncertainties(np.array([one.probabilities for one in here]), thresholds)
    first = images.index(Path(found["images"][0]["path"]))
    assert uncertain[first] == pytest.approx(uncertain.max(), abs=1e-4)
    assert regraft("suggest", judged.exported, images[0].parent, "--out", tmp_path).code == 0
    with open(tmp_path / "suggested.csv", newline="") as table:
        assert all(row["label"] == "" and json.loads(row["predicted"]) == names[row["path"]]
                   for row in csv.DictReader(table))  # fmt: skip


def test_an_image_is_correct_in_int8_if_all_of_its_labels_are() -> None:
    probabilities = np.array([[0.9, 0.4], [0.9, 0.1], [0.1, 0.1]], np.float32)
    by_label = ServedThresholds(by_label=(0.5, 0.3))
    labels = np.array([[1, 1], [1, 1], [0, 0]], np.uint8)
    assert is_correct(probabilities, labels, by_label).tolist() == [True, False, True]
    assert is_correct(probabilities, np.array([0, 1, 0]), ServedThresholds()).tolist() == [
        True, False, True,
    ]  # fmt: skip


def test_inspect_shows_the_f1_in_cross_validation(several_trained: Trained) -> None:
    facts = _head_facts(ModelManifest.read(several_trained.candidates["head"]))
    assert 0 < facts["cross_validated_macro_f1"] <= 1 and "cross_validated_accuracy" not in facts


def test_the_exported_manifest_and_card_have_the_labels(judged: Judged) -> None:
    manifest = SavedModelManifest.read(judged.exported)
    assert "`selected` bool [n, classes]" in manifest.details["signatures"]["serving_default"]
    assert manifest.drift_reference is not None
    card = (judged.exported / "model_card.md").read_text()
    assert "Mean average precision 0." in card and "average precision | threshold" in card
    assert "predicts one of these classes" not in card
