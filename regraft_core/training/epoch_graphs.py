"""One pass over the rows as one graph: a small head's step takes less time than starting it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from regraft_core.training.training_source import Source, batches


class LayerwiseAdam(keras.optimizers.Adam):
    """Adam with a share of the learning rate for each trainable variable, in their order.

    A variable's step is one operation of TensorFlow, which takes half the time of Keras' many. It
    takes gradients that are summed over the replicas already, so that clipping sees the same
    gradient with several replicas as with one.
    """

    def __init__(self, *args: Any, rate_shares: tuple[float, ...] | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._rate_shares = rate_shares

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Take one variable's step."""
        if self._rate_shares is not None:
            share = self._rate_shares[self._get_variable_index(variable)]
            learning_rate = tf.cast(learning_rate, tf.float32) * share
        place = self._get_variable_index(variable)
        steps = tf.cast(self.iterations.value + 1, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[place].value.handle,
            v=self._velocities[place].value.handle,
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
    """Whole passes as graphs, over an iterator of batches or over rows in memory.

    Each gives mean loss (without penalties) and accuracy, float32 [2].
    """

    train: Any
    measure: Any
    train_resident: Any
    measure_resident: Any
    batch_size: int
    classes: int


def run_epoch(
    passes: EpochGraphs,
    source: Source,
    order: NDArray[np.int64],
    epoch: int,
    class_weights: tuple[float, ...] | None,
    *,
    train: bool,
    pulse: Callable[[int], None] = lambda done: None,
) -> NDArray[np.float32]:
    """Run one pass over the rows of `source` in `order`; return mean loss and accuracy.

    Rows in memory are used as such by one replica only: several read their shares. Of rows that
    are read, `pulse` is told how many were.
    """
    weights = class_weights or (1.0,) * passes.classes
    held = source.resident
    if held is None or tf.distribute.get_strategy().num_replicas_in_sync > 1:
        run = passes.train if train else passes.measure
        steps = -(-len(order) // passes.batch_size)
        found = batches(source, order, epoch, passes.batch_size, weights, pulse)
        return np.asarray(run(found, tf.constant(steps)))
    run = passes.train_resident if train else passes.measure_resident
    places = order + source.count * ((epoch + order) % held.views)
    table = tf.constant(weights, tf.float32)
    return np.asarray(run(held.inputs, held.labels, tf.constant(order), tf.constant(places), table))


def compile_epoch_graphs(
    model: keras.Model, optimizer: Any, batch_size: int, classes: int, smoothing: float
) -> EpochGraphs:
    """Return the passes of `model` (inputs to logits), for the strategy that is in scope."""
    strategy = tf.distribute.get_strategy()
    replicas = strategy.num_replicas_in_sync

    def over_replicas(values: Any) -> Any:
        if replicas == 1:
            return values
        total = tf.distribute.ReduceOp.SUM
        return tf.distribute.get_replica_context().all_reduce(total, values)

    def losses(targets: tf.Tensor, logits: tf.Tensor, smooth: float) -> tf.Tensor:
        return keras.losses.categorical_crossentropy(
            targets, logits, from_logits=True, label_smoothing=smooth
        )

    def sums(loss: Any, targets: tf.Tensor, logits: tf.Tensor, counted: tf.Tensor) -> tf.Tensor:
        right = tf.cast(tf.argmax(targets, 1) == tf.argmax(logits, 1), tf.float32)
        total = tf.stack([tf.reduce_sum(values * counted) for values in (loss, right)])
        return tf.concat([total, [tf.reduce_sum(counted)]], 0)

    def step(
        inputs: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor, counted: tf.Tensor
    ) -> tf.Tensor:
        count = over_replicas(tf.reduce_sum(counted))
        with tf.GradientTape() as tape:
            logits = model(inputs, training=True)
            per_image = losses(targets, logits, smoothing) * weights
            penalties = tf.add_n(model.losses) if model.losses else 0.0
            loss = tf.reduce_sum(per_image * counted) / count + penalties / replicas
            loss = optimizer.scale_loss(loss)
        variables = model.trainable_variables
        optimizer.apply(over_replicas(tape.gradient(loss, variables)), variables)
        return sums(per_image, targets, logits, counted)

    def judge(
        inputs: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor, counted: tf.Tensor
    ) -> tf.Tensor:
        logits = model(inputs, training=False)
        return sums(losses(targets, logits, 0.0), targets, logits, counted)

    def over_batches(one: Any) -> Any:
        @tf.function
        def run(found: Any, steps: tf.Tensor) -> tf.Tensor:
            total = tf.zeros([3])
            for _ in tf.range(steps):
                each = strategy.run(one, args=next(found))
                total += strategy.reduce(tf.distribute.ReduceOp.SUM, each, axis=None)
            return total[:2] / total[2]

        return run

    def over_memory(one: Any) -> Any:
        @tf.function
        def run(
            inputs: tf.Tensor, labels: tf.Tensor, order: tf.Tensor, places: tf.Tensor,
            table: tf.Tensor,
        ) -> tf.Tensor:  # fmt: skip
            total = tf.zeros([3])
            for first in tf.range(0, tf.shape(order)[0], batch_size):
                batch = tf.gather(inputs, places[first : first + batch_size])
                true_labels = tf.gather(labels, order[first : first + batch_size])
                weights = tf.gather(table, true_labels)
                targets = tf.one_hot(true_labels, classes)
                total += one(tf.cast(batch, tf.float32), targets, weights, tf.ones_like(weights))
            return total[:2] / total[2]

        return run

    return EpochGraphs(
        over_batches(step),
        over_batches(judge),
        over_memory(step),
        over_memory(judge),
        batch_size,
        classes,
    )
