"""The table of backbones, building its rows, their weights and digests."""

from __future__ import annotations

import inspect
import random
import socket
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from regraft_core.backbones.backbone_table import BACKBONES, find_backbone
from regraft_core.backbones.build import build_backbone, build_classifier, weights_digest
from regraft_core.backbones.cuts import find_cut
from regraft_core.formats.manifest_storage import digest_file
from regraft_core.runtime.errors import InputError

CHEAP = ("vgg16", "mobilenetv2", "efficientnet_lite0", "tiny")


@pytest.fixture(scope="module")
def tiny() -> keras.Model:
    return build_backbone("tiny")


def check_row(name: str) -> None:
    """Build a row at its smallest size with random weights and compare it with the table."""
    row = BACKBONES[name]
    model = build_backbone(row, row.min_px, "random")
    assert model.input_shape == (None, row.min_px, row.min_px, 3)
    assert len(model.output_shape) == 4
    assert model.output_shape[-1] == row.width
    cuts = [find_cut(model, name) for name in row.known_cuts]
    assert all(cut.tensor.shape[0] is None for cut in cuts)
    assert [cut.index for cut in cuts] == sorted({cut.index for cut in cuts})
    again = build_backbone(row, row.min_px, "random")
    assert [o.name for o in again.operations] == [o.name for o in model.operations]
    assert weights_digest(again) == weights_digest(model)


def test_the_table_covers_keras_applications() -> None:
    listed = {name.lower() for name in dir(keras.applications) if name[0].isupper()}
    assert listed == {r.name for r in BACKBONES.values() if r.imported_from == "keras.applications"}
    assert all(name == row.name for name, row in BACKBONES.items())


@pytest.mark.parametrize("name", CHEAP)
def test_a_row_builds_as_the_table_states(name: str) -> None:
    check_row(name)


@pytest.mark.long(seconds=4)
@pytest.mark.parametrize("name", sorted(set(BACKBONES) - set(CHEAP)))
def test_every_row_builds_as_the_table_states(name: str) -> None:
    check_row(name)
    keras.backend.clear_session()


def test_importing_the_table_does_not_import_tensorflow() -> None:
    code = "import sys, regraft_core.backbones.backbone_table; print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_similar_names_are_suggested_for_an_unknown_name() -> None:
    with pytest.raises(InputError, match=r"unknown backbone 'vgg61'; did you mean .*vgg16"):
        find_backbone("vgg61")


def test_too_small_an_image_is_an_error() -> None:
    with pytest.raises(InputError, match="image_px: xception expects at least 71, got 64"):
        build_backbone("xception", 64, "random")


def test_random_weights_depend_only_on_their_seed() -> None:
    random.seed(1)
    before = random.getstate()
    one = weights_digest(build_backbone("tiny", 32, "random", seed=3))
    assert random.getstate() == before
    random.seed(2)
    assert weights_digest(build_backbone("tiny", 32, "random", seed=3)) == one
    assert weights_digest(build_backbone("tiny", 32, "random", seed=4)) != one


@pytest.mark.parametrize("name", ["mobilenetv3small", "xception"])
def test_layer_names_do_not_depend_on_models_built_before(name: str) -> None:
    first, second = (build_backbone(name, 96, "random") for _ in range(2))
    assert [o.name for o in first.operations] == [o.name for o in second.operations]
    assert weights_digest(first) == weights_digest(second)


def test_the_digest_is_kept_by_saving_and_changes_with_one_bit(tmp_path: Path) -> None:
    model = build_backbone("tiny", 32, "random")
    digest = weights_digest(model)
    model.save(tmp_path / "tiny.keras")
    assert weights_digest(keras.saving.load_model(tmp_path / "tiny.keras")) == digest
    weights = model.get_weights()
    weights[0].flat[5] = np.nextafter(weights[0].flat[5], np.float32(1))
    model.set_weights(weights)
    assert weights_digest(model) != digest


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_weights_are_loaded_from_a_file(tmp_path: Path, suffix: str) -> None:
    source = build_backbone("tiny", 32, "random", seed=9)
    path = tmp_path / f"tiny{suffix}"
    source.save_weights(path) if suffix == ".weights.h5" else source.save(path)
    sha256 = digest_file(path)
    for weights in (str(path), path.as_uri(), f"{path}#sha256={sha256}"):
        model = build_backbone("tiny", 48, weights)
        assert weights_digest(model) == weights_digest(source)
    with pytest.raises(InputError, match=f"expected SHA-256 {'0' * 64}, got {sha256}"):
        build_backbone("tiny", 32, f"{path}#sha256={'0' * 64}")


def test_weights_that_do_not_match_are_an_error(tmp_path: Path, tiny: keras.Model) -> None:
    path = tmp_path / "tiny.weights.h5"
    tiny.save_weights(path)
    with pytest.raises(InputError, match="expected weights of vgg16 without top"):
        build_backbone("vgg16", 32, str(path))
    damaged = tmp_path / "damaged.keras"
    damaged.write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(InputError, match="expected weights of tiny without top"):
        build_backbone("tiny", 32, str(damaged))


def test_weights_with_nan_are_an_error(tmp_path: Path) -> None:
    model = build_backbone("tiny", 32, "random")
    weights = model.get_weights()
    weights[0].flat[0] = np.nan
    model.set_weights(weights)
    model.save_weights(tmp_path / "nan.weights.h5")
    with pytest.raises(InputError, match="expected finite weights"):
        build_backbone("tiny", 32, str(tmp_path / "nan.weights.h5"))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("imagenette", "found no file at imagenette"),
        ("gs://bucket/vgg16.weights.h5", "download it first"),
        (__file__, r"expected a file \.weights\.h5"),
    ],
)
def test_weights_that_are_not_a_weights_file_are_an_error(weights: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_backbone("tiny", 32, weights)


def test_unavailable_weights_are_an_error_with_fixes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path), raising=False)
    fixes = r"vgg16.*Name or service.*https://\S*vgg16\S*notop\.h5.*--weights.*efficientnet_lite0"
    with pytest.raises(InputError, match=fixes):
        build_backbone("vgg16", 32)
    fixes = r"mobilenet.*Name or service.*https://\S*mobilenet_1_0_224_tf\.h5.*--weights PATH"
    with pytest.raises(InputError, match=fixes):
        build_classifier("mobilenet")
    assert socket.getdefaulttimeout() is None


@pytest.mark.long(seconds=4)
def test_the_softmax_of_a_classifier_equals_that_of_keras(tmp_path: Path) -> None:
    whole = keras.applications.MobileNetV2(weights=None)
    whole.save_weights(tmp_path / "whole.weights.h5")
    classifier = build_classifier("mobilenetv2", str(tmp_path / "whole.weights.h5"))
    pixels = np.random.default_rng(0).uniform(-1, 1, (1, 224, 224, 3)).astype(np.float32)
    logits = classifier(pixels, training=False)
    np.testing.assert_allclose(keras.ops.softmax(logits), whole(pixels, training=False), atol=1e-6)
    build_backbone("mobilenetv2", 224, "random").save_weights(tmp_path / "none.weights.h5")
    with pytest.raises(InputError, match="expected weights of mobilenetv2 with top"):
        build_classifier("mobilenetv2", str(tmp_path / "none.weights.h5"))


def test_every_keras_row_can_return_logits() -> None:
    for row in BACKBONES.values():
        if row.imported_from == "keras.applications":
            constructor = getattr(keras.applications, row.constructor)
            assert "classifier_activation" in inspect.signature(constructor).parameters
    with pytest.raises(InputError, match="tiny has none"):
        build_classifier("tiny")


def test_tiny_has_fixed_weights(tiny: keras.Model) -> None:
    assert tiny.count_params() < 12_000
    assert weights_digest(tiny) == weights_digest(build_backbone("tiny", 64))
