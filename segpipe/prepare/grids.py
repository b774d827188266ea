"""Grids in space, and arrays moved from one to another: SimpleITK behind numpy's index order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from segpipe.core.orientation import spacing_mm as spacing_of

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Turns RAS+ points into those of ITK and DICOM, and back."""


def one_thread() -> Any:
    """SimpleITK on one thread a process, as Spark's tasks want it and as the same bits twice need it.

    `SetNumberOfThreads` of a registration does not reach the parts of it that scale its steps; this does.
    """
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    return sitk


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the voxels of an array (i, j, k) lie: `affine` (4, 4) float64 maps indices to RAS+ mm.

    Its axes are orthogonal.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray

    @property
    def spacing_mm(self) -> np.ndarray:
        """Along i, j, k: (3,) float64."""
        return spacing_of(self.affine)

    @property
    def voxels(self) -> int:
        """How many there are."""
        return int(np.prod(self.shape))

    @property
    def voxel_ml(self) -> float:
        """The volume of one."""
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000

    def image(self, array: np.ndarray) -> Any:
        """A SimpleITK image of an array on this grid."""
        sitk = one_thread()
        image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
        lps = LPS @ self.affine
        image.SetSpacing(self.spacing_mm.tolist())
        image.SetOrigin(lps[:3, 3].tolist())
        image.SetDirection((lps[:3, :3] / self.spacing_mm).ravel().tolist())
        return image


def resample(
    array: np.ndarray,
    source: Grid,
    target: Grid,
    matrix: np.ndarray | None = None,
    nearest: bool = False,
    outside: float = 0.0,
) -> np.ndarray:
    """An array of `source` on the grid `target`: float32 and linear, or the same dtype and nearest neighbour.

    `matrix` (4, 4) maps points of `target` to points of `source`, RAS+ mm; the identity where it is None. Voxels beyond
    the source get `outside`.
    """
    sitk = one_thread()
    lps = LPS @ (np.eye(4) if matrix is None else matrix) @ LPS
    transform = sitk.AffineTransform(lps[:3, :3].ravel().tolist(), lps[:3, 3].tolist())
    kept = array if nearest else np.asarray(array, np.float32)
    filter_ = sitk.ResampleImageFilter()
    filter_.SetNumberOfThreads(1)
    filter_.SetReferenceImage(target.image(np.zeros(target.shape, np.uint8)))
    filter_.SetTransform(transform)
    filter_.SetInterpolator(sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear)
    filter_.SetDefaultPixelValue(outside)
    return sitk.GetArrayFromImage(filter_.Execute(source.image(kept))).transpose(2, 1, 0)


def box_grid(grid: Grid, mask: np.ndarray, spacing_mm: float, margin_mm: float) -> Grid:
    """An isotropic grid along the axes of `grid` around the true voxels of `mask`, with a margin."""
    places = [np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis))) for axis in range(3)]
    spacing = grid.spacing_mm
    first = np.array([one[0] for one in places]) * spacing - margin_mm
    last = np.array([one[-1] for one in places]) * spacing + margin_mm
    count = np.ceil((last - first) / spacing_mm).astype(int) + 1
    directions = grid.affine[:3, :3] / spacing
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing_mm
    affine[:3, 3] = grid.affine[:3, 3] + directions @ first
    return Grid((int(count[0]), int(count[1]), int(count[2])), affine)
