"""An epoch as one graph: a training step of a small head takes less time than starting it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from regraft_core.formats.options.fine_tune import Mix
from regraft_core.training.mixing import mix_rows
from regraft_core.training.training_source import Source, batches, targets_of


class LayerwiseAdam(keras.optimizers.Adam):
    """Adam with a learning rate ratio for each trainable variable, in their order.

    The step of a variable is one TensorFlow operation, in half the time of the several of Keras.
    Gradients must already be summed over the replicas, so that clipping sees the same gradient with
    several replicas as with one. The momentum of averaged weights is a variable, so that it can
    change between trainings.
    """

    def __init__(self, *args: Any, lr_ratios: tuple[float, ...] | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lr_ratios = lr_ratios
        self.ema_momentum: Any = tf.Variable(0.0, trainable=False, dtype=tf.float32)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable."""
        index = self._get_variable_index(variable)
        if self._lr_ratios is not None:
            learning_rate = tf.cast(learning_rate, tf.float32) * self._lr_ratios[index]
        steps = tf.cast(self.iterations.value + 1, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=self.beta_1**steps,
            beta2_power=self.beta_2**steps,
            lr=tf.cast(learning_rate, variable.dtype),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        return grads_and_vars


@dataclass(frozen=True)
class EpochGraphs:
    """Epochs as graphs, over an iterator of batches or over rows in memory.

    `train` returns mean loss (without penalties) and accuracy, float32 [2]; `measure` the loss of
    each row and whether it is predicted correctly, float32 [n, 2].
    """

    train: Any
    measure: Any
    train_resident: Any
    measure_resident: Any
    batch_size: int
    classes: int


def run_epoch(
    graphs: EpochGraphs,
    source: Source,
    order: NDArray[np.int64],
    epoch: int,
    class_weights: tuple[float, ...] | None,
    *,
    train: bool,
    progress: Callable[[int], None] = lambda done: None,
) -> NDArray[np.float32]:
    """Run one epoch over the rows of `source` in `order`; return what its graph returns.

    Only a single replica uses rows in memory; several replicas read theirs batch by batch.
    `progress` is called with the number of rows that were read.
    """
    weights = class_weights or (1.0,) * graphs.classes
    resident = source.resident
    if resident is None or tf.distribute.get_strategy().num_replicas_in_sync > 1:
        run = graphs.train if train else graphs.measure
        steps = -(-len(order) // graphs.batch_size)
        data = batches(source, order, epoch, graphs.batch_size, weights, progress)
        return np.asarray(run(data, tf.constant(steps)))
    run = graphs.train_resident if train else graphs.measure_resident
    rows = order + source.count * ((epoch + order) % resident.views)
    by_class = tf.constant(weights, tf.float32)
    arrays = (resident.inputs, resident.labels, tf.constant(order), tf.constant(rows), by_class)
    return np.asarray(run(*arrays))


@dataclass(frozen=True)
class Mixing:
    """How the rows of a batch are mixed; `seed` is an int32 variable, of the training.

    With the number of the step, it sets the mixture, so that a resumed training has the same. Each
    replica mixes its own part of a batch.
    """

    kind: Mix
    seed: Any

    def mix(
        self, step: tf.Tensor, inputs: Any, targets: tf.Tensor, weights: tf.Tensor
    ) -> tuple[Any, tf.Tensor, tf.Tensor]:
        """Return mixed inputs, targets and weights."""
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        number: Any = 0
        if replicas > 1:
            number = tf.distribute.get_replica_context().replica_id_in_sync_group
        place = tf.cast(step, tf.int32) * replicas + number
        return mix_rows(self.kind, tf.stack([self.seed, place]), inputs, targets, weights)


class StartedEpoch:
    """Training in parts over rows that are read by one input pipeline, which takes long to start.

    The rows are those of `source` in `order`, and the number of their `epoch`.
    """

    def __init__(
        self, graphs: EpochGraphs, source: Source, order: NDArray[np.int64], epoch: int,
        class_weights: tuple[float, ...] | None,
    ) -> None:  # fmt: skip
        weights = class_weights or (1.0,) * graphs.classes
        self._train = graphs.train
        self._data = batches(source, order, epoch, graphs.batch_size, weights)
        self.steps_left = -(-len(order) // graphs.batch_size)

    def train(self, steps: int) -> NDArray[np.float32]:
        """Train for some of the steps that are left; return mean loss and accuracy."""
        self.steps_left -= steps
        return np.asarray(self._train(self._data, tf.constant(steps)))


def compile_epoch_graphs(
    model: keras.Model, optimizer: Any, batch_size: int, classes: int, smoothing: float,
    mixing: Mixing, *, several: bool = False,
) -> EpochGraphs:  # fmt: skip
    """Return the epoch graphs of `model` (inputs to logits), for the strategy in scope.

    The loss is the cross-entropy of the classes or, with `several` labels an image, the mean binary
    cross-entropy of them; `correct` is then the fraction of correct labels.
    """
    strategy = tf.distribute.get_strategy()
    replicas = strategy.num_replicas_in_sync

    def sum_replicas(values: Any) -> Any:
        if replicas == 1:
            return values
        total = tf.distribute.ReduceOp.SUM
        return tf.distribute.get_replica_context().all_reduce(total, values)

    def losses(targets: tf.Tensor, logits: tf.Tensor, smooth: float) -> tf.Tensor:
        if several:
            each_label = tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=logits)
            return tf.reduce_mean(each_label, axis=1)
        return keras.losses.categorical_crossentropy(
            targets, logits, from_logits=True, label_smoothing=smooth
        )

    def each(loss: Any, targets: tf.Tensor, logits: tf.Tensor, counted: tf.Tensor) -> tf.Tensor:
        if several:
            correct = tf.reduce_mean(tf.cast((targets > 0.5) == (logits > 0), tf.float32), axis=1)
        else:
            correct = tf.cast(tf.argmax(targets, 1) == tf.argmax(logits, 1), tf.float32)
        return tf.stack([loss * counted, correct * counted, counted], 1)

    def train_step(
        inputs: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor, counted: tf.Tensor
    ) -> tf.Tensor:
        count = sum_replicas(tf.reduce_sum(counted))
        step = optimizer.iterations.value
        inputs, targets, weights = mixing.mix(step, inputs, targets, weights)
        with tf.GradientTape() as tape:
            logits = model(inputs, training=True)
            per_image = losses(targets, logits, smoothing) * weights
            penalties = tf.add_n(model.losses) if model.losses else 0.0
            loss = tf.reduce_sum(per_image * counted) / count + penalties / replicas
            loss = optimizer.scale_loss(loss)
        variables = model.trainable_variables
        optimizer.apply(sum_replicas(tape.gradient(loss, variables)), variables)
        return tf.reduce_sum(each(per_image, targets, logits, counted), 0)

    def measure_step(
        inputs: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor, counted: tf.Tensor
    ) -> tf.Tensor:
        logits = model(inputs, training=False)
        rows = each(losses(targets, logits, 0.0), targets, logits, counted)
        return rows if replicas == 1 else in_place(rows)

    def in_place(rows: tf.Tensor) -> tf.Tensor:
        """Return a replica's rows at their place in a whole batch, which is 0 elsewhere."""
        first = tf.distribute.get_replica_context().replica_id_in_sync_group * tf.shape(rows)[0]
        whole = replicas * -(-batch_size // replicas)
        return tf.pad(rows, [[first, whole - first - tf.shape(rows)[0]], [0, 0]])

    @tf.function
    def train(data: Any, steps: tf.Tensor) -> tf.Tensor:
        total = tf.zeros([3])
        for _ in tf.range(steps):
            results = strategy.run(train_step, args=next(data))
            total += strategy.reduce(tf.distribute.ReduceOp.SUM, results, axis=None)
        return total[:2] / total[2]

    @tf.function
    def measure(data: Any, steps: tf.Tensor) -> tf.Tensor:
        found = tf.TensorArray(tf.float32, steps, element_shape=[None, 3], infer_shape=False)
        for step in tf.range(steps):
            results = strategy.run(measure_step, args=next(data))
            rows = strategy.reduce(tf.distribute.ReduceOp.SUM, results, axis=None)
            found = found.write(step, rows)
        rows = found.concat()
        return tf.boolean_mask(rows[:, :2], rows[:, 2] > 0)

    def batch_in_memory(arrays: Sequence[Any], first: tf.Tensor) -> tuple[Any, ...]:
        inputs, labels, order, rows, by_class = arrays
        chosen = rows[first : first + batch_size]
        batch = tf.nest.map_structure(
            lambda array: tf.cast(tf.gather(array, chosen), tf.float32), inputs
        )
        true_labels = tf.gather(labels, order[first : first + batch_size])
        targets, weights = targets_of(true_labels, by_class)
        return batch, targets, weights, tf.ones_like(weights)

    @tf.function
    def train_resident(*arrays: Any) -> tf.Tensor:
        total = tf.zeros([3])
        for first in tf.range(0, tf.shape(arrays[2])[0], batch_size):
            total += train_step(*batch_in_memory(arrays, first))
        return total[:2] / total[2]

    @tf.function
    def measure_resident(*arrays: Any) -> tf.Tensor:
        steps = -(-tf.shape(arrays[2])[0] // batch_size)
        found = tf.TensorArray(tf.float32, steps, element_shape=[None, 3], infer_shape=False)
        for step in tf.range(steps):
            rows = measure_step(*batch_in_memory(arrays, step * batch_size))
            found = found.write(step, rows)
        return found.concat()[:, :2]

    return EpochGraphs(train, measure, train_resident, measure_resident, batch_size, classes)
