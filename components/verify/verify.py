"""The verify step: a server's predictions must equal the trained model's, or the run fails."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
import tensorflow as tf

from components.verify.parity import (
    TF32_NOTE,
    ParityCase,
    Predicted,
    compare,
    failure,
    parity_table,
    worst_by_protocol,
)
from components.verify.parity_sample import select_sample
from components.verify.served_variants import (
    BFLOAT16,
    BFLOAT16_TOLERANCE,
    OPENVINO,
    OPENVINO_BFLOAT16,
    OPENVINO_TOLERANCE,
    ServedVariant,
    served_variants,
)
from regraft_client.errors import RegraftClientError
from regraft_client.grpc import GrpcClient
from regraft_client.rest import RestClient
from regraft_client.results import Prediction
from regraft_core.formats.engine_packages import check_engine_package
from regraft_core.formats.fingerprint import check_fingerprint
from regraft_core.formats.label_arrays import label_names, label_text
from regraft_core.formats.manifest_storage import MadeBy, digest_of, staged_folder, write_text
from regraft_core.formats.manifests.evaluation import EvaluationManifest
from regraft_core.formats.manifests.parity import ParityManifest
from regraft_core.formats.options.verify import VerifyOptions
from regraft_core.formats.records import ImageRecord
from regraft_core.formats.served_thresholds import ServedThresholds
from regraft_core.images.preprocess import load_images, scale
from regraft_core.runtime.errors import InputError, ParityError, RegraftError
from regraft_core.runtime.gpu_setup import (
    GpuSetup,
    device_name,
    precision_on,
    set_up_gpus,
)
from regraft_core.runtime.machine import check_bfloat16, machine_kind
from regraft_core.runtime.out_of_memory import explain_out_of_memory
from regraft_core.runtime.step_reports import Clock, ProgressReporter, log_progress
from regraft_core.runtime.version import VERSION
from regraft_core.training.model_files import load_model
from serving.batching_file import batching_flags
from serving.running.runner import (
    ALL_INTERFACES,
    ServeOptions,
    choose_engine,
    running_server,
)

TABLE_FILE = "parity.md"
_MODEL_NAME = "candidate"
_TIMEOUT_S = 60.0
_START_S = 600.0  # a busy machine takes minutes to load a model
_SERVER_BYTES = 2 << 30  # enough for an image of as many pixels as ingest accepts
_TRAINED_BATCH = 32
_SERVED_BATCH = 7


class _Client(Protocol):
    """The part of a client that this step uses."""

    def predict(self, images: Sequence[bytes]) -> Sequence[Prediction]:
        """Send encoded images and return their predictions."""


@explain_out_of_memory()
def verify(
    saved_model: str | os.PathLike[str],
    model: str | os.PathLike[str],
    evaluation: str | os.PathLike[str],
    dataset: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: VerifyOptions,
) -> ParityManifest:
    """Serve an exported model and compare its predictions with the trained model's.

    Both compute without TF32, whose results depend on the batch size. If the environment turns it
    on again, the report says that the model is not verified. A model that may be served in bfloat16
    or with OpenVINO is also served so, and compared within the tolerance of `served_variants`.

    The report is written to `out` (`parity.json`, `parity.md`) whether it passes or fails.

    Args:
        saved_model: the exported folder.
        model: folder of the candidate that was exported.
        evaluation: folder of the verdict, for the temperature.
        dataset: the dataset, for images of the test split.
        out: the folder to create.
        options: engine, number of images, tolerance.

    Raises:
        ParityError: a difference exceeds the tolerance; the message names the worst image.
        InputError: the folders do not match, the exported model is damaged, the processor does not
            compute in bfloat16, or OpenVINO is not installed.
    """
    clock = Clock()
    set_up_gpus(GpuSetup.of(options, tf32=False))
    exported = check_fingerprint(saved_model)
    verdict = EvaluationManifest.read(evaluation)
    if exported.evaluation_digest != verdict.digest:
        raise InputError(
            f"expected the evaluation {exported.evaluation_digest[:12]}, got {verdict.digest[:12]}"
        )
    variants = served_variants(exported)
    if BFLOAT16 in variants:
        check_bfloat16("serving-precision")
    if OPENVINO in variants:
        check_engine_package("openvino", "serving-engine")
    sample = select_sample(dataset, options.verify_images)
    encoded = [record.encoded for record in sample]
    log_progress(f"verify: starting a server for {len(sample)} images")
    with ThreadPoolExecutor(1) as pool, _base_folder(Path(saved_model), Path(out)) as base:
        # The trained model predicts while the server starts.
        trained = pool.submit(_predict_trained, model, verdict, sample)
        served, engine = _predict_served(base, options, encoded)
        cases = trained.result()
        found = {variant: _predict_variant(base, options, encoded, variant) for variant in variants}
    device = device_name()
    precision = precision_on(device)
    thresholds = ServedThresholds.of(verdict.details)
    rows = compare(cases, served, thresholds)
    problem = failure(rows, options.parity_tolerance)
    variant_rows = {
        variant: compare(cases, predicted, thresholds) for variant, predicted in found.items()
    }
    for variant, compared in variant_rows.items():
        if problem is None and (problem := failure(compared, variant.tolerance)):
            problem = f"{variant.name}, {problem}; run without {variant.remedy}"
    worst = {variant: worst_by_protocol(compared) for variant, compared in variant_rows.items()}
    parity = ParityManifest(
        digest=digest_of(
            [exported.digest, engine]
            + [[row.model_dump() for row in one] for one in (rows, *variant_rows.values())]
        ),
        made_by=MadeBy(step="verify", version=VERSION, seconds=clock.seconds),
        saved_model_digest=exported.digest,
        engine=engine,
        device=device,
        machine=machine_kind(),
        precision=precision,
        batches={"trained": [_TRAINED_BATCH], "served": [1, _SERVED_BATCH]},
        verified=precision == "float32",
        tolerance=options.parity_tolerance,
        max_abs_diff=worst_by_protocol(rows),
        decisions=thresholds.outputs,
        bfloat16_tolerance=BFLOAT16_TOLERANCE if BFLOAT16 in variants else None,
        bfloat16_max_abs_diff=worst.get(BFLOAT16, {}),
        openvino_tolerance=OPENVINO_TOLERANCE if OPENVINO in variants else None,
        openvino_max_abs_diff=worst.get(OPENVINO, {}),
        openvino_bfloat16_max_abs_diff=worst.get(OPENVINO_BFLOAT16, {}),
        images=len(rows),
        passed=problem is None,
        rows=rows,
    )
    with staged_folder(out) as folder:
        write_text(folder / TABLE_FILE, parity_table(parity))
        parity.write(folder)
    if problem is not None:
        raise ParityError(problem if parity.verified else f"{problem}; {TF32_NOTE}")
    classes = len({name for record in sample for name in label_names(record, exported.classes)})
    log_progress(
        f"verify: {len(rows)} images of {classes} classes equal by "
        f"{' and '.join(parity.max_abs_diff)}"
    )
    for variant, by_protocol in worst.items():
        largest = max(by_protocol.values())
        log_progress(f"verify: {variant.name} within {largest:.2g}, allowed {variant.tolerance:g}")
    if not parity.verified:
        log_progress(f"verify: {TF32_NOTE}")
    return parity


def _predict_served(
    base: Path, options: VerifyOptions, encoded: Sequence[bytes], *more_flags: str
) -> tuple[dict[str, list[Predicted]], str]:
    """Start a server on `base`; return its predictions by protocol, and the engine's name.

    The server batches with the shipped file, so that a model that it cannot load fails here.
    """
    flags = (*batching_flags(), *more_flags)
    if choose_engine(options.engine, ALL_INTERFACES) == "embedded":
        flags = (*flags, f"--max_memory_bytes={_SERVER_BYTES}")
    serve_options = ServeOptions(
        flags=flags, gpu_memory_mb=options.gpu_memory_mb, deadline_s=_START_S
    )
    with (
        running_server(base, _MODEL_NAME, options.engine, serve_options) as server,
        GrpcClient(server.grpc, _MODEL_NAME, timeout_s=_TIMEOUT_S) as by_grpc,
        RestClient(server.rest, _MODEL_NAME, timeout_s=_TIMEOUT_S) as by_rest,
    ):
        clients: dict[str, _Client] = {"grpc": by_grpc, "rest": by_rest}
        progress = ProgressReporter("verify: images sent", len(clients) * len(encoded))
        try:
            served = {name: _send(client, encoded, progress) for name, client in clients.items()}
            return served, server.engine
        except RegraftClientError as error:
            raise RegraftError(f"the served model failed: {error}") from error


def _predict_variant(
    base: Path, options: VerifyOptions, encoded: Sequence[bytes], variant: ServedVariant
) -> dict[str, list[Predicted]]:
    """Start a server of a variant; return its predictions by protocol."""
    server = {"engine": variant.server} if variant.server else {}
    return _predict_served(base, options.model_copy(update=server), encoded, *variant.flags)[0]


def _predict_trained(
    folder: str | os.PathLike[str],
    evaluation: EvaluationManifest,
    sample: Sequence[ImageRecord],
) -> list[ParityCase]:
    """Return the predictions of the trained model in Keras, without the export."""
    model, manifest = load_model(folder)
    if manifest.digest != evaluation.model_digest:
        raise InputError(
            f"expected the chosen model {evaluation.model_digest[:12]}, got {manifest.digest[:12]}"
        )
    preprocessing = manifest.preprocessing
    logits = []
    for start in range(0, len(sample), _TRAINED_BATCH):
        batch = tf.constant([r.encoded for r in sample[start : start + _TRAINED_BATCH]])
        pixels = load_images(batch, preprocessing.image_px)
        logits.append(np.asarray(model(scale(pixels, preprocessing.scaling), training=False)))
    activation = tf.sigmoid if manifest.activation == "sigmoid" else tf.nn.softmax
    probabilities = activation(np.concatenate(logits) / evaluation.temperature).numpy()
    classes, thresholds = manifest.classes, ServedThresholds.of(evaluation.details)
    sets, abstains = thresholds.label_sets(probabilities), thresholds.abstains(probabilities)
    selected = thresholds.selects(probabilities)
    return [
        ParityCase(
            record.path,
            label_text(record, classes),
            Predicted(
                classes[int(row.argmax())],
                row,
                None if sets is None else sets[i],
                None if abstains is None else bool(abstains[i]),
                None if selected is None else selected[i],
            ),
        )
        for i, (record, row) in enumerate(zip(sample, probabilities, strict=True))
    ]


def _send(client: _Client, encoded: Sequence[bytes], progress: ProgressReporter) -> list[Predicted]:
    """Send the first image alone and the others in batches of seven, to test both kinds."""
    batches = [encoded[:1]]
    batches += [encoded[i : i + _SERVED_BATCH] for i in range(1, len(encoded), _SERVED_BATCH)]
    found = []
    for batch in batches:
        found += [
            Predicted(
                prediction.label,
                np.asarray(prediction.probabilities),
                None if prediction.label_set is None else np.asarray(prediction.label_set),
                prediction.abstain,
                None if prediction.selected is None else np.asarray(prediction.selected),
            )
            for prediction in client.predict(batch)
        ]
        progress.advance(len(batch))
    return found


@contextlib.contextmanager
def _base_folder(saved_model: Path, out: Path) -> Iterator[Path]:
    """Yield a base folder whose version 1 is the model, by hard links if the disk has them."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".verify.", dir=out.parent) as folder:
        base = Path(folder) / _MODEL_NAME
        shutil.copytree(saved_model, base / "1", copy_function=_link_or_copy)
        Path(folder).chmod(0o755)
        yield base


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
