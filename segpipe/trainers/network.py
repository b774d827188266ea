"""The network of a training: what is trained, what it is compared with, and what is kept of it."""

from typing import TYPE_CHECKING

from segpipe.models.unet import build_unet, mean_of, pooled, to_segment
from segpipe.settings import TrainSettings
from segpipe.trainers.contract import TrainPlan

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import tensorflow as tf

_MOST_LEVELS = 2  # below these, a tumour is a few voxels


def supervised_levels(settings: TrainSettings) -> int:
    """How many levels of the decoder besides the last have an output of their own in training."""
    return min(_MOST_LEVELS, settings.depth - 1) if settings.deep_supervision else 0


def loss_weights(settings: TrainSettings) -> list[float]:
    """What each output counts: half as much as the one twice as large, 1 together.

    >>> loss_weights(TrainSettings(depth=2, deep_supervision=True))
    [0.6666666666666666, 0.3333333333333333]
    """
    weights = [0.5**level for level in range(supervised_levels(settings) + 1)]
    return [weight / sum(weights) for weight in weights]


def build_network(plan: TrainPlan) -> "tf.keras.Model":
    """The U-Net with all outputs that training looks at."""
    settings = plan.settings
    levels = supervised_levels(settings)
    return build_unet(settings, plan.channels, len(plan.regions), settings.seed, levels)


def trained_network(plan: TrainPlan, members: "Sequence[list[np.ndarray]]") -> "tf.keras.Model":
    """The U-Nets with these weights of checkpoints, one entry for each, as the one network that segments."""
    return to_segment(mean_of([_member(plan, weights) for weights in members]), plan.settings)


def _member(plan: TrainPlan, weights: "list[np.ndarray]") -> "tf.keras.Model":
    """A U-Net with its one output that segments."""
    import tensorflow as tf

    model = build_network(plan)
    model.set_weights(weights)
    if len(model.outputs) > 1:
        model = tf.keras.Model(model.input, model.outputs[0], name=model.name)
    return model


def whole_network(plan: TrainPlan, model: "tf.keras.Model") -> "tf.keras.Model":
    """A network in training as validation asks it: one output, from voxels to voxels, by one look."""
    import tensorflow as tf

    network = tf.keras.Model(model.input, model.outputs[0]) if len(getattr(model, "outputs", [])) > 1 else model
    return pooled(network, plan.settings.pool) if plan.settings.pool > 1 else network


def with_targets(dataset: "tf.data.Dataset", settings: TrainSettings) -> "tf.data.Dataset":
    """Batches of images and regions, the regions once for each output: every second voxel of the one before."""
    levels = supervised_levels(settings)
    if not levels:
        return dataset
    steps = [(slice(None), *[slice(None, None, 1 << level)] * settings.axes) for level in range(levels + 1)]
    return dataset.map(lambda image, regions: (image, tuple(regions[step] for step in steps)))
