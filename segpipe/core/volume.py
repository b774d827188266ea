"""One image volume as its file stores it."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Volume:
    """The voxels of one file or DICOM series, unscaled, with all that is needed to write the file again.

    `voxels` has the index order (i, j, k, …) and the dtype and byte order of the file; `affine` maps
    (i, j, k, 1) to millimetres in RAS+ (x to the Right, y Anterior, z Superior), shape (4, 4) float64.
    The meaning of a stored value is `value * slope + inter`. `header` and `extensions` are the file's
    own bytes (empty for DICOM); `container` says what they are: `nifti1`, `nifti1-pair`, `nifti2`,
    `nifti2-pair`, `analyze`, `dicom`, `mgh`.
    """

    voxels: np.ndarray
    affine: np.ndarray
    slope: float = 1.0
    inter: float = 0.0
    header: bytes = b""
    extensions: bytes = b""
    container: str = "nifti1"

    def scaled(self) -> np.ndarray:
        """The voxels as float32 with slope and intercept applied, native byte order, same shape."""
        return scale(self.voxels, self.slope, self.inter)


def scale(voxels: np.ndarray, slope: float, inter: float) -> np.ndarray:
    """Stored values to float32 values, `voxels * slope + inter`.

    >>> scale(np.array([0, 2], ">i2"), 0.5, 1.0)
    array([1., 2.], dtype=float32)
    """
    if slope == 1.0 and inter == 0.0:
        return voxels.astype(np.float32)
    return (voxels.astype(np.float64) * slope + inter).astype(np.float32)
