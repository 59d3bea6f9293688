from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from regraft_core.formats import engine_packages
from regraft_core.formats.manifests.saved_model import SavedModelManifest
from regraft_core.formats.openvino_files import NETWORK_FILE, NETWORK_FUNCTION
from regraft_core.runtime.kept_results import KeptResults
from regraft_core.runtime.openvino_models import EngineError, write_network
from serving.server.models import engine_choice
from serving.server.models.engine_choice import EngineLoader, is_disturbed, race
from serving.server.models.replaced_network import replaced_network
from serving.server.models.servable import Servable, load_servable
from serving.server.protocol.status import ServingError
from tests.exported_model import write_manifest

PX = 8  # that of the manifest
IMAGES = np.random.default_rng(0).uniform(0, 255, (3, PX, PX, 3)).astype(np.float32)


class Exported(tf.Module):
    """Two signatures that call one function of the network, as those of `export` do."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = tf.Variable(tf.random.stateless_normal([3, 2], [1, 2]))

        def network(pixels: tf.Tensor) -> list[tf.Tensor]:
            pooled = tf.reduce_mean(pixels, [1, 2]) / 255.0
            return [pooled, tf.matmul(pooled, self.weights)]

        network.__name__ = NETWORK_FUNCTION
        spec = tf.TensorSpec([None, PX, PX, 3], tf.float32, name="pixels")
        self.network = tf.function(network, input_signature=[spec], autograph=False)
        images = tf.TensorSpec([None, PX, PX, 3], tf.float32, name="images")
        self.images = tf.function(self._predict, input_signature=[images], autograph=False)
        self.halved = tf.function(
            lambda images: self._predict(images / 2.0), input_signature=[images], autograph=False
        )

    def _predict(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        pooled, logits = self.network(images)
        return {"features": pooled, "probabilities": tf.nn.softmax(logits)}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that was verified with OpenVINO, in float32."""
    folder = tmp_path_factory.mktemp("models") / "1"
    module = Exported()
    signatures = {"images": module.images, "halved": module.halved}
    tf.saved_model.save(module, str(folder), signatures=signatures)
    path = folder / NETWORK_FILE
    path.parent.mkdir(parents=True)
    write_network(path, module.network.get_concrete_function())
    allow(folder, ["tf", "openvino"])
    return folder


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeptResults:
    found = KeptResults(tmp_path / "kept.json")
    monkeypatch.setattr(engine_choice, "KEPT", found)
    monkeypatch.setattr(engine_choice, "ROUND_S", 0.0)
    return found


def allow(folder: Path, engines: list[str]) -> None:
    write_manifest(folder).model_copy(update={"serving_engines": engines}).write(folder)


def predict(servable: Servable, name: str = "images") -> dict[str, np.ndarray]:
    signature = servable.signatures[name]
    (source,) = signature.inputs.values()
    fetches = [spec.tensor for spec in signature.outputs.values()]
    return dict(zip(signature.outputs, servable.run({source.tensor: IMAGES}, fetches), strict=True))


def uses_openvino(servable: Servable) -> bool:
    return servable.held is not None


def test_openvino_predicts_the_same_in_all_signatures(exported: Path) -> None:
    ours, theirs = EngineLoader("openvino").load(exported), EngineLoader("tf").load(exported)
    assert uses_openvino(ours) and not uses_openvino(theirs)
    for name in ("images", "halved"):
        found, expected = predict(ours, name), predict(theirs, name)
        assert found.keys() == expected.keys()
        for alias, values in expected.items():
            np.testing.assert_allclose(found[alias], values, atol=1e-6)
    ours.close()


def test_a_replaced_network_is_called_with_the_pixels(exported: Path) -> None:
    """The rest of the graph receives what it returns, and its errors fail the request only."""
    received: list[np.ndarray] = []

    def network(pixels: np.ndarray) -> list[np.ndarray]:
        received.append(pixels)
        if len(received) == 2:
            raise RuntimeError("out of luck")
        return [np.ones((3, 3), np.float32), np.full((3, 2), np.log([[1.0, 3.0]]), np.float32)]

    with replaced_network(exported, network) as replaced:
        servable = load_servable(replaced.folder)
    assert not replaced.folder.exists()
    np.testing.assert_allclose(predict(servable)["probabilities"], [[0.25, 0.75]] * 3, rtol=1e-6)
    np.testing.assert_array_equal(received[0], IMAGES)
    with pytest.raises(ServingError, match="out of luck"):
        predict(servable)
    assert predict(servable)["features"].tolist() == [[1.0] * 3] * 3


def test_a_graph_without_the_function_is_an_error_of_one_line(
    exported: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(exported, tmp_path / "other"))
    graph = (other / "saved_model.pb").read_bytes()
    name = NETWORK_FUNCTION.encode()
    (other / "saved_model.pb").write_bytes(graph.replace(name, b"x" * len(name)))
    with (
        pytest.raises(EngineError, match="no function of the network"),
        replaced_network(other, lambda pixels: [pixels]),
    ):
        raise AssertionError("it has the function")
    lines: list[str] = []
    assert not uses_openvino(EngineLoader("auto", log=lines.append).load(other))
    assert lines == [
        "TensorFlow computes it, because OpenVINO cannot: the exported graph has no function of "
        "the network alone; run it again"
    ]
    with pytest.raises(ServingError, match="OpenVINO cannot compute it: the exported graph"):
        EngineLoader("openvino").load(other)


def test_a_race_is_run_once(
    exported: Path, kept: KeptResults, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    loader = EngineLoader("auto", log=lines.append)
    monkeypatch.setattr(engine_choice, "is_disturbed", lambda seconds: False)
    loader.load(exported).close()
    (line,) = lines
    assert line.startswith("images per second by engine: tf ")
    chosen = line.split(": ")[-1].removesuffix(" is used")
    monkeypatch.setattr(engine_choice, "race", lambda *_: pytest.fail("a second race"))
    assert uses_openvino(loader.load(exported)) == (chosen == "openvino")
    assert len(lines) == 1
    assert kept.path.read_text().count(f'"{chosen}"') == 1


@pytest.mark.parametrize(("openvino", "chosen"), [(1.02, False), (1.1, True)])
def test_the_faster_engine_is_used(
    exported: Path, monkeypatch: pytest.MonkeyPatch, openvino: float, chosen: bool
) -> None:
    closed: list[Any] = []
    monkeypatch.setattr(
        engine_choice, "race", lambda *_: ({"tf": 1.0, "openvino": openvino}, False)
    )
    monkeypatch.setattr(Servable, "close", lambda servable: closed.append(servable))
    found = EngineLoader("auto", log=lambda line: None).load(exported)
    assert uses_openvino(found) == chosen
    (other,) = closed
    assert uses_openvino(other) != chosen


def test_a_disturbed_race_is_repeated_and_not_kept(
    exported: Path, kept: KeptResults, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds: list[int] = []

    def disturbed(seconds: list[float]) -> bool:
        rounds.append(len(seconds))
        return True

    monkeypatch.setattr(engine_choice, "is_disturbed", disturbed)
    lines: list[str] = []
    EngineLoader("auto", log=lines.append).load(exported).close()
    assert rounds == [2, 4]
    assert lines[0].endswith(" is used, although other work disturbed the race")
    assert not kept.path.exists()


def test_rounds_without_a_second_short_one_are_disturbed() -> None:
    assert is_disturbed([1.0, 1.2, 5.0]) and not is_disturbed([5.0, 1.0, 1.05])


def test_a_race_measures_every_servable(exported: Path) -> None:
    servables = {"tf": load_servable(exported), "again": load_servable(exported)}
    rates, _ = race(servables, IMAGES)
    assert rates.keys() == servables.keys() and min(rates.values()) > 0


def test_a_version_that_was_not_verified_is_computed_by_tensorflow_or_refused(
    exported: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(exported, tmp_path / "other"))
    allow(other, ["tf"])
    for half, folder in (("", other), ("bfloat16", exported)):
        assert not uses_openvino(EngineLoader("auto", half).load(folder))
        with pytest.raises(ServingError, match=r"not verified with OpenVINO.*--serving-engine"):
            EngineLoader("openvino", half).load(folder)
    (other / SavedModelManifest.file_name).unlink()  # of another tool
    assert not uses_openvino(EngineLoader("auto").load(other))


def test_a_machine_without_the_extra_uses_tensorflow(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_packages, "ENGINE_PACKAGES", {"openvino": "not_installed_here"})
    lines: list[str] = []
    assert not uses_openvino(EngineLoader("auto", log=lines.append).load(exported))
    assert lines == ["TensorFlow computes it, because the extra openvino is not installed"]
