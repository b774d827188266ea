"""What every group of workers has in common: sums inside a step whose gradient is right, and an Adam on mean gradients.

This module needs TensorFlow; trainers import it where they train.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def summed(tensor: tf.Tensor, add: Callable[[tf.Tensor], tf.Tensor], size: int) -> tf.Tensor:
    """The sum of a tensor over `size` workers by `add`; each makes the same loss of it, and gradients are averaged."""

    @tf.custom_gradient
    def total(part: tf.Tensor) -> tuple[tf.Tensor, Any]:
        # What comes back is the same everywhere, so that its sum needs no meeting.
        return add(part), lambda gradient: gradient * size

    return total(tensor)


def averaging_adam(mean: Callable[[list[tf.Tensor]], list[tf.Tensor]], **options: Any) -> tf.keras.optimizers.Optimizer:
    """Adam on gradients that `mean` has averaged over the workers."""

    class AveragingAdam(tf.keras.optimizers.Adam):
        def aggregate_gradients(self, grads_and_vars: Any) -> Any:
            gradients, variables = zip(*grads_and_vars, strict=True)
            return list(zip(mean(list(gradients)), variables, strict=True))

    return AveragingAdam(**options)
