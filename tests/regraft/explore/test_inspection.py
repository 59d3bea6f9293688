"""`regraft inspect`: backbones, files and folders of models; their code is not run."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from regraft.cli import console_output
from regraft_core.backbones.backbone_table import BACKBONES
from regraft_core.formats.manifests.model import ModelManifest
from regraft_core.training.model_files import MODEL_FILE
from tests.command_line import Regraft
from tests.conftest import CLASSES, Trained


@pytest.mark.parametrize("strategy", ["head", "top"])
def test_the_counts_of_a_strategy_are_those_of_its_training(
    regraft: Regraft, trained: Trained, strategy: str
) -> None:
    inspected = regraft("inspect", "tiny", "--strategy", strategy, "--classes", len(CLASSES),
                      "--batch-norm", "adapt", "--json")  # fmt: skip
    manifest = ModelManifest.read(trained.candidates[strategy])
    counts = inspected.json["strategy"]
    # The trained head reads several levels: it has more weights, and more means and variances.
    further = sum(level["width"] for level in manifest.head["levels"]) - BACKBONES["tiny"].width
    trainable, frozen = manifest.parameters.trainable, manifest.parameters.frozen
    assert counts["trainable_parameters"] == trainable - further * len(CLASSES)
    assert counts["frozen_parameters"] == frozen - further * 2
    assert counts["cut"] == (None if strategy == "head" else "block1_out")
    if strategy == "top":
        (cut,) = [row for row in inspected.json["cuts"] if row["name"] == "block1_out"]
        assert (counts["forward_flops"], counts["cache_bytes"]) == (
            cut["flops_above"],
            2 * 8 * 8 * 16,
        )
        assert counts["first_trained"] == "block2a_conv"


def test_counts_depend_on_cut_and_batch_norm(regraft: Regraft) -> None:
    def trainable(*options: str) -> int:
        ended = regraft("inspect", "tiny", "--json", "--strategy", *options)
        count: int = ended.json["strategy"]["trainable_parameters"]
        return count

    head, top, full = trainable("head"), trainable("top"), trainable("full")
    assert head < trainable("top", "--cut", "block2_add") < top < full
    assert trainable("top", "--batch-norm", "adapt") - top == 2 * (16 + 16 + 32)
    assert full + 184 == trainable("full", "--batch-norm", "adapt")
    assert head == 33 * 10


def test_a_network_without_a_cut_trains_only_its_head(regraft: Regraft, tmp_path: Path) -> None:
    path = tmp_path / "mine.keras"
    keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3)]).save(path)
    ended = regraft("inspect", path, "--strategy", "top", "--json")
    assert ended.json["facts"]["scaling"].startswith("unknown; name it with --scaling")
    counts = ended.json["strategy"]
    assert (counts["strategy"], counts["cut"], counts["trainable_parameters"]) == ("head", None, 50)
    assert "top trains only the head" in counts["note"]
    assert "top trains only the head" in regraft("inspect", path, "--strategy", "top").out
    refused = regraft("inspect", path, "--strategy", "top", "--cut", "conv2d")
    assert refused.code == 2 and "only its head can be trained" in refused.err


def test_a_candidate_shows_its_layers_as_they_were_trained(
    regraft: Regraft, trained: Trained, tmp_path: Path
) -> None:
    folder = trained.candidates["top"]
    whole = regraft("inspect", folder, "--json").json
    states = {row["name"]: row["state"] for row in whole["layers"]}
    assert whole["kind"] == "candidate"
    assert (states["block1_conv"], states["block3_conv"]) == ("frozen", "trainable")
    assert [row["pooling"] for row in whole["heads"]] == ["gap", "flatten"]
    assert whole["facts"]["head_reads"] and "penalty" in whole["facts"]["head_fits"]
    assert 0 <= whole["facts"]["cross_validated_accuracy"] <= 1
    assert whole["heads"][0] == {"pooling": "gap", "inputs": 32, "parameters": 33 * len(CLASSES)}
    assert whole["heads"][1]["inputs"] == 4 * 4 * 32
    layer = regraft("inspect", folder / MODEL_FILE, "--layer", "block3_bn", "--json").json
    assert layer["trainable_weights"] == ["gamma", "beta"]
    assert layer["non_trainable_weights"] == ["moving_mean", "moving_variance"]
    written = regraft(
        "inspect", folder, "--export-weights", tmp_path / "w.npz", "--layer", "logits"
    )
    assert "2 arrays written" in written.out
    with np.load(tmp_path / "w.npz") as arrays:
        assert sorted(arrays.files) == ["logits/bias", "logits/kernel"]


def test_a_changed_file_is_not_shown_as_the_candidate(
    regraft: Regraft, trained: Trained, tmp_path: Path
) -> None:
    folder = tmp_path / "candidate"
    shutil.copytree(trained.candidates["top"], folder)
    shutil.copy(trained.candidates["head"] / MODEL_FILE, folder / MODEL_FILE)
    ended = regraft("inspect", folder / MODEL_FILE)
    assert ended.code == 2
    assert "expected digest" in ended.err
    shutil.copy(folder / MODEL_FILE, tmp_path / "alone.keras")
    alone = regraft("inspect", tmp_path / "alone.keras", "--json").json
    assert alone["facts"]["checked"].startswith("no: ")


def write_with(path: Path, layer: dict[str, Any]) -> None:
    """Write a small model with one more layer in its description."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, name="plain")])
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    config["config"]["layers"].append(layer)
    parts["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


def with_code(path: Path, mark: Path) -> None:
    """Write a model with a layer of Python code, which would leave a file behind."""
    file = str(mark)
    layer = keras.layers.Lambda(lambda x: (open(file, "w").close(), x)[1])
    write_with(path, keras.saving.serialize_keras_object(layer))


def of_another_module(path: Path, mark: Path) -> None:
    """Write a model with a layer of another module, which would leave a file behind."""
    module = f"module_{mark.parent.name}"
    (mark.parent / f"{module}.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    write_with(path, {"module": module, "class_name": "Layer", "config": {}})


def damaged(path: Path, mark: Path) -> None:
    path.write_bytes(b"PK\x03\x04 no more")


@pytest.mark.parametrize("write", [with_code, of_another_module, damaged])
def test_code_in_a_file_is_refused_and_not_run(
    regraft: Regraft,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[[Path, Path], None],
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    path, mark = tmp_path / "model.keras", tmp_path / "mark"
    write(path, mark)
    ended = regraft("inspect", path)
    assert ended.code == 2
    assert "expected a valid Keras model without code of its own" in ended.err
    assert len(ended.err.splitlines()) == 1
    assert not mark.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("vgg61",), "did you mean vgg19 or vgg16"),
        (("no/such/place",), "found nothing at no/such/place"),
        (("none.keras",), "found none"),
        (("{tmp}",), "got the folder"),
        (("tiny", "--strategy", "hed"), "did you mean head"),
        (("tiny", "--strategy", "top", "--batch-norm", "thaw"), "unknown batch norm"),
        (("tiny", "--strategy", "top", "--cut", "block2b_bn"), "is not a point that every path"),
        (
            ("tiny", "--strategy", "full", "--cut", "block2_add"),
            "expected --strategy top with it",
        ),
        (("tiny", "--layer", "block1_nb"), "did you mean block1_bn"),
    ],
)
def test_bad_usage_is_one_line(
    regraft: Regraft, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    ended = regraft("inspect", *(argument.format(tmp=tmp_path) for argument in arguments))
    assert ended.code == 2
    assert message in ended.err
    assert len(ended.err.splitlines()) == 1


@pytest.mark.parametrize("name", ["vgg16", "mobilenetv3small"])
def test_tables_fit_a_terminal_of_80_columns(
    regraft: Regraft, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console_output, "PIPE_WIDTH", 80)
    lines = regraft("inspect", name, "--strategy", "top").out.splitlines()
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)
