"""What the clients promise beside answers: no TensorFlow, one error tree, bounded retries."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from regraft_client import errors, grpc_wire
from regraft_client.grpc import GrpcClient
from regraft_client.messages import MESSAGES
from regraft_client.predict_files import (
    PredictOptions,
    as_csv,
    as_json,
    find_images,
    predict_files,
)
from regraft_client.rest import RestClient, RestWire
from regraft_client.retrying import NO_RETRIES, Retries, Until
from regraft_core.runtime.errors import InputError
from serving.running.model_discovery import find_models, models_config
from serving.running.runner import Addresses, free_port

FAMILIAR = [True, True, False, False]  # of the images, by how bright they are


def test_the_clients_import_no_tensorflow(server: Addresses) -> None:
    program = (
        "import sys; from regraft_client.grpc import GrpcClient; "
        "from regraft_client.predict_files import predict_files; "
        f"c = GrpcClient({server.grpc!r}, 'tiny'); print(c.status()[0].state, "
        "'tensorflow' in sys.modules or 'numpy' in sys.modules)"
    )
    root = str(Path(__file__).resolve().parents[3])
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=root, check=True
    )
    assert done.stdout.split() == ["AVAILABLE", "False"]


def test_messages_are_those_of_the_official_stubs() -> None:
    import tensorflow as tf
    from tensorflow.core.framework.tensor_pb2 import TensorProto
    from tensorflow_serving.apis import classification_pb2, get_model_status_pb2, predict_pb2

    call = grpc_wire.predict_call(grpc_wire.Target("m", label="canary"), [b"a", b"b"], "features")
    official = predict_pb2.PredictRequest.FromString(call.request.SerializeToString())
    assert official.model_spec.version_label == "canary"
    assert official.model_spec.signature_name == "features"
    assert tf.make_ndarray(official.inputs["image_bytes"]).tolist() == [b"a", b"b"]
    mine = MESSAGES["PredictRequest"].FromString(official.SerializeToString())
    assert mine == call.request

    classify = grpc_wire.classify_call(grpc_wire.Target("m", version=3), [b"a"])
    read = classification_pb2.ClassificationRequest.FromString(classify.request.SerializeToString())
    (example,) = read.input.example_list.examples
    assert read.model_spec.version.value == 3
    assert list(example.features.feature["image/encoded"].bytes_list.value) == [b"a"]

    answer = predict_pb2.PredictResponse()
    answer.outputs["label"].CopyFrom(tf.make_tensor_proto([b"x", b"y"]))
    answer.outputs["confidence"].CopyFrom(tf.make_tensor_proto(np.array([0.5, 1], np.float32)))
    table = np.array([[0.5, 0.5], [0, 1]], np.float32)
    answer.outputs["probabilities"].CopyFrom(tf.make_tensor_proto(table))
    mine = MESSAGES["PredictResponse"].FromString(answer.SerializeToString())
    assert [p.probabilities for p in grpc_wire.parse_predictions(mine)] == [(0.5, 0.5), (0.0, 1.0)]
    assert [p.familiar for p in grpc_wire.parse_predictions(mine)] == [None, None]
    answer.outputs["familiar"].CopyFrom(tf.make_tensor_proto([True, False]))
    mine = MESSAGES["PredictResponse"].FromString(answer.SerializeToString())
    assert [p.familiar for p in grpc_wire.parse_predictions(mine)] == [True, False]
    answer.outputs["familiar"].CopyFrom(TensorProto(dtype=10, tensor_content=b"\0\1"))
    mine = MESSAGES["PredictResponse"].FromString(answer.SerializeToString())
    assert [p.familiar for p in grpc_wire.parse_predictions(mine)] == [False, True]

    status = get_model_status_pb2.GetModelStatusResponse()
    status.model_version_status.add(version=4, state="END").status.error_code = 13
    mine = MESSAGES["GetModelStatusResponse"].FromString(status.SerializeToString())
    (found,) = grpc_wire.parse_status(mine)
    assert (found.version, found.state, found.error_code) == (4, "END", "INTERNAL")


@pytest.mark.parametrize("kind", [RestClient, GrpcClient])
def test_one_error_tree(server: Addresses, kind: type, images: list[bytes]) -> None:
    address = server.rest if kind is RestClient else server.grpc
    with kind(address, "none") as client, pytest.raises(errors.NotFoundError):
        client.predict(images)
    with kind(address, "tiny") as client, pytest.raises(errors.BadRequestError):
        client.predict([b"no image"])
    with kind(address, "tiny", label="none") as client, pytest.raises(errors.BadRequestError):
        client.predict(images)
    with kind(f"127.0.0.1:{free_port()}", "tiny", retries=NO_RETRIES) as client:
        with pytest.raises(errors.ConnectionFailedError):
            client.predict(images)
        with pytest.raises(errors.DeadlineError):
            client.wait_ready(0.3)


def test_only_unavailable_is_tried_again_and_not_for_ever() -> None:
    retries = Retries(attempts=3, first_s=0.1, longest_s=0.15)
    pause_after = retries.patience()
    again = errors.UnavailableError("UNAVAILABLE", "full")
    first, second = pause_after(again), pause_after(again)
    assert 0.05 <= first <= 0.1
    assert 0.075 <= second <= 0.15
    with pytest.raises(errors.UnavailableError):
        pause_after(again)
    with pytest.raises(errors.NotFoundError):
        retries.patience()(errors.NotFoundError("NOT_FOUND", "no"))


def test_waiting_for_a_model_outlasts_any_error_and_ends() -> None:
    unknown = errors.NotFoundError("NOT_FOUND", "no")
    assert Until(60).patience()(unknown) > 0
    with pytest.raises(errors.DeadlineError, match=r"within 0 s: NOT_FOUND: no"):
        Until(0).patience()(unknown)


@pytest.mark.parametrize("answer", [{}, {"model_version_status": [{"version": "x"}]}, [], 5])
def test_an_answer_of_another_shape_is_the_servers_fault(answer: object) -> None:
    question = RestWire("/v1/models/m").status()
    with pytest.raises(errors.ServerFailedError):
        question.read(answer)


HTTP_STATUSES = [
    (400, errors.BadRequestError),
    (404, errors.NotFoundError),
    (413, errors.OverloadedError),
    (429, errors.OverloadedError),
    (403, errors.AccessError),
    (501, errors.UnsupportedError),
    (503, errors.UnavailableError),
    (504, errors.DeadlineError),
    (500, errors.ServerFailedError),
]


@pytest.mark.parametrize(("status", "kind"), HTTP_STATUSES)
def test_http_statuses_become_errors(status: int, kind: type) -> None:
    assert type(errors.http_error(status, "x")) is kind


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_folder_is_predicted(
    server: Addresses, images: list[bytes], tmp_path: Path, scheme: str
) -> None:
    for number in range(9):
        (tmp_path / f"{number}.png").write_bytes(images[number % 4])
    (tmp_path / "bad.png").write_bytes(b"no image")
    (tmp_path / "notes.txt").write_text("ignored")
    address = f"{scheme}://{server.grpc if scheme == 'grpc' else server.rest}"
    done: list[tuple[int, int]] = []
    results = predict_files(
        [tmp_path], address, "tiny", PredictOptions(batch=4, concurrency=3),
        lambda count, of: done.append((count, of)),
    )  # fmt: skip
    assert [Path(r.path).name for r in results] == [*(f"{n}.png" for n in range(9)), "bad.png"]
    assert all(r.prediction is not None for r in results[:9])
    assert results[9].prediction is None
    assert results[9].error
    assert done[-1] == (10, 10)
    rows = json.loads(as_json(results))
    assert rows[0]["label"] == results[0].prediction.label  # type: ignore[union-attr]
    assert "error" in rows[9]
    assert [row.get("familiar") for row in rows[:4]] == FAMILIAR
    header, *lines = as_csv(results).splitlines()
    assert header == "path,label,confidence,familiar,error"
    assert [line.split(",")[3] for line in lines[:4]] == ["true", "true", "false", "false"]
    assert lines[9].split(",")[1:4] == ["", "", ""]


@pytest.mark.parametrize("kind", [RestClient, GrpcClient])
def test_a_model_may_say_whether_an_image_is_familiar(
    server: Addresses, kind: type, images: list[bytes]
) -> None:
    address = server.rest if kind is RestClient else server.grpc
    with kind(address, "tiny", version=2) as client:
        assert [one.familiar for one in client.predict(images)] == FAMILIAR
    with kind(address, "tiny", version=1) as client:
        assert [one.familiar for one in client.predict(images)] == [None] * 4


def test_what_cannot_be_predicted_is_bad_input(tmp_path: Path, server: Addresses) -> None:
    with pytest.raises(InputError, match="found no image"):
        find_images([tmp_path])
    with pytest.raises(InputError, match="expected an image or a folder"):
        find_images([tmp_path / "none"])
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(InputError, match="expected --server"):
        predict_files([tmp_path], "ftp://x", "tiny")
    with pytest.raises(errors.NotFoundError):
        predict_files([tmp_path], f"grpc://{server.grpc}", "none")


def test_all_models_below_a_folder_are_found(tmp_path: Path) -> None:
    for name in ("a/1", "a/2", "b/7", "none", ".hidden"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a" / "labels.json").write_text('{"stable": 1, "canary": 9}')
    models = find_models(tmp_path)
    assert [(m.name, m.labels) for m in models] == [("a", {"stable": 1}), ("b", {})]
    text = models_config(models)
    assert "specific { versions: 1 versions: 2 }" in text
    assert [m.name for m in find_models(tmp_path / "b")] == ["b"]
    with pytest.raises(InputError, match="found no version"):
        find_models(tmp_path / "none")
