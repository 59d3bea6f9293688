"""Each family of KerasHub through the steps, from a preset on disk to a server's predictions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import model_management_pb2, model_service_pb2_grpc

from components.export.export import export
from regraft_client import GrpcClient, RestClient
from regraft_core.formats.options.export import ExportOptions
from regraft_core.formats.options.extract_features import FeatureOptions
from regraft_core.images.preprocess import load_images, scale
from regraft_core.training.model_files import load_model
from serving.running.runner import Addresses, started_server
from tests.components.export.building import write_evaluation
from tests.hub_presets import NETWORKS, PX, save_preset
from tests.trained_backbone import colored_image, train_backbone, write_colors

IMAGES = [colored_image(500 + seed, kind) for seed, kind in enumerate(("JPEG", "PNG", "WEBP"))]
TEMPERATURE = 1.7


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small images in all formats."""
    return write_colors(tmp_path_factory.mktemp("images") / "dataset")


@dataclass(frozen=True)
class Server:
    """A server without models at its start, and the folder from which it may load them."""

    addresses: Addresses
    models: Path

    def load(self, name: str) -> None:
        """Serve only the model of a name."""
        request = model_management_pb2.ReloadConfigRequest()
        config = request.config.model_config_list.config.add(name=name, model_platform="tensorflow")
        config.base_path = str(self.models / name)
        with grpc.insecure_channel(self.addresses.grpc) as channel:
            stub = model_service_pb2_grpc.ModelServiceStub(channel)
            stub.HandleReloadConfigRequest(request, timeout=300)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    (models / "models.config").write_text("model_config_list {}")
    flags = [f"--model_config_file={models / 'models.config'}", f"--allow_reload_under={models}"]
    with started_server([*flags, "--enable_model_warmup=false"]) as addresses:
        yield Server(addresses, models)


@pytest.mark.long(seconds=22)
@pytest.mark.parametrize("family", NETWORKS)
def test_a_family_is_trained_exported_and_served(
    family: str, dataset: Path, server: Server, tmp_path: Path
) -> None:
    save_preset(family, tmp_path / "preset")
    options = FeatureOptions(
        backbone=f"hub:{tmp_path / 'preset'}", feature_engine="tf", precision="float32"
    )
    trained = train_backbone(dataset, tmp_path, options)
    assert trained.features.image_px == PX and len(trained.features.levels) >= 2
    # The preset's default cut is between its blocks, and the layers above it were trained.
    assert trained.candidate.strategy == "top" and trained.candidate.cut == trained.features.cut
    assert 0 < trained.candidate.parameters.trainable < trained.candidate.parameters.total

    evaluation = write_evaluation(tmp_path / "evaluation", trained.folder, temperature=TEMPERATURE)
    few = ExportOptions(warmup_batch_size=1, drift_images=0)
    exported = export(trained.folder, evaluation, dataset, server.models / family / "1", few)
    assert exported.backbone == "hub:preset"

    model, manifest = load_model(trained.folder)
    pixels = scale(load_images(tf.constant(IMAGES), PX), manifest.preprocessing.scaling)
    expected = tf.nn.softmax(model(pixels, training=False) / TEMPERATURE).numpy()
    assert np.ptp(expected, axis=0).min() > 0.05, "predictions of the images differ"
    server.load(family)
    with (
        GrpcClient(server.addresses.grpc, family) as by_grpc,
        RestClient(server.addresses.rest, family) as by_rest,
    ):
        for client in (by_grpc, by_rest):
            served = np.array([one.probabilities for one in client.predict(IMAGES)])
            np.testing.assert_allclose(served, expected, atol=1e-5)
