"""Components of a predicted region that are too small to be believed, and how small that is.

A network scatters specks over a brain, and each costs a lesion-wise measure as much as a missed tumour. Which size is a
speck is not known in advance: metastases and satellites are small as well. So the least volume is chosen per region on
patients whose labels are known, only from a few sizes, and only where it helps and no patient pays for it. Where no
tumour enhances, say, what little is found is false as a whole: the least volume of a region is chosen in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segpipe.core.lesions import lesion_members
from segpipe.core.metrics import dice
from segpipe.core.regions import LabelConvention
from segpipe.core.runs import Runs, region_runs, shared

CANDIDATES_ML = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
"""Least volumes that may be chosen: from 50 voxels of a cubic millimetre to 15 mm across."""

PRESENCE_ML = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
"""Least volumes of a whole region that may be chosen."""

LEAST_GAIN = 0.005
"""What the mean over patients must gain, or nothing is left out: less is noise."""

MOST_LOSS = 0.01
"""What a single patient's Dice may lose: whoever has small lesions must not pay for the others' specks."""

LEAST_PATIENTS = 3
"""Fewer patients than these say nothing."""


@dataclass(frozen=True)
class Choice:
    """The least volume of a region's components, ml, 0 for none, and of the whole region, `presence_ml`.

    Mean Dice and lesion-wise Dice without and with them, over `patients`.
    """

    least_ml: float
    dice_before: float
    dice_after: float
    patients: int
    presence_ml: float
    lesion_dice_before: float
    lesion_dice_after: float


def clean(
    labels: np.ndarray,
    convention: LabelConvention,
    least_ml: Mapping[str, float],
    voxel_ml: float,
    presence_ml: Mapping[str, float] | None = None,
) -> np.ndarray:
    """A label map, uint8 (slices, rows, columns), without the components of regions that are smaller than `least_ml`.

    A region of which less than `presence_ml` is left goes as a whole. Components are 26-connected. What is left out
    becomes what may lie around it: the label of the smallest region that the cleaned one is a part of, or background
    where it is part of none. Outer regions come first, so that an inner one goes with what held it. A new array where
    something changes, else `labels` itself; so too where `voxel_ml` is 0, which means that nobody knows it.

    >>> from segpipe.core.regions import CONVENTIONS
    >>> clean(np.array([[[2, 4, 2, 0, 2]]], np.uint8), CONVENTIONS["brats"], {"whole_tumour": 2.0}, 1.0).tolist()
    [[[2, 4, 2, 0, 0]]]
    >>> clean(np.array([[[2, 4, 2, 0, 2]]], np.uint8), CONVENTIONS["brats"], {"tumour_core": 2.0}, 1.0).tolist()
    [[[2, 2, 2, 0, 2]]]
    """
    for region, outer in _outer(convention).items():
        least, presence = least_ml.get(region, 0.0), (presence_ml or {}).get(region, 0.0)
        if max(least, presence) > 0 and voxel_ml > 0:
            runs = region_runs(labels, {region: convention.regions[region]})[region]
            components = runs.components
            kept = _kept(components.sizes, voxel_ml, least, presence)
            gone = ~kept[components.of_run]
            if gone.any():
                labels = labels.copy()
                labels.reshape(-1)[_positions(runs, gone)] = outer
    return labels


def _outer(convention: LabelConvention) -> dict[str, int]:
    """For each region the label of the smallest region that holds all of its labels and more, or 0."""
    regions = convention.regions
    paint = dict(zip(regions, convention.paint, strict=True))
    around = {
        name: [other for other in regions if set(regions[name]) < set(regions[other])] for name in convention.regions
    }
    return {
        name: paint[min(others, key=lambda other: len(regions[other]))] if others else 0
        for name, others in around.items()
    }


def choose(
    pairs: Sequence[tuple[Runs, Runs, float]],
    candidates_ml: Sequence[float] = CANDIDATES_ML,
    presence_ml: Sequence[float] = PRESENCE_ML,
) -> Choice:
    """The least volumes for one region, from predicted and true masks of patients and the volume of their voxels, ml.

    First of components, then of what is left as a whole: the smallest of the candidates whose mean of Dice and
    lesion-wise Dice over the patients is the best, or 0 where that gains less than `LEAST_GAIN`, where a patient's Dice
    loses more than `MOST_LOSS`, or where there are fewer than `LEAST_PATIENTS`. A patient with neither a true nor a
    predicted voxel counts as 1, so that leaving out what is false where nothing is true is worth something.
    """
    patients = [_Patient.of(*pair) for pair in pairs]
    if len(pairs) < LEAST_PATIENTS:
        means = np.mean([one.scores(0.0, 0.0) for one in patients], axis=0) if patients else np.full(2, np.nan)
        dices, lesions = (float(mean) for mean in means)
        return Choice(0.0, dices, dices, len(pairs), 0.0, lesions, lesions)
    least, before, _ = _best(patients, [(size, 0.0) for size in (0.0, *sorted(candidates_ml))])
    presence, _, after = _best(patients, [(least[0], size) for size in (0.0, *sorted(presence_ml))])
    return Choice(least[0], before[0], after[0], len(pairs), presence[1], before[1], after[1])


_Way = tuple[float, float]


def _best(patients: Sequence[_Patient], ways: Sequence[_Way]) -> tuple[_Way, _Way, _Way]:
    """The best of ways to leave something out, of which the first is the one before; both measures with either."""
    table = np.array([[one.scores(*way) for way in ways] for one in patients])  # patients, ways, measures
    means = table.mean(axis=0)
    both = means.mean(axis=1)
    allowed = (table[..., 0] >= table[:, :1, 0] - MOST_LOSS).all(axis=0) & (both >= both[0] + LEAST_GAIN)
    best = int(np.argmax(np.where(allowed, both, -1.0))) if allowed.any() else 0
    return ways[best], (float(means[0, 0]), float(means[0, 1])), (float(means[best, 0]), float(means[best, 1]))


@dataclass(frozen=True, eq=False)
class _Patient:
    """Predicted and true components of a region: sizes, which belong to which lesion, and what they share.

    `hits` (lesions, predicted) counts the voxels that a predicted component shares with the true ones of a lesion.
    """

    sizes: np.ndarray
    members: np.ndarray
    true_sizes: np.ndarray
    hits: np.ndarray
    voxel_ml: float

    @classmethod
    def of(cls, predicted: Runs, true: Runs, voxel_ml: float) -> _Patient:
        lesion_of, members = lesion_members(predicted, true)
        run, true_run, overlap = shared(predicted, true)
        both = np.zeros((len(true.components.sizes), len(predicted.components.sizes)), np.int64)
        np.add.at(both, (true.components.of_run[true_run], predicted.components.of_run[run]), overlap)
        lesions = lesion_of.astype(np.int64)
        return cls(predicted.components.sizes, members, lesions @ true.components.sizes, lesions @ both, voxel_ml)

    def scores(self, least_ml: float, presence_ml: float) -> tuple[float, float]:
        """Dice, and the mean Dice of true lesions and false ones, without what is smaller; 1 where there is nothing."""
        kept = _kept(self.sizes, self.voxel_ml, least_ml, presence_ml)
        found, true = int(self.sizes[kept].sum()), int(self.true_sizes.sum())
        if not found and not true:
            return 1.0, 1.0
        tp = self.hits[:, kept].sum(axis=1)
        voxels = self.members[:, kept] @ self.sizes[kept]
        false = int((kept & ~self.members.any(axis=0)).sum())
        by_lesion = float((2 * tp / (voxels + self.true_sizes)).sum()) / (len(self.true_sizes) + false)
        hit = int(tp.sum())
        return dice(hit, found - hit, true - hit), by_lesion


def _kept(sizes: np.ndarray, voxel_ml: float, least_ml: float, presence_ml: float) -> np.ndarray:
    """Which components of these voxels stay, bool."""
    kept: np.ndarray = sizes * voxel_ml >= least_ml
    if sizes[kept].sum() * voxel_ml < presence_ml:
        kept[:] = False
    return kept


def _positions(runs: Runs, chosen: np.ndarray) -> np.ndarray:
    """Flat indices of the voxels of the chosen runs."""
    starts, lengths = np.ravel_multi_index(tuple(runs.first[:, chosen]), runs.shape), runs.lengths[chosen]
    first = np.repeat(starts - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
    return first + np.arange(int(lengths.sum()))
