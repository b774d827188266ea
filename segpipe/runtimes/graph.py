"""The whole way from stored voxels to labels as one TensorFlow function, which every runtime runs or converts."""

from typing import Any

from segpipe.core.regions import LabelConvention

OUTPUTS = ("labels", "pixels", "probability_sum", "probability_max")
PROBABILITY = "probability"


def segmenter(
    model: Any,
    convention: LabelConvention,
    channels: int,
    multiple: int,
    threshold: float | tuple[float, ...] = 0.5,
    with_probability: bool = False,
) -> Any:
    """A `tf.function` that does what `slicewise.Network` asks for: the same inputs, `slicewise.Outputs` by name.

    `model` is a Keras model from (N, h, w, C) to region probabilities (N, h, w, R), outermost region first. Any h and w
    do: the image is padded with stored zeros to a `multiple` of pixels, and the results are cropped again. `threshold`
    is one for all regions, or one for each. A region's pixels are those whose painted label belongs to it, as in
    `segpipe.core.regions.to_labels`. What the network says of each pixel, (N, h, w, R), is among the outputs where it
    is asked for.
    """
    import tensorflow as tf

    signature = [
        tf.TensorSpec([None, channels, None, None], tf.float32, name="image"),
        tf.TensorSpec([channels], tf.float32, name="mean"),
        tf.TensorSpec([channels], tf.float32, name="inverse_std"),
        tf.TensorSpec([4], tf.int32, name="bounds"),
    ]

    @tf.function(input_signature=signature)
    def segment(image: Any, mean: Any, inverse_std: Any, bounds: Any) -> dict[str, Any]:
        height, width = tf.shape(image)[2], tf.shape(image)[3]
        padded = tf.pad(image, [[0, 0], [0, 0], [0, -height % multiple], [0, -width % multiple]])
        normalised = (tf.transpose(padded, [0, 2, 3, 1]) - mean) * inverse_std
        probability = tf.cast(model(normalised, training=False), tf.float32)[:, :height, :width, :]
        labels, members = _paint(tf, tf.unstack(probability > threshold, axis=-1), convention)
        counted = _between(tf, bounds[:2], height)[:, None] * _between(tf, bounds[2:], width)
        told = {PROBABILITY: probability} if with_probability else {}
        probability *= counted[None, :, :, None]
        inside = tf.cast(tf.stack(members, axis=-1), tf.float32) * counted[None, :, :, None]
        return {
            "labels": tf.cast(labels, tf.uint8),
            "pixels": tf.reduce_sum(inside, [1, 2]),
            "probability_sum": tf.reduce_sum(probability * inside, [1, 2]),
            "probability_max": tf.reduce_max(probability, [1, 2]),
            **told,
        }

    return segment


def tiler(model: Any, channels: int) -> Any:
    """A `tf.function` that does what `tiled.TileNetwork` asks for: its inputs, and `probability` (N, d, h, w, R).

    `model` is a 3D Keras model from normalised (N, d, h, w, C) to region probabilities.
    """
    import tensorflow as tf

    signature = [
        tf.TensorSpec([None, None, None, None, channels], tf.float32, name="image"),
        tf.TensorSpec([channels], tf.float32, name="mean"),
        tf.TensorSpec([channels], tf.float32, name="inverse_std"),
    ]

    @tf.function(input_signature=signature)
    def probabilities(image: Any, mean: Any, inverse_std: Any) -> dict[str, Any]:
        return {"probability": tf.cast(model((image - mean) * inverse_std, training=False), tf.float32)}

    return probabilities


def _between(tf: Any, bounds: Any, length: Any) -> Any:
    """1 from the first bound up to before the second, else 0: (length,) float32."""
    places = tf.range(length)
    return tf.cast(tf.logical_and(places >= bounds[0], places < bounds[1]), tf.float32)


def _paint(tf: Any, decided: list[Any], convention: LabelConvention) -> tuple[Any, list[Any]]:
    """Labels (N, h, w) float32, and for each region whether a pixel is in it once later regions are painted over."""
    labels = tf.zeros_like(decided[0], tf.float32)
    for region, label in zip(decided, convention.paint, strict=True):
        labels = tf.where(region, float(label), labels)
    members: list[Any] = []
    if not convention.is_nested:
        for inside in convention.regions.values():
            members.append(tf.reduce_any([tf.equal(labels, float(label)) for label in inside], axis=0))
        return labels, members
    for region in reversed(decided):
        members.insert(0, tf.logical_or(region, members[0]) if members else region)
    return labels, members
