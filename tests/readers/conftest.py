"""Files to read, made at test time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segpipe.readers import nifti

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def head(shape: tuple[int, int, int] = (6, 5, 4), seed: int = 0) -> np.ndarray:
    """An int16 volume (i, j, k), background 0 with a block of values above 0 in the middle."""
    voxels = np.zeros(shape, np.int16)
    inner = tuple(slice(1, max(2, n - 1)) for n in shape)
    voxels[inner] = np.random.default_rng(seed).integers(1, 1000, voxels[inner].shape)
    return voxels


def save(path: Path, voxels: np.ndarray | None = None, affine: np.ndarray = LPS, **scaling: float) -> Path:
    """Write a NIfTI-1 file and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nifti.write(nifti.from_array(head() if voxels is None else voxels, affine, **scaling), path)
    return path


@pytest.fixture
def brats_case(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a case of four modalities and a mask in BraTS layout and gives its folder."""

    def write(
        subject: str = "BraTS2021_00001", roles: str = "flair t1 t1ce t2", labels: np.ndarray | None = None
    ) -> Path:
        folder = tmp_path / "archive" / subject
        for seed, role in enumerate(roles.split()):
            save(folder / f"{subject}_{role}.nii.gz", head(seed=seed))
        mask = np.zeros((6, 5, 4), np.uint8)
        mask[2, 2, 1:3] = (1, 4)
        save(folder / f"{subject}_seg.nii.gz", mask if labels is None else labels)
        return tmp_path / "archive"

    return write
