"""What training makes small: soft Dice over the whole batch plus cross-entropy, per region."""

from collections.abc import Callable

import tensorflow as tf

Total = Callable[[tf.Tensor], tf.Tensor]

_SMOOTH = 1.0  # voxels; keeps Dice defined where a region is absent from a batch


def dice_cross_entropy(total: Total = tf.identity) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """The loss (truth, probabilities), both (N, ..., R), to float32 (N,): cross-entropy + 1 - soft Dice, over regions.

    Soft Dice (Milletari et al. 2016, arXiv 1606.04797) is taken over all voxels of the batch at once, for in single
    slices a region is mostly absent. `total` adds a tensor up over all workers, so that the batch is the global one and
    the gradient does not depend on how it is shared out.
    """

    def loss(truth: tf.Tensor, probabilities: tf.Tensor) -> tf.Tensor:
        truth = tf.cast(truth, tf.float32)
        voxels = list(range(1, truth.shape.rank))
        cross_entropy = tf.reduce_mean(tf.keras.backend.binary_crossentropy(truth, probabilities), voxels)
        return cross_entropy + 1.0 - tf.reduce_mean(soft_dice(truth, probabilities, total))

    return loss


def soft_dice(truth: tf.Tensor, probabilities: tf.Tensor, total: Total = tf.identity) -> tf.Tensor:
    """Soft Dice float32 (R,) over all voxels of a batch (N, ..., R) that `total` adds up over the workers."""
    voxels = list(range(truth.shape.rank - 1))
    overlap = tf.reduce_sum(truth * probabilities, voxels)
    sizes = tf.reduce_sum(truth, voxels) + tf.reduce_sum(probabilities, voxels)
    overlap, sizes = tf.unstack(total(tf.stack([overlap, sizes])))
    return (2 * overlap + _SMOOTH) / (sizes + _SMOOTH)
