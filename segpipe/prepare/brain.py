"""Which voxels of a head are brain: deepbet's two networks in OpenVINO, a box finder and a U-Net at 256 cubed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segpipe.prepare import network

_BOX_EDGE, _EDGE = 128, 256
_LOW, _HIGH = 0.005, 0.995
"""Quantiles of the small volume that become 0 and 1."""
_MEAN, _DEVIATION = 0.449, 0.226
"""What the networks expect of their input."""
_MARGIN = 0.1
_LEAST_SHARE = 0.02
"""Least share of brain in a plane that the box counts."""
_THRESHOLD = 0.5

Box = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class Brain:
    """A brain mask, bool, and the share of what the network called brain that it holds: 1 for one part."""

    mask: np.ndarray
    main_part: float


def find_brain(image: np.ndarray) -> Brain:
    """The brain of a head; `image` has its axes along R, A, S, its values need not be scaled.

    What is not finite counts as 0. The largest component alone is kept and its holes are filled. An image in which no
    brain is seen gives an empty mask.
    """
    image = np.nan_to_num(np.asarray(image, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    small = resized(image, (_BOX_EDGE,) * 3)
    low, high = np.quantile(small, (_LOW, _HIGH))
    mask = np.zeros(image.shape, bool)
    if not high > low:
        return Brain(mask, 0.0)
    rough = largest_component(_probability("bbox_model", small, low, high) > _THRESHOLD)
    box = box_of(rough, image.shape)
    if box is None:
        return Brain(mask, 0.0)
    found = _probability("model", resized(image[box], (_EDGE,) * 3), low, high)
    mask[box] = resized(found, image[box].shape) > _THRESHOLD
    if not mask.any():
        return Brain(mask, 0.0)
    main = largest_component(mask)
    return Brain(filled(main), float(main.sum() / mask.sum()))


def resized(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The array at another size, by the nearest voxel centre along each axis.

    >>> resized(np.arange(4), (2,)).tolist()
    [1, 3]
    """
    for axis, (old, new) in enumerate(zip(array.shape, shape, strict=True)):
        places = np.minimum(((np.arange(new) + 0.5) * (old / new)).astype(np.int64), old - 1)
        array = array.take(places, axis=axis)
    return array


def largest_component(mask: np.ndarray) -> np.ndarray:
    """The largest 26-connected part of a mask; an empty one stays empty."""
    from scipy.ndimage import find_objects, label

    found, count = label(mask, np.ones((3, 3, 3), bool))
    if count < 2:
        return mask
    sizes = np.bincount(found.ravel())
    sizes[0] = 0
    wanted = int(sizes.argmax())
    kept = np.zeros_like(mask)
    place = find_objects(found)[wanted - 1]
    kept[place] = found[place] == wanted
    return kept


def filled(mask: np.ndarray) -> np.ndarray:
    """The mask without holes: what is not connected to the outside belongs to it."""
    from scipy.ndimage import label

    outside, _ = label(~np.pad(mask, 1))
    return (outside != outside[0, 0, 0])[1:-1, 1:-1, 1:-1]


def box_of(rough: np.ndarray, shape: tuple[int, ...]) -> Box | None:
    """The box of the brain with a margin, in an array of `shape`, from a rough mask of another size; None without."""
    box = []
    for axis, size in enumerate(shape):
        others = tuple(other for other in range(3) if other != axis)
        places = np.flatnonzero(rough.mean(axis=others) > _LEAST_SHARE)
        if not len(places):
            return None
        scale = size / rough.shape[axis]
        centre = round(float(scale * (places[-1] + 1 + places[0]) / 2))
        length = round(float(scale * (places[-1] + 1 - places[0]) * (1 + 2 * _MARGIN)))
        box.append(slice(max(0, int(centre - length / 2)), min(size, int(centre + length / 2))))
    return box[0], box[1], box[2]


def _probability(name: str, image: np.ndarray, low: float, high: float) -> np.ndarray:
    scaled = np.clip((image - np.float32(low)) / np.float32(high - low), 0, 1)
    scaled = (scaled - scaled.mean(dtype=np.float64)) / scaled.std(dtype=np.float64, ddof=1)
    scaled = (_DEVIATION * scaled + _MEAN).astype(np.float32)
    request = network.compiled(name, image.shape[0]).create_infer_request()
    return np.array(request.infer([scaled[None, None]])[0][0, 1])
