"""Models in this process: where they are loaded from, what images they take, and errors."""

from __future__ import annotations

import io
import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import regraft
from regraft.model_folder import find_served_folder
from regraft.suggestion.ranking import suggest_images
from regraft_client.grpc import GrpcClient
from regraft_core.formats.manifests.evaluation import Check
from regraft_core.formats.manifests.saved_model import SavedModelManifest
from regraft_core.formats.options.export import ExportOptions
from regraft_core.formats.request_log import read_request_log
from regraft_core.runtime.errors import InputError
from tests.components.export.building import CLASSES, FORMATS, Built, build, image
from tests.exported_model import exported_once

__all__ = ["exported_once"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="module")
def exported(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that may be served with OpenVINO, too."""
    from components.export.export import export

    out = tmp_path_factory.mktemp("exported") / "saved_model"
    options = ExportOptions(serving_engine="openvino")
    export(built.candidate, built.evaluation, built.dataset, out, options)
    return out


@pytest.fixture(scope="module")
def destination(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of published models with `pets`: version 1 is stable, 2 is newer."""
    base = tmp_path_factory.mktemp("models")
    for version in ("1", "2"):
        shutil.copytree(exported, base / "pets" / version)
    (base / "pets" / "labels.json").write_text('{"stable": 1}')
    return base


@pytest.fixture(scope="module")
def model(exported: Path) -> regraft.Model:
    return regraft.load(exported)


def png(picture: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", **options)
    return buffer.getvalue()


def assert_same(model: regraft.Model, images: list[Any], abs_: float = 1e-6) -> None:
    first, *others = model.predict(images)
    for other in others:
        assert other.label == first.label
        assert other.probabilities == pytest.approx(first.probabilities, abs=abs_)


def test_predictions_are_those_of_the_server(
    model: regraft.Model, exported: Path, tmp_path: Path
) -> None:
    images = [image(number, kind) for number, kind in enumerate(FORMATS * 3)]
    here = model.predict(images)
    assert len({prediction.label for prediction in here}) > 1
    assert {prediction.familiar for prediction in here} <= {True, False}
    assert {prediction.abstain for prediction in here} == {True, False}
    log = tmp_path / "log"
    with regraft.serve(
        exported, request_log=log, sample=1.0, log_images=True, serving_engine="tf"
    ) as server:
        assert server.models == ("regraft",)
        with GrpcClient(server.grpc, "regraft") as client:
            served = client.predict(images)
    logged = list(read_request_log(log))
    assert [one.image for one in logged] == images
    assert [one.answer.predicted for one in logged] == [one.label for one in served]
    assert {len(one.feature_values()) > 1 for one in logged} == {True}
    for mine, theirs in zip(here, served, strict=True):
        assert (mine.label, mine.familiar) == (theirs.label, theirs.familiar)
        assert (mine.label_set, mine.abstain) == (theirs.label_set, theirs.abstain)
        assert mine.label_set is not None and any(mine.label_set)
        assert mine.probabilities == pytest.approx(theirs.probabilities, abs=1e-6)
        assert mine.confidence == max(mine.probabilities)


def test_a_candidate_predicts_with_the_same_preprocessing(
    model: regraft.Model, built: Built
) -> None:
    images = [image(number) for number in range(8)]
    candidate = regraft.load(built.candidate)
    assert (candidate.classes, candidate.image_px) == (model.classes, model.image_px)
    for trained, exported in zip(candidate.predict(images), model.predict(images), strict=True):
        assert trained.label == exported.label
        assert (trained.familiar, trained.label_set, trained.abstain) == (None, None, None)
        logits = np.log(trained.probabilities) / 1.7  # the temperature of the evaluation
        expected = np.exp(logits) / np.exp(logits).sum()
        assert exported.probabilities == pytest.approx(expected, abs=1e-5)


def test_unlabeled_images_are_ranked_by_what_the_model_predicts(
    model: regraft.Model, exported: Path, built: Built, exported_once: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "unlabeled"
    (folder / "more").mkdir(parents=True)
    for number in range(7):
        (folder / "more" / f"{number}.png").write_bytes(image(number))
    (folder / "copy.png").write_bytes(image(3))
    (folder / "broken.png").write_bytes(image(0)[:50])
    done: list[int] = []
    found = suggest_images(exported, folder, 5, lambda files, total: done.append(files))
    assert (len(found.images), found.candidates, done) == (5, 7, [9])
    assert [path for path, _ in found.refused] == [str(folder / "broken.png")]
    predictions = model.predict([one.path for one in found.images])
    for one, expected in zip(found.images, predictions, strict=True):
        first, second, *_ = sorted(expected.probabilities, reverse=True)
        assert (one.predicted, one.familiar) == (expected.label, expected.familiar)
        assert one.uncertainty == pytest.approx(1 - first + second, abs=1e-4)
    familiar = [one.familiar for one in found.images]
    assert familiar == sorted(familiar, reverse=True)
    with pytest.raises(InputError, match="expected an exported model, got a candidate"):
        suggest_images(built.candidate, folder, 5)
    with pytest.raises(InputError, match="an earlier version has exported it"):
        suggest_images(exported_once, folder, 5)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"text")
    with pytest.raises(
        InputError, match=r"bad: expected an image that the model can read; .*a\.png"
    ):
        suggest_images(exported, tmp_path / "bad", 5)


def test_a_verified_model_is_computed_by_openvino(
    built: Built, exported: Path, model: regraft.Model, tmp_path: Path
) -> None:
    images = [image(number, kind) for number, kind in enumerate(FORMATS)]
    found = regraft.load(exported, "openvino").predict(images)
    for prediction, expected in zip(found, model.predict(images), strict=True):
        assert prediction.label == expected.label
        assert prediction.probabilities == pytest.approx(expected.probabilities, abs=1e-5)
        assert prediction.familiar == expected.familiar
    assert [one.probabilities for one in found] != [
        one.probabilities for one in model.predict(images)
    ]
    other = Path(shutil.copytree(exported, tmp_path / "other"))
    manifest = SavedModelManifest.read(other)
    manifest.model_copy(update={"serving_engines": ["tf"]}).write(other)
    for folder, engine, reason in (
        (other, "openvino", "it was not verified with OpenVINO; run it with --serving-engine"),
        (built.candidate, "openvino", "serving-engine: expected tf for a candidate, got openvino"),
        (exported, "onnx", "serving-engine: expected auto, tf, openvino, got onnx"),
    ):
        with pytest.raises(InputError, match=reason):
            regraft.load(folder, engine)


def test_facts_of_a_model(model: regraft.Model, exported: Path) -> None:
    assert model.path == str(exported)
    assert model.classes == tuple(CLASSES)
    assert model.image_px == 32
    assert model.metrics["test_accuracy"] == 0.9


def test_one_image_or_several(model: regraft.Model, tmp_path: Path) -> None:
    data = image(1)
    (tmp_path / "a.png").write_bytes(data)
    array = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    for one in (data, str(tmp_path / "a.png"), tmp_path / "a.png", Image.fromarray(array), array,
                bytearray(data), memoryview(data)):  # fmt: skip
        assert len(model.predict(one)) == 1
        assert_same(model, [data, one])
    assert len(model.predict(np.stack([array, array, array]))) == 3
    assert len(model.predict(data for _ in range(5))) == 5
    assert model.predict([]) == []


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_pil_images_are_predicted_as_their_png_file(model: regraft.Model, mode: str) -> None:
    picture = Image.open(io.BytesIO(image(3))).convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    converted = picture.convert("L").convert("I").point(lambda v: v * 257).convert("I;16") \
        if mode == "I;16" else picture.convert(mode)  # fmt: skip
    assert_same(model, [png(converted), converted])


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "PA"])
def test_other_modes_become_rgb(model: regraft.Model, mode: str) -> None:
    picture = Image.open(io.BytesIO(image(3))).convert("RGB")
    converted = picture.convert(mode)
    assert_same(model, [png(converted.convert("RGB")), converted])


def test_the_orientation_of_pil_images_is_honored(model: regraft.Model, tmp_path: Path) -> None:
    upright = Image.open(io.BytesIO(image(5))).convert("RGB").resize((48, 36))
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.jpg"
    upright.rotate(90, expand=True).save(path, exif=exif, quality=100, subsampling=0)
    assert_same(model, [path, Image.open(path)], abs_=1e-4)
    with_exif, plain = model.predict([Image.open(path), np.asarray(Image.open(path))])
    assert with_exif.probabilities != pytest.approx(plain.probabilities, abs=1e-3)


def test_arrays_are_gray_rgb_or_rgba(model: regraft.Model) -> None:
    picture = Image.open(io.BytesIO(image(4))).convert("RGB")
    gray = np.asarray(picture.convert("L"))
    assert_same(model, [png(picture.convert("L")), gray, gray[..., np.newaxis],
                        gray.repeat(3).reshape(*gray.shape, 3)])  # fmt: skip
    transparent = np.dstack([np.asarray(picture), gray])
    assert_same(model, [png(Image.fromarray(transparent)), transparent])
    assert_same(model, [np.asarray(picture), np.asarray(picture).astype(np.int64),
                        np.asarray(picture)[:, ::-1][:, ::-1]])  # fmt: skip


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((8, 8, 3), np.float32), r"image 1: expected an array of whole numbers 0 to 255, "
         r"got float32; convert it"),
        (np.zeros((8, 8), bool), "got bool"),
        (np.full((8, 8), 256, np.uint16), "got 256 to 256"),
        (np.full((8, 8), -1), "got -1 to -1"),
        (np.zeros((3, 8, 8), np.uint8), r"got shape \[3, 8, 8\]"),
        (np.zeros((8, 0, 3), np.uint8), r"got shape \[8, 0, 3\]"),
        (np.zeros(8, np.uint8), r"got shape \[8\]"),
        (Image.new("F", (8, 8)), "image 1: expected a PIL image of 8 bits per channel, got mode F"),
        (b"", "image 1: expected an image as JPEG, PNG, GIF, BMP or WebP, got other bytes"),
        (image(1)[:80], r"image 1: [^\[{]*$"),
        ("missing.png", "missing.png: cannot read the file: No such file"),
        (Path(__file__).parent, "expected an image file, got a folder"),
        (7, "image 1: expected a path, bytes, a PIL image or an array, got int"),
        (None, "got NoneType"),
    ],
)  # fmt: skip
def test_an_image_that_cannot_be_read_is_named(
    model: regraft.Model, bad: Any, message: str
) -> None:
    with pytest.raises(regraft.ImageError, match=message):
        model.predict([image(0), bad, image(2)])
    results = list(model.predict_iter([image(0), bad, image(2)], errors="return"))
    assert [isinstance(result, regraft.ImageError) for result in results] == [False, True, False]
    assert isinstance(results[1], InputError)
    assert results[0] == model.predict([image(0), image(2)])[0]


def test_predictions_before_a_bad_image_are_returned(model: regraft.Model) -> None:
    found = model.predict_iter([image(0), image(1), b"", image(2)], batch_size=3)
    assert [next(found).label, next(found).label]
    with pytest.raises(regraft.ImageError, match="image 2"):
        next(found)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": 7}, "images: expected a path"),
        ({"images": None}, "got NoneType"),
        ({"images": [], "batch_size": 0}, "batch_size: expected 1 or more, got 0"),
        ({"images": [], "errors": "ignore"}, "errors: expected 'raise' or 'return'"),
    ],
)
def test_bad_arguments_are_input_errors(
    model: regraft.Model, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        list(model.predict_iter(**arguments))


def test_a_generator_without_end_is_read_as_predictions_are_taken(model: regraft.Model) -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield image(taken % 5)

    labels = [found.label for found in itertools.islice(model.predict_iter(endless(), 2), 10)]
    assert labels[:5] == labels[5:]
    assert taken <= 10 + 3 * 2


def test_the_batch_size_does_not_change_predictions(model: regraft.Model) -> None:
    images = [image(number) for number in range(7)]
    by_one, together = model.predict(images, batch_size=1), model.predict(images, batch_size=5)
    for one, other in zip(by_one, together, strict=True):
        assert one.label == other.label
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)


def test_published_models_and_versions(destination: Path) -> None:
    from regraft.model_folder import find_model_folder

    stable = destination / "pets" / "1"
    for place in (destination, destination / "pets", stable, f"file://{stable}"):
        assert find_model_folder(place, destination / "none") == stable
    newer = destination / "pets" / "2"
    assert find_model_folder(newer, destination / "none") == newer
    assert regraft.load(destination).classes == tuple(CLASSES)


def test_a_model_in_a_bucket(destination: Path, s3: None) -> None:
    import fsspec

    store = fsspec.filesystem("s3")
    store.mkdir("models-of-api")
    store.put(str(destination / "pets"), "models-of-api/pets", recursive=True)
    model = regraft.load("s3://models-of-api/pets")
    assert len(model.predict(image(0))) == 1
    with pytest.raises(InputError, match="found no version at s3://models-of-api/none"):
        regraft.load("s3://models-of-api/none")


def damage(folder: Path) -> None:
    path = folder / "variables" / "variables.index"
    path.write_bytes(path.read_bytes() + b"x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (damage, "variables.index is damaged"),
        (lambda folder: (folder / "regraft.json").unlink(), "regraft.json"),
        (lambda folder: (folder / "saved_model.pb").unlink(), "expected a run's folder"),
        (lambda folder: shutil.rmtree(folder), "found nothing at"),
    ],
)
def test_damaged_models_are_input_errors(
    exported: Path, tmp_path: Path, change: Any, message: str
) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "saved_model"))
    change(folder)
    with pytest.raises(InputError, match=message) as caught:
        regraft.load(folder)
    assert "\n" not in str(caught.value)


def test_other_folders_are_input_errors(
    destination: Path, built: Built, exported: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"expected a run's folder, .* got the folder"):
        regraft.load(tmp_path)
    with pytest.raises(InputError, match="found the file"):
        regraft.load(exported / "regraft.json")
    shutil.copytree(destination / "pets", tmp_path / "models" / "cats")
    shutil.copytree(destination / "pets", tmp_path / "models" / "dogs")
    with pytest.raises(InputError, match="expected one model, found cats, dogs; choose one"):
        regraft.load(tmp_path / "models")
    head = Path(shutil.copytree(built.candidate, tmp_path / "head"))
    manifest = json.loads((head / "model.json").read_text())
    (head / "model.json").write_text(json.dumps(manifest | {"kind": "head"}))
    with pytest.raises(InputError, match="expected a complete candidate, got a head"):
        regraft.load(head)
    with (
        pytest.raises(InputError, match="expected an exported model, got a candidate"),
        regraft.serve(built.candidate),
    ):
        pass


def write_summary(folder: Path, built: Built, **changes: Any) -> None:
    check = Check(name="accuracy", expected="at least 0.9", received="0.5", passed=False)
    values = {
        "verdict": "rejected", "reasons": [check.model_dump()], "strategy": "head",
        "model_version": None, "saved_model": None, "published": None, "metrics": {},
        "parity": {}, "timings": {}, "report": "r.html", "dataset_digest": "d",
        "dataset": str(built.dataset), "evaluation": str(built.evaluation),
    }  # fmt: skip
    folder.mkdir()
    (folder / "summary.json").write_text(json.dumps(values | changes))


def test_a_rejected_run_names_its_candidate(built: Built, tmp_path: Path) -> None:
    write_summary(tmp_path / "run", built)
    with pytest.raises(InputError, match=r"the gate rejected .* \(failed: accuracy\)$"):
        regraft.load(tmp_path / "run")
    with pytest.raises(InputError, match="the gate rejected"):
        find_served_folder(tmp_path / "run")
    candidate = tmp_path / "run" / "steps" / "fine-tune" / "model"
    shutil.copytree(built.candidate, candidate)
    with pytest.raises(InputError, match=rf"to load it anyway: {candidate}$"):
        regraft.load(tmp_path / "run")
    with pytest.raises(InputError, match="the gate rejected"), regraft.serve(tmp_path / "run"):
        pass
    assert regraft.Run.read(tmp_path / "run").model_dir == candidate
    assert len(regraft.load(candidate).predict(image(0))) == 1


def test_a_run_that_published_elsewhere(destination: Path, built: Built, tmp_path: Path) -> None:
    published = str(destination / "pets" / "2")
    write_summary(tmp_path / "run", built, verdict="accepted", published=published, reasons=[])
    model = regraft.load(str(tmp_path / "run"))
    assert model.classes == tuple(CLASSES)
    assert find_served_folder(tmp_path / "run") == destination / "pets"
    assert find_served_folder(destination) == destination
    write_summary(
        tmp_path / "gone", built, verdict="accepted", published=f"{published}0", reasons=[]
    )
    with pytest.raises(InputError, match=f"found nothing at {published}0"):
        regraft.load(tmp_path / "gone")


def test_all_models_of_a_folder_are_served_until_the_end(destination: Path) -> None:
    shutil.copytree(destination / "pets" / "1", destination / "other" / "7")
    try:
        with regraft.serve(destination, serving_engine="tf") as server:
            assert server.models == ("other", "pets")
            for name, version in (("other", 7), ("pets", 1)):
                with GrpcClient(server.grpc, name, version=version) as client:
                    assert len(client.predict([image(0)])) == 1
            port = int(server.grpc.rsplit(":", 1)[1])
            with (
                pytest.raises(InputError, match="is in use"),
                regraft.serve(destination, port=port),
            ):
                pass
    finally:
        shutil.rmtree(destination / "other")
    stable = f"file://{destination / 'pets' / '1'}"
    # The port is free again.
    with regraft.serve(stable, port=port, serving_engine="openvino") as server:
        assert server.models == ("pets",)
        assert server.grpc == f"127.0.0.1:{port}"


def test_the_images_of_a_folder_get_the_features_of_the_reference(
    built: Built, exported: Path, tmp_path: Path
) -> None:
    """The reference of an export is what a server computes for the same images."""
    from regraft.drift.sources import read_image_folder
    from regraft_core.formats.drift_reference import DriftReference
    from regraft_core.formats.records import read_split

    for number, record in enumerate(read_split(built.dataset, "validation")):
        (tmp_path / f"{number}.png").write_bytes(record.encoded)
    (tmp_path / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    found = read_image_folder(tmp_path, exported, CLASSES, 1000)
    reference = DriftReference.read(exported)
    np.testing.assert_allclose(found.observed.features, reference.features, rtol=2e-3, atol=1e-5)
    assert found.observed.predicted.tolist() == reference.predicted.tolist()
    assert found.excluded == {"unreadable": 1}
    some = read_image_folder(tmp_path, exported, CLASSES, 4)
    assert some.excluded["more than --max-images"] == 6
