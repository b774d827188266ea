"""The loss against values worked out by hand."""

import math

import numpy as np
import pytest


def test_soft_dice_by_hand():
    import tensorflow as tf

    from segpipe.models.losses import soft_dice

    truth = tf.constant([[[1.0, 0.0], [1.0, 0.0]]])  # (1, 2, 2): two pixels, two regions
    found = tf.constant([[[0.5, 0.0], [1.0, 0.0]]])
    # region 0: (2 * 1.5 + 1) / (2 + 1.5 + 1); region 1 is empty in both: 1
    np.testing.assert_allclose(soft_dice(truth, found), [4 / 4.5, 1.0], rtol=1e-6)


def test_loss_by_hand():
    import tensorflow as tf

    from segpipe.models.losses import dice_cross_entropy

    truth = np.array([[[1], [0]], [[1], [1]]], np.uint8)  # two images of two pixels, one region
    found = tf.constant([[[0.5], [0.5]], [[0.8], [0.8]]])
    dice = (2 * (0.5 + 0.8 + 0.8) + 1) / (3 + 2.6 + 1)
    expected = [math.log(2) + 1 - dice, -math.log(0.8) + 1 - dice]
    np.testing.assert_allclose(dice_cross_entropy()(truth, found), expected, rtol=1e-5)


def test_halves_of_a_batch_have_the_gradient_of_the_whole():
    """Two workers that add their sums up and average their gradients come to the gradient of the whole batch."""
    import tensorflow as tf

    from segpipe.models.losses import dice_cross_entropy

    rng = np.random.default_rng(0)
    truth = (rng.random((4, 6, 6, 2)) < 0.3).astype(np.float32)
    logits = tf.Variable(rng.normal(size=(4, 6, 6, 2)).astype(np.float32))
    with tf.GradientTape() as tape:
        whole = tf.reduce_mean(dice_cross_entropy()(truth, tf.sigmoid(logits)))
    expected = tape.gradient(whole, logits)

    sums: list[tf.Tensor] = []  # what the other half contributes, recorded in a first pass

    def record(tensor: tf.Tensor) -> tf.Tensor:
        sums.append(tensor)
        return tensor

    with tf.GradientTape() as tape:
        found = tf.sigmoid(logits)
        for half in (slice(0, 2), slice(2, 4)):
            dice_cross_entropy(record)(truth[half], found[half])
        total = tf.add_n(sums)
        losses = [
            tf.reduce_mean(dice_cross_entropy(lambda _: total)(truth[h], found[h])) for h in (slice(0, 2), slice(2, 4))
        ]
        mean = tf.add_n(losses) / 2
    assert float(mean) == pytest.approx(float(whole), rel=1e-6)
    np.testing.assert_allclose(tape.gradient(mean, logits), expected, atol=1e-7)
