"""Whether a scan may show a face: a surface of its head would be a likeness of the patient."""

import math
from collections.abc import Sequence

import numpy as np

from segpipe.core.intensity import background

MOST_BRAIN_ML = 2200.0
"""More than any brain fills with its sulci and ventricles; an adult's head is at least half as large again."""

_STEP_MM = 4.0

LEAST_BORDER_SHARE = 0.9
"""Of the border's voxels, that are background where a brain alone is shown; a head is cut off by some border."""


def may_show_face(channels: Sequence[np.ndarray], spacing_mm: Sequence[float]) -> bool:
    """Whether a modality, (S, H, W) of any real dtype, may show more than a brain; where in doubt, it may.

    Nothing but a brain is shown where one exact value fills nine tenths of the border, and what differs from it, with
    all that lies between it along the columns (as skull does, where it is as dark as air), takes up at most 2.2 litres.
    An infant's head whose air was set to zero is taken for a brain. Looked at are voxels about 4 mm apart.

    >>> brain = np.pad(np.ones((140, 170, 140)), 20)
    >>> may_show_face([brain], (0.8, 0.8, 0.8)), may_show_face([brain], (1.0, 1.0, 1.0))
    (False, True)
    """
    steps = [max(1, int(_STEP_MM / max(abs(float(mm)), 1e-3))) for mm in spacing_mm]
    voxel_ml = float(np.prod(np.abs(spacing_mm))) / 1000 * math.prod(steps)
    return any(_may_show_face(channel, steps, voxel_ml) for channel in channels)


def _may_show_face(channel: np.ndarray, steps: Sequence[int], voxel_ml: float) -> bool:
    value = background(channel, LEAST_BORDER_SHARE)
    if value is None:
        return True
    coarse = channel[:: steps[0], :: steps[1], :: steps[2]]
    shown = coarse == coarse if np.isnan(value) else coarse != value
    first, behind_last = shown.argmax(axis=2), shown.shape[2] - shown[..., ::-1].argmax(axis=2)
    spans = int((behind_last - first)[shown.any(axis=2)].sum())
    return spans * voxel_ml > MOST_BRAIN_ML
