"""Measures of one scan's masks in 3D, per patient; the only Dice on the numpy side.

Masks are bool (S, H, W). An affine maps (slice, row, column, 1) to RAS+ mm, (4, 4) or its 16 values row by row.
Where a measure is undefined, for a mask is empty, it is NaN (None for points), never 0 or 1: how such patients count
in a mean is decided by who takes the mean. With an empty truth and something predicted, Dice is 0 and HD95 is NaN;
with both empty, both are NaN. Definitions follow Metrics Reloaded (Maier-Hein et al. 2024, 10.1038/s41592-023-02151-z).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

Point = tuple[float, float, float]
Affine = np.ndarray | Sequence[float]

_TIE_MM = 1e-9


class Counts(NamedTuple):
    """Voxels in both masks, in the predicted one only, and in the true one only."""

    tp: int
    fp: int
    fn: int


class Diameters(NamedTuple):
    """Longest diameter and the longest at a right angle to it, mm; NaN for an empty mask."""

    longest: float
    perpendicular: float


@dataclass(frozen=True)
class Measures:
    """What is said of one predicted region; the fields are columns of `segmentations`."""

    voxels: int
    volume_ml: float
    centroid_mm: Point | None
    box_mm: tuple[float, ...] | None
    lesions: int
    longest_diameter_mm: float
    perpendicular_diameter_mm: float


@dataclass(frozen=True)
class Agreement:
    """How a predicted region compares to the true one; the fields are columns of `segmentations`."""

    truth_voxels: int
    truth_volume_ml: float
    tp: int
    fp: int
    fn: int
    dice: float
    hd95_mm: float


def measure(mask: np.ndarray, affine: Affine, parts: "Components | None" = None) -> Measures:
    """All measures of a mask; NaN and None where it is empty. `parts` are its components where they are known."""
    crop, inner = _crop(mask, affine)
    longest, perpendicular = diameters_mm(crop, _spacing(inner))
    return Measures(
        voxels=int(np.count_nonzero(crop)),
        volume_ml=volume_ml(crop, inner),
        centroid_mm=centroid_mm(crop, inner),
        box_mm=box_mm(crop, inner),
        lesions=len((parts or components(crop)).sizes),
        longest_diameter_mm=longest,
        perpendicular_diameter_mm=perpendicular,
    )


def compare(pred: np.ndarray, truth: np.ndarray, affine: Affine) -> Agreement:
    """All measures of agreement between two masks of one grid; NaN where they are undefined."""
    tp, fp, fn = counts(pred, truth)
    return Agreement(
        truth_voxels=tp + fn,
        truth_volume_ml=volume_ml(truth, affine),
        tp=tp,
        fp=fp,
        fn=fn,
        dice=dice(tp, fp, fn),
        hd95_mm=hd95_mm(pred, truth, _spacing(affine)),
    )


def counts(pred: np.ndarray, truth: np.ndarray) -> Counts:
    """True positives, false positives and false negatives of two bool masks of one shape; else ValueError."""
    _check_pair(pred, truth)
    tp = int(np.count_nonzero(pred & truth))
    return Counts(tp, int(np.count_nonzero(pred)) - tp, int(np.count_nonzero(truth)) - tp)


def dice(tp: int, fp: int, fn: int) -> float:
    """2 TP / (2 TP + FP + FN) (Dice 1945, 10.2307/1932409): 0 where one mask is empty, NaN where both are.

    >>> dice(1, 1, 1)
    0.5
    """
    total = 2 * tp + fp + fn
    return 2 * tp / total if total else float("nan")


def hd95_mm(pred: np.ndarray, truth: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """The 95 % Hausdorff distance of two masks, mm; NaN where either is empty.

    Exactly: the surface of a mask is its voxels with at least one of the six face neighbours outside the mask (beyond
    the array is outside). From each surface voxel's centre the distance to the nearest centre in the other surface is
    taken; the answer is the greater of the two directions' 95th percentiles (linear interpolation), as in Metrics
    Reloaded (Maier-Hein et al. 2024, 10.1038/s41592-023-02151-z), not the percentile of both directions pooled.
    """
    from scipy.spatial import cKDTree

    _check_pair(pred, truth)
    one, other = (_surface_mm(mask, spacing_mm) for mask in (pred, truth))
    if not len(one) or not len(other):
        return float("nan")
    # An unbalanced tree answers the same and is built in half the time.
    there = cKDTree(other, balanced_tree=False, compact_nodes=False).query(one)[0]
    back = cKDTree(one, balanced_tree=False, compact_nodes=False).query(other)[0]
    return float(max(np.percentile(there, 95), np.percentile(back, 95)))


class Components(NamedTuple):
    """The connected components of a mask, numbered from 1 on: int32 (S, H, W), and the voxels of each, int64 (n,)."""

    parts: np.ndarray
    sizes: np.ndarray


def components(mask: np.ndarray) -> Components:
    """The connected components of a mask; voxels that touch at a corner are connected (26 neighbours)."""
    from scipy.ndimage import label

    box = _box(mask)
    parts = np.zeros(mask.shape, np.int32)
    parts[box], number = label(mask[box], np.ones((3, 3, 3)))
    return Components(parts, np.bincount(parts[box].ravel(), minlength=number + 1)[1:])


def lesions(mask: np.ndarray) -> int:
    """The number of connected components; see `components`."""
    return len(components(mask).sizes)


def volume_ml(mask: np.ndarray, affine: Affine) -> float:
    """Volume of the voxels of a mask, millilitres; 0 for an empty one."""
    return int(np.count_nonzero(mask)) * abs(float(np.linalg.det(_matrix(affine)[:3, :3]))) / 1000


def centroid_mm(mask: np.ndarray, affine: Affine) -> Point | None:
    """The mean of the voxel centres, RAS+ x, y, z mm; None for an empty mask."""
    number = int(np.count_nonzero(mask))
    if not number:
        return None
    layers = (np.count_nonzero(mask, axis=tuple({0, 1, 2} - {axis})) for axis in range(3))
    middle = [float(np.arange(len(layer)) @ layer) / number for layer in layers]
    x, y, z = _to_world(np.array(middle), affine).tolist()
    return x, y, z


def box_mm(mask: np.ndarray, affine: Affine) -> tuple[float, ...] | None:
    """Least x, y, z and greatest x, y, z of the voxel centres, RAS+ mm; None for an empty mask."""
    if not mask.any():
        return None
    world = _to_world(_line_ends(mask), affine)
    return (*world.min(axis=0).tolist(), *world.max(axis=0).tolist())


def _line_ends(mask: np.ndarray) -> np.ndarray:
    """Indices (n, 3) of the first and last voxel of each line of a mask, not empty: all corners of its convex hull."""
    slices, rows = np.nonzero(mask.any(axis=2))
    lines = mask[slices, rows]
    first = lines.argmax(axis=1)
    last = mask.shape[2] - 1 - lines[:, ::-1].argmax(axis=1)
    return np.concatenate([np.stack([slices, rows, end], axis=1) for end in (first, last)])


def diameters_mm(mask: np.ndarray, spacing_mm: Sequence[float]) -> Diameters:
    """The bidimensional measure of RANO (Wen et al. 2010, 10.1200/JCO.2009.26.3541), mm; NaN for an empty mask.

    In each slice (first axis) the largest component, 8 neighbours, is taken, and of all slices the one with the
    longest diameter. A diameter is the distance of two points of the component's convex hull, the perpendicular one
    the hull's longest chord at a right angle. A voxel reaches from the middle of one face to that of the opposite one,
    so that a single voxel is as long as its greater side and a straight row of n voxels is n sides long.
    """
    best = Diameters(float("nan"), float("nan"))
    crop = mask[_box(mask)]
    in_plane = np.asarray(spacing_mm, np.float64)[1:]
    for bound, outline in _outlines(crop, in_plane):
        if bound < best.longest - _TIE_MM:
            break
        best = _greater(best, _hull_diameters(outline))
    return best


def _greater(best: Diameters, found: Diameters) -> Diameters:
    """The one with the longer diameter; of equal ones, but for rounding, that with the longer perpendicular."""
    if abs(found.longest - best.longest) <= _TIE_MM:
        return max(best, found, key=lambda diameters: diameters.perpendicular)
    return best if best.longest > found.longest else found


def _outlines(crop: np.ndarray, spacing_mm: np.ndarray) -> list[tuple[float, np.ndarray]]:
    """Face middles (n, 2), mm, of each slice's largest component with a bound of its diameter, longest first."""
    outlines = []
    for plane in crop:
        points = _extreme_points(_largest_component(plane))
        if len(points):
            middles = (points[:, None] + [[0.5, 0], [-0.5, 0], [0, 0.5], [0, -0.5]]).reshape(-1, 2) * spacing_mm
            outlines.append((float(np.hypot(*np.ptp(middles, axis=0))), middles))
    return sorted(outlines, key=lambda outline: -outline[0])


def _largest_component(plane: np.ndarray) -> np.ndarray:
    from scipy.ndimage import label

    parts, number = label(plane, np.ones((3, 3)))
    if number < 2:
        return plane
    return parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])


def _extreme_points(plane: np.ndarray) -> np.ndarray:
    """First and last pixel of each row: all that the convex hull needs."""
    rows = np.flatnonzero(plane.any(axis=1))
    first = plane[rows].argmax(axis=1)
    last = plane.shape[1] - 1 - plane[rows, ::-1].argmax(axis=1)
    return np.concatenate([np.stack([rows, first], 1), np.stack([rows, last], 1)])


def _hull_diameters(points: np.ndarray) -> Diameters:
    from scipy.spatial import ConvexHull
    from scipy.spatial.distance import cdist

    corners = points[ConvexHull(points).vertices]
    distances = cdist(corners, corners)
    ends = np.argwhere(np.triu(distances) >= distances.max() - _TIE_MM)
    chords = [_longest_chord(_turned(corners, *pair)) for pair in ends]
    return Diameters(float(distances.max()), max(chords))


def _turned(corners: np.ndarray, start: int, end: int) -> np.ndarray:
    """The corners with `start` at the origin and `end` on the first axis."""
    along = corners[end] - corners[start]
    x, y = along / np.hypot(*along)
    return (corners - corners[start]) @ np.array([[x, -y], [y, x]])


def _longest_chord(corners: np.ndarray) -> float:
    """The longest chord along the second axis; for a convex polygon one of its corners lies on it."""
    places = np.unique(corners[:, 0])
    upper, lower = (_chain(corners, sign, places) for sign in (1, -1))
    return float((upper + lower).max())


def _chain(corners: np.ndarray, sign: int, places: np.ndarray) -> np.ndarray:
    """Height of the polygon's upper (or, negated, lower) side at `places`, which span the first axis.

    The polygon starts and ends in single corners of height 0 here, for these are the ends of its longest diameter.
    """
    heights = sign * corners[:, 1]
    side = corners[heights >= -1e-9]
    order = np.lexsort((sign * side[:, 1], side[:, 0]))
    return np.interp(places, side[order, 0], sign * side[order, 1])


def _surface_mm(mask: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Centres (n, 3), mm, of the voxels that have a face neighbour outside the mask."""
    box = _box(mask)
    crop = mask[box]
    padded = np.pad(crop, 1)
    inside = crop.copy()
    for axis in range(3):
        for start in (0, 2):
            window = [slice(1, -1)] * 3
            window[axis] = slice(start, start + crop.shape[axis])
            inside &= padded[tuple(window)]
    corner = [side.start for side in box]
    return (np.argwhere(crop & ~inside) + corner) * np.asarray(spacing_mm, np.float64)


def _box(mask: np.ndarray) -> tuple[slice, slice, slice]:
    """The smallest box around a mask; an empty box for an empty mask."""
    if mask.ndim != 3 or mask.dtype != bool:
        raise ValueError(f"a mask is bool (S, H, W), not {mask.dtype} {mask.shape}")
    sides = []
    for axis in range(3):
        used = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        sides.append(slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 0))
    return sides[0], sides[1], sides[2]


def _crop(mask: np.ndarray, affine: Affine) -> tuple[np.ndarray, np.ndarray]:
    """A mask cut to its box, and the affine of what is left."""
    box = _box(mask)
    inner = _matrix(affine).copy()
    inner[:3, 3] = _to_world(np.array([side.start for side in box]), affine)
    return mask[box], inner


def _matrix(affine: Affine) -> np.ndarray:
    return np.asarray(affine, np.float64).reshape(4, 4)


def _spacing(affine: Affine) -> Sequence[float]:
    from segpipe.core.orientation import spacing_mm

    return spacing_mm(_matrix(affine)).tolist()


def _to_world(points: np.ndarray, affine: Affine) -> np.ndarray:
    matrix = _matrix(affine)
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def _check_pair(pred: np.ndarray, truth: np.ndarray) -> None:
    if pred.dtype != bool or truth.dtype != bool:
        raise ValueError(f"masks are bool, not {pred.dtype} and {truth.dtype}")
    if pred.shape != truth.shape:
        raise ValueError(f"masks of two grids, {pred.shape} and {truth.shape}")
