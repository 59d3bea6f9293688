"""Batching inside the graph, by the batch operation of TF Serving's own batching library.

Requests that arrive at the same time are run as one batch. If the graph can be cut there, images
are decoded before they are batched, so images of all sizes share a batch and a damaged one fails
alone; otherwise the inputs themselves are batched.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from serving.server.config import BatchingConfig
from serving.server.protocol.signature import Signature

_MODULUS = (1 << 61) - 1
_CONTROL_FLOW = ("If", "StatelessIf", "While", "StatelessWhile", "Case", "StatelessCase")


def batchable(signature: Signature) -> bool:
    """Return whether each row of the inputs yields a row of the outputs, by the shapes."""
    shapes = [spec.shape for spec in signature.inputs.values()]
    results = [spec.shape for spec in signature.outputs.values()]
    return (
        bool(shapes)
        and all(shape and shape[0] == -1 for shape in shapes)
        and all(shape and shape[0] == -1 for shape in results)
    )


def add_batching(graph: Any, signature: Signature, config: BatchingConfig) -> dict[str, str]:
    """Add the batched form of a signature to its graph; return its tensor name by output alias.

    The feeds stay those of the signature. The functions of the graph are inlined first, because a
    cut inside a function cannot be found.
    """
    with graph.as_default(), tf.name_scope(f"batched/{signature.name}"):
        flat, results = _part(graph, signature)
        sources = {spec.tensor: graph.get_tensor_by_name(spec.tensor)
                   for spec in signature.inputs.values()}  # fmt: skip
        if all(spec.dtype == tf.string for spec in signature.inputs.values()):
            inlined, ends = _inlined(flat, signature)
            cut = find_cut(inlined, list(sources), ends)
            if cut is not None:
                flat, results = inlined, ends
                (decoded,) = tf.graph_util.import_graph_def(
                    flat, input_map=sources, return_elements=[cut], name="before"
                )
                sources = {cut: decoded}
        names, tensors = list(sources), list(sources.values())

        @tf.nondifferentiable_batch_function(
            config.num_batch_threads,
            config.max_batch_size,
            config.batch_timeout_micros,
            allowed_batch_sizes=list(config.allowed_batch_sizes) or None,
            max_enqueued_batches=config.max_enqueued_batches,
            autograph=False,
        )
        def together(*arguments: Any) -> list[Any]:
            found: list[Any] = tf.graph_util.import_graph_def(
                _after(flat, sources, results),
                input_map=dict(zip(names, arguments, strict=True)),
                return_elements=results,
                name="",
            )
            return found

        outputs = together(*tensors)
        outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
        return {
            alias: tf.identity(output).name
            for alias, output in zip(signature.outputs, outputs, strict=True)
        }


def find_cut(flat: Any, sources: Sequence[str], results: Sequence[str]) -> str | None:
    """Return the first tensor of pixels that is on every path from the inputs to the results.

    It must be numeric and of known shape except for the first dimension, so that rows of different
    requests can be stacked; only string inputs are worth a cut. Checks on the inputs that other
    nodes wait for must be part of what the cut depends on, so that they still run.
    """
    probe = tf.Graph()
    with probe.as_default():
        tf.graph_util.import_graph_def(flat, name="")
    if any(probe.get_tensor_by_name(name).dtype != tf.string for name in sources):
        return None
    order = _in_order(flat)
    starts = {name.split(":")[0] for name in sources}
    ends = {name.split(":")[0] for name in results}
    needs = {node.name: _origins(node) for node in order}
    depends = _dependent(needs, starts)
    for name in _on_all_paths(order, starts, ends):
        operation = probe.get_operation_by_name(name)
        if name in starts | ends or len(operation.outputs) != 1:
            continue
        if _stackable(operation.outputs[0]) and _keeps_checks(order, needs, depends, name):
            return f"{name}:0"
    return None


def _on_all_paths(order: Sequence[Any], starts: set[str], ends: set[str]) -> list[str]:
    """Return the nodes, in order, that are on every path of data from `starts` to `ends`.

    A node is on every path if as many paths lead through it as there are; they are counted with
    random weights modulo a prime, which errs with negligible probability.
    """
    weights = random.Random(0)  # noqa: S311 (weights of a fingerprint, no secret)
    before: dict[str, int] = {}
    after: dict[str, int] = {}
    edges: dict[tuple[str, str], int] = {}
    for node in order:
        total = 1 if node.name in starts else 0
        for origin in _origins(node, data_only=True):
            if before[origin]:
                weight = edges[origin, node.name] = weights.randrange(1, _MODULUS)
                total += before[origin] * weight
        before[node.name] = total % _MODULUS
        after[node.name] = 1 if node.name in ends else 0
    for node in reversed(order):
        for origin in _origins(node, data_only=True):
            weight = edges.get((origin, node.name), 0)
            after[origin] = (after[origin] + after[node.name] * weight) % _MODULUS
    everything = sum(before[name] for name in ends) % _MODULUS
    return [
        node.name
        for node in order
        if everything and before[node.name] * after[node.name] % _MODULUS == everything
    ]


def _keeps_checks(
    order: Sequence[Any], needs: Mapping[str, Sequence[str]], depends: set[str], cut: str
) -> bool:
    """Return whether everything that later nodes wait for is computed before or after the cut.

    Args:
        order: the nodes, each after its origins.
        needs: the origins of each node, in this order.
        depends: the nodes that depend on an input.
        cut: the node of the cut.
    """
    earlier = {cut}
    stack = [cut]
    while stack:
        for origin in needs[stack.pop()]:
            if origin not in earlier:
                earlier.add(origin)
                stack.append(origin)
    later = _dependent(needs, {cut})
    return all(
        origin in earlier or origin in later
        for node in order
        if node.name not in earlier
        for origin in _waited_for(node)
        if origin in depends
    )


def _dependent(needs: Mapping[str, Sequence[str]], starts: set[str]) -> set[str]:
    found = set(starts)
    for name, origins in needs.items():
        if not found.isdisjoint(origins):
            found.add(name)
    return found


def _stackable(tensor: Any) -> bool:
    shape = tensor.shape
    return (
        (tensor.dtype.is_floating or tensor.dtype.is_integer)
        and shape.rank is not None
        and shape.rank >= 2
        and shape[0] is None
        and shape[1:].is_fully_defined()
    )


def _origins(node: Any, data_only: bool = False) -> list[str]:
    names = [name for name in node.input if not (data_only and name.startswith("^"))]
    return sorted({name.removeprefix("^").split(":")[0] for name in names})


def _waited_for(node: Any) -> list[str]:
    return [name[1:] for name in node.input if name.startswith("^")]


def _in_order(flat: Any) -> list[Any]:
    """Return the nodes of a graph without loops, each after its origins."""
    nodes = {node.name: node for node in flat.node}
    done: dict[str, bool] = {}
    order: list[Any] = []
    for start in nodes:
        stack = [(start, False)]
        while stack:
            name, ready = stack.pop()
            if ready:
                order.append(nodes[name])
                continue
            if name in done:
                continue
            done[name] = True
            stack.append((name, True))
            stack.extend((origin, False) for origin in _origins(nodes[name]) if origin not in done)
    return order


def _after(flat: Any, sources: Mapping[str, Any], results: Sequence[str]) -> Any:
    """Return the part of the graph that computes `results` from `sources`."""
    part = tf.compat.v1.GraphDef()
    part.CopyFrom(flat)
    cut = {name.split(":")[0]: source.dtype for name, source in sources.items()}
    waiting = {origin for node in flat.node for origin in _waited_for(node)}
    gone = (_inputs_behind(part, set(cut)) | set(cut)) & waiting
    for node in part.node:
        if node.name in cut:
            node.op = "Placeholder"
            del node.input[:]
            node.attr.clear()
            node.attr["dtype"].type = cut[node.name].as_datatype_enum
        else:
            kept = [name for name in node.input if name.removeprefix("^") not in gone
                    or not name.startswith("^")]  # fmt: skip
            del node.input[:]
            node.input.extend(kept)
    ends = [name.split(":")[0] for name in results]
    return tf.compat.v1.graph_util.extract_sub_graph(part, ends)


def _inputs_behind(part: Any, cut: set[str]) -> set[str]:
    """Return all nodes that the cut itself depends on."""
    nodes = {node.name: node for node in part.node}
    behind: set[str] = set()
    stack = list(cut)
    while stack:
        for origin in _origins(nodes[stack.pop()]):
            if origin not in behind:
                behind.add(origin)
                stack.append(origin)
    return behind


def _part(graph: Any, signature: Signature) -> tuple[Any, list[str]]:
    """Return the part of the graph that computes a signature, and the names of its outputs."""
    outputs = [spec.tensor for spec in signature.outputs.values()]
    names = sorted({name.split(":")[0] for name in outputs})
    definition = graph.as_graph_def(add_shapes=True)
    return tf.compat.v1.graph_util.extract_sub_graph(definition, names), outputs


def _inlined(part: Any, signature: Signature) -> tuple[Any, list[str]]:
    """Return `part` with its functions inlined, and the names of the outputs there."""
    from tensorflow.python.grappler import tf_optimizer

    with tf.Graph().as_default() as copy:
        tf.graph_util.import_graph_def(part, name="")
        ends = [
            tf.identity(copy.get_tensor_by_name(spec.tensor)).name
            for spec in signature.outputs.values()
        ]
        meta_graph = tf.compat.v1.train.export_meta_graph(graph=copy)
    collection = meta_graph.collection_def["train_op"].node_list.value
    collection.extend([*ends, *(spec.tensor for spec in signature.inputs.values())])
    config = tf.compat.v1.ConfigProto()
    rewriting = config.graph_options.rewrite_options
    rewriting.min_graph_nodes = -1
    rewriting.optimizers.append("function")
    rewriting.function_optimization = type(rewriting).AGGRESSIVE
    # Loops are single nodes while the cut is searched for, and are lowered only at run time.
    functions = meta_graph.graph_def.library.function
    _set_lowering(meta_graph.graph_def.node, False)
    for function in functions:
        _set_lowering(function.node_def, False)
    inlined = tf_optimizer.OptimizeGraph(config, meta_graph)
    _set_lowering(inlined.node, True)
    # Functions that were not inlined must equal those of the same names in the graph.
    known = {function.signature.name: function for function in part.library.function}
    for function in inlined.library.function:
        if function.signature.name in known:
            function.CopyFrom(known[function.signature.name])
    return inlined, ends


def _set_lowering(nodes: Sequence[Any], value: bool) -> None:
    for node in nodes:
        if node.op in _CONTROL_FLOW:
            node.attr["_lower_using_switch_merge"].b = value
