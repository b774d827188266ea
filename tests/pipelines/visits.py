"""Visits of a patient as a scanner would show the head of the atlas, on grids of their own."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from segpipe.prepare import atlas
from segpipe.prepare.grids import Grid, resample
from segpipe.prepare.register import rotation


def pose(degrees: tuple[float, float, float], shift: tuple[float, float, float]) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = rotation(np.radians(degrees).tolist())
    matrix[:3, 3] = shift
    return matrix


VISITS = {
    "1": (pose((3, -2, 5), (4, -6, 9)), (1.5, 1.2, 2.5)),
    "2": (pose((-4, 3, -3), (-5, 4, 0)), (1.2, 1.2, 3.0)),
}
"""Points of a visit to points of the atlas, and its voxels, mm."""


def write_visit(folder: Path, session: str, suffix: str, values: np.ndarray) -> Path:
    """Write voxels on the atlas's grid as the scanner of a visit shows them; `suffix` is BIDS's word for the image."""
    turn, spacing = VISITS[session]
    affine = np.diag([*spacing, 1.0])
    shape = tuple(int(220 / edge) for edge in spacing)
    centre = np.linalg.inv(turn) @ [0, -18, 10, 1]
    affine[:3, 3] = centre[:3] - affine[:3, :3] @ (np.array(shape) - 1) / 2
    voxels = resample(values, atlas.head().grid, Grid(shape, affine), turn).clip(0).round().astype(np.int16)
    path = folder / "sub-p" / f"ses-{session}" / "anat" / f"sub-p_ses-{session}_{suffix}.nii.gz"
    path.parent.mkdir(parents=True)
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path
