"""Agreement lesion by lesion: which true lesions were found and how well, and which predicted ones are none.

After the lesion-wise measures of the BraTS 2023 challenges. No lesion is left out here and nothing is averaged: the
least volume that counts, and what a missed or a false lesion costs, are decided where the table is queried.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from segpipe.core import metrics
from segpipe.core.metrics import Components, components, counts, dice

REACH = 3
"""Dilations by 18 neighbours within which two true lesions are one, and a predicted component belongs to a true one."""

Box = tuple[slice, ...]


class LesionScore(NamedTuple):
    """A true lesion and the predicted components that reach it; without any Dice is 0 and HD95 NaN."""

    truth_voxels: int
    voxels: int
    tp: int
    dice: float
    hd95_mm: float


class LesionWise(NamedTuple):
    """All true lesions, largest first, and the voxels of each predicted component that reaches none, likewise."""

    scores: list[LesionScore]
    false_voxels: list[int]


def lesion_wise(
    pred: np.ndarray,
    truth: np.ndarray,
    spacing_mm: Sequence[float],
    reach: int = REACH,
    predicted: Components | None = None,
    hd95_mm: float | None = None,
) -> LesionWise:
    """Compare two bool masks (S, H, W) lesion by lesion.

    >>> truth = np.zeros((1, 1, 12), bool); truth[..., :2] = True
    >>> pred = np.zeros((1, 1, 12), bool); pred[..., [1, 10]] = True
    >>> found = lesion_wise(pred, truth, (1.0, 1.0, 1.0))
    >>> found.scores[0][:3], round(found.scores[0].dice, 3), found.false_voxels
    ((2, 1, 1), 0.667, [1])

    A true lesion is a 26-connected component of the truth dilated `reach` times, cut back to the truth. A 26-connected
    component of the prediction belongs to every true lesion that it touches once that is dilated `reach` times.
    `predicted` are the components of `pred`, and `hd95_mm` is the distance of the whole masks, where they are known.
    Raises ValueError for masks that are not bool or not of one shape.
    """
    from scipy.ndimage import binary_dilation, find_objects, generate_binary_structure, label

    counts(pred, truth)  # checks dtype and shape
    parts, sizes = predicted or components(pred)
    if not truth.any():
        return LesionWise([], sorted(map(int, sizes), reverse=True))
    window = _around(truth, reach)
    truth, near_parts = truth[window], parts[window]
    wide = generate_binary_structure(3, 2)
    joined, number = label(binary_dilation(truth, wide, iterations=reach), np.ones((3, 3, 3), bool))
    belonging: set[int] = set()
    scores = []
    for place, box in enumerate(find_objects(joined), start=1):
        lesion = joined[box] == place
        members = {int(part) for part in np.unique(near_parts[box][lesion]) if part}
        belonging |= members
        if number == 1 and len(members) == len(sizes) and hd95_mm is not None:
            scores.append(_whole(pred, truth, window, hd95_mm))
            continue
        true = np.zeros(pred.shape, bool)
        true[window][box] = truth[box] & lesion
        around = _hull([_around(true, 0), *find_objects(np.isin(parts, list(members)).astype(np.uint8))])
        scores.append(_score(np.isin(parts[around], list(members)), true[around], spacing_mm))
    false_voxels = [int(size) for part, size in enumerate(sizes, start=1) if part not in belonging]
    scores.sort(key=lambda score: (-score.truth_voxels, -score.voxels, -score.dice))
    return LesionWise(scores, sorted(false_voxels, reverse=True))


def mean_dice(scores: Sequence[LesionScore], false_voxels: Sequence[int], least_voxels: int = 0) -> float:
    """The lesion-wise Dice of a patient: the sum over true lesions, divided by true and false lesions; NaN without any.

    True lesions and false ones of fewer than `least_voxels` are left out.
    """
    kept = [score.dice for score in scores if score.truth_voxels >= least_voxels]
    false = sum(voxels >= least_voxels for voxels in false_voxels)
    return sum(kept) / (len(kept) + false) if kept or false else float("nan")


def _score(pred: np.ndarray, lesion: np.ndarray, spacing_mm: Sequence[float]) -> LesionScore:
    tp, fp, fn = counts(pred, lesion)
    return LesionScore(tp + fn, tp + fp, tp, dice(tp, fp, fn), metrics.hd95_mm(pred, lesion, spacing_mm))


def _whole(pred: np.ndarray, truth: np.ndarray, window: Box, hd95_mm: float) -> LesionScore:
    """The score of a truth that is one lesion, which all of the prediction belongs to; `truth` is cut to `window`."""
    tp = int(np.count_nonzero(pred[window] & truth))
    voxels, true_voxels = int(np.count_nonzero(pred)), int(np.count_nonzero(truth))
    return LesionScore(true_voxels, voxels, tp, dice(tp, voxels - tp, true_voxels - tp), hd95_mm)


def _around(mask: np.ndarray, margin: int) -> Box:
    """The box around a mask that is not empty, wider by `margin` voxels where the array goes on."""
    sides = []
    for axis, length in enumerate(mask.shape):
        used = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
        sides.append(slice(max(int(used[0]) - margin, 0), min(int(used[-1]) + 1 + margin, length)))
    return tuple(sides)


def _hull(boxes: Sequence[Box]) -> Box:
    """The smallest box around boxes."""
    return tuple(
        slice(min(side.start for side in of), max(side.stop for side in of)) for of in zip(*boxes, strict=True)
    )
