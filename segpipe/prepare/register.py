"""Rigid registration by mutual information inside the brain: SimpleITK on one thread, the same bits twice."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from segpipe.prepare.grids import LPS, Grid, box_grid, one_thread, resample

SEED = 20
_BINS = 40
_DILATE_MM = 6.0
_COARSE_MM, _FINE_MM, _OVERLAP_MM = 4.0, 1.0, 2.0
_EVERY, _SPARSE = 17, 4000
_SAMPLES = 100_000
_POSE_SAMPLES, _POSE_BINS = 8000, 32
_ANGLES_DEGREES = (-30.0, -15.0, 0.0, 15.0, 30.0)
_STARTS = 3
_COARSER, _SIGMA = 1.5, 0.5
_UPRIGHT_STARTS = 2
_TILTS_DEGREES = (-20.0, 0.0, 20.0)
_TURNED_STARTS, _TURNED_SHARE = 3, 0.25
_LEAST_TURN_DEGREES = 45.0
_CLIP = (0.5, 99.8)
"""Percentiles inside the mask beyond which values are clipped: vessels and fat would take the histogram's bins."""


@dataclass(frozen=True, eq=False)
class Head:
    """An image to register: scaled values float32 (i, j, k), its grid, and its brain, bool of the same shape.

    `alone` says that nothing but the brain is shown, as in the space: around it, values tell nothing.
    """

    values: np.ndarray
    grid: Grid
    brain: np.ndarray
    alone: bool = False

    @property
    def centre_mm(self) -> np.ndarray:
        """The centroid of the brain, RAS+ mm, (3,)."""
        places = np.array([places.mean() for places in np.nonzero(self.brain)])
        return self.grid.affine[:3, :3] @ places + self.grid.affine[:3, 3]


@dataclass(frozen=True, eq=False)
class Rigid:
    """How points of one image move to points of another: `matrix` (4, 4) maps RAS+ mm to RAS+ mm.

    `metric` is the mutual information of the two inside the brain, negative: the less, the better. `turned` is that of
    the best pose which is turned by 90 or 180 degrees, as a share of this one's: above 1 the header says a wrong one.
    """

    matrix: np.ndarray
    metric: float
    starts: int = 1
    turned: float | None = None


def rigid(fixed: Head, moving: Head, good_overlap: float = 0.93, start: np.ndarray | None = None) -> Rigid:
    """The rigid transform from points of `fixed` to points of `moving`.

    Coarse first, at 4 mm, from the pose `start`, or else from what the headers say. Where that leaves the two brains
    with a Dice below `good_overlap`, the brains' centroids and 125 rotations about them are compared as well, by metric
    and by how the brains overlap, and the best of them optimised. Then at 2 and 1 mm. Samples are drawn with a fixed
    seed.
    """
    coarse = _Pair.of(fixed, moving, _COARSE_MM)
    best = coarse.optimise(np.eye(4) if start is None else start, step_mm=2.0)
    starts = 1
    if brains_overlap(fixed, moving, best.matrix) < good_overlap:
        poses = _poses(fixed, moving)
        metrics = coarse.evaluate(poses)
        by_metric = np.argsort(metrics, kind="stable")[:_STARTS]
        by_brains = np.argsort(-shares_inside(fixed, moving, poses), kind="stable")[:_STARTS]
        order = dict.fromkeys([*by_metric.tolist(), *by_brains.tolist()])
        tried = [coarse.optimise(poses[place], step_mm=2.0).matrix for place in order]
        untouched = [poses[place] for place in order]  # a coarse descent may run away
        candidates = [best.matrix, *tried, *untouched]
        overlaps = np.array([brains_overlap(fixed, moving, one) for one in candidates])
        place = int(np.argmin(coarse.evaluate(candidates) - overlaps))
        best = Rigid(candidates[place], best.metric)
        starts += len(poses)
    near = _Pair.of(fixed, moving, _OVERLAP_MM).optimise(best.matrix, step_mm=0.5)
    found = _Pair.of(fixed, moving, _FINE_MM).optimise(near.matrix, step_mm=0.25)
    return replace(found, starts=starts)


def upright(head: Head, atlas: Head) -> Rigid:
    """The rigid transform from points of `head` to points of an atlas that shows the brain alone.

    The brain is fitted by an affine transform, which allows for its size and shape, and the nearest rotation about its
    centroid is kept: a rigid fit of a small brain would slide and tilt inside the larger atlas. Poses near the header's
    are tried; how much those that are turned by 90 or 180 degrees would fit is told by `turned`.
    """
    alone = replace(head, values=np.where(head.brain, head.values, head.values[head.brain].min()))
    coarse = _Pair.of(alone, atlas, _COARSE_MM)
    poses = [np.eye(4), *_poses(alone, atlas)]
    order = np.argsort(coarse.evaluate(poses), kind="stable")[:_UPRIGHT_STARTS]
    tried = []
    for place in order:
        near = coarse.optimise(poses[place], step_mm=2.0)
        tried.append(coarse.optimise(near.matrix, step_mm=1.0, affine=True))
    best = min(tried, key=lambda one: one.metric)
    found = _Pair.of(alone, atlas, _OVERLAP_MM).optimise(best.matrix, step_mm=0.5, affine=True)
    turned = _turned(coarse, alone, atlas, best.matrix)
    return Rigid(nearest_rigid(found.matrix, head.centre_mm), found.metric, len(poses), turned)


def _turned(coarse: _Pair, fixed: Head, moving: Head, best: np.ndarray) -> float:
    """The mutual information of the best pose that is turned by 90 or 180 degrees, as a share of that of `best`.

    Of all 23 such turns about the centroids, each with its best tilt, the best few are fitted by an affine transform as
    `best` was, on fewer samples. What comes back to `best` is not counted. A header with one axis mirrored is seen as
    well, as the half turn that it looks like, but not one that exchanges left and right: a brain is too like its mirror
    image.
    """
    centre, target = fixed.centre_mm, moving.centre_mm
    near, tilts = nearest_rigid(best, centre), _tilts()

    def apart(matrices: Sequence[np.ndarray]) -> np.ndarray:
        return np.array([_degrees(nearest_rigid(one, centre), near) for one in matrices]) > _LEAST_TURN_DEGREES

    poses = [_about(centre, target, turn @ tilt) for turn in _square_turns() for tilt in tilts]
    metrics = np.where(apart(poses), coarse.evaluate(poses), np.inf).reshape(-1, len(tilts))
    turns = np.argsort(metrics.min(axis=1), kind="stable")[:_TURNED_STARTS]
    found = [poses[turn * len(tilts) + metrics[turn].argmin()] for turn in turns]
    quick = replace(coarse, share=min(coarse.share, _TURNED_SHARE))
    rough = [quick.optimise(one, step_mm=2.0).matrix for one in found]
    fitted = [quick.optimise(one, step_mm=1.0, affine=True).matrix for one in rough]
    found += [one for one, is_apart in zip(fitted, apart(fitted), strict=True) if is_apart]
    own, *others = coarse.evaluate([best, *found])
    return float(min(others) / own) if own else math.nan


def mirror_similarity(fixed: Head, moving: Head, matrix: np.ndarray, upright_: np.ndarray) -> float:
    """The mutual information of `fixed` and the mirror image of `moving`, as a share of that of the two as they are.

    `matrix` maps points of `fixed` to points of `moving`, `upright_` points of a space whose middle plane is x = 0 to
    points of `fixed`. Above 1, left is right in one of the two: a rotation that undoes an exchange of left and right
    does not exist, but a brain is so like its mirror image that a registration comes to a good end without it. Both are
    looked at 4 mm apart, the mirror image after a descent of its own from where `matrix` has it or the brains meet.
    """
    change = moving.grid.affine @ _reversed(moving.grid.shape[0]) @ np.linalg.inv(moving.grid.affine)
    middle = upright_ @ np.diag([-1.0, 1.0, 1.0, 1.0]) @ np.linalg.inv(upright_)
    other = replace(moving, values=moving.values[::-1], brain=moving.brain[::-1])
    pair = _Pair.of(fixed, other, _COARSE_MM)
    pair = replace(pair, share=min(pair.share, _TURNED_SHARE))
    poses = [change @ matrix @ middle, _about(fixed.centre_mm, other.centre_mm, np.eye(3))]
    poses += [pair.optimise(poses[int(np.argmin(pair.evaluate(poses)))], step_mm=2.0).matrix]  # which may run away
    own = _Pair.of(fixed, moving, _COARSE_MM).evaluate([matrix])[0]
    return float(min(pair.evaluate(poses)) / own) if own else math.nan


def _reversed(count: int) -> np.ndarray:
    """The matrix (4, 4) of indices whose first axis runs the other way."""
    found = np.diag([-1.0, 1.0, 1.0, 1.0])
    found[0, 3] = count - 1
    return found


def _square_turns() -> list[np.ndarray]:
    """The 23 rotations (3, 3) that lay axes onto axes, without the one that changes nothing."""
    found = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            turn = np.zeros((3, 3))
            turn[range(3), order] = signs
            if np.linalg.det(turn) > 0 and np.trace(turn) < 3:
                found.append(turn)
    return found


def _tilts() -> list[np.ndarray]:
    return [rotation([math.radians(one) for one in angles]) for angles in itertools.product(_TILTS_DEGREES, repeat=3)]


def _about(centre_mm: np.ndarray, target_mm: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """A rotation (3, 3) about a point that comes to another, (4, 4)."""
    found = np.eye(4)
    found[:3, :3], found[:3, 3] = turn, target_mm - turn @ centre_mm
    return found


def _degrees(one: np.ndarray, other: np.ndarray) -> float:
    """The angle between two rigid matrices."""
    return math.degrees(math.acos(np.clip((np.trace(one[:3, :3].T @ other[:3, :3]) - 1) / 2, -1, 1)))


def nearest_rigid(matrix: np.ndarray, centre_mm: np.ndarray) -> np.ndarray:
    """The rotation of an affine matrix (4, 4), by polar decomposition, with the same image of `centre_mm`."""
    left, _, right = np.linalg.svd(matrix[:3, :3])
    found = np.eye(4)
    found[:3, :3] = left @ np.diag([1, 1, np.linalg.det(left @ right)]) @ right
    found[:3, 3] = matrix[:3, :3] @ centre_mm + matrix[:3, 3] - found[:3, :3] @ centre_mm
    return found


def brains_overlap(fixed: Head, moving: Head, matrix: np.ndarray) -> float:
    """Dice of the two brains where `matrix` maps points of `fixed` to points of `moving`, looked at 2 mm apart."""
    grid = box_grid(fixed.grid, fixed.brain, _OVERLAP_MM, 5 * _DILATE_MM)
    one = resample(fixed.brain.astype(np.float32), fixed.grid, grid) > 0.5
    other = resample(moving.brain.astype(np.float32), moving.grid, grid, matrix) > 0.5
    total = int(one.sum()) + int(other.sum())
    return 2 * int((one & other).sum()) / total if total else 0.0


def shares_inside(fixed: Head, moving: Head, matrices: Sequence[np.ndarray]) -> np.ndarray:
    """The share of the fixed brain, looked at sparsely, that each matrix brings into the other brain, (n,) float64."""
    places = np.array(np.nonzero(fixed.brain))
    places = places[:, :: max(1, places.shape[1] // _SPARSE)]
    limits = np.array(moving.grid.shape)[:, None]
    found = []
    for matrix in matrices:
        change = np.linalg.inv(moving.grid.affine) @ matrix @ fixed.grid.affine
        at = np.rint(change[:3, :3] @ places + change[:3, 3:]).astype(int)
        within = ((at >= 0) & (at < limits)).all(axis=0)
        found.append(moving.brain[tuple(at[:, within])].sum() / places.shape[1])
    return np.array(found)


def mutual_information(one: np.ndarray, other: np.ndarray, bins: int = _POSE_BINS) -> float:
    """Of two samples of values, (n,) each, from their joint histogram; nats.

    >>> values = np.arange(64.0)
    >>> round(mutual_information(values, values, 4), 3), round(mutual_information(values, np.zeros(64), 4), 3)
    (1.386, 0.0)
    """
    joint, _, _ = np.histogram2d(one, other, bins)
    joint /= joint.sum()
    apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    seen = joint > 0
    return float((joint[seen] * np.log(joint[seen] / apart[seen])).sum())


def moved_mm(head: Head, matrix: np.ndarray) -> float:
    """How far `matrix` moves the brain's voxels, on average."""
    places = np.array(np.nonzero(head.brain))[:, ::_EVERY]
    points = head.grid.affine[:3, :3] @ places + head.grid.affine[:3, 3:]
    return float(np.sqrt((((matrix[:3, :3] - np.eye(3)) @ points + matrix[:3, 3:]) ** 2).sum(axis=0)).mean())


def _poses(fixed: Head, moving: Head) -> list[np.ndarray]:
    """Rotations about the fixed brain's centroid, moved onto the other's."""
    centre, target = fixed.centre_mm, moving.centre_mm
    found = []
    for angles in itertools.product(_ANGLES_DEGREES, repeat=3):
        turn = rotation([math.radians(angle) for angle in angles])
        pose = np.eye(4)
        pose[:3, :3] = turn
        pose[:3, 3] = target - turn @ centre
        found.append(pose)
    return found


def rotation(angles: Sequence[float]) -> np.ndarray:
    """The matrix (3, 3) of a turn about x, then y, then z, by angles in radians."""
    found = np.eye(3)
    for axis, angle in enumerate(angles):
        one, other = [place for place in range(3) if place != axis]
        turn = np.eye(3)
        turn[one, one] = turn[other, other] = math.cos(angle)
        turn[one, other], turn[other, one] = -math.sin(angle), math.sin(angle)
        found = turn @ found
    return found


@dataclass(frozen=True, eq=False)
class _Pair:
    """Two images on isotropic grids around their brains, as SimpleITK wants them."""

    fixed: Any
    moving: Any
    mask: Any
    centre_lps: tuple[float, ...]
    share: float
    points_mm: np.ndarray
    """Points inside the mask, sparsely, RAS+ (3, n); `seen` are the fixed image's values there, (n,)."""
    seen: np.ndarray
    others: np.ndarray
    around: Grid
    """The moving image as an array on this grid."""

    @classmethod
    def of(cls, fixed: Head, moving: Head, spacing_mm: float) -> _Pair:
        from scipy.ndimage import distance_transform_edt

        grid = box_grid(fixed.grid, fixed.brain, spacing_mm, 2 * _DILATE_MM)
        mask = resample(fixed.brain.astype(np.float32), fixed.grid, grid) > 0.5
        near = distance_transform_edt(~mask, sampling=spacing_mm) <= _DILATE_MM
        seen = fixed.brain if fixed.alone else np.ones(fixed.grid.shape, bool)
        near &= resample(seen.astype(np.float32), fixed.grid, grid) > 0.5  # nothing was seen elsewhere
        values = resample(_smooth(_clipped(fixed), fixed.grid, spacing_mm), fixed.grid, grid)
        around = box_grid(moving.grid, moving.brain, spacing_mm, 5 * _DILATE_MM)
        others = resample(_smooth(_clipped(moving), moving.grid, spacing_mm), moving.grid, around)
        places = np.array(np.nonzero(near))
        places = places[:, :: max(1, places.shape[1] // _POSE_SAMPLES)]
        return cls(
            fixed=grid.image(values),
            moving=around.image(others),
            mask=grid.image(near.astype(np.uint8)),
            centre_lps=tuple((LPS[:3, :3] @ fixed.centre_mm).tolist()),
            share=min(1.0, _SAMPLES / grid.voxels),
            points_mm=grid.affine[:3, :3] @ places + grid.affine[:3, 3:],
            seen=values[tuple(places)],
            others=others,
            around=around,
        )

    def _method(self) -> Any:
        sitk = one_thread()
        method = sitk.ImageRegistrationMethod()
        method.SetNumberOfThreads(1)
        method.SetMetricAsMattesMutualInformation(_BINS)
        method.SetMetricFixedMask(self.mask)
        method.SetInterpolator(sitk.sitkLinear)
        if self.share < 1:
            method.SetMetricSamplingStrategy(method.RANDOM)
            method.SetMetricSamplingPercentage(self.share, SEED)
        return method

    def evaluate(self, matrices: Sequence[np.ndarray]) -> np.ndarray:
        """The mutual information at each pose, negative, (n,) float64.

        What lies outside the moving image counts as its least value, so that a pose cannot win by what it does not see.
        """
        from scipy.ndimage import map_coordinates

        least = float(self.others.min())
        found = []
        for matrix in matrices:
            change = np.linalg.inv(self.around.affine) @ matrix
            at = change[:3, :3] @ self.points_mm + change[:3, 3:]
            values = map_coordinates(self.others, at, order=1, mode="constant", cval=least)
            found.append(-mutual_information(self.seen, values))
        return np.array(found)

    def optimise(self, start: np.ndarray, step_mm: float, affine: bool = False) -> Rigid:
        """The best pose near `start`, or the best affine transform."""
        method = self._method()
        method.SetOptimizerAsRegularStepGradientDescent(
            learningRate=step_mm,
            minStep=0.005,
            numberOfIterations=120,
            relaxationFactor=0.6,
            gradientMagnitudeTolerance=1e-6,
        )
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetShrinkFactorsPerLevel([1])
        method.SetSmoothingSigmasPerLevel([0])
        transform = self._affine(start) if affine else self._transform(start)
        method.SetInitialTransform(transform, inPlace=True)
        try:
            method.Execute(self.fixed, self.moving)
        except RuntimeError:
            return Rigid(start, 0.0)
        return Rigid(_matrix(transform), float(method.GetMetricValue()))

    def _affine(self, matrix: np.ndarray) -> Any:
        import SimpleITK as sitk

        transform, lps, centre = sitk.AffineTransform(3), LPS @ matrix @ LPS, np.array(self.centre_lps)
        transform.SetCenter(self.centre_lps)
        transform.SetMatrix(lps[:3, :3].ravel().tolist())
        transform.SetTranslation((lps[:3, 3] + lps[:3, :3] @ centre - centre).tolist())
        return transform

    def _transform(self, matrix: np.ndarray) -> Any:
        import SimpleITK as sitk

        lps = LPS @ matrix @ LPS
        transform = sitk.Euler3DTransform()
        transform.SetCenter(self.centre_lps)
        transform.SetMatrix(lps[:3, :3].ravel().tolist(), 1e-6)
        centre = np.array(self.centre_lps)
        transform.SetTranslation((lps[:3, 3] + lps[:3, :3] @ centre - centre).tolist())
        return transform


def _matrix(transform: Any) -> np.ndarray:
    """The (4, 4) matrix of a SimpleITK transform with a centre, in RAS+."""
    rotation = np.reshape(transform.GetMatrix(), (3, 3))
    centre = np.array(transform.GetCenter())
    lps = np.eye(4)
    lps[:3, :3] = rotation
    lps[:3, 3] = np.array(transform.GetTranslation()) + centre - rotation @ centre
    return LPS @ lps @ LPS


def _clipped(head: Head) -> np.ndarray:
    low, high = np.percentile(head.values[head.brain], _CLIP)
    return np.clip(head.values, low, high)


def _smooth(values: np.ndarray, grid: Grid, spacing_mm: float) -> np.ndarray:
    """Values without detail that a grid of `spacing_mm` cannot hold; unchanged if their own grid is about as coarse."""
    from scipy.ndimage import gaussian_filter

    sigma = np.where(grid.spacing_mm * _COARSER < spacing_mm, _SIGMA * spacing_mm / grid.spacing_mm, 0)
    return np.asarray(gaussian_filter(values, sigma)) if sigma.any() else values
