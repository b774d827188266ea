"""Agreement lesion by lesion: which true lesions were found and how well, and which predicted ones are false.

After the lesion-wise measures of the BraTS 2023 challenges. No lesion is left out here and nothing is averaged: the
least volume that counts, and what a missed or a false lesion costs, are decided where the table is queried.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from segpipe.core.metrics import Mask, dice, pair, surface_hd95_mm
from segpipe.core.runs import Runs, shared

REACH = 3
"""Dilations by 18 neighbours within which two true lesions are one, and a predicted component belongs to a true one."""


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
    pred: Mask,
    truth: Mask,
    spacing_mm: Sequence[float],
    reach: int = REACH,
    hd95_mm: float | None = None,
) -> LesionWise:
    """Compare two masks (S, H, W), bool or Runs, lesion by lesion.

    >>> truth = np.zeros((1, 1, 12), bool); truth[..., :2] = True
    >>> pred = np.zeros((1, 1, 12), bool); pred[..., [1, 10]] = True
    >>> found = lesion_wise(pred, truth, (1.0, 1.0, 1.0))
    >>> found.scores[0][:3], round(found.scores[0].dice, 3), found.false_voxels
    ((2, 1, 1), 0.667, [1])

    A true lesion is a 26-connected component of the truth dilated `reach` times, cut back to the truth. A 26-connected
    component of the prediction belongs to every true lesion that it touches once that is dilated `reach` times.
    `hd95_mm` is the distance of the whole masks where it is known.
    Raises ValueError for masks that are not bool or not of one shape.
    """
    pred, truth = pair(pred, truth)
    lesion_of, members = lesion_members(pred, truth, reach)
    _, true_run, overlap = shared(pred, truth)
    hits = np.bincount(truth.components.of_run[true_run], overlap, len(truth.components.sizes)).astype(np.int64)
    scores = []
    for true, predicted in zip(lesion_of, members, strict=True):
        whole = hd95_mm if len(lesion_of) == 1 and predicted.all() else None
        tp = int(hits[true].sum())  # what overlaps belongs
        scores.append(_score(pred, predicted, truth, true, tp, spacing_mm, whole))
    scores.sort(key=lambda score: (-score.truth_voxels, -score.voxels, -score.dice))
    false = pred.components.sizes[~members.any(axis=0)]
    return LesionWise(scores, sorted(false.tolist(), reverse=True))


def mean_lesion_dice(scores: Sequence[LesionScore], false_voxels: Sequence[int], least_voxels: int = 0) -> float:
    """The lesion-wise Dice of a patient: the sum over true lesions, divided by true and false lesions; NaN without any.

    True lesions and false ones of fewer than `least_voxels` are left out.
    """
    kept = [score.dice for score in scores if score.truth_voxels >= least_voxels]
    false = sum(voxels >= least_voxels for voxels in false_voxels)
    return sum(kept) / (len(kept) + false) if kept or false else float("nan")


def lesion_members(pred: Runs, truth: Runs, reach: int = REACH) -> tuple[np.ndarray, np.ndarray]:
    """Which components of the truth, and which of the prediction, belong to each true lesion: bool (lesions, n) each.

    Lesions are in the order of their first voxels.
    """
    (true, true_sizes), (predicted, sizes) = truth.components, pred.components
    alone = len(true_sizes) == 1
    if not truth.voxels or (alone and len(np.unique(predicted[shared(pred, truth)[0]])) == len(sizes)):
        return np.ones((len(true_sizes),) * 2, bool), np.ones((len(true_sizes), len(sizes)), bool)
    wide = dilated(truth, reach)
    lesion = np.zeros(len(wide.starts), np.int64) if alone else wide.components.of_run
    number = int(lesion.max()) + 1
    lesion_of, members = np.zeros((number, len(true_sizes)), bool), np.zeros((number, len(sizes)), bool)
    lesion_of[lesion[np.searchsorted(wide.starts, truth.starts, "right") - 1], true] = True
    run, wide_run, _ = shared(pred, wide)
    members[lesion[wide_run], predicted[run]] = True
    return lesion_of, members


def _score(
    pred: Runs,
    predicted: np.ndarray,
    truth: Runs,
    true: np.ndarray,
    tp: int,
    spacing_mm: Sequence[float],
    hd95_mm: float | None,
) -> LesionScore:
    """The score of the `true` components of the truth and the `predicted` ones that belong to them, bool (n,) each."""
    voxels, true_voxels = (int(runs.components.sizes[of].sum()) for runs, of in ((pred, predicted), (truth, true)))
    if hd95_mm is None:
        hd95_mm = surface_hd95_mm(_surface(pred, predicted), _surface(truth, true), spacing_mm)
    return LesionScore(true_voxels, voxels, tp, dice(tp, voxels - tp, true_voxels - tp), hd95_mm)


def _surface(runs: Runs, chosen: np.ndarray) -> np.ndarray:
    """Indices (3, n) of the surface of the chosen components."""
    return runs.surface.indices.compress(chosen[runs.components.of_run[runs.surface.run]], axis=1)


def dilated(runs: Runs, times: int) -> Runs:
    """A mask that is not empty dilated by its voxels' 18 neighbours, within the array."""
    corner = np.maximum(runs.first.min(axis=1) - times, 0)
    stop = np.minimum(runs.last.max(axis=1) + times + 1, runs.shape)
    window = tuple(slice(start, end) for start, end in zip(corner.tolist(), stop.tolist(), strict=True))
    grid = np.pad(runs.dense(window), times)  # what leaves the window does not come back on its other side
    flat = grid.reshape(-1)
    for _ in range(times):
        flat = _dilated_once(flat, grid.shape[1] * grid.shape[2], grid.shape[2])
    inner = tuple(slice(times, -times or None) for _ in range(3))
    return Runs.of(flat.reshape(grid.shape)[inner]).moved(corner, runs.shape)


def _dilated_once(flat: np.ndarray, plane: int, line: int) -> np.ndarray:
    """The union of the squares in the planes of slices, rows and columns: a voxel and its 18 neighbours."""
    rows, columns = _widened(flat, line), _widened(flat, 1)
    found = _widened(rows, 1)
    found |= _widened(rows | columns, plane)
    return found


def _widened(flat: np.ndarray, step: int) -> np.ndarray:
    found = flat.copy()
    found[step:] |= flat[:-step]
    found[:-step] |= flat[step:]
    return found
