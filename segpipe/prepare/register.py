"""Rigid registration by mutual information inside the brain: SimpleITK on one thread, the same bits twice."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segpipe.prepare.grids import LPS, Grid, box_grid, resample

SEED = 20
_BINS = 40
_DILATE_MM = 6.0
_COARSE_MM = 4.0
_SHRINKS, _SMOOTHS_MM = (2, 1), (1.0, 0.0)
_SAMPLES = 40_000
_ANGLES_DEGREES = (-30.0, -15.0, 0.0, 15.0, 30.0)
_STARTS = 3
_CLIP = (0.5, 99.8)
"""Percentiles inside the mask beyond which values are clipped: vessels and fat would take the histogram's bins."""


@dataclass(frozen=True, eq=False)
class Head:
    """An image to register: scaled values float32 (i, j, k), its grid, and its brain, bool of the same shape."""

    values: np.ndarray
    grid: Grid
    brain: np.ndarray

    @property
    def centre_mm(self) -> np.ndarray:
        """The centroid of the brain, RAS+ mm, (3,)."""
        places = np.array([places.mean() for places in np.nonzero(self.brain)])
        return self.grid.affine[:3, :3] @ places + self.grid.affine[:3, 3]


@dataclass(frozen=True, eq=False)
class Rigid:
    """How points of one image move to points of another: `matrix` (4, 4) maps RAS+ mm to RAS+ mm.

    `metric` is the mutual information of the two inside the brain, negative: the less, the better.
    """

    matrix: np.ndarray
    metric: float
    starts: int = 1


def rigid(fixed: Head, moving: Head, spacing_mm: float = 1.0) -> Rigid:
    """The rigid transform from points of `fixed` to points of `moving`.

    Coarse first, at 4 mm: the header's own pose and 125 rotations about the brains' centroids are compared, the best of
    them optimised. Then at 2 and 1 mm. Samples are drawn with a fixed seed.
    """
    coarse = _Pair.of(fixed, moving, _COARSE_MM)
    header, *poses = [np.eye(4), *_poses(fixed, moving)]
    found = coarse.evaluate([header, *poses])
    order = np.argsort(found[1:], kind="stable")[: _STARTS - 1]
    starts = [header, *(poses[place] for place in order)]
    tried = [coarse.optimise(start, (1,), (0.0,), step_mm=2.0) for start in starts]
    best = min(tried, key=lambda one: one.metric)
    fine = _Pair.of(fixed, moving, spacing_mm)
    return fine.optimise(best.matrix, _SHRINKS, _SMOOTHS_MM, step_mm=0.5)


def _poses(fixed: Head, moving: Head) -> list[np.ndarray]:
    """Rotations about the fixed brain's centroid, moved onto the other's."""
    centre, target = fixed.centre_mm, moving.centre_mm
    found = []
    for angles in itertools.product(_ANGLES_DEGREES, repeat=3):
        rotation = _rotation([math.radians(angle) for angle in angles])
        pose = np.eye(4)
        pose[:3, :3] = rotation
        pose[:3, 3] = target - rotation @ centre
        found.append(pose)
    return found


def _rotation(angles: Sequence[float]) -> np.ndarray:
    """Rotation about x, then y, then z; radians."""
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

    @classmethod
    def of(cls, fixed: Head, moving: Head, spacing_mm: float) -> _Pair:
        from scipy.ndimage import distance_transform_edt

        grid = box_grid(fixed.grid, fixed.brain, spacing_mm, 2 * _DILATE_MM)
        mask = resample(fixed.brain.astype(np.float32), fixed.grid, grid) > 0.5
        near = distance_transform_edt(~mask, sampling=spacing_mm) <= _DILATE_MM
        values = resample(_clipped(fixed), fixed.grid, grid)
        around = box_grid(moving.grid, moving.brain, spacing_mm, 5 * _DILATE_MM)
        others = resample(_clipped(moving), moving.grid, around)
        return cls(
            fixed=grid.image(values),
            moving=around.image(others),
            mask=grid.image(near.astype(np.uint8)),
            centre_lps=tuple((LPS[:3, :3] @ fixed.centre_mm).tolist()),
            share=min(1.0, _SAMPLES / grid.voxels),
        )

    def _method(self, share: float) -> Any:
        import SimpleITK as sitk

        method = sitk.ImageRegistrationMethod()
        method.SetNumberOfThreads(1)
        method.SetMetricAsMattesMutualInformation(_BINS)
        method.SetMetricFixedMask(self.mask)
        method.SetInterpolator(sitk.sitkLinear)
        if share < 1:
            method.SetMetricSamplingStrategy(method.RANDOM)
            method.SetMetricSamplingPercentage(share, SEED)
        return method

    def evaluate(self, matrices: Sequence[np.ndarray]) -> np.ndarray:
        """The metric of each pose, (n,) float64; bad where the images do not even overlap."""
        method = self._method(1.0)
        found = []
        for matrix in matrices:
            method.SetInitialTransform(self._transform(matrix))
            try:
                found.append(method.MetricEvaluate(self.fixed, self.moving))
            except RuntimeError:  # all samples lie outside
                found.append(0.0)
        return np.array(found)

    def optimise(self, start: np.ndarray, shrinks: Sequence[int], smooths: Sequence[float], step_mm: float) -> Rigid:
        """The best pose near `start`."""
        method = self._method(self.share)
        method.SetOptimizerAsRegularStepGradientDescent(
            learningRate=step_mm,
            minStep=0.005,
            numberOfIterations=120,
            relaxationFactor=0.6,
            gradientMagnitudeTolerance=1e-6,
        )
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetShrinkFactorsPerLevel(list(shrinks))
        method.SetSmoothingSigmasPerLevel(list(smooths))
        method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
        transform = self._transform(start)
        method.SetInitialTransform(transform, inPlace=True)
        try:
            method.Execute(self.fixed, self.moving)
        except RuntimeError:
            return Rigid(start, 0.0)
        return Rigid(_matrix(transform), float(method.GetMetricValue()))

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
