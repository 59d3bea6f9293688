"""A SavedModel as a frozen extractor: its graph, of allowed operations only, as a Keras layer.

A graph can read and write files and call Python. So every operation of a SavedModel is compared
with a list before it is loaded, and again when a trained model that contains the graph is read.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.framework import convert_to_constants, op_def_registry

from regraft_core.backbones.network_layers import PACKAGE
from regraft_core.backbones.own_files import GRAPH_FILE
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.safe_files import refuse_links

# They compute from tensors and variables only.
_ALLOWED = frozenset({
    "Abs", "Add", "AddN", "AddV2", "All", "Any", "ArgMax", "ArgMin", "AssignAddVariableOp",
    "AssignSubVariableOp", "AssignVariableOp", "AvgPool", "BatchMatMul", "BatchMatMulV2",
    "BatchMatMulV3", "BatchToSpaceND", "BiasAdd", "Bitcast", "BroadcastArgs", "BroadcastTo", "Cast",
    "Ceil", "ClipByValue", "Concat", "ConcatV2", "Const", "Conv2D", "Cos", "Cumsum", "DepthToSpace",
    "DepthwiseConv2dNative", "DisableCopyOnRead", "Div", "DivNoNan", "Einsum", "Elu", "Equal",
    "Erf", "Erfc", "Exp", "ExpandDims", "Expm1", "Fill", "Floor", "FloorDiv", "FloorMod",
    "FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3", "Gather", "GatherNd", "GatherV2",
    "Greater", "GreaterEqual", "Identity", "IdentityN", "If", "ImageProjectiveTransformV2",
    "ImageProjectiveTransformV3", "InvertPermutation", "L2Loss", "LRN", "LeakyRelu", "Less",
    "LessEqual", "LinSpace", "Log", "Log1p", "LogSoftmax", "LogicalAnd", "LogicalNot", "LogicalOr",
    "MatMul", "MatrixDiagV3", "Max", "MaxPool", "MaxPoolV2", "Maximum", "Mean", "Min", "Minimum",
    "MirrorPad", "Mul", "MulNoNan", "Neg", "NoOp", "NotEqual", "OneHot", "OnesLike", "Pack", "Pad",
    "PadV2", "PartitionedCall", "Placeholder", "PlaceholderWithDefault", "Pow", "Prod",
    "RandomStandardNormal", "RandomUniform", "Range", "Rank", "ReadVariableOp", "RealDiv",
    "Reciprocal", "Relu", "Relu6", "Reshape", "ResizeBicubic", "ResizeBilinear",
    "ResizeNearestNeighbor", "ReverseV2", "RngReadAndSkip", "Roll", "Round", "Rsqrt", "Select",
    "SelectV2", "Selu", "Shape", "ShapeN", "Sigmoid", "Sign", "Sin", "Size", "Slice", "Snapshot",
    "Softmax", "Softplus", "Softsign", "SpaceToBatchND", "SpaceToDepth", "Split", "SplitV", "Sqrt",
    "Square", "SquaredDifference", "Squeeze", "StatefulPartitionedCall", "StatelessIf",
    "StatelessRandomGetAlg", "StatelessRandomGetKeyCounter", "StatelessRandomNormalV2",
    "StatelessRandomUniformFullIntV2", "StatelessRandomUniformInt", "StatelessRandomUniformIntV2",
    "StatelessRandomUniformV2", "StopGradient", "StridedSlice", "Sub", "Sum", "Tan", "Tanh", "Tile",
    "TopKV2", "Transpose", "TruncateDiv", "Unpack", "VarHandleOp", "VarIsInitializedOp", "Where",
    "Xdivy", "ZerosLike",
})  # fmt: skip
# What writes and reads the variables. Only the functions that the saver names may have them, and
# loading a SavedModel does not run these functions.
_SAVER = frozenset({
    "MergeV2Checkpoints", "RestoreV2", "SaveV2", "ShardedFilename", "StaticRegexFullMatch",
    "StringJoin",
})  # fmt: skip
_SIGNATURE = "serving_default"
# Constants up to this size stay in the graph; larger ones are weights of the layer.
_SMALL = 64
_SPLAT_BYTES = 1 << 20


def check_operations(names: Iterable[str], what: str, others: frozenset[str] = frozenset()) -> None:
    """Check that a graph only computes.

    Raises:
        InputError: it has other operations, such as those that read files or call Python.
    """
    unknown = sorted(set(names) - _ALLOWED - others)
    if unknown:
        raise InputError(
            f"backbone: {what} has operations that are not run, because they do not only compute: "
            f"{', '.join(unknown[:5])}"
        )


def _check_functions(names: Iterable[str], what: str) -> None:
    """Check that no function has the name of an operation, which could run in its place.

    Raises:
        InputError: one has.
    """
    if hidden := sorted(name for name in names if op_def_registry.get(name) is not None):
        raise InputError(f"backbone: {what} has functions named as operations: {hidden[0]}")


def build_frozen(path: Path, image_px: int) -> keras.Model:
    """Return a SavedModel as a functional model of one layer, which is never trained.

    Args:
        path: its folder; the signature `serving_default` computes the features.
        image_px: side of the images.

    Raises:
        InputError: it has operations that are not allowed, links, assets, or another signature.
    """
    refuse_links(path)
    _check_saved_model(path)
    try:
        loaded = tf.saved_model.load(str(path))  # signatures do not keep its variables
        signatures = loaded.signatures
        if _SIGNATURE not in signatures:
            raise InputError(
                f"backbone: expected a signature {_SIGNATURE} in {path.name}, found "
                f"{', '.join(signatures) or 'none'}"
            )
        function = signatures[_SIGNATURE]
        inputs = function.inputs[: len(function.inputs) - len(function.captured_inputs)]
        _check_ends(path, image_px, inputs, function.outputs)
        stateless = _stateless_graph(function)
        if any("Random" in node.op for node in stateless.node):
            raise InputError(
                f"backbone: the features of {path.name} are random, because layers such as those "
                "that augment images work as in training; export the network without them"
            )
        definition, values = _without_constants(stateless)
        layer = FrozenGraph(
            base64.b64encode(definition.SerializeToString()).decode(),
            [[name, list(value.shape)] for name, value in values.items()],
            inputs[0].name,
            function.outputs[0].name,
            name="saved_model",
        )
        pixels = keras.Input((image_px, image_px, 3), name="image")
        model = keras.Model(pixels, layer(pixels), name="backbone")
    except InputError:
        raise
    except Exception as error:
        # TensorFlow raises many kinds of errors for a damaged folder.
        cause = " ".join(str(error).split())[:150]
        raise InputError(f"backbone: cannot load the SavedModel {path.name}: {cause}") from error
    layer.set_weights(list(values.values()))
    return model


def _check_ends(
    path: Path, image_px: int, inputs: Sequence[tf.Tensor], outputs: Sequence[tf.Tensor]
) -> None:
    """Check that a graph computes one tensor of features from any number of images.

    Raises:
        InputError: it does not.
    """
    given = inputs[0].shape.as_list() if len(inputs) == 1 and inputs[0].shape.rank == 4 else []
    is_image = given[3:] == [3] and all(side in (None, image_px) for side in given[1:3])
    if not is_image or not (inputs[0].dtype.is_floating or inputs[0].dtype.is_integer):
        raise InputError(
            f"backbone: expected a signature {_SIGNATURE} of {path.name} with one input [n, "
            f"{image_px}, {image_px}, 3], got {[(*one.shape, one.dtype.name) for one in inputs]}"
        )
    if given[0] is not None:
        raise InputError(
            f"backbone: {path.name} computes {given[0]} images at a time; export it for any number"
        )
    if len(outputs) != 1:
        raise InputError(
            f"backbone: expected one output of {path.name}, got {len(outputs)}; export a model "
            "that returns only the features"
        )
    shape, kind = outputs[0].shape, outputs[0].dtype
    known = shape.rank in (2, 3, 4) and None not in shape[1:].as_list()
    if not known or not kind.is_floating:
        raise InputError(
            f"backbone: expected features [n, h, w, c], [n, tokens, c] or [n, c] of floats of "
            f"{path.name}, got {shape} of {kind.name}"
        )


def _check_saved_model(path: Path) -> None:
    """Check all operations of a SavedModel, of which nothing is loaded yet."""
    from tensorflow.core.protobuf import saved_model_pb2

    content = saved_model_pb2.SavedModel()
    try:
        content.ParseFromString((path / GRAPH_FILE).read_bytes())
    except Exception as error:
        raise InputError(f"backbone: {path.name}/{GRAPH_FILE} is not a SavedModel") from error
    for graph in content.meta_graphs:
        _check_constants(path, graph.graph_def)
        if graph.asset_file_def:
            raise InputError(f"backbone: {path.name} has asset files, which are not read")
        functions = {one.signature.name: one.node_def for one in graph.graph_def.library.function}
        what = f"the SavedModel {path.name}"
        _check_functions(functions, what)
        saver = graph.saver_def
        roots = {name.partition(":")[0] for name in
                 (saver.save_tensor_name, saver.restore_op_name)}  # fmt: skip
        saving = [node for node in graph.graph_def.node if node.name in roots]
        other = [node for node in graph.graph_def.node if node.name not in roots]
        of_saver = _called(saving, functions)
        computing = {name: nodes for name, nodes in functions.items() if name not in of_saver}
        # Objects of the SavedModel call functions when they are loaded, such as initializers.
        elsewhere = set(graph.object_graph_def.concrete_functions)
        elsewhere |= _called([*other, *chain.from_iterable(computing.values())], functions)
        if elsewhere & of_saver:
            raise InputError(f"backbone: {path.name} uses the functions of its saver elsewhere")
        names = [node.op for node in other]
        names += [node.op for nodes in computing.values() for node in nodes]
        check_operations((name for name in names if name not in functions), what)
        saved = [node.op for node in saving]
        saved += [node.op for name in of_saver for node in functions[name]]
        check_operations(saved, what, _SAVER)


def _check_constants(path: Path, definition: Any) -> None:
    """Check that no constant is larger than the file: one value can stand for gigabytes."""
    limit = _SPLAT_BYTES + definition.ByteSize()
    nodes = chain(definition.node, *(one.node_def for one in definition.library.function))
    for node in nodes:
        value = node.attr["value"].tensor if "value" in node.attr else None
        shape = [] if value is None else [one.size for one in value.tensor_shape.dim]
        if math.prod(shape) > limit:
            raise InputError(
                f"backbone: {path.name} has a constant of the shape {shape}, larger than the file"
            )


def _called(nodes: Iterable[Any], functions: Mapping[str, Any]) -> set[str]:
    """Return the functions that nodes call, and those that these call."""
    found: set[str] = set()
    pending = list(nodes)
    while pending:
        node = pending.pop()
        names = {node.op}
        for value in node.attr.values():
            names.add(value.func.name)
            names.update(one.name for one in value.list.func)
        for name in names & set(functions) - found:
            found.add(name)
            pending.extend(functions[name])
    return found


def _stateless_graph(function: Any) -> Any:
    """Return the graph of what a function returns, with variables and other captures as constants.

    What it does in addition is skipped, such as counting its calls in a variable.
    """
    data = convert_to_constants._FunctionConverterDataInEager(
        func=function, lower_control_flow=True, aggressive_inlining=False
    )
    definition, _ = convert_to_constants._replace_variables_by_constants(converter_data=data)
    nodes = {node.name: node for node in definition.node}
    count = len(function.inputs) - len(function.captured_inputs)
    for tensor, value in zip(function.inputs[count:], function.captured_inputs, strict=True):
        if tensor.dtype != tf.resource:  # such as the statistics of a layer Normalization
            proto = tf.make_tensor_proto(value.numpy())
            nodes[tensor.op.name].CopyFrom(_constant(tensor.op.name, proto))
    needed: set[str] = set()
    pending = [one.op.name for one in (*function.outputs, *function.inputs[:count])]
    while pending:
        name = pending.pop()
        if name in needed:
            continue
        needed.add(name)
        values = [value for value in nodes[name].input if not value.startswith("^")]
        del nodes[name].input[:]
        nodes[name].input.extend(values)
        pending.extend(value.partition(":")[0] for value in values)
    graph = tf.compat.v1.GraphDef(versions=definition.versions, library=definition.library)
    graph.node.extend(node for node in definition.node if node.name in needed)
    return graph


def _constant(name: str, value: Any) -> Any:
    """Return the node of a constant."""
    node = tf.compat.v1.NodeDef(name=name, op="Const")
    node.attr["dtype"].type = value.dtype
    node.attr["value"].tensor.CopyFrom(value)
    return node


def _without_constants(definition: Any) -> tuple[Any, dict[str, Any]]:
    """Return a graph whose larger constants are placeholders, and their values by name."""
    values: dict[str, Any] = {}
    for node in definition.node:
        if node.op != "Const" or node.attr["dtype"].type != tf.float32.as_datatype_enum:
            continue
        value = tf.make_ndarray(node.attr["value"].tensor)
        if value.size <= _SMALL:
            continue
        values[node.name] = value
        node.op = "Placeholder"
        del node.attr["value"]
        node.attr["shape"].shape.CopyFrom(tf.TensorShape(value.shape).as_proto())
    return definition, values


@keras.saving.register_keras_serializable(PACKAGE)
class FrozenGraph(keras.layers.Layer):
    """A graph of TensorFlow as a layer whose weights are its constants and are never trained.

    Args:
        graph: the serialized `GraphDef`, in Base64, with placeholders for the weights.
        constants: name and shape of each of them.
        source: name of the tensor with the images.
        output: name of the tensor with the features.
    """

    def __init__(
        self, graph: str, constants: Sequence[Sequence[Any]], source: str, output: str,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(**kwargs | {"trainable": False})
        self._arguments: dict[str, Any] = {
            "graph": graph, "constants": [list(one) for one in constants], "source": source,
            "output": output,
        }  # fmt: skip
        self._definition = tf.compat.v1.GraphDef.FromString(base64.b64decode(graph))
        library = self._definition.library.function
        functions = {one.signature.name for one in library}
        _check_functions(functions, "the network's graph")
        nodes = [*self._definition.node, *(node for one in library for node in one.node_def)]
        check_operations((n.op for n in nodes if n.op not in functions), "the network's graph")
        self._run = tf.function(self._import, autograph=False)

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Create the weights."""
        self._constants = [
            self.add_weight(
                shape=tuple(shape), name=f"constant{index}", trainable=False, autocast=False
            )
            for index, (_, shape) in enumerate(self._arguments["constants"])
        ]

    def _import(self, images: tf.Tensor, *constants: tf.Tensor) -> tf.Tensor:
        names = [name for name, _ in self._arguments["constants"]]
        given = {f"{name}:0": value for name, value in zip(names, constants, strict=True)}
        (source,) = (node for node in self._definition.node
                     if node.name == self._arguments["source"].partition(":")[0])  # fmt: skip
        images = tf.cast(images, source.attr["dtype"].type)
        (features,) = tf.graph_util.import_graph_def(
            self._definition,
            input_map=given | {self._arguments["source"]: images},
            return_elements=[self._arguments["output"]],
            name="",
        )
        *_, width = features.shape
        shape = features.shape[1:]
        if len(shape) == 1:
            shape = (1, 1, width)
        elif len(shape) == 2:
            shape = (1, *shape)
        return tf.reshape(tf.cast(features, tf.float32), (-1, *shape))

    def call(self, inputs: Any) -> Any:
        """Return the features as a map [n, h, w, c]."""
        images = tf.cast(inputs, tf.float32)
        return self._run(images, *(tf.convert_to_tensor(one) for one in self._constants))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return super().get_config() | self._arguments
