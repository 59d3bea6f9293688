"""A sample of the requests is logged, with the features of the same forward pass."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from regraft_core.formats.request_log import LoggedRequest, parse_line, read_request_log
from regraft_core.runtime.errors import InputError
from serving.request_log_options import RequestLogOptions
from serving.server.config import BatchingConfig, model_configs
from serving.server.flags import parse_flags
from serving.server.metrics import Metrics
from serving.server.models.catalog import Catalog
from serving.server.models.observation import SELECTED_NAMES, Observation, named_labels
from serving.server.models.servable import Servable, load_servable
from serving.server.protocol.status import ServingError
from serving.server.recording.log_files import LogFiles
from serving.server.recording.recorders import Recorders
from serving.server.recording.request_log import (
    RequestLog,
    Sample,
    VersionRecorder,
    log_lines,
)
from serving.server.requests import api_methods
from tests.serving.raw import predict_request, until
from tests.serving.recorded_model import INVALID, export_recorded

MB = 1 << 20
IMAGES = [b"12345", b"bad one", b"123456"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The model, one that differs for large images, and one without joined features."""
    folder = tmp_path_factory.mktemp("recorded")
    return {
        "1": export_recorded(folder / "1"),
        "2": export_recorded(folder / "2", swapped=True),
        "plain": export_recorded(folder / "plain", joined=False),
    }


class Server:
    """What a server has of a model `m`: a catalog with recorded versions, and metrics."""

    def __init__(self, models: dict[int, Path], options: RequestLogOptions, **load: Any) -> None:
        self.catalog, self.metrics, self.logged = Catalog(), Metrics(), list[str]()
        self.recorders = Recorders(options, self.catalog, self.metrics, self.logged.append)
        self.runs = 0
        for number, path in models.items():
            servable = load_servable(path, **load)
            servable.recorder = self.recorders.make("m", number)
            servable.observe = self._count
            self.catalog.loading("m", number)
            self.catalog.loaded("m", number, servable)

    def _count(self, seconds: float) -> None:
        self.runs += 1

    def predict(self, images: list[bytes], version: int = 1, **changes: Any) -> Any:
        request = predict_request("", "m", image_bytes=tf.constant(images).numpy())
        request.model_spec.version.value = version
        request.output_filter.extend(changes.get("output_filter", []))
        return api_methods.predict(self.catalog, request)

    def send(self, signature: str, **inputs: Any) -> Any:
        request = predict_request(signature, "m", **inputs)
        request.model_spec.version.value = 1
        return api_methods.predict(self.catalog, request)

    def count(self, name: str, outcome: str) -> int:
        start = f':regraft:serving:{name}{{outcome="{outcome}"}} '
        lines = [line for line in self.metrics.page().splitlines() if line.startswith(start)]
        return int(lines[0].removeprefix(start)) if lines else 0


def options(tmp_path: Path, **changes: Any) -> RequestLogOptions:
    return RequestLogOptions(**{"request_log": str(tmp_path / "log"), "sample": 1.0, **changes})


def read(tmp_path: Path) -> list[LoggedRequest]:
    return list(read_request_log(tmp_path / "log"))


def test_each_image_of_a_request_is_a_line(models: dict[str, Path], tmp_path: Path) -> None:
    server = Server({1: models["1"]}, options(tmp_path))
    response = server.predict(IMAGES)
    assert server.runs == 1  # the features are of the same run
    assert sorted(response.outputs) == [
        "confidence", "error", "familiar", "familiarity", "label", "probabilities",
    ]  # fmt: skip
    server.recorders.close()
    found = read(tmp_path)
    assert [one.sha256 for one in found] == [hashlib.sha256(image).hexdigest() for image in IMAGES]
    assert [one.answer.predicted for one in found] == ["odd", "", "even"]
    assert [one.answer.confidence for one in found] == [0.75, 0.0, 0.75]
    assert [one.answer.familiarity for one in found] == [5.0, 0.0, 6.0]
    assert [one.answer.error for one in found] == ["", INVALID, ""]
    assert [one.feature_values() for one in found] == [(5, 6, 7, 8, 9), (), (6, 7, 8, 9, 10)]
    assert {(one.model, one.answer.version, one.signature) for one in found} == {
        ("m", 1, "serving_default")
    }
    assert {one.image for one in found} == {None}
    assert server.count("request_log_count", "written") == 1


def test_responses_are_those_of_a_server_without_a_log(
    models: dict[str, Path], tmp_path: Path
) -> None:
    server = Server({1: models["1"]}, options(tmp_path))
    plain = Server({1: models["1"]}, RequestLogOptions())
    assert server.predict(IMAGES) == plain.predict(IMAGES)
    chosen = {"output_filter": ["probabilities", "label"]}
    assert server.predict(IMAGES, **chosen) == plain.predict(IMAGES, **chosen)
    with pytest.raises(ServingError, match="output tensor alias not found"):
        server.predict(IMAGES, output_filter=["features"])
    server.recorders.close()
    assert [one.answer.predicted for one in read(tmp_path)] == ["odd", "", "even"] * 2


def test_batched_requests_are_logged(models: dict[str, Path], tmp_path: Path) -> None:
    server = Server({1: models["1"]}, options(tmp_path), batching=BatchingConfig(8))
    server.predict(IMAGES)
    assert server.runs == 1
    server.recorders.close()
    assert [one.answer.familiarity for one in read(tmp_path)] == [5.0, 0.0, 6.0]


def test_a_model_without_joined_features_is_logged_without_them(
    models: dict[str, Path], tmp_path: Path
) -> None:
    server = Server({1: models["plain"]}, options(tmp_path, log_images=True))
    server.predict(IMAGES)
    server.recorders.close()
    assert [(one.features, one.image) for one in read(tmp_path)] == [(None, i) for i in IMAGES]


def test_the_classify_api_is_logged_by_the_image_in_the_example(
    models: dict[str, Path], tmp_path: Path
) -> None:
    from tensorflow_serving.apis import classification_pb2

    server = Server({1: models["1"]}, options(tmp_path))
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name, request.model_spec.signature_name = "m", "classify"
    for image in IMAGES:
        features = request.input.example_list.examples.add().features.feature
        features["image/encoded"].bytes_list.value.append(image)
        features["image/format"].bytes_list.value.append(b"other bytes")
    api_methods.classify(server.catalog, request)
    server.recorders.close()
    found = read(tmp_path)
    assert [one.sha256 for one in found] == [hashlib.sha256(image).hexdigest() for image in IMAGES]
    assert [one.answer.predicted for one in found] == ["odd", "", "even"]
    assert [one.answer.error for one in found] == ["", "the image cannot be decoded", ""]
    assert {one.signature for one in found} == {"classify"}


PIXELS = np.stack([np.full((2, 4, 3), value, np.float32) for value in (5, 6, 7)])


@pytest.mark.parametrize("batching", [None, BatchingConfig(8)])
def test_pixels_are_logged_by_the_hash_of_their_values(
    models: dict[str, Path], tmp_path: Path, batching: BatchingConfig | None
) -> None:
    server = Server({1: models["1"]}, options(tmp_path, log_images=True), batching=batching)
    plain = Server({1: models["1"]}, RequestLogOptions())
    response = server.send("images", images=PIXELS)
    assert response == plain.send("images", images=PIXELS)
    assert server.runs == 1
    assert "features" not in response.outputs
    server.recorders.close()
    found = read(tmp_path)
    data = [np.ascontiguousarray(one, "<f4").tobytes() for one in PIXELS]
    assert [one.sha256 for one in found] == [hashlib.sha256(one).hexdigest() for one in data]
    assert [one.image for one in found] == data
    assert [one.shape for one in found] == [(2, 4, 3)] * 3
    assert [one.answer.predicted for one in found] == ["odd", "even", "odd"]
    assert [one.answer.error for one in found] == [""] * 3
    assert [one.feature_values()[:2] for one in found] == [(5, 6), (6, 7), (7, 8)]
    assert {one.signature for one in found} == {"images"}


def test_pixels_of_a_model_without_joined_features_are_logged_without_them(
    models: dict[str, Path], tmp_path: Path
) -> None:
    server = Server({1: models["plain"]}, options(tmp_path))
    server.send("images", images=PIXELS)
    server.recorders.close()
    assert [(one.features, one.image) for one in read(tmp_path)] == [(None, None)] * 3


def test_the_shadow_predicts_copies_of_pixels(shadowed: Server, tmp_path: Path) -> None:
    shadowed.send("images", images=PIXELS)
    until(lambda: shadowed.count("shadow_count", "predicted") == 1)
    shadowed.recorders.close()
    shadows = [one.shadow.predicted for one in read(tmp_path) if one.shadow]
    assert shadows == ["odd", "even", "even"]


def test_other_signatures_are_not_logged(models: dict[str, Path], tmp_path: Path) -> None:
    server = Server({1: models["1"]}, options(tmp_path))
    api_methods.predict(server.catalog, predict_request("other", "m", texts=[b"a"]))
    server.recorders.close()
    assert not list((tmp_path / "log").iterdir())


def test_a_fraction_of_the_requests_is_logged(models: dict[str, Path], tmp_path: Path) -> None:
    server = Server({1: models["1"]}, options(tmp_path, sample=0.2))
    for number in range(200):
        server.predict([b"%d" % number])
    server.recorders.close()
    assert 12 < len(read(tmp_path)) < 71  # except with a probability of about 1e-6


def test_a_full_disk_fails_no_request(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server({1: models["1"]}, options(tmp_path))

    attempts = []

    def full(*_: object) -> int:
        attempts.append(1)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.write", full)
    for _ in range(20):
        server.predict(IMAGES)
    server.recorders.close()
    assert server.count("request_log_count", "dropped") == 20
    assert len(attempts) == 1  # it waits before the next
    assert [line for line in server.logged if "No space left on device" in line] == [
        "request log: [Errno 28] No space left on device; samples are dropped"
    ]


def test_a_full_queue_drops_and_counts(tmp_path: Path) -> None:
    writing, held = threading.Event(), threading.Event()

    class SlowFiles(LogFiles):
        def write(self, line: bytes) -> bool:
            writing.set()
            held.wait(30)
            return super().write(line)

    metrics = Metrics()
    log = RequestLog(SlowFiles(tmp_path / "log", MB), metrics, print)
    outputs = {"label": np.array([b"a"]), "confidence": np.array([1.0], np.float32)}
    recorder = VersionRecorder("m", 1, 1.0, log.add)

    def record(size: int) -> None:
        images = np.array([b"x" * size], object)
        recorder.record(Observation("serving_default", images, images, outputs))

    record(1)
    assert writing.wait(30)
    for _ in range(4096 + 10):
        record(1)
    assert ':regraft:serving:request_log_count{outcome="dropped"} 10' in metrics.page()
    held.set()
    log.close()
    assert ':regraft:serving:request_log_count{outcome="written"} 4097' in metrics.page()
    record(1)  # after the end
    assert ':regraft:serving:request_log_count{outcome="dropped"} 11' in metrics.page()
    log = RequestLog(LogFiles(tmp_path / "other", MB), metrics, print)
    images = np.array([b"x" * (65 << 20)], object)
    log.add(Sample("m", 1, 0.0, Observation("serving_default", images, images, outputs)))
    log.close()
    assert ':regraft:serving:request_log_count{outcome="dropped"} 12' in metrics.page()


def test_unusual_outputs_drop_one_sample(tmp_path: Path) -> None:
    metrics, logged = Metrics(), list[str]()
    log = RequestLog(LogFiles(tmp_path / "log", MB), metrics, logged.append)
    images = np.array([b"a", b"b"], object)
    short = {"label": np.array([b"a"]), "confidence": np.array([np.nan], np.float32)}
    log.add(Sample("m", 1, 0.0, Observation("serving_default", images, images, short)))
    log.add(Sample("m", 1, 0.0, Observation("serving_default", images[:1], images[:1], short)))
    log.close()
    (found,) = read(tmp_path)
    assert found.answer.confidence is None
    assert found.time == "1970-01-01T00:00:00.000Z"
    assert len(logged) == 1
    assert logged[0].startswith("request log: IndexError")


@pytest.fixture
def shadowed(models: dict[str, Path], tmp_path: Path) -> Iterator[Server]:
    """Two versions, the second labeled `canary`."""
    server = Server({1: models["1"], 2: models["2"]}, options(tmp_path, shadow_label="canary"))
    server.catalog.set_labels({"m": {"canary": 2}})
    yield server
    server.recorders.close()


def test_the_shadow_predicts_copies_of_the_requests(shadowed: Server, tmp_path: Path) -> None:
    response = shadowed.predict([b"12345", b"bad one", b"1234567"])
    assert response.model_spec.version.value == 1
    assert response.outputs["label"].string_val[:] == [b"odd", b"", b"odd"]
    until(lambda: shadowed.count("shadow_count", "predicted") == 1)
    shadowed.recorders.close()
    found = read(tmp_path)
    assert [one.answer.predicted for one in found] == ["odd", "", "odd"]
    shadows = [one.shadow for one in found if one.shadow]
    assert [one.predicted for one in shadows] == ["odd", "", "even"]
    assert [one.version for one in shadows] == [2, 2, 2]
    assert shadows[1].error == INVALID


def test_requests_to_the_shadow_itself_have_no_shadow(shadowed: Server, tmp_path: Path) -> None:
    shadowed.predict(IMAGES, version=2)
    shadowed.predict(IMAGES, version=1)
    until(lambda: shadowed.count("shadow_count", "predicted") > 0)
    shadowed.catalog.set_labels({})
    shadowed.predict(IMAGES, version=1)
    shadowed.recorders.close()
    found = read(tmp_path)
    assert sorted((one.answer.version, one.shadow is not None) for one in found) == [
        *[(1, False)] * 3, *[(1, True)] * 3, *[(2, False)] * 3,
    ]  # fmt: skip
    assert shadowed.count("shadow_count", "predicted") == 1


def shadow_of(server: Server) -> Servable:
    servable = server.catalog._models["m"][2].servable
    assert servable is not None
    return servable


def test_a_slow_shadow_holds_up_no_request(shadowed: Server, tmp_path: Path) -> None:
    entered, held = threading.Event(), threading.Event()

    def slow(seconds: float) -> None:
        entered.set()
        held.wait(30)

    shadow_of(shadowed).observe = slow
    for _ in range(70):  # more than wait for it
        shadowed.predict(IMAGES[:1])
    assert entered.wait(30)
    assert shadowed.count("shadow_count", "dropped") in (5, 6)
    held.set()
    shadowed.recorders.close()
    assert len(read(tmp_path)) == 70  # each with or without a shadow


def test_a_failing_shadow_is_counted(shadowed: Server, tmp_path: Path) -> None:
    shadow_of(shadowed).signatures.clear()
    shadow_of(shadowed)._observed.clear()
    shadowed.predict(IMAGES[:1])
    until(lambda: shadowed.count("shadow_count", "failed") == 1)
    shadowed.recorders.close()
    (found,) = read(tmp_path)
    assert (found.answer.predicted, found.shadow) == ("odd", None)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sample=0"], "--sample: expected above 0 and at most 1, got 0.0"),
        (["--sample=1.5"], "--sample: expected above 0 and at most 1, got 1.5"),
        (["--sample=nan"], "--sample: expected above 0 and at most 1, got nan"),
        (["--log_images"], "--log-images: expected --request-log DIR with it, got none"),
        (["--shadow-label=canary"], "--shadow-label: expected --request-log DIR with it, got none"),
        (["--log-max-mb=0"], "expected a whole number above 0, got '0'"),
    ],
)
def test_options_out_of_range_are_refused(flags: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_flags(["--model_base_path=/m", *flags])


def test_a_logging_config_is_refused_as_by_tf_serving() -> None:
    from tensorflow_serving.config import model_server_config_pb2

    message = model_server_config_pb2.ModelServerConfig()
    entry = message.model_config_list.config.add(name="m", base_path="/m")
    entry.logging_config.sampling_config.sampling_rate = 0.01
    with pytest.raises(InputError, match=r"No request-logger-creator provided\. Use --request-log"):
        model_configs(message)


def test_the_names_of_several_labels_are_logged() -> None:
    flags = np.array([[True, False], [False, False]])
    outputs = {
        "label": np.array([b"cat", b"dog"], object),
        "confidence": np.array([0.9, 0.2]),
        SELECTED_NAMES: named_labels(flags, ["cat", "dog"]),
    }
    inputs = np.array([b"one", b"two"], object)
    sample = Sample("m", 1, 0.0, Observation("serving_default", inputs, [b"one", b"two"], outputs))
    logged = [parse_line(line).answer for line in log_lines(sample, with_images=False)]
    assert [one.selected for one in logged] == [("cat",), ()]
    assert named_labels(flags, ["only one"]).tolist() == [("class 0",), ()]
