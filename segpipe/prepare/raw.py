"""A source volume as preparing takes it, what cannot be prepared, and what need not be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from segpipe.core.faces import may_show_face
from segpipe.core.intensity import background
from segpipe.core.orientation import reorient, reorient_affine, same_grid
from segpipe.core.volume import scale
from segpipe.errors import BadInput, Reason
from segpipe.prepare.brain import largest_component
from segpipe.prepare.grids import Grid

LEAST_SLICES = 10
LEAST_FIELD_MM = 120.0
"""Within the slices. Across them a usable series may cover less: 39 slices of 3 mm, say."""
_MOST_SHEAR = 2e-3
"""Largest cosine between two axes: 0.2 mm at 100 mm."""

_BORDER_SHARE = 0.95
"""Share of the border that is one value: around a brain alone there is nothing; a head has noise or a neck there."""
_LEAST_ML, _MOST_ML = 500.0, 2200.0
_LEAST_OVERLAP = 0.95
_LEAST_MAIN = 0.9
_SAME_VOXEL = 0.01  # of a voxel
_STEP = 3
"""Voxels from one to the next where parts are counted: a tenth of the work, the same answer."""


@dataclass(frozen=True, eq=False)
class Raw:
    """One modality, or a mask, of a scan: stored voxels (3 axes along `orientation`) and where they lie.

    A voxel means `voxels * slope + inter`; `name` is what messages call it; `frames` are those of its file.
    `drawn_on` is the role of the modality that a mask refers to, where it says so.
    """

    role: str
    name: str
    voxels: np.ndarray
    affine: np.ndarray
    orientation: str
    slope: float = 1.0
    inter: float = 0.0
    frames: int = 1
    drawn_on: str | None = None

    @property
    def ras(self) -> np.ndarray:
        """Stored voxels along R, A, S, native byte order."""
        turned = reorient(self.voxels, self.orientation, "RAS")
        return turned.astype(turned.dtype.newbyteorder("="), copy=False)

    @property
    def grid(self) -> Grid:
        """The grid of `ras`."""
        shape = reorient(self.voxels, self.orientation, "RAS").shape
        return Grid(
            (shape[0], shape[1], shape[2]),
            reorient_affine(self.affine, self.voxels.shape, self.orientation, "RAS"),
        )

    @property
    def scaled(self) -> np.ndarray:
        """Values along R, A, S, float32, finite."""
        return np.nan_to_num(scale(self.ras, self.slope, self.inter), nan=0.0, posinf=0.0, neginf=0.0)


def refuse(raw: Raw) -> None:
    """Raise BadInput if a volume cannot be prepared, with what was found and what is wanted."""
    shape, grid = raw.voxels.shape, raw.grid
    field_mm = np.array(grid.shape) * grid.spacing_mm
    unit = raw.affine[:3, :3] / np.sqrt((raw.affine[:3, :3] ** 2).sum(axis=0))
    shear = float(np.abs(unit.T @ unit - np.eye(3)).max())
    if raw.frames > 1:
        _bad(raw, f"is one of {raw.frames} frames of a 4D file", "give each frame that is wanted as a file of its own")
    if min(shape) < LEAST_SLICES:
        _bad(raw, f"has {min(shape)} slices, fewer than {LEAST_SLICES}", "choose a series that covers the brain")
    if sorted(field_mm)[1] < LEAST_FIELD_MM:
        told = " x ".join(f"{mm:.0f}" for mm in field_mm)
        _bad(raw, f"covers {told} mm, less than {LEAST_FIELD_MM:.0f} mm", "choose a series that covers the brain")
    if shear > _MOST_SHEAR:
        degrees = float(np.degrees(np.arcsin(min(1.0, shear))))
        _bad(raw, f"has axes that are {degrees:.1f} degrees from right angles", "resample it onto a straight grid")


def _bad(raw: Raw, problem: str, remedy: str) -> NoReturn:
    raise BadInput(Reason.UNPREPARABLE, f"{raw.name} ({raw.role}) cannot be prepared: it {problem}", remedy)


def stripped_brain(raw: Raw) -> np.ndarray | None:
    """The brain of an image that shows nothing else, bool along R, A, S; None for a whole head.

    Of such an image nearly all of the border is one value, which may be NaN, and what is not of this value is one part
    of a brain's volume, also with all that it encloses: skull may be as dark as air.
    """
    voxels = raw.ras
    value = background(voxels, _BORDER_SHARE)
    if value is None or may_show_face([voxels], raw.grid.spacing_mm.tolist()):
        return None
    foreground = ~np.isnan(voxels) if np.isnan(value) else voxels != value
    if not _LEAST_ML <= np.count_nonzero(foreground) * raw.grid.voxel_ml <= _MOST_ML:
        return None
    coarse = foreground[::_STEP, ::_STEP, ::_STEP]
    return foreground if largest_component(coarse).sum() >= _LEAST_MAIN * coarse.sum() else None


def host(mask: Raw, raws: Sequence[Raw]) -> Raw | None:
    """The modality that a mask was drawn on: the one that it refers to, else one whose voxels it has; None without.

    It may have some of them alone: SEG objects leave out slices without a label.
    """
    named = [one for one in raws if one.role == mask.drawn_on]
    alike = [one for one in raws if _has_voxels_of(mask, one)]
    whole = [one for one in alike if one.voxels.shape == mask.voxels.shape]
    return next(iter([*named, *whole, *alike]), None)


def _has_voxels_of(mask: Raw, one: Raw) -> bool:
    start = np.linalg.solve(one.affine, mask.affine[:, 3])[:3]
    corner = np.rint(start)
    inside = (corner >= 0).all() and (corner + mask.voxels.shape <= one.voxels.shape).all()
    moved = one.affine.copy()
    moved[:3, 3] = mask.affine[:3, 3]
    return bool(inside and np.abs(start - corner).max() <= _SAME_VOXEL and same_grid(mask.affine, moved))


def is_prepared(raws: Sequence[Raw], brains: Sequence[np.ndarray | None]) -> bool:
    """Whether all modalities lie on one grid and show the same brain alone; `brains` as `stripped_brain` has them."""
    first, brain = raws[0], brains[0]
    for raw, other in zip(raws, brains, strict=True):
        if brain is None or other is None or raw.voxels.shape != first.voxels.shape:
            return False
        if not same_grid(raw.affine, first.affine):
            return False
        if overlap(brain, other) < _LEAST_OVERLAP:
            return False
    return True


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Dice of two masks; 0 where both are empty."""
    total = int(one.sum()) + int(other.sum())
    return 2 * int((one & other).sum()) / total if total else 0.0
