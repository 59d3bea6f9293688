"""The export step: writes the accepted candidate as a SavedModel that accepts encoded images."""

from __future__ import annotations

import math
import os
import platform
from dataclasses import asdict
from itertools import islice
from typing import Any

import keras
import tensorflow as tf

from components.export.formats import FILES, write_formats
from components.export.int8 import Int8Test
from components.export.model_card import model_card
from components.export.openvino_network import write_for_openvino
from components.export.reference import write_reference
from components.export.signatures import SIGNATURES, OodRule, Postprocessing, build_archive
from components.export.warmup import write_warmup
from regraft_core.formats.fingerprint import LABELS_FILE, MODEL_CARD_FILE, write_fingerprint
from regraft_core.formats.manifest_storage import MadeBy, staged_folder
from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.manifests.evaluation import EvaluationManifest
from regraft_core.formats.manifests.model import ModelManifest
from regraft_core.formats.manifests.saved_model import SavedModelManifest
from regraft_core.formats.options.export import ExportOptions
from regraft_core.formats.records import read_split
from regraft_core.formats.served_thresholds import ServedThresholds
from regraft_core.runtime.errors import DataError, InputError, RejectedError
from regraft_core.runtime.gpu_setup import GpuSetup, set_up_gpus
from regraft_core.runtime.out_of_memory import explain_out_of_memory
from regraft_core.runtime.step_reports import Clock, log_progress
from regraft_core.runtime.version import VERSION
from regraft_core.training.heads import features_layer
from regraft_core.training.linear_head.refitted_head import RefittedHead
from regraft_core.training.model_files import load_model
from regraft_core.training.ood_detector import OodDetector

_OUTPUTS = "`label` string [n], `confidence` float [n], `probabilities` float [n, classes]"
_OOD_OUTPUTS = ", `familiar` bool [n], `familiarity` float [n]"
_SELECTED_OUTPUT = (
    ", `selected` bool [n, classes], the labels whose probability reaches their threshold"
)
_SET_OUTPUT = ", `label_set` bool [n, classes], the labels in the prediction set"
_ABSTAIN_OUTPUT = ", `abstain` bool [n]"
_ERROR = ", and `error` string [n], the reason why an image is invalid, or empty"


@explain_out_of_memory()
def export(
    model: str | os.PathLike[str],
    evaluation: str | os.PathLike[str],
    dataset: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: ExportOptions | None = None,
) -> SavedModelManifest:
    """Export the candidate that the evaluation accepted.

    `out` becomes a SavedModel folder with the signatures of `signatures.py`, `assets/labels.txt`,
    warm-up requests, the drift reference, `model_card.md`, `fingerprint` and `regraft.json`.

    Args:
        model: folder of the chosen candidate.
        evaluation: folder of the verdict.
        dataset: the dataset, for the images of the warm-up.
        out: the folder to create.
        options: batch size of the warm-up, and additional formats.

    Raises:
        RejectedError: the verdict is not `accepted`.
        InputError: candidates, evaluation and dataset do not match.
    """
    clock, options = Clock(), options or ExportOptions()
    set_up_gpus(GpuSetup.of(options, tf32=False))
    verdict = EvaluationManifest.read(evaluation)
    if verdict.verdict != "accepted":
        raise RejectedError("export: expected an accepted model, got a rejected one")
    trained, manifest = load_chosen(model, verdict)
    check_dataset(dataset, verdict)
    postprocessing = Postprocessing(
        preprocessing=manifest.preprocessing,
        classes=tuple(manifest.classes),
        temperature=verdict.temperature,
        ood=ood_rule(model, manifest, verdict),
        thresholds=ServedThresholds.of(verdict.details),
    )
    log_progress("export: writing the SavedModel")
    with staged_folder(out) as folder:
        built = build_archive(trained, features_layer(manifest.head), postprocessing)
        built.archive.write_out(folder, verbose=False)
        labels = folder / LABELS_FILE
        labels.parent.mkdir(exist_ok=True)
        labels.write_text("".join(f"{name}\n" for name in manifest.classes), encoding="utf-8")
        validation = [
            record.encoded
            for record in islice(read_split(dataset, "validation"), options.warmup_batch_size)
        ]
        if not validation:
            raise DataError(f"{dataset}: expected images in the validation split, found none")
        px = manifest.preprocessing.image_px
        write_warmup(folder, validation, px, options.warmup_batch_size)
        formats = write_formats(folder, trained, postprocessing, options, validation[:7], dataset)
        exported = _describe(verdict, manifest, postprocessing, formats)
        refitted = RefittedHead.of_candidate(model, manifest)
        reference = write_reference(
            folder, built, postprocessing, dataset, options.drift_images, refitted
        )
        exported = exported.model_copy(update={"drift_reference": reference})
        if options.serving_precision == "bfloat16":
            exported = exported.model_copy(update={"serving_precisions": ["float32", "bfloat16"]})
        if options.serving_engine == "openvino" and write_for_openvino(folder, built.network):
            exported = exported.model_copy(update={"serving_engines": ["tf", "openvino"]})
        card = model_card(exported, manifest, verdict)
        (folder / MODEL_CARD_FILE).write_text(card, encoding="utf-8")
        exported = exported.model_copy(
            update={
                "digest": write_fingerprint(folder),
                "made_by": MadeBy(step="export", version=VERSION, seconds=clock.seconds),
            }
        )
        exported.write(folder)
    log_progress(f"export: {manifest.strategy} with {len(SIGNATURES)} signatures")
    return exported


def load_chosen(
    folder: str | os.PathLike[str], evaluation: EvaluationManifest
) -> tuple[keras.Model, ModelManifest]:
    """Load the candidate that the evaluation chose, after checking its digest.

    Raises:
        InputError: it is another model, or its classes differ.
    """
    digest = ModelManifest.read(folder).digest
    if digest != evaluation.model_digest:
        raise InputError(
            f"expected the chosen model {evaluation.model_digest[:12]}, got {digest[:12]}"
        )
    model, manifest = load_model(folder)
    if manifest.kind != "candidate":
        raise InputError(f"expected a complete candidate, got a {manifest.kind}")
    if manifest.classes != evaluation.classes:
        raise InputError(f"expected the classes {evaluation.classes}, got {manifest.classes}")
    return model, manifest


def check_dataset(dataset: str | os.PathLike[str], evaluation: EvaluationManifest) -> None:
    """Check that the evaluation used `dataset`.

    Raises:
        InputError: it used another one.
    """
    digest = DatasetManifest.read(dataset).digest
    if digest != evaluation.dataset_digest:
        raise InputError(
            f"expected the dataset {evaluation.dataset_digest[:12]}, got {digest[:12]}"
        )


def ood_rule(
    folder: str | os.PathLike[str], model: ModelManifest, evaluation: EvaluationManifest
) -> OodRule | None:
    """Return the model's OOD detector with the threshold that the evaluation set, or None."""
    detector, ood = OodDetector.read(folder, model.ood_detector), evaluation.details.get("ood")
    if detector is None or not ood or not math.isfinite(float(ood["threshold"])):
        return None
    return OodRule(detector, float(ood["threshold"]))


def _describe(
    evaluation: EvaluationManifest,
    model: ModelManifest,
    postprocessing: Postprocessing,
    formats: dict[str, float | Int8Test],
) -> SavedModelManifest:
    """Return the manifest without its digest and duration."""
    thresholds = postprocessing.thresholds
    outputs = _OUTPUTS + (_OOD_OUTPUTS if postprocessing.ood is not None else "")
    outputs += _SELECTED_OUTPUT if thresholds.by_label is not None else ""
    outputs += _SET_OUTPUT if thresholds.set_probability is not None else ""
    outputs += _ABSTAIN_OUTPUT if thresholds.accepted_confidence is not None else ""
    details: dict[str, Any] = {
        "verdict": evaluation.verdict,
        **_describe_formats(formats),
        "evaluation_notes": evaluation.notes,
        "ood": evaluation.details.get("ood"),
        **{
            name: evaluation.details[name]
            for name in ("labels", "prediction_sets", "abstention")
            if name in evaluation.details
        },
        "signatures": {
            "serving_default": "`image_bytes` string [n], images of any size, to "
            f"{outputs}{_ERROR}",
            "images": f"`images` float [n, height, width, 3] in 0..255, to {outputs}",
            "classify": "`inputs`, tf.Example with `image/encoded`, to `classes` and `scores` "
            "[n, classes], for the Classify API",
            "features": "`image_bytes` string [n] to `features` float [n, width], the pooled "
            f"features, {outputs}{_ERROR}",
            "images_features": "`images`, to `features` and the outputs of `images`",
        },
    }
    return SavedModelManifest(
        digest="",
        made_by=MadeBy(step="export", version=VERSION, seconds=0.0),
        model_digest=model.digest,
        evaluation_digest=evaluation.digest,
        dataset_digest=evaluation.dataset_digest,
        strategy=model.strategy,
        backbone=model.backbone_label,
        weights_digest=model.weights_digest,
        classes=model.classes,
        preprocessing=model.preprocessing,
        temperature=evaluation.temperature,
        metrics=evaluation.metrics,
        checks=evaluation.checks,
        signatures=list(SIGNATURES),
        versions={
            "regraft": VERSION,
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        },
        details=details,
    )


def _describe_formats(formats: dict[str, float | Int8Test]) -> dict[str, Any]:
    """Return the files of the additional formats with their tests, and those left out."""
    files: dict[str, Any] = {}
    left_out: dict[str, Any] = {}
    for name, found in formats.items():
        if isinstance(found, float):
            files[FILES[name]] = {"max_abs_diff": found}
        elif found.passed:
            files[FILES[name]] = asdict(found)
        else:
            left_out[name] = asdict(found)
    return {"formats": files, **({"formats_left_out": left_out} if left_out else {})}
