"""Which voxels are brain, what their intensities are like, and how they are normalised."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

_BORDER_SHARE = 0.5
_BINS = 256


@dataclass(frozen=True)
class Statistics:
    """What the finite values of a set are like: their number, moments and percentiles (linear interpolation)."""

    voxels: int
    mean: float
    std: float
    min: float
    p01: float
    median: float
    p99: float
    max: float

    def scaled(self, slope: float, inter: float) -> "Statistics":
        """The statistics of `values * slope + inter`, without touching the values again.

        >>> statistics(np.array([1, 2, 3])).scaled(2.0, 1.0).max
        7.0
        """
        turned = slope < 0
        names = ("mean", "min", "p01", "median", "p99", "max")
        sources = ("mean", "max", "p99", "median", "p01", "min") if turned else names
        moved = {name: getattr(self, source) * slope + inter for name, source in zip(names, sources, strict=True)}
        return replace(self, std=self.std * abs(slope), **moved)


def statistics(values: np.ndarray) -> Statistics:
    """The statistics of all finite values of an array of any shape and real dtype.

    Where there are none, `voxels` is 0 and the rest NaN. Integers of up to 16 bits go through a histogram,
    which gives the same numbers in a fraction of the time.
    """
    flat = np.asarray(values).ravel()
    if flat.dtype.kind == "f":
        flat = flat[np.isfinite(flat)]
    if flat.size == 0:
        return Statistics(0, *[float("nan")] * 7)
    if flat.dtype.kind in "iu" and flat.dtype.itemsize <= 2:
        return _histogram_statistics(flat)
    p00, p01, median, p99, p100 = np.percentile(flat, (0, 1, 50, 99, 100)).tolist()
    mean, std = float(flat.mean(dtype=np.float64)), float(flat.std(dtype=np.float64))
    return Statistics(flat.size, mean, std, p00, p01, median, p99, p100)


def _histogram_statistics(flat: np.ndarray) -> Statistics:
    least = int(flat.min())
    numbers = np.bincount(flat.astype(np.intp) - least)
    levels = np.arange(len(numbers)) + least
    # In integers, so that the last digit depends neither on threads nor on where the arrays lie in memory.
    total_value, total_square = int((numbers * levels).sum()), int((numbers * levels**2).sum())
    mean = total_value / flat.size
    std = math.sqrt((flat.size * total_square - total_value**2) / flat.size**2)
    ranks = np.array((0.01, 0.5, 0.99)) * (flat.size - 1)
    below = np.floor(ranks).astype(np.int64)
    total = np.cumsum(numbers)
    low = levels[np.searchsorted(total, below, side="right")]
    high = levels[np.searchsorted(total, np.minimum(below + 1, flat.size - 1), side="right")]
    p01, median, p99 = (low + (high - low) * (ranks - below)).tolist()
    return Statistics(flat.size, mean, std, float(least), p01, median, p99, float(levels[-1]))


def brain_mask(channels: Sequence[np.ndarray]) -> np.ndarray:
    """Which voxels of a scan are brain: bool (S, H, W) from one array (S, H, W) of any real dtype per modality.

    A modality is skull-stripped when one exact value, such as 0, fills at least half of the volume's
    border; its brain is what differs from that value. The answer is the union over the stripped modalities, or,
    where none is stripped, over the voxels of each that lie above Otsu's threshold (Otsu 1979, IEEE Trans SMC 9:62),
    which is then the head rather than the brain. Voxels that are not finite are never brain.
    Raises ValueError without modalities or where their shapes differ.
    """
    if not channels or any(channel.ndim != 3 or channel.shape != channels[0].shape for channel in channels):
        raise ValueError(f"not one 3D grid: {[channel.shape for channel in channels]}")
    backgrounds = [background(channel) for channel in channels]
    if all(value is None for value in backgrounds):
        masks = [_above_otsu(channel) for channel in channels]
    else:
        masks = [
            _differs(channel, value) for channel, value in zip(channels, backgrounds, strict=True) if value is not None
        ]
    brain = masks[0]
    for mask in masks[1:]:
        brain |= mask
    return brain


def background(channel: np.ndarray, share: float = _BORDER_SHARE) -> np.generic | None:
    """The value that fills such a share, at least half, of a volume's border; None if none does.

    Where a value fills half of it, that is its median.
    """
    faces = [np.take(channel, (0, -1), axis=axis).ravel() for axis in range(3)]
    border = np.concatenate(faces)
    if border.size == 0:
        return None
    if (border == border[0]).mean() >= share:  # the usual case, told without sorting
        return border[0]
    if border.dtype.kind == "f":
        blank = np.isnan(border)
        if blank.mean() >= share:
            return border.dtype.type("nan")
        border = border[~blank]
    middle = np.partition(border, border.size // 2)[border.size // 2]
    return middle if (border == middle).mean() >= share else None


def _differs(channel: np.ndarray, background: np.generic) -> np.ndarray:
    mask = channel != background
    if channel.dtype.kind == "f":
        mask &= np.isfinite(channel)
    return mask


def _above_otsu(channel: np.ndarray) -> np.ndarray:
    finite = np.isfinite(channel)
    values = channel[finite].astype(np.float64)
    if values.size == 0 or values.min() == values.max():
        return np.zeros(channel.shape, bool)
    return finite & (channel > _otsu(values))


def _otsu(values: np.ndarray) -> float:
    """The threshold that separates two classes best; the brightest thousandth is clipped, as it stretches the bins."""
    top = np.percentile(values, 99.9)
    clipped = np.minimum(values, top) if top > values.min() else values
    numbers, edges = np.histogram(clipped, _BINS)
    centres = (edges[:-1] + edges[1:]) / 2
    low = np.cumsum(numbers)
    high = low[-1] - low
    low_sum = np.cumsum(numbers * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = (low_sum[-1] - low_sum) / high - low_sum / low
    between = np.where((low > 0) & (high > 0), low * high * np.nan_to_num(gap) ** 2, -1.0)
    return float(edges[1 + np.argmax(between)])


def normalise(image: np.ndarray, mean: float | np.ndarray, std: float | np.ndarray) -> np.ndarray:
    """`(image - mean) / std` as float32, safe for every input.

    `mean` and `std` are numbers, or arrays (C,) for an image (..., C). A deviation that is zero or not finite counts
    as 1, a mean that is not finite as 0, and voxels that are not finite become 0, the mean.

    >>> normalise(np.array([1.0, 3.0, np.nan]), 2.0, 0.0)
    array([-1.,  1.,  0.], dtype=float32)
    """
    centre = np.nan_to_num(np.asarray(mean, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    width = np.asarray(std, np.float32)
    width = np.where(np.isfinite(width) & (width > 0), width, np.float32(1))
    with np.errstate(invalid="ignore", over="ignore"):
        result = (np.asarray(image, np.float32) - centre) / width
    return np.nan_to_num(result, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
