"""Which way the axes of an array point, and how to turn them.

Directions are named as in nibabel and NIfTI: `R` means that the index grows towards the patient's
right. Every slice table holds its scans in one of three canonical orders (slice, row, column), chosen so that
a slice shown as a picture (rows downwards, columns rightwards) follows the radiological convention.
"""

import numpy as np

CANONICAL = {"axial": "SPL", "coronal": "PIL", "sagittal": "LIP"}
_AXIS = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}


def axis_codes(affine: np.ndarray) -> str:
    """The direction in which each of the three array axes mostly runs, such as `LPS`.

    >>> axis_codes(np.diag([-1.0, -1.0, 1.0, 1.0]))
    'LPS'

    `affine` is (4, 4), index to RAS+ mm. Raises ValueError if a direction is not finite or zero.
    The assignment is the one that is closest to a pure permutation: the rotation part of the
    polar decomposition, largest entries first.
    """
    linear = np.asarray(affine, np.float64)[:3, :3]
    if not np.isfinite(linear).all() or (np.abs(linear).sum(axis=0) == 0).any():
        raise ValueError(f"no orientation in affine {linear.tolist()}")
    unit = linear / np.sqrt((linear**2).sum(axis=0))
    left, singular, right = np.linalg.svd(unit)
    keep = singular > singular.max() * 1e-6
    closeness = left[:, keep] @ right[keep]
    codes = ["", "", ""]
    free = np.abs(closeness)
    for _ in range(3):
        world, axis = np.unravel_index(np.argmax(free), free.shape)
        codes[axis] = ("RAS" if closeness[world, axis] > 0 else "LPI")[world]
        free[world, :] = free[:, axis] = -1
    return "".join(codes)


def reorient(array: np.ndarray, source: str, target: str) -> np.ndarray:
    """A view of `array` whose first three axes run along `target` instead of `source`.

    >>> reorient(np.arange(6).reshape(1, 2, 3), "RAS", "SPL").shape
    (3, 2, 1)

    Further axes stay behind the first three. The inverse is the same call with the codes exchanged.
    """
    order = _order(source, target)
    turned = array.transpose(*order, *range(3, array.ndim))
    return turned[tuple(slice(None, None, step) for step in _steps(source, target, order))]


def reorient_affine(affine: np.ndarray, shape: tuple[int, ...], source: str, target: str) -> np.ndarray:
    """The affine of `reorient(array, source, target)`; `affine` and `shape` are those of `array`."""
    order = _order(source, target)
    change = np.zeros((4, 4))
    change[3, 3] = 1
    for new_axis, (old_axis, step) in enumerate(zip(order, _steps(source, target, order), strict=True)):
        change[old_axis, new_axis] = step
        change[old_axis, 3] = shape[old_axis] - 1 if step < 0 else 0
    return np.asarray(affine, np.float64) @ change


def spacing_mm(affine: np.ndarray) -> np.ndarray:
    """The distance of neighbouring voxels along each array axis, (3,) float64, mm."""
    return np.sqrt((np.asarray(affine, np.float64)[:3, :3] ** 2).sum(axis=0))


def same_grid(one: np.ndarray, other: np.ndarray, tolerance_mm: float = 1e-3) -> bool:
    """Whether two affines place every voxel index within `tolerance_mm` per voxel step of each other."""
    return bool(np.allclose(one, other, rtol=0, atol=tolerance_mm))


def _order(source: str, target: str) -> list[int]:
    places = [_AXIS[code] for code in source]
    return [places.index(_AXIS[code]) for code in target]


def _steps(source: str, target: str, order: list[int]) -> list[int]:
    return [1 if source[axis] == code else -1 for axis, code in zip(order, target, strict=True)]
