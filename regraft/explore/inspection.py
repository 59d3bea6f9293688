"""`regraft inspect`: facts about a backbone, a model's file or folder, or a published version.

No code of the inspected model is run: a `.keras` file is read in safe mode, the files of a
published version are only parsed, and the operations of another SavedModel are checked.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.local.run import read_summary
from regraft.explore.trainable_counts import StrategyCounts, StrategyOptions, count_trainable
from regraft_core.backbones.backbone_table import Backbone, find_backbone, is_location
from regraft_core.backbones.build import build_backbone
from regraft_core.backbones.own_config import KERAS_SUFFIX
from regraft_core.backbones.own_files import GRAPH_FILE, H5_SUFFIXES
from regraft_core.formats.backbone_names import PREFIX
from regraft_core.formats.manifests.model import ModelManifest
from regraft_core.formats.manifests.saved_model import SavedModelManifest
from regraft_core.formats.version_names import version_names
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.gpu_setup import GpuSetup, set_up_gpus
from regraft_core.runtime.quiet_start import quiet_start

if TYPE_CHECKING:
    from regraft.explore.model_summary import CutRow, LayerRow, WeightRow
    from regraft.explore.saved_model_info import Signature

MODEL_KINDS = "a backbone, a .keras file, a folder with model.json, a published version or a run"


@dataclass(frozen=True)
class InspectOptions:
    """The options of the command `inspect`."""

    weights: str = ""
    image_px: int = 0
    layer: str = ""
    export_weights: Path | None = None
    strategy: StrategyOptions | None = None
    classes: int = 10


@dataclass(frozen=True)
class HeadRow:
    """A head on the feature map: its pooling, number of inputs, and parameters to train."""

    pooling: str
    inputs: int
    parameters: int


@dataclass(frozen=True)
class ModelFacts:
    """The results of `inspect`; parts that do not apply are empty."""

    name: str
    kind: str
    facts: dict[str, Any]
    layers: list[LayerRow] = field(default_factory=list)
    cuts: list[CutRow] = field(default_factory=list)
    heads: list[HeadRow] = field(default_factory=list)
    strategy: StrategyCounts | None = None
    weights: list[WeightRow] = field(default_factory=list)
    signatures: list[Signature] = field(default_factory=list)
    exported: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the value that `--json` prints."""
        value = {key: part for key, part in asdict(self).items() if part not in ([], None)}
        if self.weights:
            value["trainable_weights"] = [row.name for row in self.weights if row.trainable]
            value["non_trainable_weights"] = [r.name for r in self.weights if not r.trainable]
        return value


def inspect_model(name: str, options: InspectOptions) -> ModelFacts:
    """Return facts about a model.

    Raises:
        InputError: the model does not exist or is damaged, or has no such layer or cut.
    """
    path = Path(name)
    if name.startswith(PREFIX):
        return _inspect_backbone(name, options)
    if _is_own_network(path, options):
        return _inspect_backbone(name, options)
    if path.is_dir():
        return _inspect_folder(path, options)
    if path.is_file() or path.suffix == ".keras":
        return _inspect_file(path, options)
    if "/" in name:
        raise InputError(f"expected {MODEL_KINDS}, found nothing at {name}")
    return _inspect_backbone(name, options)


def _is_own_network(path: Path, options: InspectOptions) -> bool:
    """Return whether a file or folder is shown as the backbone that a run would make of it."""
    if (path / GRAPH_FILE).is_file():
        return not (path / SavedModelManifest.file_name).is_file()
    suffixes = (*H5_SUFFIXES, KERAS_SUFFIX) if options.strategy else H5_SUFFIXES
    return path.is_file() and path.suffix in suffixes


def _inspect_backbone(name: str, options: InspectOptions) -> ModelFacts:
    row, scaling = _find_backbone(name)
    shows_values = bool(options.layer or options.export_weights or row.source == "saved_model")
    weights = options.weights or ("imagenet" if shows_values else "random")
    with quiet_start():
        set_up_gpus(GpuSetup())
    model = build_backbone(row, options.image_px, weights)
    facts = {
        "pretrained_weights": row.weights_from,
        "license": row.license,
        "scaling": scaling,
        "default_cut": row.cut,
        "weights_loaded": weights if weights != "random" else "none, only the structure is shown",
    }
    return _add_parts(model, ModelFacts(row.name, "backbone", facts), options)


def _find_backbone(name: str) -> tuple[Backbone, str]:
    """Return a backbone and its scaling, which a file does not need to say to show its layers."""
    try:
        row = find_backbone(name)
    except InputError:
        if not is_location(name):
            raise
        return find_backbone(name, "none"), "unknown; name it with --scaling in a run"
    return row, row.scaling


def _inspect_file(path: Path, options: InspectOptions) -> ModelFacts:
    with quiet_start():
        from regraft_core.training.model_files import MODEL_FILE, read_keras_file

        set_up_gpus(GpuSetup())
    if path.name == MODEL_FILE and (path.parent / ModelManifest.file_name).is_file():
        return _inspect_folder(path.parent, options)
    model = read_keras_file(path)
    facts = {"checked": "no: there is no model.json with a digest next to the file"}
    return _add_parts(model, ModelFacts(str(path), "Keras file", facts), options)


def _inspect_folder(folder: Path, options: InspectOptions) -> ModelFacts:
    if (folder / ModelManifest.file_name).is_file():
        with quiet_start():
            from regraft_core.training.model_files import load_model

            set_up_gpus(GpuSetup())
        model, manifest = load_model(folder)
        facts = {
            "strategy": manifest.strategy,
            "backbone": manifest.backbone,
            "cut": manifest.cut,
            **_head_facts(manifest),
            "classes": ", ".join(manifest.classes),
            "validation_accuracy": round(manifest.validation_accuracy, 4),
            "dataset_digest": manifest.dataset_digest,
            "digest": manifest.digest,
            "checked": "the digest of model.keras",
        }
        options = replace(options, classes=len(manifest.classes))
        return _add_parts(model, ModelFacts(str(folder), manifest.kind, facts), options)
    if (folder / SavedModelManifest.file_name).is_file():
        return _inspect_version(folder, options)
    if (folder / "summary.json").is_file():
        summary = read_summary(folder)
        if exported := summary.published or summary.saved_model:
            return _inspect_folder(Path(exported), options)
        raise InputError(f"the run in {folder} was rejected and has no exported model")
    if versions := version_names(path.name for path in folder.iterdir() if path.is_dir()):
        return _inspect_folder(folder / versions[max(versions)], options)
    raise InputError(f"expected {MODEL_KINDS}, got the folder {folder}")


def _head_facts(manifest: ModelManifest) -> dict[str, Any]:
    """Return what the head reads, how it was fitted and its accuracy in cross-validation.

    With several labels an image, it is the macro F1.
    """
    members = manifest.head.get("members", [])
    facts: dict[str, Any] = {}
    if members:
        facts["head_reads"] = members[0]["levels"]
        facts["head_fits"] = "; ".join(
            f"{fit['method']} regression, one scale per {fit['scaling']}, penalty "
            f"{fit['penalty']:.1e}"
            for fit in members
        )
    if held_out := manifest.measurements.get("held_out"):
        metric = "accuracy" if manifest.activation == "softmax" else "macro_f1"
        facts[f"cross_validated_{metric}"] = round(held_out[metric], 4)
    return facts


def _inspect_version(folder: Path, options: InspectOptions) -> ModelFacts:
    from regraft_core.formats.fingerprint import check_fingerprint

    if options.layer or options.export_weights or options.strategy:
        raise InputError(
            "a published version has no named layers: --layer, --export-weights and --strategy "
            "need the candidate from which it was exported"
        )
    manifest = check_fingerprint(folder)
    with quiet_start():
        import tensorflow  # noqa: F401

        from regraft.explore.saved_model_info import read_signatures, read_variables
    variables = read_variables(folder)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    facts = {
        "strategy": manifest.strategy,
        "backbone": manifest.backbone,
        "classes": ", ".join(manifest.classes),
        "images": f"{manifest.preprocessing.image_px} px, scaling "
        f"{manifest.preprocessing.scaling}",
        "temperature": manifest.temperature,
        **{name: round(value, 4) for name, value in manifest.metrics.items()},
        "variables": len(variables),
        "parameters": sum(variable.size for variable in variables),
        "megabytes": round(size / 1e6, 1),
        "drift_reference": _drift_reference(manifest),
        "versions": ", ".join(f"{key} {value}" for key, value in manifest.versions.items()),
        "model_digest": manifest.model_digest,
        "dataset_digest": manifest.dataset_digest,
        "digest": manifest.digest,
        "checked": "the fingerprint of every file",
    }  # fmt: skip
    return ModelFacts(str(folder), "published version", facts, signatures=read_signatures(folder))


def _drift_reference(manifest: SavedModelManifest) -> str:
    found = manifest.drift_reference
    if found is None:
        return "none"
    return f"{found.images} images, {found.width} features each, {found.bytes / 1e6:.1f} MB"


def _add_parts(model: Any, found: ModelFacts, options: InspectOptions) -> ModelFacts:
    """Add what can be counted in a model: one layer with its weights, or all layers."""
    from regraft.explore.model_summary import cut_rows, export_weights, find_layer, layer_rows
    from regraft_core.training.model_files import count_parameters

    layer = find_layer(model, options.layer) if options.layer else None
    if options.export_weights:
        layers = [layer] if layer else model.layers
        found = replace(found, exported=export_weights(layers, options.export_weights))
    if layer:
        return _with_layer(layer, found)
    strategy = _count_strategy(model, found, options.strategy) if options.strategy else None
    counted = count_parameters(model)
    rows = layer_rows(model)
    facts = {
        "input": list(model.input_shape[1:]),
        "output": list(model.output_shape[1:]),
        "parameters": counted.total,
        "trainable": counted.trainable,
        "frozen": counted.frozen,
        "flops": sum(row.flops for row in rows),
    }
    return replace(
        found,
        facts=facts | found.facts,
        layers=rows,
        cuts=cut_rows(model),
        heads=_heads(model, options),
        strategy=strategy,
    )


def _count_strategy(model: Any, found: ModelFacts, options: StrategyOptions) -> StrategyCounts:
    if found.kind != "backbone":
        raise InputError(f"--strategy: expected a backbone, got a {found.kind}")
    return count_trainable(model, _find_backbone(found.name)[0], options)


def _with_layer(layer: Any, found: ModelFacts) -> ModelFacts:
    """Replace the facts about the model by those about one layer."""
    from regraft.explore.model_summary import weight_rows
    from regraft_core.training.model_files import count_parameters

    counted = count_parameters(layer)
    facts = {
        "layer": layer.name,
        "kind": type(layer).__name__,
        "trainable": layer.trainable,
        "parameters": counted.total,
        "trainable_parameters": counted.trainable,
        "weights_loaded": found.facts.get("weights_loaded", "as in the file"),
    }
    return replace(found, facts=facts, weights=weight_rows(layer))


def _heads(model: Any, options: InspectOptions) -> list[HeadRow]:
    """Compare the heads on the model's last feature map."""
    from regraft.explore.model_summary import feature_map
    from regraft_core.training.heads import head_parameters, pooled_width

    shape = feature_map(model)
    if shape is None:
        return []
    counted = head_parameters(shape, options.classes)
    return [HeadRow(kind, pooled_width(kind, shape), counted[kind]) for kind in ("gap", "flatten")]
