"""Measures of one scan's masks in 3D, per patient; the only Dice on the numpy side.

Masks are bool (S, H, W), or Runs, which keep what several measures need. An affine maps (slice, row, column, 1) to RAS+
mm, (4, 4) or its 16 values row by row.
Where a measure is undefined because a mask is empty, it is NaN (None for points), never 0 or 1: how such patients count
in a mean is decided by who takes the mean. With an empty truth and something predicted, Dice is 0 and HD95 is NaN;
with both empty, both are NaN. Definitions follow Metrics Reloaded (Maier-Hein et al. 2024, 10.1038/s41592-023-02151-z).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from segpipe.core.runs import Runs, shared

Mask = np.ndarray | Runs
Point = tuple[float, float, float]
Affine = np.ndarray | Sequence[float]

_TIE_MM = 1e-9
_DIRECTIONS = 16
_MANY_POINTS = 2000
_CELL = 4


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


def measure(mask: Mask, affine: Affine) -> Measures:
    """All measures of a mask; NaN and None if it is empty."""
    runs = Runs.of(mask)
    longest, perpendicular = diameters_mm(runs, _spacing(affine))
    return Measures(
        voxels=runs.voxels,
        volume_ml=volume_ml(runs, affine),
        centroid_mm=centroid_mm(runs, affine),
        box_mm=box_mm(runs, affine),
        lesions=lesions(runs),
        longest_diameter_mm=longest,
        perpendicular_diameter_mm=perpendicular,
    )


def compare(pred: Mask, truth: Mask, affine: Affine) -> Agreement:
    """All measures of agreement between two masks of one grid; NaN where they are undefined."""
    pred, truth = pair(pred, truth)
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


def counts(pred: Mask, truth: Mask) -> Counts:
    """True positives, false positives and false negatives of two bool masks of one shape; else ValueError."""
    pred, truth = pair(pred, truth)
    tp = int(shared(pred, truth)[2].sum())
    return Counts(tp, pred.voxels - tp, truth.voxels - tp)


def pair(pred: Mask, truth: Mask) -> tuple[Runs, Runs]:
    """Both as Runs. Raises ValueError for masks that are not bool (S, H, W) or not of one shape."""
    one, other = Runs.of(pred), Runs.of(truth)
    if one.shape != other.shape:
        raise ValueError(f"masks of two grids, {one.shape} and {other.shape}")
    return one, other


def dice(tp: int, fp: int, fn: int) -> float:
    """2 TP / (2 TP + FP + FN) (Dice 1945, 10.2307/1932409): 0 where one mask is empty, NaN where both are.

    >>> dice(1, 1, 1)
    0.5
    """
    total = 2 * tp + fp + fn
    return 2 * tp / total if total else float("nan")


def hd95_mm(pred: Mask, truth: Mask, spacing_mm: Sequence[float]) -> float:
    """The 95 % Hausdorff distance of two masks, mm; NaN where either is empty.

    Exactly: the surface of a mask is its voxels with at least one of the six face neighbours outside the mask (beyond
    the array is outside). From each surface voxel's centre the distance to the nearest centre in the other surface is
    taken; the answer is the greater of the two directions' 95th percentiles (linear interpolation), as in Metrics
    Reloaded (Maier-Hein et al. 2024, 10.1038/s41592-023-02151-z), not the percentile of both directions pooled.
    """
    pred, truth = pair(pred, truth)
    return surface_hd95_mm(pred.surface.indices, truth.surface.indices, spacing_mm)


def surface_hd95_mm(one: np.ndarray, other: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """`hd95_mm` of two surfaces, the indices of their voxels, int64 (3, n)."""
    if not one.size or not other.size:
        return float("nan")
    return hausdorff_percentile_mm(one, other, spacing_mm)


def hausdorff_percentile_mm(
    one: np.ndarray, other: np.ndarray, spacing_mm: Sequence[float], percent: float = 95
) -> float:
    """The percentile (linear interpolation) of the distances from each point to the nearest of the other set, mm.

    >>> one, other = np.array([[0, 0], [0, 0], [0, 5]]), np.array([[0], [0], [1]])
    >>> hausdorff_percentile_mm(one, other, (1.0, 1.0, 0.5), 100)
    2.0

    Both sets are indices, int64 (3, n), and not empty; the greater percentile of the two directions counts.
    """
    return max(_percentile_mm(*pair, spacing_mm, percent) for pair in ((one, other), (other, one)))


def _percentile_mm(points: np.ndarray, others: np.ndarray, spacing_mm: Sequence[float], percent: float) -> float:
    """The percentile of the distances from `points` to the nearest of `others`, both indices (3, n), mm.

    Of many points only those that may be at the percentile are looked up. The distances of two points differ by no more
    than the points are apart, so one point in each cell of a coarse grid bounds the others there.
    """
    from scipy.spatial import cKDTree

    places = points.T * np.asarray(spacing_mm)
    tree = cKDTree(others.T * np.asarray(spacing_mm), leafsize=32, balanced_tree=False, compact_nodes=False)
    if len(places) < _MANY_POINTS:
        return float(np.percentile(tree.query(places)[0], percent))
    chosen, cell = _of_cells(points)
    known = tree.query(places[chosen])[0][cell]
    apart = np.sqrt(((places - places[chosen][cell]) ** 2).sum(axis=1)) + _TIE_MM
    before = int((len(places) - 1) * percent / 100)
    least = np.partition(known - apart, before)[before]
    behind = min(before + 1, len(places) - 1)
    most = np.partition(known + apart, behind)[behind]
    distances = np.where(known + apart < least, least, most)
    open_ones = (known + apart >= least) & (known - apart <= most)
    distances[open_ones] = tree.query(places[open_ones])[0]
    return float(np.percentile(distances, percent))


def _of_cells(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One point for each cell of `_CELL` voxels an edge that holds some, and each point's place among these."""
    cells = points // _CELL
    cells -= cells.min(axis=1, keepdims=True)
    keys = np.ravel_multi_index(tuple(cells), tuple(cells.max(axis=1) + 1))
    _, chosen, cell = np.unique(keys, return_index=True, return_inverse=True)
    return chosen, cell


def lesions(mask: Mask) -> int:
    """The number of connected components; voxels that touch at a corner are connected (26 neighbours)."""
    return len(Runs.of(mask).components.sizes)


def volume_ml(mask: Mask, affine: Affine) -> float:
    """Volume of the voxels of a mask, millilitres; 0 for an empty one."""
    return Runs.of(mask).voxels * abs(float(np.linalg.det(_matrix(affine)[:3, :3]))) / 1000


def centroid_mm(mask: Mask, affine: Affine) -> Point | None:
    """The mean of the voxel centres, RAS+ x, y, z mm; None for an empty mask."""
    runs = Runs.of(mask)
    if not runs.voxels:
        return None
    middle = ((runs.first + runs.last) * runs.lengths).sum(axis=1) / (2 * runs.voxels)
    x, y, z = _to_world(middle, affine).tolist()
    return x, y, z


def box_mm(mask: Mask, affine: Affine) -> tuple[float, ...] | None:
    """Least x, y, z and greatest x, y, z of the voxel centres, RAS+ mm; None for an empty mask."""
    runs = Runs.of(mask)
    if not runs.voxels:
        return None
    ends = np.concatenate([runs.first, runs.last], axis=1)  # all corners of the convex hull are among these
    world = _to_world(ends, affine)
    return (*world.min(axis=1).tolist(), *world.max(axis=1).tolist())


def diameters_mm(mask: Mask, spacing_mm: Sequence[float]) -> Diameters:
    """The bidimensional measure of RANO (Wen et al. 2010, 10.1200/JCO.2009.26.3541), mm; NaN for an empty mask.

    In each slice (first axis) the largest component, 8 neighbours, is taken, and of all slices the one with the
    longest diameter. A diameter is the distance of two points of the component's convex hull, the perpendicular one
    the hull's longest chord at a right angle. A voxel reaches from the middle of one face to that of the opposite one,
    so that a single voxel is as long as its greater side and a straight row of n voxels is n sides long.
    """
    best = Diameters(float("nan"), float("nan"))
    in_plane = np.asarray(spacing_mm, np.float64)[1:]
    for bound, outline in _outlines(Runs.of(mask), in_plane):
        if bound < best.longest - _TIE_MM:
            break
        best = _greater(best, _hull_diameters(outline))
    return best


def _greater(best: Diameters, found: Diameters) -> Diameters:
    """The one with the longer diameter; of equal ones, except for rounding, that with the longer perpendicular."""
    if abs(found.longest - best.longest) <= _TIE_MM:
        return max(best, found, key=lambda diameters: diameters.perpendicular)
    return best if best.longest > found.longest else found


def _outlines(runs: Runs, spacing_mm: np.ndarray) -> list[tuple[float, np.ndarray]]:
    """Face middles (n, 2), mm, of slices' largest components with a bound of their diameter, longest first.

    Slices whose bound is below the diameter of another are left out.
    """
    if not runs.voxels:
        return []
    largest = _largest_of_slices(runs)
    (slices, *first), (_, *last) = (ends.compress(largest, axis=1) for ends in (runs.first, runs.last))
    starts = np.flatnonzero(np.diff(slices, prepend=-1))
    least, most = _diameter_bounds(first, last, starts, spacing_mm)
    pixels = np.split(np.array([first, last]), starts[1:], axis=2)
    order = [place for place in np.argsort(-most, kind="stable") if most[place] >= least.max() - _TIE_MM]
    return [(float(most[place]), _face_middles(pixels[place]) * spacing_mm) for place in order]


def _largest_of_slices(runs: Runs) -> np.ndarray:
    """Which runs belong to the largest component of their slice, the first of equal ones; bool (r,)."""
    of_run, sizes = runs.planar_components
    slice_of = np.empty(len(sizes), np.int64)
    slice_of[of_run] = runs.first[0]
    order = np.lexsort((-sizes, slice_of))
    largest = np.zeros(len(sizes), bool)
    largest[order[np.flatnonzero(np.diff(slice_of[order], prepend=-1))]] = True
    return largest[of_run]


def _diameter_bounds(
    first: Sequence[np.ndarray], last: Sequence[np.ndarray], starts: np.ndarray, spacing_mm: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Between what the diameters of outlines lie, mm: their runs go from pixels `first` to `last`, (2, r) each.

    Outlines begin at `starts`. The greatest width is the diameter, and no direction is farther from one that is looked
    at than half of the angle between these.
    """
    turns = np.pi / _DIRECTIONS * np.arange(_DIRECTIONS)
    rows, columns = (np.stack([np.cos(turns), np.sin(turns)]) * spacing_mm[:, None])[:, :, None]
    along = rows * first[0]
    one, other = along + columns * first[1], along + columns * last[1]
    high = np.maximum.reduceat(np.maximum(one, other), starts, axis=1)
    widths = high - np.minimum.reduceat(np.minimum(one, other), starts, axis=1)
    least = (widths + np.maximum(np.abs(rows), np.abs(columns))).max(axis=0)
    return least, least / np.cos(np.pi / _DIRECTIONS / 2)


def _face_middles(pixels: np.ndarray) -> np.ndarray:
    """The middles of the four sides (n, 2) of each pixel, in pixels, which are (ends, 2, n)."""
    middles = pixels.transpose(0, 2, 1)[..., None, :] + [[0.5, 0], [-0.5, 0], [0, 0.5], [0, -0.5]]
    return middles.reshape(-1, 2)


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

    The polygon starts and ends in single corners of height 0 here, because these are the ends of its longest diameter.
    """
    heights = sign * corners[:, 1]
    side = corners[heights >= -1e-9]
    order = np.lexsort((sign * side[:, 1], side[:, 0]))
    return np.interp(places, side[order, 0], sign * side[order, 1])


def _matrix(affine: Affine) -> np.ndarray:
    return np.asarray(affine, np.float64).reshape(4, 4)


def _spacing(affine: Affine) -> Sequence[float]:
    from segpipe.core.orientation import spacing_mm

    return spacing_mm(_matrix(affine)).tolist()


def _to_world(points: np.ndarray, affine: Affine) -> np.ndarray:
    """RAS+ mm, (3,) or (3, n), of indices of the same shape."""
    matrix = _matrix(affine)
    moved = sum(
        np.multiply.outer(matrix[:3, axis], points[axis]) for axis in range(3)
    )  # not BLAS, which takes all cores
    return moved + matrix[:3, 3].reshape(3, *[1] * (points.ndim - 1))
