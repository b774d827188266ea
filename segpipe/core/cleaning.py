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

from segpipe.core.lesions import REACH, lesion_members
from segpipe.core.metrics import dice
from segpipe.core.patients import LEAST_PATIENTS, by_patient
from segpipe.core.regions import LabelConvention
from segpipe.core.runs import Runs, region_runs, shared

CANDIDATES_ML = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
"""Least volumes that may be chosen: from 50 voxels of a cubic millimetre to 15 mm across."""

PRESENCE_ML = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
"""Least volumes of a whole region that may be chosen."""

LEAST_GAIN = 0.005
"""What the mean over patients must gain, or nothing is left out: less is noise."""

MOST_LOSS = 0.01
"""What Dice may lose in any region of a scan: whoever has small lesions must not pay for the others' specks."""

LEAST_GAINERS = 2
"""So many patients must gain: what helps one alone says nothing of the next."""


@dataclass(frozen=True)
class Choice:
    """The least volume of a region's components, ml, 0 for none, and of the whole region, `presence_ml`.

    Mean Dice and lesion-wise Dice over `patients`, where nothing is left out and where all that was chosen is.
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
    for region, outer in outer_labels(convention).items():
        least, presence = least_ml.get(region, 0.0), (presence_ml or {}).get(region, 0.0)
        if max(least, presence) > 0 and voxel_ml > 0:
            runs = region_runs(labels, {region: convention.regions[region]})[region]
            components = runs.components
            kept = _kept(components.sizes, voxel_ml, least, presence)
            labels = keep_components(labels, runs, kept, outer)
    return labels


def keep_components(labels: np.ndarray, runs: Runs, kept: np.ndarray, otherwise: int) -> np.ndarray:
    """Labels whose components of `runs` that are not `kept`, bool (n,), are labelled `otherwise`.

    A new array where something changes, else `labels` itself.
    """
    gone = ~kept[runs.components.of_run]
    if gone.any():
        labels = labels.copy()
        labels.reshape(-1)[_voxels_of(runs, gone)] = otherwise
    return labels


def outer_labels(convention: LabelConvention) -> dict[str, int]:
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


@dataclass(frozen=True, eq=False)
class PredictedScan:
    """What was found in a scan, a label map uint8 (slices, rows, columns), beside its true regions.

    Scans of one `patient` count as one; a scan without a name is of a patient of its own.
    """

    labels: np.ndarray
    truth: Mapping[str, Runs]
    voxel_ml: float
    patient: str = ""

    @classmethod
    def of(cls, labels: np.ndarray, truth: Mapping[str, Runs], voxel_ml: float, patient: str = "") -> PredictedScan:
        """The part of a scan in which something is found or true, and what its lesions reach: all that is judged."""
        masks = [Runs.of(labels > 0), *truth.values()]
        shown = [mask for mask in masks if mask.voxels]
        first = np.min([mask.first.min(axis=1) for mask in shown], axis=0) if shown else np.zeros(3, np.int64)
        last = np.max([mask.last.max(axis=1) for mask in shown], axis=0) if shown else np.zeros(3, np.int64)
        first, stop = np.maximum(first - REACH, 0), np.minimum(last + 1 + REACH, labels.shape)
        part = labels[tuple(slice(*ends) for ends in zip(first.tolist(), stop.tolist(), strict=True))].copy()
        return cls(part, {name: mask.moved(-first, part.shape) for name, mask in truth.items()}, voxel_ml, patient)

    def scores(self, labels: np.ndarray, convention: LabelConvention) -> list[tuple[float, float]]:
        """Dice and lesion-wise Dice of each region of a label map that is to be judged by the truth of this one."""
        found = region_runs(labels, convention.regions)
        return [_scores(found[region], self.truth[region]) for region in convention.regions]


def choose(
    scans: Sequence[PredictedScan],
    convention: LabelConvention,
    candidates_ml: Sequence[float] = CANDIDATES_ML,
    presence_ml: Sequence[float] = PRESENCE_ML,
) -> dict[str, Choice]:
    """The least volumes of each region, chosen on label maps that are cleaned as `clean` does it, outermost first.

    First of components, then of what is left as a whole: the smallest of the candidates whose mean of Dice and
    lesion-wise Dice over the patients is the best, or 0 where that gains less than `LEAST_GAIN`, where fewer than
    `LEAST_GAINERS` gain, or where there are fewer than `LEAST_PATIENTS`. None is chosen by which any region of any scan
    loses more than `MOST_LOSS` of Dice, inner regions that go with what held them included. A scan with neither a true
    nor a predicted voxel of a region counts as 1, so that leaving out what is false where nothing is true is worth
    something.
    """
    patients = [scan.patient for scan in scans]
    now = _State.of(scans, [scan.labels for scan in scans], convention)
    before = now.scores
    number = len(by_patient(before, patients))
    volumes: dict[str, list[float]] = {}
    for place, region in enumerate(convention.regions):
        volumes[region] = []
        for whole, sizes in enumerate((candidates_ml, presence_ml)):
            tried = [(0.0, now)]
            for size in sorted(sizes) if number >= LEAST_PATIENTS else ():
                least: list[dict[str, float]] = [{}, {}]
                least[whole][region] = size
                tried.append((size, now.cleaned(scans, convention, least[0], least[1], tried[-1][1])))
            size, now = tried[_best(np.array([state.scores for _, state in tried]), before, place, patients)]
            volumes[region].append(size)
    means = [
        by_patient(scores, patients).mean(axis=0) if number else np.full(scores.shape[1:], np.nan)
        for scores in (before, now.scores)
    ]
    return {
        region: Choice(
            volumes[region][0],
            float(means[0][place, 0]),
            float(means[1][place, 0]),
            number,
            volumes[region][1],
            float(means[0][place, 1]),
            float(means[1][place, 1]),
        )
        for place, region in enumerate(convention.regions)
    }


def _best(table: np.ndarray, before: np.ndarray, place: int, patients: Sequence[str]) -> int:
    """The best way for the region at `place`, by scores of ways, scans, regions and both measures; 0 is the one now."""
    if not len(patients):
        return 0
    both = np.array([by_patient(scores, patients)[:, place].mean(axis=-1) for scores in table])
    gains = both - both[0]
    lost = (before - table)[..., 0].max(axis=(1, 2), initial=0.0)
    allowed = (lost <= MOST_LOSS) & (gains.mean(axis=1) >= LEAST_GAIN) & ((gains > 0).sum(axis=1) >= LEAST_GAINERS)
    return int(np.argmax(np.where(allowed, gains.mean(axis=1), 0.0)))


@dataclass(frozen=True, eq=False)
class _State:
    """Label maps of scans that were cleaned so far, and their scores (scans, regions, measures)."""

    labels: list[np.ndarray]
    scores: np.ndarray

    @classmethod
    def of(cls, scans: Sequence[PredictedScan], labels: list[np.ndarray], convention: LabelConvention) -> _State:
        scores = [scan.scores(one, convention) for scan, one in zip(scans, labels, strict=True)]
        return cls(labels, np.array(scores).reshape(len(scans), len(convention.regions), 2))

    def cleaned(
        self,
        scans: Sequence[PredictedScan],
        convention: LabelConvention,
        least_ml: Mapping[str, float],
        presence_ml: Mapping[str, float],
        like: _State,
    ) -> _State:
        """The maps without what is smaller; the scores of those that are as in `like` are not computed again."""
        labels, scores = [], like.scores.copy()
        for place, (scan, one, known) in enumerate(zip(scans, self.labels, like.labels, strict=True)):
            cleaned = clean(one, convention, least_ml, scan.voxel_ml, presence_ml)
            same = np.array_equal(cleaned, known)
            labels.append(known if same else cleaned)
            if not same:
                scores[place] = scan.scores(cleaned, convention)
        return _State(labels, scores)


def _scores(predicted: Runs, true: Runs) -> tuple[float, float]:
    """Dice, and the mean Dice of true lesions and false ones; 1 where there is nothing."""
    if not predicted.voxels and not true.voxels:
        return 1.0, 1.0
    lesion_of, members = lesion_members(predicted, true)
    run, true_run, overlap = shared(predicted, true)
    sizes, true_sizes = predicted.components.sizes, lesion_of.astype(np.int64) @ true.components.sizes
    both = np.zeros((len(true.components.sizes), len(sizes)), np.int64)
    np.add.at(both, (true.components.of_run[true_run], predicted.components.of_run[run]), overlap)
    hits = (lesion_of.astype(np.int64) @ both).sum(axis=1)
    false = int((~members.any(axis=0)).sum())
    by_lesion = float((2 * hits / (members @ sizes + true_sizes)).sum()) / (len(true_sizes) + false)
    hit = int(hits.sum())
    return dice(hit, predicted.voxels - hit, true.voxels - hit), by_lesion


def _kept(sizes: np.ndarray, voxel_ml: float, least_ml: float, presence_ml: float) -> np.ndarray:
    """Which components of these voxels stay, bool."""
    kept: np.ndarray = sizes * voxel_ml >= least_ml
    if sizes[kept].sum() * voxel_ml < presence_ml:
        kept[:] = False
    return kept


def _voxels_of(runs: Runs, chosen: np.ndarray) -> np.ndarray:
    """Flat indices of the voxels of the chosen runs."""
    starts, lengths = np.ravel_multi_index(tuple(runs.first[:, chosen]), runs.shape), runs.lengths[chosen]
    first = np.repeat(starts - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
    return first + np.arange(int(lengths.sum()))
