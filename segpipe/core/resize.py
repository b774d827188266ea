"""Volumes on a finer or coarser grid, linear along each axis."""

from collections.abc import Sequence

import numpy as np


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
    result = np.asarray(volume, np.float32)
    for place, length in enumerate(shape):
        axis = result.ndim - len(shape) + place
        if result.shape[axis] != length:
            weights = _weights(result.shape[axis], length)
            result = np.moveaxis(np.tensordot(weights, result, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(result)


def _weights(old: int, new: int) -> np.ndarray:
    """What each old voxel counts in each new one, float32 (new, old), rows that sum to 1."""
    centres = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    return np.maximum(0, 1 - np.abs(np.arange(old) - centres[:, None])).astype(np.float32)
