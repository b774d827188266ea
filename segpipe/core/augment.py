"""Random changes of training slices that a network should not mind; the caller holds the dice.

Images are float32 (H, W, C), normalised to unit deviation; labels are uint8 (H, W) and move with them.
Inputs are never changed.
"""

import math
from collections.abc import Sequence

import numpy as np

_DEGREES = 30.0
_SCALES = (0.7, 1.4)
_RESAMPLED_SHARE = 0.5
_GAIN = 0.6
_SHIFT = 0.6
_BENT_SHARE = 0.3
_BENDS = (0.7, 1.5)
_RESHARPENED_SHARE = 0.5
_FINE_PIXELS = (0.7, 2.0)
_SHARPNESS = (0.0, 2.2)
_NOISY_SHARE = 0.15
_NOISE = 0.2


def augment(image: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A slice after flips, changes of intensity and, half of the time, a rotation with a scaling in one resampling.

    Strengths are those that nnU-Net (Isensee et al. 2021, doi 10.1038/s41592-020-01008-z) has settled on, or near them,
    except for contrast, which varies twice as much, and sharpness, which varies both ways: cohorts here may be a few
    patients, and between patients the contrast of tumours differs by a factor of two (docs/decisions/0004-training.md).
    """
    image, labels = flip(image, labels, rng)
    if rng.random() < _RESAMPLED_SHARE:
        image, labels = _resample(image, labels, _rotation(rng) @ _scaling(rng))
    return _change_intensity(image, rng), labels


def augment_patch(
    image: np.ndarray, labels: np.ndarray, size: tuple[int, int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The middle (D, H, W) of `size` of a patch (D', H', W', C) after the same changes as `augment`.

    All three axes may be flipped. Slices are rotated and scaled together, in their plane, which suits thick slices too.
    What turns into the picture comes from the patch's surroundings, as far as the given patch has them: `surroundings`
    tells how much is needed.
    """
    image, labels = _flip_axes(image, labels, rng, axes=3)
    if rng.random() < _RESAMPLED_SHARE:
        middle = _middle(image.shape[:1], size[:1])
        image, labels = image[middle], labels[middle]
        channels = image.shape[-1]
        stacked = np.moveaxis(image, 0, 2).reshape(*image.shape[1:3], -1)  # slices are channels of one image
        turned, turned_labels = _resample(stacked, np.moveaxis(labels, 0, 2), _rotation(rng) @ _scaling(rng), size[1:])
        image = np.moveaxis(turned.reshape(*size[1:], size[0], channels), 2, 0)
        labels = np.ascontiguousarray(np.moveaxis(turned_labels, 2, 0))
    else:
        middle = _middle(image.shape, size)
        image, labels = image[middle], np.ascontiguousarray(labels[middle])
    return _change_intensity(image, rng), labels


def augment_shares(
    image: np.ndarray, shares: np.ndarray, size: tuple[int, int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """`augment_patch` of coarse voxels: instead of labels, `shares` float32 (D', H', W', R) that move as an image does.

    A share says how much of a voxel lies in a region, 0 to 1.
    """
    channels = image.shape[-1]
    both, _ = _flip_axes(np.concatenate([image, shares], axis=-1), np.zeros(shares.shape[:3], np.uint8), rng, axes=3)
    if rng.random() < _RESAMPLED_SHARE:
        both = both[_middle(both.shape[:1], size[:1])]
        kinds = both.shape[-1]
        stacked = np.moveaxis(both, 0, 2).reshape(*both.shape[1:3], -1)  # slices are channels of one image
        labels = np.zeros(stacked.shape[:2], np.uint8)
        turned, _ = _resample(stacked, labels, _rotation(rng) @ _scaling(rng), size[1:])
        both = np.moveaxis(turned.reshape(*size[1:], size[0], kinds), 2, 0)
    else:
        both = both[_middle(both.shape, size)]
    image, shares = (np.ascontiguousarray(part) for part in np.split(both, [channels], axis=-1))
    return _change_intensity(image, rng), shares


def surroundings(size: tuple[int, int, int]) -> tuple[int, int, int]:
    """How large a patch must be cut so that `augment_patch` to `size` finds all that may turn into the picture.

    As many slices, and rows and columns for the largest rotation and the smallest scale together.
    """
    reach = [_reach(across, along) for across, along in (size[1:], size[:0:-1])]
    rows, columns = (
        length + 2 * math.ceil((far / _SCALES[0] - length) / 2) for far, length in zip(reach, size[1:], strict=True)
    )
    return size[0], rows, columns


def _reach(across: int, along: int) -> float:
    """How long a rectangle of `across` x `along` is, in the direction of `across`, when it is turned at worst."""
    angle = min(np.deg2rad(_DEGREES), math.atan2(along, across))
    return across * math.cos(angle) + along * math.sin(angle)


def flip(image: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns reversed, each with probability one half."""
    return _flip_axes(image, labels, rng, axes=2)


def rotate(image: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Turned about the middle by up to 30 degrees either way."""
    return _resample(image, labels, _rotation(rng))


def scale(image: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Enlarged about the middle by 0.7 to 1.4; the shape stays."""
    return _resample(image, labels, _scaling(rng))


def shift_intensity(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each channel times 0.4 to 1.6 and shifted by up to 0.6 deviations."""
    channels = image.shape[-1]
    gain = rng.uniform(1 - _GAIN, 1 + _GAIN, channels).astype(np.float32)
    return image * gain + rng.uniform(-_SHIFT, _SHIFT, channels).astype(np.float32)


def _flip_axes(
    image: np.ndarray, labels: np.ndarray, rng: np.random.Generator, axes: int
) -> tuple[np.ndarray, np.ndarray]:
    turned = tuple(slice(None, None, step) for step in 1 - 2 * rng.integers(0, 2, axes))
    return np.ascontiguousarray(image[turned]), np.ascontiguousarray(labels[turned])


def _middle(shape: Sequence[int], size: Sequence[int]) -> tuple[slice, ...]:
    starts = [(length - wanted) // 2 for length, wanted in zip(shape, size, strict=False)]
    return tuple(slice(start, start + wanted) for start, wanted in zip(starts, size, strict=True))


def _change_intensity(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return add_noise(shift_intensity(bend_intensity(change_sharpness(image, rng), rng), rng), rng)


def bend_intensity(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Three channels in ten with another gamma, 0.7 to 1.5, between their extremes; mean and deviation stay."""
    channels = image.shape[-1]
    chosen = rng.random(channels) < _BENT_SHARE
    gammas = np.exp(rng.uniform(math.log(_BENDS[0]), math.log(_BENDS[1]), channels))
    bent = image.copy()
    for channel in np.flatnonzero(chosen):
        values = image[..., channel]
        low, high, mean, std = values.min(), values.max(), values.mean(), values.std()
        if not high > low:
            continue
        curved = ((values - low) / (high - low)) ** np.float32(gammas[channel])
        bent[..., channel] = (curved - curved.mean()) * (std / max(curved.std(), 1e-6)) + mean
    return bent


def change_sharpness(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One image in two with its fine structure, what a Gaussian of 0.7 to 2 pixels takes away, times 0 to 2.2.

    Each channel has its own factor: below 1 it is a coarser scan, above 1 a sharper one.
    """
    from scipy.ndimage import gaussian_filter

    chosen, pixels = rng.random() < _RESHARPENED_SHARE, rng.uniform(*_FINE_PIXELS)
    factors = rng.uniform(*_SHARPNESS, image.shape[-1]).astype(np.float32)
    if not chosen:
        return image
    sigmas = (*[0.0] * (image.ndim - 3), pixels, pixels, 0.0)
    smooth = gaussian_filter(image, sigmas, mode="nearest", truncate=3)
    return smooth + (image - smooth) * factors


def add_noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One image in seven with Gaussian noise of up to 0.2 deviations."""
    chosen, deviation = rng.random() < _NOISY_SHARE, rng.uniform(0, _NOISE)
    return image + rng.standard_normal(image.shape, np.float32) * np.float32(deviation) if chosen else image


def _rotation(rng: np.random.Generator) -> np.ndarray:
    angle = np.deg2rad(rng.uniform(-_DEGREES, _DEGREES))
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _scaling(rng: np.random.Generator) -> np.ndarray:
    return np.eye(2) / rng.uniform(*_SCALES)


def _resample(
    image: np.ndarray, labels: np.ndarray, matrix: np.ndarray, size: Sequence[int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Linear for the image, nearest for the labels; `matrix` maps new to old offsets from the middle.

    Gives as many rows and columns as there are, or those of `size` around the middle.

    Beyond the border the image goes on as it ends, because its background is not 0 once normalised; labels end there.
    All channels are gathered at once, which takes a third of the time of scipy's affine_transform on each.
    """
    limits = np.array(labels.shape[:2]) - 1
    offsets = [np.arange(n, dtype=np.float32) - np.float32((n - 1) / 2) for n in size or labels.shape[:2]]
    places = [np.add.outer(row * offsets[0], column * offsets[1]) for row, column in matrix.astype(np.float32)]
    places = [place + np.float32(limit / 2) for place, limit in zip(places, limits, strict=True)]
    return _linear(image, *places), _nearest(labels, *places)


def _linear(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    (top, down), (left, right) = (_corners(place, n) for place, n in zip((rows, columns), image.shape, strict=False))
    height, width, channels = image.shape
    pixels, right = image.reshape(-1, channels), _spread(right, channels)
    start, below = top * width + left, np.minimum(top + 1, height - 1) * width + left
    upper, lower = (
        _mixed(pixels.take(place, axis=0), pixels.take(place + (width > 1), axis=0), right) for place in (start, below)
    )
    return _mixed(upper, lower, _spread(down, channels))


def _corners(place: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The pixel before each place along an axis and how far (0 to 1) the place lies behind it, within the border."""
    inside = np.clip(place, 0, count - 1)
    first = np.minimum(inside.astype(np.intp), max(count - 2, 0))
    return first, (inside - first).astype(np.float32)


def _spread(share: np.ndarray, channels: int) -> np.ndarray:
    """A share of its own for each channel: arithmetic on whole rows is five times as fast as on four numbers a time."""
    return np.repeat(share, channels).reshape(*share.shape, channels)


def _mixed(one: np.ndarray, other: np.ndarray, share: np.ndarray) -> np.ndarray:
    """`one + (other - one) * share` in place of `other`."""
    other -= one
    other *= share
    other += one
    return other


def _nearest(labels: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    row, column = np.rint(rows).astype(np.intp), np.rint(columns).astype(np.intp)
    height, width = labels.shape[:2]
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    place = np.where(inside, row * width + column, 0)
    picked = labels.reshape(height * width, -1).take(place, axis=0).reshape(*place.shape, *labels.shape[2:])
    picked[~inside] = 0
    return picked
