"""Where a region's probabilities are cut: one threshold per region, chosen on patients whose labels are known.

A network that was trained on places with lesions more often than there are any believes in too much, in inner regions
more than in outer ones. Which threshold is right is found on a coarse grid, and few patients say little, so a region
leaves the threshold that it was trained with only where the gain is plain over many of them, and then as little as
gives most of it. For a higher threshold, patients whom the network has learnt from count, because most of what it
believes in too much it believes in there too; those it has not learnt from can only forbid the move. For a lower one
the gain must be plain over these alone: where a network has learnt the answer, most of what it half believes in is
true, and elsewhere less of it. What an inner region gains is part of the regions around it as well: these must not pay
for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from segpipe.core.metrics import dice
from segpipe.core.patients import by_patient, plain
from segpipe.core.regions import LabelConvention, to_labels, to_regions

GRID = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
"""Thresholds that may be chosen, besides that of the training. Beyond, a few voxels decide."""

MOST_LOSS = 0.005
"""What the mean Dice of another region may lose by it, over all patients. Over those who are unseen, nothing."""

ENOUGH = 0.5
"""Share of the best gain for which the threshold nearest to that of the training is taken."""


@dataclass(frozen=True)
class Threshold:
    """The threshold of a region; its mean Dice over `patients` where all regions are cut as trained, and as chosen.

    Of these, `unseen` are such as the network has not learnt from.
    """

    threshold: float
    dice_before: float
    dice_after: float
    patients: int
    unseen: int


@dataclass(frozen=True, eq=False)
class Levels:
    """How many thresholds of `grid`, ascending, each probability of a scan of `shape` exceeds.

    `levels` (n, R) uint8 at the flat indices `places` (n,) int64; no probability elsewhere exceeds any.
    """

    shape: tuple[int, int, int]
    grid: tuple[float, ...]
    places: np.ndarray
    levels: np.ndarray

    @classmethod
    def of(
        cls, shape: tuple[int, int, int], box: tuple[slice, ...], probability: np.ndarray, grid: Sequence[float]
    ) -> Levels:
        """Those of the probabilities float32 (slices, rows, columns, R) of a box in a scan."""
        levels = np.zeros(probability.shape, np.uint8)
        for threshold in grid:
            levels += probability > np.float32(threshold)
        inside = np.nonzero(levels.any(axis=-1))
        whole = [places + side.start for places, side in zip(inside, box, strict=True)]
        return cls(shape, tuple(grid), np.ravel_multi_index(whole, shape), levels[inside])

    def labels(self, cut: Sequence[float], convention: LabelConvention) -> np.ndarray:
        """The label map uint8 of the scan, with a threshold of the grid for each region."""
        labels = np.zeros(self.shape, np.uint8)
        labels.reshape(-1)[self.places] = to_labels(self.levels > self._indices(cut), convention)
        return labels

    def tally(self, truth: np.ndarray, unseen: bool = False, patient: str = "") -> Tally:
        """What must be known to choose by, with the true regions bool (slices, rows, columns, R)."""
        true = truth.reshape(-1, truth.shape[-1])
        missed = true.any(axis=-1)
        missed[self.places] = False
        there = np.concatenate([self.levels, np.zeros((int(missed.sum()), true.shape[-1]), np.uint8)])
        both = np.concatenate([there, np.concatenate([true[self.places], true[missed]]).astype(np.uint8)], axis=1)
        kinds, voxels = np.unique(both, axis=0, return_counts=True)
        regions = true.shape[-1]
        return Tally(kinds[:, :regions], kinds[:, regions:].astype(bool), voxels, unseen, patient)

    def without(self, place: int, voxels: np.ndarray) -> Levels:
        """The same, but that these voxels, bool (n,), exceed no threshold of the region at `place`."""
        levels = self.levels.copy()
        levels[voxels, place] = 0
        return replace(self, levels=levels)

    def _indices(self, cut: Sequence[float]) -> np.ndarray:
        return np.array([self.grid.index(threshold) for threshold in cut])


@dataclass(frozen=True, eq=False)
class Tally:
    """How many `voxels` (n,) of a scan have these levels (n, R) and lie in these true regions (n, R).

    Scans of one `patient` count as one; a scan without a name is of a patient of its own.
    """

    levels: np.ndarray
    truth: np.ndarray
    voxels: np.ndarray
    unseen: bool = False
    patient: str = ""

    def dice(self, cut: Sequence[int], convention: LabelConvention) -> list[float]:
        """Dice of each region, with an index of a threshold for each; 1 where neither mask has a voxel."""
        found = to_regions(to_labels(self.levels > np.array(cut), convention), convention).astype(bool)
        kinds = found & self.truth, found & ~self.truth, ~found & self.truth
        counts = np.stack([self.voxels @ kind for kind in kinds], axis=1).tolist()
        return [dice(*of_region) if any(of_region) else 1.0 for of_region in counts]


def grid_with(threshold: float) -> tuple[float, ...]:
    """The thresholds that may be chosen, ascending, where the training had this one."""
    return tuple(sorted({*GRID, threshold}))


def choose(
    tallies: Sequence[Tally], convention: LabelConvention, trained: float, grid: Sequence[float] | None = None
) -> dict[str, Threshold]:
    """The threshold of each region, by patients whose levels are those of `grid`; `trained` where nothing is gained.

    The innermost region is chosen first: what is in it is in those around it as well, whatever their thresholds, so a
    region's Dice depends only on its own threshold and on those of later regions. A threshold must gain plainly over
    all patients, see `segpipe.core.patients.plain`, and one below `trained` over those `unseen` as well. On those no
    region may lose by it, and over all no other one more than `MOST_LOSS` since the training. Of such thresholds the
    one nearest to `trained` is taken that has `ENOUGH` of the best gain. Without an unseen patient nothing changes.
    """
    grid = tuple(grid or grid_with(trained))
    base = grid.index(trained)
    regions, patients = list(convention.regions), [tally.patient for tally in tallies]
    unseen = by_patient(np.array([tally.unseen for tally in tallies], np.float64), patients) == 1

    def table(cut: Sequence[int]) -> np.ndarray:
        """Dice of patients and regions."""
        scans = np.array([tally.dice(cut, convention) for tally in tallies]).reshape(len(tallies), len(regions))
        return by_patient(scans, patients)

    cut = [base] * len(regions)
    before = table(cut)
    for place in reversed(range(len(regions)) if unseen.any() else ()):
        ways = [table([*cut[:place], index, *cut[place + 1 :]]) for index in range(len(grid))]
        cut[place] = _best(np.stack(ways, axis=1), place, base, unseen, before)
    means = [one.mean(axis=0) if len(one) else np.full(len(regions), np.nan) for one in (before, table(cut))]
    return {
        region: Threshold(
            grid[cut[place]], float(means[0][place]), float(means[1][place]), len(before), int(unseen.sum())
        )
        for place, region in enumerate(regions)
    }


def _best(table: np.ndarray, place: int, base: int, unseen: np.ndarray, before: np.ndarray) -> int:
    """The index of the threshold to take for the region at `place`.

    `table` is Dice of patients, thresholds and regions (n, G, R), `before` (n, R) that with all as they were trained.
    """
    gains = table - table[:, [base]]
    own = gains[..., place]
    allowed = plain(own)
    allowed[:base] &= plain(own[unseen])[:base]
    allowed &= (gains[unseen].mean(axis=0) >= 0).all(axis=-1)
    lost = (before[:, None] - table).mean(axis=0)
    lost[:, place] = 0.0
    allowed &= (lost <= MOST_LOSS).all(axis=-1)
    if not allowed.any():
        return base
    mean = own.mean(axis=0)
    enough = np.flatnonzero(allowed & (mean >= ENOUGH * mean[allowed].max()))
    return int(enough[np.argmin(np.abs(enough - base))])
