"""Agreement lesion by lesion: which true lesions were found and how well, and which predicted ones are none.

After the lesion-wise measures of the BraTS 2023 challenges. No lesion is left out here and nothing is averaged: the
least volume that counts, and what a missed or a false lesion costs, are decided where the table is queried.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from segpipe.core.metrics import counts, dice, hd95_mm

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


def lesion_wise(pred: np.ndarray, truth: np.ndarray, spacing_mm: Sequence[float], reach: int = REACH) -> LesionWise:
    """Compare two bool masks (S, H, W) lesion by lesion.

    >>> truth = np.zeros((1, 1, 12), bool); truth[..., :2] = True
    >>> pred = np.zeros((1, 1, 12), bool); pred[..., [1, 10]] = True
    >>> found = lesion_wise(pred, truth, (1.0, 1.0, 1.0))
    >>> found.scores[0][:3], round(found.scores[0].dice, 3), found.false_voxels
    ((2, 1, 1), 0.667, [1])

    A true lesion is a 26-connected component of the truth dilated `reach` times, cut back to the truth. A 26-connected
    component of the prediction belongs to every true lesion that it touches once that is dilated `reach` times.
    Raises ValueError for masks that are not bool or not of one shape.
    """
    from scipy.ndimage import binary_dilation, find_objects, generate_binary_structure, label

    counts(pred, truth)  # checks dtype and shape
    wide, all_around = generate_binary_structure(3, 2), np.ones((3, 3, 3), bool)
    joined, _ = label(binary_dilation(truth, wide, iterations=reach) if truth.any() else truth, all_around)
    parts, _ = label(pred, all_around)
    part_boxes = find_objects(parts)
    belonging: set[int] = set()
    scores = []
    for number, near in enumerate(find_objects(joined), start=1):
        members = {int(part) for part in np.unique(parts[near][joined[near] == number]) if part}
        belonging |= members
        around = _hull([near, *(part_boxes[part - 1] for part in members)])
        lesion = truth[around] & (joined[around] == number)
        scores.append(_score(np.isin(parts[around], list(members)), lesion, spacing_mm))
    sizes = np.bincount(parts.ravel())
    false_voxels = [int(size) for part, size in enumerate(sizes) if part and size and part not in belonging]
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
    return LesionScore(tp + fn, tp + fp, tp, dice(tp, fp, fn), hd95_mm(pred, lesion, spacing_mm))


def _hull(boxes: Sequence[Box]) -> Box:
    """The smallest box around boxes."""
    return tuple(
        slice(min(side.start for side in of), max(side.stop for side in of)) for of in zip(*boxes, strict=True)
    )
