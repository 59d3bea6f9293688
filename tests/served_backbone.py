"""All steps after ingest in this process: from a backbone to what a server predicts with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import keras

from components.evaluate.evaluate import evaluate
from components.export.export import export
from components.extract_features.extract_features import extract_features
from components.fine_tune.fine_tune import fine_tune
from components.train_head.train_head import train_head
from components.verify.verify import verify
from regraft_core.formats.manifests.evaluation import EvaluationManifest
from regraft_core.formats.manifests.features import FeaturesManifest
from regraft_core.formats.manifests.model import ModelManifest
from regraft_core.formats.manifests.parity import ParityManifest
from regraft_core.formats.manifests.saved_model import SavedModelManifest
from regraft_core.formats.options.evaluate import GateOptions
from regraft_core.formats.options.export import ExportOptions
from regraft_core.formats.options.extract_features import FeatureOptions
from regraft_core.formats.options.fine_tune import FineTuneOptions, Strategy
from regraft_core.formats.options.train_head import HeadOptions
from regraft_core.formats.options.verify import VerifyOptions

GATE = GateOptions(baseline_rule="off", recall_floor=0.0, corruption_images=0)
VERIFY = VerifyOptions(engine="embedded", verify_images=4)


@dataclass(frozen=True)
class Served:
    """What each step wrote, and the folder of the exported model."""

    features: FeaturesManifest
    candidate: ModelManifest
    evaluation: EvaluationManifest
    exported: SavedModelManifest
    parity: ParityManifest
    folder: Path


def serve_backbone(
    dataset: Path,
    out: Path,
    options: FeatureOptions,
    strategy: Strategy = "top",
    export_options: ExportOptions | None = None,
    champion: str = "",
) -> Served:
    """Train a model with a backbone, accept and export it, and compare it with a server's.

    Args:
        dataset: the dataset.
        out: an empty folder.
        options: name the backbone.
        strategy: how it is trained; `top` for one epoch with one learning rate.
        export_options: the options of `export`.
        champion: as that of `evaluate`.
    """
    features = extract_features(dataset, out / "features", options)
    train_head([out / "features"], out / "head", HeadOptions())
    training = FineTuneOptions(
        strategy=strategy, fine_tune_epochs=1, learning_rate=1e-3, precision="float32"
    )
    candidate = fine_tune(dataset, [out / "features"], out / "head", out / strategy, training)
    evaluation = evaluate([out / strategy], dataset, out / "evaluation", GATE, champion)
    inputs = out / strategy, out / "evaluation", dataset
    folder = out / "saved_model"
    exported = export(*inputs, folder, export_options)
    parity = verify(folder, *inputs, out / "parity", VERIFY)
    keras.backend.clear_session()
    return Served(features, candidate, evaluation, exported, parity, folder)
