"""Classify, Regress and MultiInference: from `tf.train.Example`s to classes or values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import classification_pb2, regression_pb2

from serving.server.models.servable import Servable
from serving.server.protocol.signature import DEFAULT_SIGNATURE, Signature
from serving.server.protocol.status import Code, ServingError, invalid
from serving.server.protocol.tensors import MAX_FILLED_BYTES

CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"


class Examples(NamedTuple):
    """The serialized examples of a request, and the byte strings in them, which may be images."""

    serialized: np.ndarray
    byte_values: list[bytes]


class Task(NamedTuple):
    """A signature to run on the examples of a request, and the method: classify or regress."""

    signature: Signature
    method: str


def find_task(servable: Servable, name: str, method: str) -> Task:
    """Return the task of a Classify or Regress request ("" is the default signature).

    Raises:
        ServingError: INVALID_ARGUMENT if there is no such signature, or it has another method's
            inputs and outputs.
    """
    name = name or DEFAULT_SIGNATURE
    signature = servable.signatures.get(name)
    if signature is None:
        raise invalid(f"No signature was found with the name: {name}")
    _CHECKS[method](signature)
    return Task(signature, method)


def find_tasks(servable: Servable, request: Any) -> list[Task]:
    """Return the tasks of a `MultiInferenceRequest`.

    Raises:
        ServingError: INVALID_ARGUMENT for tasks of several models, a signature that occurs twice or
            does not match its method; UNIMPLEMENTED for another method.
    """
    tasks: dict[str, Task] = {}
    for task in request.tasks:
        if not task.model_spec.name:
            raise invalid("Found ModelSpec with an empty model name.")
        if task.model_spec.name != request.tasks[0].model_spec.name:
            raise invalid(
                "All ModelSpecs in a MultiInferenceRequest must access the same model name."
            )
        name = task.model_spec.signature_name or DEFAULT_SIGNATURE
        if name in tasks:
            raise invalid(f"Duplicate evaluation of signature: {name}")
        signature = servable.signatures.get(name)
        if signature is None:
            raise invalid(f"Requested signature not found in model graph: {name}")
        if task.method_name not in _CHECKS:
            raise ServingError(
                Code.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}"
            )
        _CHECKS[task.method_name](signature)
        tasks[name] = Task(signature, task.method_name)
    return list(tasks.values())


def read_examples(request_input: Any) -> Examples:
    """Return the examples of an `Input`, each joined with the context if there is one.

    Raises:
        ServingError: INVALID_ARGUMENT if there are none.
    """
    kind = request_input.WhichOneof("kind")
    if kind is None or not getattr(request_input, kind).examples:
        raise invalid("Input is empty.")
    examples = getattr(request_input, kind).examples
    context = b""
    if kind == "example_list_with_context":
        context = request_input.example_list_with_context.context.SerializeToString()
        if len(context) * len(examples) > MAX_FILLED_BYTES:
            count = len(examples)
            raise invalid(f"Input is too large: {len(context)} bytes of context, {count} examples")
    array = np.empty(len(examples), dtype=object)
    array[:] = [context + example.SerializeToString() for example in examples]
    values = [
        value
        for example in examples
        for feature in example.features.feature.values()
        for value in feature.bytes_list.value
    ]
    return Examples(array, values)


def run_tasks(servable: Servable, tasks: Sequence[Task], examples: Examples) -> list[Any]:
    """Return the result message of each task; one run of the graph computes them all."""
    inputs = [spec for task in tasks for spec in task.signature.inputs.values()]
    for spec in inputs:
        if spec.dtype != tf.string:
            raise invalid(f"Expects arg[0] to be {spec.dtype.name} but string is provided")
    fetches = [spec.tensor for task in tasks for spec in task.signature.outputs.values()]
    serialized, byte_values = examples
    feeds = {spec.tensor: serialized for spec in inputs}
    values = iter(servable.run(feeds, fetches, byte_values))
    results = []
    for signature, method in tasks:
        outputs = {alias: next(values) for alias in signature.outputs}
        results.append(_RESULTS[method](outputs, len(serialized)))
    return results


def _check_classification(signature: Signature) -> None:
    """Require one input `inputs`, and `classes`, `scores` or both as outputs."""
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


def _check_regression(signature: Signature) -> None:
    """Require one input `inputs` and one output `outputs`."""
    if len(signature.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if len(signature.outputs) != 1:
        raise invalid("Expected one output Tensor.")
    if "inputs" not in signature.inputs:
        raise invalid(f"No regression inputs found in SignatureDef: {signature.name}")
    if "outputs" not in signature.outputs:
        raise invalid(f"No regression outputs found in SignatureDef: {signature.name}")


def _classification_result(outputs: Mapping[str, np.ndarray], count: int) -> Any:
    """Return the `ClassificationResult` of [batch, classes] outputs, after checks."""
    columns = {name: outputs[name] for name in ("classes", "scores") if name in outputs}
    for name, array in columns.items():
        if array.ndim != 2:
            raise invalid(
                f"Expected Tensor shape: [batch_size num_classes] but got {list(array.shape)}"
            )
        expected, kind = (object, "STRING") if name == "classes" else (np.float32, "FLOAT")
        if array.dtype != expected:
            raise invalid(f"Expected {name} Tensor of DT_{kind}. Got: {array.dtype}")
        if len(array) != count:
            raise invalid(f"Expected {name} output batch size of {count}. Got: {len(array)}")
    widths = [array.shape[1] for array in columns.values()]
    if len(set(widths)) > 1:
        raise invalid(
            f"Tensors class and score should match in dim_size(1). Got {widths[0]} vs. {widths[1]}"
        )
    result = classification_pb2.ClassificationResult()
    for row in range(count):
        added = result.classifications.add()
        for column in range(widths[0]):
            entry = added.classes.add()
            if "classes" in columns:
                entry.label = columns["classes"][row, column].decode("utf-8", "replace")
            if "scores" in columns:
                entry.score = columns["scores"][row, column]
    return result


def _regression_result(outputs: Mapping[str, np.ndarray], count: int) -> Any:
    """Return the `RegressionResult` of a float32 output [batch] or [batch, 1], after checks."""
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


_CHECKS: dict[str, Callable[[Signature], None]] = {
    CLASSIFY: _check_classification,
    REGRESS: _check_regression,
}
_RESULTS: dict[str, Callable[[Mapping[str, np.ndarray], int], Any]] = {
    CLASSIFY: _classification_result,
    REGRESS: _regression_result,
}
