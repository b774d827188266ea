"""The space that scans are prepared to: a head upright in MNI152, brain alone, 1 mm, in its own size.

The atlas is the T1 of MNI ICBM152 2009a, nonlinear symmetric, without its skull (Fonov et al. 2011,
10.1016/j.neuroimage.2010.07.033), as nilearn ships it.
"""

from __future__ import annotations

import gzip
import hashlib
from functools import lru_cache
from pathlib import Path

import numpy as np

from segpipe.errors import NotFound
from segpipe.prepare import shipped
from segpipe.prepare.grids import Grid
from segpipe.prepare.register import Head

SPACE = "brain-1mm"
"""The name of the space in `scans` and in bundles."""

PACKAGE = "nilearn"
NAME = "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
SHA256 = "eeb8a792a93948c83462305c71db783800e95eb3f6ce35975a4dd0f374f79bff"
_SHAPE = (197, 233, 189)
_ORIGIN_MM = (-98.0, -134.0, -72.0)
_HEADER_BYTES = 352
_BELOW_MM = 18.0
"""The atlas ends in the brain stem; a patient's goes on."""


def grid() -> Grid:
    """The grid of prepared scans: 1 mm along R, A, S."""
    return Grid(_SHAPE, _affine((_ORIGIN_MM[0], _ORIGIN_MM[1], _ORIGIN_MM[2] - _BELOW_MM)))


def file() -> Path:
    """Where the package keeps the atlas. Raises NotFound if it is missing."""
    return shipped.file_of(PACKAGE, NAME)


@lru_cache(maxsize=1)
def head() -> Head:
    """The atlas: what brains are turned to. Raises NotFound if its package is missing or holds another file."""
    content = gzip.decompress(file().read_bytes())
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise NotFound(
            f"{NAME} of package {PACKAGE} is not the file that segpipe was tested with", shipped.remedy(PACKAGE)
        )
    voxels = np.frombuffer(content, np.uint8, offset=_HEADER_BYTES).reshape(_SHAPE, order="F")
    return Head(voxels.astype(np.float32), Grid(_SHAPE, _affine(_ORIGIN_MM)), voxels > 0)


def _affine(origin: tuple[float, float, float]) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, 3] = origin
    return affine
