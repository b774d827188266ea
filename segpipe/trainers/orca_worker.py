"""What of Orca runs in its workers: each trains alone, and segpipe's ring adds up what they find.

Orca's own way, MultiWorkerMirroredStrategy, starts TensorFlow's server in each worker. That listens on all of a
machine's addresses, cannot be told otherwise, and does what anybody asks of it: it reads and writes the user's files.
"""

from typing import Any

import numpy as np
import tensorflow as tf
from bigdl.orca.learn.tf2.spark_runner import SparkRunner

from segpipe.trainers.averaging import averaging_adam, summed
from segpipe.trainers.meeting import barrier_meeting
from segpipe.trainers.ring import Ring


class Runner(SparkRunner):
    """Orca's worker without TensorFlow's server."""

    def setup_distributed(self, cluster: Any) -> None:
        """See SparkRunner."""
        from pyspark import BarrierTaskContext

        self.rank = BarrierTaskContext.get().partitionId()
        self.strategy = tf.distribute.get_strategy()


class RingGroup:
    """The workers of a training that add up around a ring, seen from one of them."""

    def __init__(self, secret: bytes, ports: str):
        self._ring = Ring.join(barrier_meeting(), secret, ports)
        self.rank, self.size = self._ring.rank, self._ring.size

    def total(self, tensor: tf.Tensor) -> tf.Tensor:
        """The sum of a tensor over all workers, inside a training step."""
        return summed(tensor, self._add, self.size)

    def sum(self, numbers: np.ndarray) -> np.ndarray:
        """The sum of an array over all workers, between steps."""
        return self._ring.add(numbers)

    def optimizer(self, **options: Any) -> tf.keras.optimizers.Optimizer:
        """Adam on gradients that are averaged over the workers."""
        return averaging_adam(self._mean, **options)

    def close(self) -> None:
        """Leave the others."""
        self._ring.close()

    def _mean(self, gradients: list[tf.Tensor]) -> list[tf.Tensor]:
        """All gradients at once: a step has one round."""
        sizes = [gradient.shape.num_elements() for gradient in gradients]
        flat = self._add(tf.concat([tf.reshape(gradient, [-1]) for gradient in gradients], axis=0)) / self.size
        parts = tf.split(flat, sizes)
        return [tf.reshape(part, gradient.shape) for part, gradient in zip(parts, gradients, strict=True)]

    def _add(self, tensor: tf.Tensor) -> tf.Tensor:
        # An operation with a state, as TensorFlow calls it: a step's are done in the order in which it names them.
        added = tf.numpy_function(self._ring.add, [tensor], tensor.dtype, stateful=True)
        return tf.ensure_shape(added, tensor.shape)
