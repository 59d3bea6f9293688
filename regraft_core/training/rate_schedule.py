"""The learning rate by step, in variables, so that one graph serves trainings of other lengths."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf


class RateSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up to a peak, then cosine decay to zero (Loshchilov and Hutter, 2017).

    Without decay, the learning rate is the peak throughout.
    """

    def __init__(self, *, cosine_decay: bool) -> None:
        self._cosine_decay = cosine_decay
        self._peak, self._warm_up, self._total = (
            tf.Variable(value, trainable=False, dtype=tf.float32) for value in (0.0, 1.0, 2.0)
        )

    def set(self, peak: float, warm_up: int, total: int) -> None:
        """Set the peak, the steps of the warm-up, and those of the training."""
        self._peak.assign(peak)
        self._warm_up.assign(float(max(warm_up, 1)))
        self._total.assign(float(total))

    def __call__(self, step: Any) -> tf.Tensor:
        """Return the learning rate of a step."""
        if not self._cosine_decay:
            return tf.identity(self._peak)
        done = tf.cast(step, tf.float32)
        rising = (1.0 + (self._warm_up - 1.0) * done / self._warm_up) / self._warm_up
        length = tf.maximum(self._total - self._warm_up, 1.0)
        share = tf.clip_by_value((done - self._warm_up) / length, 0.0, 1.0)
        falling = 0.5 * (1.0 + tf.cos(math.pi * share))
        return self._peak * tf.where(done < self._warm_up, rising, falling)
