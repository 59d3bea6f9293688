"""The contract of TF Serving's gRPC API, row by row, by the official stubs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from serving.running.runner import Addresses
from tests.serving.raw import Stubs, failure, predict_request


@pytest.fixture(scope="module")
def stubs(server: Addresses) -> Iterator[Stubs]:
    found = Stubs(server.grpc)
    yield found
    found.channel.close()


def tensor(dtype: str, shape: list[int], **fields: Any) -> Any:
    import tensorflow as tf
    from tensorflow.core.framework import tensor_pb2

    proto = tensor_pb2.TensorProto(dtype=tf.as_dtype(dtype).as_datatype_enum, **fields)
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


def no_spec() -> Any:
    request = predict_request("large", x=np.array([1]))
    request.ClearField("model_spec")
    return request


def changed(change: Callable[[Any], None], *args: Any, **inputs: Any) -> Callable[[], Any]:
    def make() -> Any:
        request = predict_request(*args, **inputs)
        change(request)
        return request

    return make


def label(request: Any) -> None:
    request.model_spec.version_label = "none"


def version(request: Any) -> None:
    request.model_spec.version.value = 7


def keep(request: Any) -> None:
    pass


ONE = np.array([1])
PREDICT_ERRORS: list[tuple[str, Callable[[], Any], str, str]] = [
    ("no spec", no_spec, "INVALID_ARGUMENT", "Missing ModelSpec"),
    (
        "no name",
        changed(keep, "large", "", x=ONE),
        "INVALID_ARGUMENT",
        "ModelSpec has no name specified.",
    ),
    (
        "label",
        changed(label, "large", x=ONE),
        "INVALID_ARGUMENT",
        "Unrecognized servable version label: none",
    ),
    (
        "model",
        changed(keep, "large", "none", x=ONE),
        "NOT_FOUND",
        "Servable not found for request: Latest(none)",
    ),
    (
        "version",
        changed(version, "large", x=ONE),
        "NOT_FOUND",
        "Servable not found for request: Specific(tiny, 7)",
    ),
    (
        "signature",
        changed(keep, "s", x=ONE),
        "FAILED_PRECONDITION",
        'Serving signature key "s" not found.',
    ),
    (
        "no input",
        changed(keep, "large"),
        "INVALID_ARGUMENT",
        "input size does not match signature: 0!=1",
    ),
    (
        "two inputs",
        changed(keep, "large", x=ONE, y=ONE),
        "INVALID_ARGUMENT",
        "input size does not match signature: 2!=1",
    ),
    (
        "another name",
        changed(keep, "large", z=ONE),
        "INVALID_ARGUMENT",
        "Signature input alias: x not found in request and no default value provided",
    ),
    (
        "content too short",
        changed(keep, "large", x=tensor("int64", [2], tensor_content=b"123")),
        "INVALID_ARGUMENT",
        "tensor parsing error: x",
    ),
    (
        "negative dimension",
        changed(keep, "large", x=tensor("int64", [-1])),
        "INVALID_ARGUMENT",
        "tensor parsing error: x",
    ),
    (
        "unknown rank and two values",
        changed(
            lambda r: setattr(r.inputs["x"].tensor_shape, "unknown_rank", True),
            "large",
            x=tensor("int64", [], int64_val=[1, 2]),
        ),
        "INVALID_ARGUMENT",
        "tensor parsing error: x",
    ),
    (
        "no type",
        changed(lambda r: setattr(r.inputs["x"], "dtype", 0), "large", x=ONE),
        "INVALID_ARGUMENT",
        "tensor parsing error: x",
    ),
    (
        "filter",
        changed(lambda r: r.output_filter.append("z"), "large", x=ONE),
        "INVALID_ARGUMENT",
        "output tensor alias not found in signature: z",
    ),
    (
        "filter twice",
        changed(lambda r: r.output_filter.extend(["y", "y"]), "large", x=ONE),
        "INVALID_ARGUMENT",
        "duplicate output tensor alias: y",
    ),
    (
        "type",
        changed(keep, "odd", x=np.array([b"a"])),
        "INVALID_ARGUMENT",
        "to be float but string is provided",
    ),
    ("int for float", changed(keep, "odd", x=ONE), "INVALID_ARGUMENT", ""),
    ("rank", changed(keep, "images", images=np.zeros([2, 2], "float32")), "INVALID_ARGUMENT", ""),
    (
        "size",
        changed(keep, "images", images=np.zeros([1, 4, 8, 3], "float32")),
        "INVALID_ARGUMENT",
        "",
    ),
    (
        "batches that do not fit",
        changed(keep, "mix", a=np.zeros([2], "float32"), b=np.zeros([3], "int32")),
        "INVALID_ARGUMENT",
        "",
    ),
    ("no image", changed(keep, "", image_bytes=np.array([b"x"])), "INVALID_ARGUMENT", ""),
]


@pytest.mark.parametrize(
    ("make", "code", "part"), [c[1:] for c in PREDICT_ERRORS], ids=[c[0] for c in PREDICT_ERRORS]
)
def test_predict_errors(stubs: Stubs, make: Callable[[], Any], code: str, part: str) -> None:
    found, details = failure(stubs.prediction.Predict, make())
    assert found == code
    assert part in details


ORDER = [
    ("spec before all", no_spec, "Missing ModelSpec"),
    ("model before signature", changed(keep, "s", "none"), "Servable not found"),
    ("signature before inputs", changed(keep, "s"), "Serving signature key"),
    (
        "inputs before filter",
        changed(lambda r: r.output_filter.append("z"), "large"),
        "input size does not match",
    ),
    (
        "parsing before filter",
        changed(
            lambda r: r.output_filter.append("z"),
            "large",
            x=tensor("int64", [2], tensor_content=b"1"),
        ),
        "tensor parsing error",
    ),
    (
        "filter before type",
        changed(lambda r: r.output_filter.append("z"), "odd", x=ONE),
        "output tensor alias not found",
    ),
]


@pytest.mark.parametrize(("make", "part"), [c[1:] for c in ORDER], ids=[c[0] for c in ORDER])
def test_the_order_of_checks(stubs: Stubs, make: Callable[[], Any], part: str) -> None:
    assert part in failure(stubs.prediction.Predict, make())[1]


def test_the_response_names_model_version_and_signature(stubs: Stubs) -> None:
    import tensorflow as tf

    response = stubs.prediction.Predict(predict_request("large", x=np.array([4, 5])), timeout=60)
    assert response.model_spec.name == "tiny"
    assert response.model_spec.version.value == 2
    assert response.model_spec.signature_name == "large"
    assert tf.make_ndarray(response.outputs["y"]).tolist() == [4, 5]
    assert list(response.outputs["y"].int64_val) == [4, 5]


def test_the_default_signature_is_named(stubs: Stubs, images: list[bytes]) -> None:
    request = predict_request("", image_bytes=np.array(images, dtype=object))
    request.model_spec.version_label = "stable"
    response = stubs.prediction.Predict(request, timeout=60)
    assert response.model_spec.signature_name == "serving_default"
    assert response.model_spec.version.value == 1
    assert set(response.outputs) == {"label", "confidence", "probabilities"}
    assert len(response.outputs["probabilities"].float_val) == 3 * len(images)


def test_an_output_filter_selects_outputs(stubs: Stubs) -> None:
    request = predict_request("mix", a=np.array([1.0], "float32"), b=np.array([2], "int32"))
    request.output_filter.append("twice")
    assert list(stubs.prediction.Predict(request, timeout=60).outputs) == ["twice"]


SHORT_FORMS = [
    ("one value fills the shape", tensor("int64", [3], int64_val=[7]), [7, 7, 7]),
    ("content", tensor("int64", [1], tensor_content=(9).to_bytes(8, "little")), [9]),
    ("no value is zeros", tensor("int64", [2]), [0, 0]),
]


@pytest.mark.parametrize(
    ("proto", "expected"), [c[1:] for c in SHORT_FORMS], ids=[c[0] for c in SHORT_FORMS]
)
def test_tensors_may_be_short(stubs: Stubs, proto: Any, expected: list[int]) -> None:
    response = stubs.prediction.Predict(predict_request("large", x=proto), timeout=60)
    assert list(response.outputs["y"].int64_val) == expected


def test_messages_of_more_than_four_megabytes(stubs: Stubs) -> None:
    values = np.arange(1_000_000, dtype=np.int64)
    response = stubs.prediction.Predict(predict_request("large", x=values), timeout=60)
    assert len(response.outputs["y"].int64_val) == 1_000_000


def test_a_large_response_exceeds_a_clients_default_limit(server: Addresses) -> None:
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    with grpc.insecure_channel(server.grpc) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        request = predict_request("large", x=np.full(1_000_000, 1 << 60))
        assert failure(stub.Predict, request)[0] == "RESOURCE_EXHAUSTED"


def test_a_deadline_bounds_the_call(stubs: Stubs) -> None:
    request = predict_request("large", x=ONE)
    with pytest.raises(grpc.RpcError) as raised:
        stubs.prediction.Predict(request, timeout=1e-6)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def examples_request(kind: str, signature: str, images: list[bytes]) -> Any:
    from tensorflow_serving.apis import classification_pb2, regression_pb2

    kinds = {
        "classify": classification_pb2.ClassificationRequest,
        "regress": regression_pb2.RegressionRequest,
    }
    request = kinds[kind]()
    request.model_spec.name = "tiny"
    request.model_spec.signature_name = signature
    add_examples(request.input, images)
    return request


def add_examples(target: Any, images: list[bytes]) -> None:
    for image in images:
        feature = target.example_list.examples.add().features.feature["image/encoded"]
        feature.bytes_list.value.append(image)


def test_classify(stubs: Stubs, images: list[bytes]) -> None:
    request = examples_request("classify", "classify", images)
    response = stubs.prediction.Classify(request, timeout=60)
    assert response.model_spec.signature_name == "classify"
    assert response.model_spec.version.value == 2
    rows = response.result.classifications
    assert len(rows) == len(images)
    assert [c.label for c in rows[0].classes] == ["even-circle", "even-cross", "even-square"]
    assert sum(c.score for c in rows[0].classes) == pytest.approx(1.0)


def test_regress(stubs: Stubs, images: list[bytes]) -> None:
    request = examples_request("regress", "regress", images)
    response = stubs.prediction.Regress(request, timeout=60)
    assert len(response.result.regressions) == len(images)


@pytest.mark.parametrize("kind", ["classify", "regress"])
@pytest.mark.parametrize(
    ("signature", "images_given", "part"),
    [
        ("none", 1, "No signature was found with the name: none"),
        ("mix", 1, "Expected one input Tensor."),
        ("{kind}", 0, "Input is empty."),
        ("{kind}", -1, ""),
    ],
)
def test_example_errors(
    stubs: Stubs, kind: str, signature: str, images_given: int, part: str, images: list[bytes]
) -> None:
    chosen = [b"no image"] if images_given < 0 else images[:images_given]
    request = examples_request(kind, signature.format(kind=kind), chosen)
    call = stubs.prediction.Classify if kind == "classify" else stubs.prediction.Regress
    code, details = failure(call, request)
    assert code == "INVALID_ARGUMENT"
    assert part in details


def test_a_context_is_joined_to_each_example(stubs: Stubs, images: list[bytes]) -> None:
    request = examples_request("regress", "regress", [])
    both = request.input.example_list_with_context
    both.context.features.feature["image/encoded"].bytes_list.value.append(images[1])
    both.examples.add()
    both.examples.add()
    response = stubs.prediction.Regress(request, timeout=60)
    first, second = response.result.regressions
    assert first.value == second.value


CLASSIFY_METHOD, REGRESS_METHOD = "tensorflow/serving/classify", "tensorflow/serving/regress"


def multi(tasks: list[tuple[str, str, str]], images: list[bytes]) -> Any:
    from tensorflow_serving.apis import inference_pb2

    request = inference_pb2.MultiInferenceRequest()
    for name, signature, method in tasks:
        task = request.tasks.add(method_name=method)
        task.model_spec.name = name
        task.model_spec.signature_name = signature
    add_examples(request.input, images)
    return request


def test_multi_inference(stubs: Stubs, images: list[bytes]) -> None:
    tasks = [("tiny", "classify", CLASSIFY_METHOD), ("tiny", "regress", REGRESS_METHOD)]
    response = stubs.prediction.MultiInference(multi(tasks, images), timeout=60)
    classes, values = response.results
    assert [r.model_spec.signature_name for r in response.results] == ["classify", "regress"]
    assert {r.model_spec.version.value for r in response.results} == {2}
    for row, value in zip(
        classes.classification_result.classifications,
        values.regression_result.regressions,
        strict=True,
    ):
        assert max(c.score for c in row.classes) == pytest.approx(value.value)


MULTI_ERRORS = [
    ("twice", [("tiny", "regress", REGRESS_METHOD)] * 2, "INVALID_ARGUMENT", "Duplicate"),
    (
        "two models",
        [("tiny", "classify", CLASSIFY_METHOD), ("other", "regress", REGRESS_METHOD)],
        "INVALID_ARGUMENT",
        "must access the same model name",
    ),
    (
        "signature",
        [("tiny", "none", CLASSIFY_METHOD)],
        "INVALID_ARGUMENT",
        "Requested signature not found in model graph: none",
    ),
    (
        "method",
        [("tiny", "classify", "tensorflow/serving/predict")],
        "UNIMPLEMENTED",
        "Unsupported signature method_name",
    ),
    ("model", [("none", "classify", CLASSIFY_METHOD)], "NOT_FOUND", "Latest(none)"),
]


@pytest.mark.parametrize(
    ("tasks", "code", "part"), [c[1:] for c in MULTI_ERRORS], ids=[c[0] for c in MULTI_ERRORS]
)
def test_multi_inference_errors(
    stubs: Stubs, tasks: Any, code: str, part: str, images: list[bytes]
) -> None:
    found, details = failure(stubs.prediction.MultiInference, multi(tasks, images))
    assert found == code
    assert part in details


def metadata_request(
    name: str | None = "tiny", fields: tuple[str, ...] = ("signature_def",)
) -> Any:
    from tensorflow_serving.apis import get_model_metadata_pb2

    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    if name is not None:
        request.model_spec.name = name
    return request


def test_metadata(stubs: Stubs) -> None:
    from tensorflow_serving.apis import get_model_metadata_pb2

    response = stubs.prediction.GetModelMetadata(metadata_request(), timeout=60)
    assert response.model_spec.version.value == 2
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert {"serving_default", "images", "classify", "features"} <= set(signatures.signature_def)


METADATA_ERRORS = [
    (metadata_request, (None,), "INVALID_ARGUMENT", "Missing ModelSpec"),
    (
        metadata_request,
        ("tiny", ()),
        "INVALID_ARGUMENT",
        "GetModelMetadataRequest must specify at least one metadata_field",
    ),
    (
        metadata_request,
        ("tiny", ("weights",)),
        "INVALID_ARGUMENT",
        "Metadata field weights is not supported",
    ),
    (metadata_request, ("none",), "NOT_FOUND", "Servable not found for request: Latest(none)"),
]


@pytest.mark.parametrize(("make", "args", "code", "part"), METADATA_ERRORS)
def test_metadata_errors(stubs: Stubs, make: Any, args: Any, code: str, part: str) -> None:
    found, details = failure(stubs.prediction.GetModelMetadata, make(*args))
    assert found == code
    assert part in details


def status_request(name: str | None = "tiny", number: int | None = None) -> Any:
    from tensorflow_serving.apis import get_model_status_pb2

    request = get_model_status_pb2.GetModelStatusRequest()
    if name is not None:
        request.model_spec.name = name
    if number is not None:
        request.model_spec.version.value = number
    return request


def test_status(stubs: Stubs) -> None:
    response = stubs.model.GetModelStatus(status_request(), timeout=60)
    found = [(s.version, s.state, s.status.error_code) for s in response.model_version_status]
    assert found == [(2, 30, 0), (1, 30, 0)]


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ((None,), "INVALID_ARGUMENT", "Missing ModelSpec"),
        (("none",), "NOT_FOUND", "Could not find any versions of model none"),
        (("tiny", 9), "NOT_FOUND", "Could not find version 9 of model tiny"),
    ],
)
def test_status_errors(stubs: Stubs, args: Any, code: str, message: str) -> None:
    assert failure(stubs.model.GetModelStatus, status_request(*args)) == (code, message)
