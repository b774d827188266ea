"""Volumes on a finer or coarser grid and back, as the tools do it in which networks were trained."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

RESAMPLINGS = ("linear", "monai", "nnunet")
"""Linear over the same extent; MONAI's `Spacing`, linear from the first voxel's middle on; nnU-Net's, cubic for images
and linear for answers, in which thick slices are neither blended nor split but taken as they are."""

SAME_SPACING = 0.01
"""Share by which voxel sizes may differ without resampling: what two headers say of one grid."""

_MONAI_SAME_MM = 1e-3
_THICK = 3  # nnU-Net takes slices one by one where a voxel is more than three times as long as it is wide


@dataclass(frozen=True)
class Regridding:
    """From the grid of a scan, `shape` voxels of `spacing`, to that of a network with voxels of `wanted`, and back.

    Where `wanted` is empty, or 0 along an axis, voxels stay as they are. `kind` is one of `RESAMPLINGS`.
    """

    kind: str
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    wanted: tuple[float, ...] = ()

    @cached_property
    def target(self) -> tuple[int, ...]:
        """Voxels along each axis of the network's grid."""
        sizes = zip(self.shape, self.spacing, self._sizes, strict=True)
        return tuple(length if here == there else self._length(length, here / there) for length, here, there in sizes)

    @property
    def moves(self) -> bool:
        """Whether the two grids differ."""
        return self._sizes != self.spacing if self.kind == "monai" else self.target != self.shape

    def there(self, image: np.ndarray) -> np.ndarray:
        """Channels of a scan (C, *shape) on the network's grid: float32 (C, *target)."""
        return self._moved(image, self.target, self.spacing, self._sizes, order=3)

    def back(self, answer: np.ndarray) -> np.ndarray:
        """What a network says (K, *target) on the scan's grid: float32 (K, *shape)."""
        return self._moved(answer, self.shape, self._sizes, self.spacing, order=1)

    def _moved(
        self, volume: np.ndarray, shape: tuple[int, ...], old: tuple[float, ...], new: tuple[float, ...], order: int
    ) -> np.ndarray:
        """Channels on another grid of `shape` voxels, from voxels of size `old` to `new`; `order` is of splines."""
        if self.kind == "monai":
            return _as_monai(volume, shape, old, new)
        if self.kind == "linear":
            return resize(volume, shape)
        return _as_nnunet(volume, shape, _thick_axis(old, new), order)

    @cached_property
    def _sizes(self) -> tuple[float, ...]:
        """`wanted`, and the scan's own voxel size along the axes that stay."""
        if not self.wanted:
            return self.spacing
        pairs = zip(self.spacing, self.wanted, strict=True)
        return tuple(here if self._same(here, there) else there for here, there in pairs)

    def _length(self, length: int, ratio: float) -> int:
        return round((length - 1) * ratio) + 1 if self.kind == "monai" else max(1, round(ratio * length))

    def _same(self, here: float, there: float) -> bool:
        if here <= 0 or there <= 0:
            return True
        if self.kind == "nnunet":
            return False  # which goes by the number of voxels alone
        return abs(here - there) <= (_MONAI_SAME_MM if self.kind == "monai" else SAME_SPACING * there)


def resize(volume: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The last axes of `volume` (…, *old) with `shape` voxels instead, over the same extent: float32 (…, *shape).

    Linear along one axis after the other, voxel centres in the middle of voxels, the border's value beyond it; nothing
    is smoothed first, for MONAI and nnU-Net smooth nothing either. An axis whose length stays is not touched.

    >>> resize(np.array([0.0, 4.0]), (4,)).tolist(), resize(np.array([0.0, 2.0, 4.0, 6.0]), (2,)).tolist()
    ([0.0, 1.0, 3.0, 4.0], [1.0, 5.0])

    Raises ValueError if a length is not positive.
    """
    if any(length < 1 for length in shape):
        raise ValueError(f"a volume has at least one voxel along each axis, not {tuple(shape)}")
    old = np.shape(volume)[-len(shape) :]
    places = [
        (np.arange(new) + 0.5) * length / new - 0.5 if new != length else None
        for length, new in zip(old, shape, strict=True)
    ]
    return _linear(volume, places)


def _as_monai(volume: np.ndarray, shape: Sequence[int], old: tuple[float, ...], new: tuple[float, ...]) -> np.ndarray:
    places = [
        np.arange(length) * (there / here) if here != there else None
        for length, here, there in zip(shape, old, new, strict=True)
    ]
    return _linear(volume, places)


def _as_nnunet(volume: np.ndarray, shape: tuple[int, ...], thick: int | None, order: int) -> np.ndarray:
    if volume.shape[1:] == shape:
        return np.ascontiguousarray(volume, np.float32)
    result = np.empty((len(volume), *shape), np.float32)
    for channel, place in zip(volume, result, strict=True):
        place[...] = _zoomed(channel, shape, order) if thick is None else _by_slices(channel, shape, order, thick)
    return result


def _linear(volume: np.ndarray, places: Sequence[np.ndarray | None]) -> np.ndarray:
    """The last axes of a volume at these indices, between voxels; None leaves an axis as it is."""
    result = np.asarray(volume, np.float32)
    for number, wanted in enumerate(places):
        if wanted is not None:
            axis = result.ndim - len(places) + number
            weights = _weights(result.shape[axis], wanted)
            result = np.moveaxis(np.tensordot(weights, result, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(result)


def _weights(old: int, places: np.ndarray) -> np.ndarray:
    """What each old voxel counts at each index, float32 (new, old), rows that sum to 1; the border's beyond it."""
    return np.maximum(0, 1 - np.abs(np.arange(old) - np.clip(places, 0, old - 1)[:, None])).astype(np.float32)


def _thick_axis(first: tuple[float, ...], then: tuple[float, ...]) -> int | None:
    """The axis along which nnU-Net takes slices one by one: the longest of thick voxels, of the one grid or the other.

    >>> _thick_axis((1.0, 1.0, 1.0), (4.0, 1.0, 1.0)), _thick_axis((1.0, 4.0, 4.0), (1.0, 1.0, 1.0))
    (0, None)
    """
    for sizes in (first, then):
        if max(sizes) > _THICK * min(sizes) > 0:
            longest = [axis for axis, size in enumerate(sizes) if size == max(sizes)]
            return longest[0] if len(longest) == 1 else None
    return None


def _zoomed(image: np.ndarray, shape: tuple[int, ...], order: int) -> np.ndarray:
    """An image of any number of axes by splines over the same extent, within the range of its values."""
    from scipy.ndimage import zoom

    if image.shape == shape:
        return image
    exact = image.astype(np.float64)
    moved = zoom(exact, 1 / np.divide(image.shape, shape), order=order, mode="nearest", grid_mode=True)
    return np.clip(moved, exact.min(), exact.max())


def _by_slices(volume: np.ndarray, shape: tuple[int, ...], order: int, axis: int) -> np.ndarray:
    """Slices by splines, and along the axis the nearest of them."""
    flat = (*shape[:axis], *shape[axis + 1 :])
    slices = np.stack([_zoomed(plane, flat, order) for plane in np.moveaxis(volume, axis, 0)], axis)
    nearest = np.floor(volume.shape[axis] / shape[axis] * (np.arange(shape[axis]) + 0.5)).astype(int)
    return slices.take(np.minimum(nearest, volume.shape[axis] - 1), axis)
