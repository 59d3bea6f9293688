"""`regraft inspect`: a backbone, a model's file or folder, or a published version, as facts.

Nothing of what is inspected is run: a `.keras` file is read in safe mode, a SavedModel's files are
only parsed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.local.run import read_summary
from pipelines.preflight import quiet_start
from regraft.explore.trainable_counts import PlanOptions, PlanRow, plan_training
from regraft_core.backbones.build import build_backbone
from regraft_core.backbones.table import BACKBONES, find_backbone
from regraft_core.formats.manifests import ModelManifest, SavedModelManifest
from regraft_core.runtime.errors import InputError

if TYPE_CHECKING:
    from regraft.explore.model_summary import CutRow, LayerRow, WeightRow
    from regraft.explore.saved_model_info import Signature

MODEL_KINDS = "a backbone, a .keras file, a folder with model.json, a published version or a run"


@dataclass(frozen=True)
class InspectOptions:
    """What of a model is wanted; the fields are the options of the command."""

    weights: str = ""
    image_px: int = 0
    layer: str = ""
    export_weights: Path | None = None
    plan: PlanOptions | None = None
    classes: int = 10
    dense_width: int = 0


@dataclass(frozen=True)
class HeadRow:
    """A head on the feature map: `nodes` values go in, and it has `parameters` to train."""

    head: str
    nodes: int
    parameters: int


@dataclass(frozen=True)
class Anatomy:
    """What `inspect` found; parts that do not apply are empty."""

    name: str
    kind: str
    facts: dict[str, Any]
    layers: list[LayerRow] = field(default_factory=list)
    cuts: list[CutRow] = field(default_factory=list)
    heads: list[HeadRow] = field(default_factory=list)
    plan: PlanRow | None = None
    weights: list[WeightRow] = field(default_factory=list)
    signatures: list[Signature] = field(default_factory=list)
    exported: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        value = {key: part for key, part in asdict(self).items() if part not in ([], None)}
        if self.weights:
            value["trainable_weights"] = [row.name for row in self.weights if row.trainable]
            value["non_trainable_weights"] = [r.name for r in self.weights if not r.trainable]
        return value


def inspect_model(name: str, wanted: InspectOptions) -> Anatomy:
    """Return what is known of a model.

    Raises:
        InputError: there is no such model, it is damaged, or it has no such layer or cut.
    """
    path = Path(name)
    if path.is_dir():
        return _inspect_folder(path, wanted)
    if path.is_file() or path.suffix == ".keras":
        return _inspect_file(path, wanted)
    if "/" in name:
        raise InputError(f"expected {MODEL_KINDS}, found nothing at {name}")
    return _inspect_backbone(name, wanted)


def _inspect_backbone(name: str, wanted: InspectOptions) -> Anatomy:
    row = find_backbone(name)
    values_wanted = bool(wanted.layer or wanted.export_weights)
    weights = wanted.weights or ("imagenet" if values_wanted else "random")
    with quiet_start():
        import keras  # noqa: F401
    model = build_backbone(row, wanted.image_px, weights)
    facts = {
        "pretrained_weights": row.weights_from,
        "license": row.license,
        "scaling": row.scaling,
        "default_cut": row.cut,
        "weights_loaded": weights if weights != "random" else "none, only the structure is shown",
    }
    return _take_apart(model, Anatomy(row.name, "backbone", facts), wanted)


def _inspect_file(path: Path, wanted: InspectOptions) -> Anatomy:
    with quiet_start():
        from regraft_core.training.model_files import MODEL_FILE, read_keras_file
    if path.name == MODEL_FILE and (path.parent / ModelManifest.file_name).is_file():
        return _inspect_folder(path.parent, wanted)
    model = read_keras_file(path)
    facts = {"checked": "no: there is no model.json with a digest beside the file"}
    return _take_apart(model, Anatomy(str(path), "Keras file", facts), wanted)


def _inspect_folder(folder: Path, wanted: InspectOptions) -> Anatomy:
    if (folder / ModelManifest.file_name).is_file():
        with quiet_start():
            from regraft_core.training.model_files import load_model
        model, manifest = load_model(folder)
        facts = {
            "strategy": manifest.strategy,
            "backbone": manifest.backbone,
            "cut": manifest.cut,
            "classes": ", ".join(manifest.classes),
            "validation_accuracy": round(manifest.validation_accuracy, 4),
            "dataset_digest": manifest.dataset_digest,
            "digest": manifest.digest,
            "checked": "model.keras against its digest",
        }
        wanted = replace(wanted, classes=len(manifest.classes))
        return _take_apart(model, Anatomy(str(folder), manifest.kind, facts), wanted)
    if (folder / SavedModelManifest.file_name).is_file():
        return _inspect_version(folder, wanted)
    if (folder / "summary.json").is_file():
        summary = read_summary(folder)
        if found := summary.published or summary.saved_model:
            return _inspect_folder(Path(found), wanted)
        raise InputError(f"the run in {folder} was rejected and left no exported model")
    versions = [path for path in folder.iterdir() if path.name.isdigit() and path.is_dir()]
    if versions:
        return _inspect_folder(max(versions, key=lambda path: int(path.name)), wanted)
    raise InputError(f"expected {MODEL_KINDS}, got the folder {folder}")


def _inspect_version(folder: Path, wanted: InspectOptions) -> Anatomy:
    from regraft_core.formats.fingerprint import check_fingerprint

    if wanted.layer or wanted.export_weights or wanted.plan:
        raise InputError(
            "a published version has no layers by name any more: --layer, --export-weights and "
            "--strategy need the candidate that it came from"
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
        "versions": ", ".join(f"{key} {value}" for key, value in manifest.versions.items()),
        "model_digest": manifest.model_digest,
        "dataset_digest": manifest.dataset_digest,
        "digest": manifest.digest,
        "checked": "every file against the fingerprint",
    }  # fmt: skip
    return Anatomy(str(folder), "published version", facts, signatures=read_signatures(folder))


def _take_apart(model: Any, found: Anatomy, wanted: InspectOptions) -> Anatomy:
    """Add the parts of a model to what is known of it."""
    from regraft.explore.model_summary import (
        cut_rows,
        export_weights,
        find_layer,
        layer_rows,
        weight_rows,
    )
    from regraft_core.training.model_files import count_parameters

    if wanted.layer:
        layer = find_layer(model, wanted.layer)
        counted = count_parameters(layer)
        facts = {"layer": layer.name, "kind": type(layer).__name__, "trainable": layer.trainable,
                 "parameters": counted.total, "trainable_parameters": counted.trainable,
                 "weights_loaded": found.facts.get("weights_loaded", "as in the file")}  # fmt: skip
        found = replace(found, facts=facts, weights=weight_rows(layer))
    if wanted.export_weights:
        chosen = [find_layer(model, wanted.layer)] if wanted.layer else model.layers
        found = replace(found, exported=export_weights(chosen, wanted.export_weights))
    if wanted.layer:
        return found
    plan = _planned(model, found, wanted.plan) if wanted.plan else None
    counted = count_parameters(model)
    layers = layer_rows(model)
    facts = {
        "input": list(model.input_shape[1:]),
        "output": list(model.output_shape[1:]),
        "parameters": counted.total,
        "trainable": counted.trainable,
        "frozen": counted.frozen,
        "flops": sum(row.flops for row in layers),
    }
    return replace(
        found,
        facts=facts | found.facts,
        layers=layers,
        cuts=cut_rows(model),
        heads=_heads(model, wanted),
        plan=plan,
    )


def _planned(model: Any, found: Anatomy, options: PlanOptions) -> PlanRow:
    if found.kind != "backbone":
        raise InputError(f"--strategy needs a backbone, got a {found.kind}")
    return plan_training(model, BACKBONES[found.name], options)


def _show_layer(layer: Any, found: Anatomy) -> Anatomy:
    """Put one layer with its weights in the place of a model's facts."""
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


def _heads(model: Any, wanted: InspectOptions) -> list[HeadRow]:
    """Compare the heads on the model's last feature map."""
    from regraft.explore.model_summary import feature_map
    from regraft_core.training.heads import head_parameters, pooled_width

    shape = feature_map(model)
    if shape is None:
        return []
    counted = head_parameters(shape, wanted.classes, wanted.dense_width)
    return [HeadRow(kind, pooled_width(kind, shape), counted[kind]) for kind in ("gap", "flatten")]
