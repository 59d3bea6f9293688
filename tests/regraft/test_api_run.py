"""The five lines of the README for real: run, load, predict, serve; and a rejected run."""

from __future__ import annotations

import contextlib
import io
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import regraft
from regraft.review.decisions import Decisions
from regraft.review.reviewed_run import find_reviewed
from regraft_client.grpc import GrpcClient
from regraft_client.rest import RestClient
from regraft_core.curation.suspects import Image as ReviewedImage
from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.records import read_split
from regraft_core.runtime.errors import RegraftError
from tests.command_line import Regraft

pytestmark = pytest.mark.long

# The model is no better than a constant prediction, so the default rule is off.
TRAINING = {
    "backbone": "tiny", "strategies": ["head"], "engine": "embedded",
    "baseline_rule": "off", "recall_floor": 0.0,
}  # fmt: skip


@dataclass(frozen=True)
class Runs:
    """A run that was rejected and, in the same folder, one that was accepted."""

    out: Path
    rejected: regraft.Run
    accepted: regraft.Run
    lines: list[str]
    printed: str


@pytest.fixture(scope="module")
def runs(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    out = tmp_path_factory.mktemp("api") / "pets"
    lines: list[str] = []
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        rejected = regraft.run(shapes, out=out, min_accuracy=0.9999, progress=print, **TRAINING)
        assert sys.stdout is printed
    accepted = regraft.run(
        shapes, out=out, min_accuracy=0.0, verify_images=4, model_name="pets",
        progress=lines.append, **TRAINING,
    )  # fmt: skip
    return Runs(out, rejected, accepted, lines, printed.getvalue())


def test_a_rejected_model_is_a_result(runs: Runs) -> None:
    run = runs.rejected
    assert not run.accepted
    assert [check.name for check in run.reasons] == ["accuracy"]
    assert len(run.checks) > 1
    assert (run.version, run.published) == (None, None)
    assert run.report.is_file()
    assert 0 < run.metrics["test_accuracy"] <= 1
    assert run.model_dir is not None
    model = regraft.load(run.model_dir)
    assert model.classes == ("circle", "cross", "square")
    assert set(model.metrics) == {"validation_accuracy", "validation_loss"}


def test_an_accepted_run_is_read_again(runs: Runs) -> None:
    run = runs.accepted
    assert (run.accepted, run.reasons, run.version) == (True, (), 1)
    assert run.published == str(runs.out / "models" / "pets" / "1") == str(run.model_dir)
    assert run.strategy == "head"
    assert DatasetManifest.read(run.dataset).classes == ["circle", "cross", "square"]
    assert {"resolve", "evaluate", "publish"} <= set(run.timings)
    assert run.summary["verdict"] == "accepted"
    assert regraft.Run.read(runs.out) == run


def test_progress_goes_to_the_caller(runs: Runs) -> None:
    assert "publish: version 1" in " ".join(runs.lines)
    printed = runs.printed.splitlines()
    assert printed[0].startswith("no recipe: backbone tiny, image px 64")
    assert any(line.endswith("evaluate: rejected") for line in printed)
    assert "finished with status" not in runs.printed  # kfp's own output is in the log
    assert "finished with status" in (runs.out / "run.log").read_text()


def test_the_example(runs: Runs, shapes: Path) -> None:
    path = shapes / "circle" / "000.png"
    some_bytes, pil_image = path.read_bytes(), Image.open(path)
    numpy_array = np.asarray(pil_image)
    model = regraft.load(runs.out)
    assert model.image_px == 64  # the option that `regraft init` writes for the folder
    found = model.predict([path, some_bytes, pil_image, numpy_array])
    assert len({prediction.label for prediction in found}) == 1
    for prediction in found[1:]:
        assert prediction.probabilities == pytest.approx(found[0].probabilities, abs=1e-6)
    with regraft.serve(runs.out) as server:
        assert server.models == ("pets",)
        assert server.url == f"http://{server.rest}"
        assert server.rest.startswith("127.0.0.1:")
        with RestClient(server.rest, "pets") as rest, GrpcClient(server.grpc, "pets") as grpc:
            for client in (rest, grpc):
                [served] = client.predict([some_bytes])
                assert served.label == found[0].label
                assert served.familiar == found[0].familiar
                assert served.probabilities == pytest.approx(found[0].probabilities, abs=1e-6)


def test_a_moved_run_keeps_its_model_and_report(runs: Runs, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(runs.out, moved, ignore=shutil.ignore_patterns("work", ".cache"))
    run = regraft.Run.read(moved)
    assert run.published == str(moved / "models" / "pets" / "1")
    assert run.report.is_relative_to(moved)
    assert run.report.is_file()
    assert regraft.load(run).classes == regraft.load(runs.out).classes


def test_the_next_run_applies_the_decisions_of_a_review(
    runs: Runs, shapes: Path, tmp_path: Path
) -> None:
    reviewed = find_reviewed(runs.out)
    first, *_ = read_split(reviewed.dataset, "train")
    old, new = (reviewed.data.classes[k] for k in (first.label, first.label - 1))
    path = tmp_path / "fixes.csv"
    known = {first.id: old, "0" * 64: old}
    decisions = Decisions(path, known, reviewed.data.classes, "ann", reviewed.fixes)
    decisions.decide(first.id, "relabel", new)
    decisions.decide("0" * 64, "drop")  # of an image that is gone
    lines: list[str] = []
    run = regraft.run(shapes, out=tmp_path / "fixed", min_accuracy=0.9999, fixes=path,
                      progress=lines.append, **TRAINING)  # fmt: skip
    applied = DatasetManifest.read(run.dataset).fixes
    assert applied is not None
    assert (applied.relabeled, applied.unknown, applied.reviewers) == (1, 1, {"ann": 2})
    assert any("fixes: 1 are of images that are not in the sources" in line for line in lines)
    assert "by ann" in (run.dataset / "data_card.html").read_text()
    after = find_reviewed(run)
    images = [one for split in ("train", "validation") for one in read_split(after.dataset, split)]
    (changed,) = [one for one in images if one.id == first.id]
    assert after.data.classes[changed.label] == new
    assert after.is_settled(ReviewedImage(first.id, changed.path, new))


def test_predict_without_a_server_is_as_with_one(
    runs: Runs, shapes: Path, tmp_path: Path, regraft: Regraft
) -> None:
    shutil.copytree(shapes / "cross", tmp_path / "images")
    (tmp_path / "images" / "z.png").write_bytes(b"no image")
    here = regraft("predict", tmp_path / "images", "--model-dir", runs.out, "--json")
    assert here.code == 2
    assert "1 of 41 images were refused" in here.err
    import regraft as api

    with api.serve(runs.out) as server:
        served = regraft(
            "predict", tmp_path / "images", "--server", f"grpc://{server.grpc}",
            "--model", "pets", "--json",
        )  # fmt: skip
    assert served.code == here.code
    for mine, theirs in zip(here.json, served.json, strict=True):
        assert mine.keys() == theirs.keys()
        assert mine["path"] == theirs["path"]
        if "error" in mine:
            assert mine["error"] == theirs["error"]
        else:
            assert (mine["label"], mine["familiar"]) == (theirs["label"], theirs["familiar"])
            assert mine["probabilities"] == pytest.approx(theirs["probabilities"], abs=1e-6)


def test_unusable_data_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "images" / "one.png")
    with pytest.raises(regraft.InputError, match="class") as caught:
        regraft.run(
            tmp_path / "images", out=tmp_path / "run", progress=lambda line: None, **TRAINING
        )
    assert isinstance(caught.value, RegraftError)
    with pytest.raises(regraft.InputError, match="did not finish"):
        regraft.load(tmp_path / "run")
