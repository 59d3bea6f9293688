"""Classify, Regress and MultiInference: `tf.train.Example` in, classes or values out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import classification_pb2, regression_pb2

from serving.server.models.servable import Servable
from serving.server.protocol.json_tensor import decimal, decode_base64, is_base64, text_bytes
from serving.server.protocol.signature import DEFAULT_SIGNATURE, Signature
from serving.server.protocol.status import Code, ServingError, invalid

CLASSIFY_METHOD = "tensorflow/serving/classify"
REGRESS_METHOD = "tensorflow/serving/regress"


def serialized_examples(request_input: Any) -> np.ndarray:
    """Return the serialized examples of an `Input`, each joined with the context if there is one.

    Raises:
        ServingError: INVALID_ARGUMENT where there is none.
    """
    kind = request_input.WhichOneof("kind")
    examples: list[bytes] = []
    if kind == "example_list":
        examples = [e.SerializeToString() for e in request_input.example_list.examples]
    elif kind == "example_list_with_context":
        inputs = request_input.example_list_with_context
        context = inputs.context.SerializeToString()
        examples = [context + example.SerializeToString() for example in inputs.examples]
    if not examples:
        raise invalid("Input is empty.")
    array = np.empty(len(examples), dtype=object)
    array[:] = examples
    return array


def find_signature(servable: Servable, name: str) -> Signature:
    """Return the signature that a Classify or Regress asks for ("" is the default one)."""
    name = name or DEFAULT_SIGNATURE
    signature = servable.signatures.get(name)
    if signature is None:
        raise invalid(f"No signature was found with the name: {name}")
    return signature


def check_classification(signature: Signature) -> None:
    """Refuse a signature that does not classify: one `inputs`; `classes`, `scores` or both."""
    if len(signature.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if len(signature.outputs) not in (1, 2):
        raise invalid(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    if "inputs" not in signature.inputs:
        raise invalid(f"No classification inputs found in SignatureDef: {signature.name}")
    if not {"classes", "scores"} & set(signature.outputs):
        raise invalid(
            'Expected classification signature outputs to contain at least one of "classes" or '
            f'"scores". Signature was: {signature.name}'
        )


def check_regression(signature: Signature) -> None:
    """Refuse a signature that does not regress: one `inputs`, one `outputs`."""
    if len(signature.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if len(signature.outputs) != 1:
        raise invalid("Expected one output Tensor.")
    if "inputs" not in signature.inputs:
        raise invalid(f"No regression inputs found in SignatureDef: {signature.name}")
    if "outputs" not in signature.outputs:
        raise invalid(f"No regression outputs found in SignatureDef: {signature.name}")


def classify(servable: Servable, signature: Signature, examples: np.ndarray) -> Any:
    """Run a classification; return a `ClassificationResult`."""
    check_classification(signature)
    return classification_result(_run(servable, signature, examples), len(examples))


def regress(servable: Servable, signature: Signature, examples: np.ndarray) -> Any:
    """Run a regression; return a `RegressionResult`."""
    check_regression(signature)
    return regression_result(_run(servable, signature, examples), len(examples))


def _run(servable: Servable, signature: Signature, examples: np.ndarray) -> dict[str, np.ndarray]:
    (source,) = (spec for spec in signature.inputs.values())
    if source.dtype != tf.string:
        raise invalid(f"Expects arg[0] to be {source.dtype.name} but string is provided")
    wanted = [alias for alias in signature.outputs if alias in ("classes", "scores", "outputs")]
    tensors = [signature.outputs[alias].tensor for alias in wanted]
    values = servable.run({source.tensor: examples}, tensors)
    return dict(zip(wanted, values, strict=True))


def classification_result(outputs: Mapping[str, np.ndarray], count: int) -> Any:
    """Check the outputs of a classification and lay them out by example."""
    result = classification_pb2.ClassificationResult()
    classes, scores = outputs.get("classes"), outputs.get("scores")
    for name, array in (("classes", classes), ("scores", scores)):
        if array is None:
            continue
        if array.ndim != 2:
            raise invalid(
                f"Expected Tensor shape: [batch_size num_classes] but got {list(array.shape)}"
            )
        expected = object if name == "classes" else np.float32
        if array.dtype != expected:
            kind = "DT_STRING" if name == "classes" else "DT_FLOAT"
            raise invalid(f"Expected {name} Tensor of {kind}. Got: {array.dtype}")
        if len(array) != count:
            raise invalid(f"Expected {name} output batch size of {count}. Got: {len(array)}")
    if classes is not None and scores is not None and classes.shape != scores.shape:
        raise invalid(
            "Tensors class and score should match in dim_size(1). Got "
            f"{classes.shape[1]} vs. {scores.shape[1]}"
        )
    width = (classes if classes is not None else scores).shape[1]  # type: ignore[union-attr]
    for row in range(count):
        added = result.classifications.add()
        for column in range(width):
            entry = added.classes.add()
            if classes is not None:
                entry.label = classes[row, column].decode("utf-8", "replace")
            if scores is not None:
                entry.score = scores[row, column]
    return result


def regression_result(outputs: Mapping[str, np.ndarray], count: int) -> Any:
    """Check the output of a regression: float32 [batch] or [batch, 1]."""
    values = outputs["outputs"]
    if values.ndim != 1 and not (values.ndim == 2 and values.shape[1] == 1):
        raise invalid(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got "
            f"{list(values.shape)}"
        )
    if len(values) != count:
        raise invalid(
            f"Input batch size did not match output batch size: {count} vs. {len(values)}"
        )
    if values.dtype != np.float32:
        raise invalid(f"Expected output Tensor of DT_FLOAT.  Got: {values.dtype}")
    result = regression_pb2.RegressionResult()
    for value in values.ravel().tolist():
        result.regressions.add(value=value)
    return result


def multi_inference(servable: Servable, request: Any) -> list[tuple[Signature, str, Any]]:
    """Run the tasks of a `MultiInferenceRequest`; return signature, method and result of each."""
    signatures: list[tuple[Signature, str]] = []
    seen: set[str] = set()
    model = request.tasks[0].model_spec.name if request.tasks else ""
    for task in request.tasks:
        if not task.model_spec.name:
            raise invalid("Found ModelSpec with an empty model name.")
        if task.model_spec.name != model:
            raise invalid(
                "All ModelSpecs in a MultiInferenceRequest must access the same model name."
            )
        name = task.model_spec.signature_name or DEFAULT_SIGNATURE
        if name in seen:
            raise invalid(f"Duplicate evaluation of signature: {name}")
        seen.add(name)
        signature = servable.signatures.get(name)
        if signature is None:
            raise invalid(f"Requested signature not found in model graph: {name}")
        check_task(task.method_name, signature)
        signatures.append((signature, task.method_name))
    return _run_together(servable, signatures, serialized_examples(request.input))


def check_task(method: str, signature: Signature) -> None:
    """Refuse a task whose method is neither of the two, or whose signature does not fit it."""
    if method == CLASSIFY_METHOD:
        check_classification(signature)
    elif method == REGRESS_METHOD:
        check_regression(signature)
    else:
        raise ServingError(Code.UNIMPLEMENTED, f"Unsupported signature method_name: {method}")


def _run_together(
    servable: Servable, signatures: list[tuple[Signature, str]], examples: np.ndarray
) -> list[tuple[Signature, str, Any]]:
    """Run all tasks in one run of the graph, so that what they share is computed once."""
    feeds = {
        spec.tensor: examples for signature, _ in signatures for spec in signature.inputs.values()
    }
    fetches = [spec.tensor for signature, _ in signatures for spec in signature.outputs.values()]
    values = iter(servable.run(feeds, fetches))
    results = []
    for signature, method in signatures:
        outputs = {alias: next(values) for alias in signature.outputs}
        make = classification_result if method == CLASSIFY_METHOD else regression_result
        results.append((signature, method, make(outputs, len(examples))))
    return results


def input_from_json(document: Mapping[str, Any], request_input: Any) -> None:
    """Fill an `Input` from the `examples` and `context` of a REST classify or regress body."""
    examples = document.get("examples")
    has_context = "context" in document
    if has_context:
        _example(document["context"], request_input.example_list_with_context.context)
    if "examples" not in document:
        raise invalid("When method is classify, key 'examples' is expected and was not found")
    if not isinstance(examples, list):
        raise invalid("Expecting 'examples' value to be an list/array")
    if not examples:
        raise invalid("'examples' value is an empty array")
    target = request_input.example_list_with_context if has_context else request_input.example_list
    for item in examples:
        _example(item, target.examples.add())


def _example(value: Any, example: Any) -> None:
    if not isinstance(value, dict):
        raise invalid(f"Example must be JSON object but got JSON {_json_type(value)}")
    example.SetInParent()
    for name, content in value.items():
        key = text_bytes(name).decode("utf-8", "replace")
        feature = example.features.feature[key]
        for item in content if isinstance(content, list) else [content]:
            _add_value(item, name, feature)


def _add_value(value: Any, name: str, feature: Any) -> None:
    if (
        value is None
        or isinstance(value, list)
        or (isinstance(value, dict) and not is_base64(value))
    ):
        raise invalid(f"Feature: {name} has element with unexpected JSON type: {_json_type(value)}")
    kind = "bytes_list" if isinstance(value, str | dict) else "int64_list"
    if isinstance(value, float):
        kind = "float_list"
    present = feature.WhichOneof("kind")
    if present not in (None, kind):
        shown = present.removesuffix("_list")
        raise invalid(f"Unexpected element type in feature: {name} expecting type: {shown}")
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        raise invalid(f"Feature: {name} has uint64_t element. Only int64_t is supported.")
    if isinstance(value, str):
        feature.bytes_list.value.append(text_bytes(value))
    elif isinstance(value, dict):
        feature.bytes_list.value.append(decode_base64(value))
    else:
        getattr(feature, kind).value.append(value)


def _json_type(value: Any) -> str:
    if isinstance(value, bool):
        return str(value)
    kinds = {dict: "Object", list: "Array", str: "String", type(None): "Null"}
    return kinds.get(type(value), "Number")


def classification_json(result: Any) -> dict[str, Any]:
    """Return `{"results": [[[label, score], ...], ...]}`."""
    if not result.classifications:
        raise invalid("Cannot convert empty ClassificationResults to JSON")
    return {
        "results": [
            [[entry.label, decimal(entry.score, single=True)] for entry in row.classes]
            for row in result.classifications
        ]
    }


def regression_json(result: Any) -> dict[str, Any]:
    """Return `{"results": [value, ...]}`."""
    if not result.regressions:
        raise invalid("Cannot convert empty RegressionResults to JSON")
    return {"results": [decimal(entry.value, single=True) for entry in result.regressions]}
