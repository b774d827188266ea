"""Model directories with tiny networks, and scans to show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cache
from typing import Any

import numpy as np

from segpipe.core.intensity import brain_mask, statistics
from segpipe.core.neighbours import slices_shown
from segpipe.core.prediction import ScanInput
from segpipe.core.regions import CONVENTIONS
from segpipe.models.bundle import Bundle, save_bundle
from segpipe.readers.synthetic import glioma
from segpipe.settings import NetworkSettings

MODALITIES = ("FLAIR", "T1", "T1ce", "T2")
_STEEP = 4.0


def tiny_bundle(
    url: str,
    convention: str = "brats",
    modalities: tuple[str, ...] = MODALITIES,
    crop: tuple[int, ...] = (32, 32),
    trained_steps: int = 0,
    bias: float = 0.0,
    levels: Sequence[float] = (),
    **network: Any,
) -> Bundle:
    """Write a model of 4 filters and depth 2; `bias` 0 leaves random weights undecided about every voxel.

    With `levels`, one for each region and no normalisation, a voxel is in a region where its first modality lies so
    many deviations above the mean.

    It is trained in float32, also one that will compute in bfloat16, which most processors take ten times as long for.
    """
    from segpipe.models.unet import build_unet, mean_of, to_segment

    settings = replace(NetworkSettings(filters=4, depth=2, mirror=False), **network)
    labels = CONVENTIONS[convention]
    channels = len(modalities) * slices_shown(settings.neighbours)
    model = build_unet(settings, channels, len(labels.regions), seed=3)
    model.get_layer("logits").bias.assign(np.full(len(labels.regions), bias, np.float32))
    if trained_steps:
        learner = replace(settings, precision="float32", mirror=False, quality="standard")
        model.set_weights(_trained(learner, len(labels.regions), trained_steps))
    if levels:
        _follow_brightness(model, levels)
    others = [build_unet(settings, channels, len(labels.regions), seed=3 + n) for n in range(1, settings.members)]
    model = to_segment(mean_of([model, *others]), settings)
    bundle = Bundle(
        url=url,
        modalities=modalities,
        orientation="SPL",
        crop=crop,
        multiple=2**settings.depth,
        label_convention=convention,
        labels={str(label): name for label, name in labels.labels.items()},
        regions=labels.regions,
        network=asdict(settings),
        training={},
        cohort="generated",
        split_rule="none",
        subjects={},
        metrics={},
        weights_sha256="",
    )
    return save_bundle(bundle, model)


def scan_input(channels: Sequence[np.ndarray], slope: float = 1.0, inter: float = 0.0) -> ScanInput:
    """What `scans` would say of these channels (S, H, W)."""
    brain = brain_mask(channels)
    box = [
        (int(used.min()), int(used.max()) + 1)
        for used in (np.flatnonzero(brain.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3))
    ]
    numbers = [statistics(channel[brain]).scaled(slope, inter) for channel in channels]
    count = len(channels)
    return ScanInput(
        shape=channels[0].shape,
        mean=tuple(one.mean for one in numbers),
        std=tuple(one.std for one in numbers),
        slope=(slope,) * count,
        inter=(inter,) * count,
        brain_box=(*box[0], *box[1], *box[2]),
    )


def _follow_brightness(model: Any, levels: Sequence[float]) -> None:
    """Let the first modality alone come through to the end, along the first skip connection."""
    for layer in model.layers:
        if layer.weights:
            kernel, offset = (np.zeros(weight.shape, np.float32) for weight in layer.weights)
            middle = tuple(edge // 2 for edge in kernel.shape[:-2])
            if layer.name == "logits":
                kernel[(*middle, 0)], offset[:] = _STEEP, -_STEEP * np.asarray(levels)
            else:
                kernel[(*middle, 0, 0)] = 1
            layer.set_weights([kernel, offset])


@cache
def _trained(settings: NetworkSettings, regions: int, steps: int) -> list[np.ndarray]:
    """The weights of a network that learnt three nested levels of brightness on FLAIR; a few steps suffice."""
    import tensorflow as tf

    from segpipe.models.losses import dice_cross_entropy
    from segpipe.models.unet import build_unet

    shown = slices_shown(settings.neighbours)
    model = build_unet(settings, len(MODALITIES) * shown, regions, seed=3)
    images = []
    for seed in range(4):
        scan = glioma(np.random.default_rng(seed), shape=(8, 32, 32))
        channels = [scan.images[name.lower()] for name in MODALITIES]
        mean, inverse = scan_input(channels).stored_statistics()
        images.append((np.stack(channels, axis=-1) - mean) * inverse)
    seen = np.concatenate([np.tile(image, shown) for image in images])
    truth = (seen[..., :1] > np.array([0.0, 0.5, 1.0])).astype(np.float32)
    model.compile(tf.keras.optimizers.Adam(0.01), dice_cross_entropy())
    data = tf.data.Dataset.from_tensor_slices((seen, truth))
    model.fit(data.repeat().shuffle(32, seed=1).batch(8), steps_per_epoch=steps, verbose=0)
    return model.get_weights()
