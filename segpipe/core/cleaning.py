"""Components of a predicted region that are too small to be believed, and how small that is.

A network scatters specks over a brain, and each costs a lesion-wise measure as much as a missed tumour. Which size is a
speck is not known in advance: metastases and satellites are small as well. So the least volume is chosen per region on
patients that the network has not learnt from, only from a few sizes, and only where it helps most of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segpipe.core.metrics import dice
from segpipe.core.regions import LabelConvention
from segpipe.core.runs import Runs, region_runs, shared

CANDIDATES_ML = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
"""Least volumes that may be chosen: from 50 voxels of a cubic millimetre to 15 mm across."""

LEAST_GAIN = 0.005
"""What the mean Dice over patients must gain, or nothing is left out: less is noise."""

MOST_LOSS = 0.01
"""What a single patient's Dice may lose: whoever has small lesions must not pay for the others' specks."""

LEAST_PATIENTS = 3
"""Fewer patients than these say nothing."""


@dataclass(frozen=True)
class Choice:
    """The least volume of a region's components, ml, 0 for none; mean Dice without and with it, over `patients`."""

    least_ml: float
    dice_before: float
    dice_after: float
    patients: int


def clean(
    labels: np.ndarray, convention: LabelConvention, least_ml: Mapping[str, float], voxel_ml: float
) -> np.ndarray:
    """A label map, uint8 (slices, rows, columns), without the components of regions that are smaller than `least_ml`.

    Components are 26-connected. What is left out becomes what may lie around it: the label of the smallest region that
    the cleaned one is a part of, or background where it is part of none. Outer regions come first, so that an inner one
    goes with what held it. A new array where something changes, else `labels` itself; so too where `voxel_ml` is 0,
    which means that nobody knows it.

    >>> from segpipe.core.regions import CONVENTIONS
    >>> clean(np.array([[[2, 4, 2, 0, 2]]], np.uint8), CONVENTIONS["brats"], {"whole_tumour": 2.0}, 1.0).tolist()
    [[[2, 4, 2, 0, 0]]]
    >>> clean(np.array([[[2, 4, 2, 0, 2]]], np.uint8), CONVENTIONS["brats"], {"tumour_core": 2.0}, 1.0).tolist()
    [[[2, 2, 2, 0, 2]]]
    """
    for region, outer in _outer(convention).items():
        least = least_ml.get(region, 0.0)
        if least > 0 and voxel_ml > 0:
            runs = region_runs(labels, {region: convention.regions[region]})[region]
            components = runs.components
            gone = (components.sizes * voxel_ml < least)[components.of_run]
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


def choose(pairs: Sequence[tuple[Runs, Runs, float]], candidates_ml: Sequence[float] = CANDIDATES_ML) -> Choice:
    """The least volume for one region, from predicted and true masks of patients and the volume of their voxels, ml.

    The smallest of the candidates whose mean Dice is the best, or 0 where that gains less than `LEAST_GAIN`, where a
    patient loses more than `MOST_LOSS`, or where there are fewer than `LEAST_PATIENTS`. A patient with neither a true
    nor a predicted voxel counts as 1, so that leaving out what is false where nothing is true is worth something.
    """
    sizes = (0.0, *sorted(candidates_ml))
    table = np.array([[_dice_above(*pair, least) for least in sizes] for pair in pairs]).reshape(len(pairs), len(sizes))
    if len(pairs) < LEAST_PATIENTS:
        means = table.mean(axis=0) if len(pairs) else np.full(len(sizes), np.nan)
        return Choice(0.0, float(means[0]), float(means[0]), len(pairs))
    means = table.mean(axis=0)
    allowed = (table >= table[:, :1] - MOST_LOSS).all(axis=0) & (means >= means[0] + LEAST_GAIN)
    best = int(np.argmax(np.where(allowed, means, -1.0))) if allowed.any() else 0
    return Choice(sizes[best], float(means[0]), float(means[best]), len(pairs))


def _dice_above(predicted: Runs, true: Runs, voxel_ml: float, least_ml: float) -> float:
    components = predicted.components
    kept = components.sizes * voxel_ml >= least_ml
    run, _, overlap = shared(predicted, true)
    tp = int(overlap[kept[components.of_run[run]]].sum()) if len(run) else 0
    found = int(components.sizes[kept].sum())
    if not found and not true.voxels:
        return 1.0
    return dice(tp, found - tp, true.voxels - tp)


def _positions(runs: Runs, chosen: np.ndarray) -> np.ndarray:
    """Flat indices of the voxels of the chosen runs."""
    starts, lengths = np.ravel_multi_index(tuple(runs.first[:, chosen]), runs.shape), runs.lengths[chosen]
    first = np.repeat(starts - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
    return first + np.arange(int(lengths.sum()))
