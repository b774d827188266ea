"""Voxels of a tumour that are not as bright as it is by its definition.

The enhancing tumour of the BraTS benchmark is what is brighter in T1Gd than before contrast agent and than normal brain
(Bakas et al. 2018, arXiv 1811.02629), and what surrounds the core, oedema, is what is bright in FLAIR (Menze et al.
2015, doi 10.1109/TMI.2014.2377694). A network that has learnt from few patients paints both where they usually lie,
bright or not. How bright a voxel must be at least, in standard deviations of the brain in these images above the
brain's mean, is chosen on patients whose labels are known. An enhancing voxel that is less stays core; one of the whole
tumour that is less, and lies in no region inside it, is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from segpipe.core.cleaning import outer_labels
from segpipe.core.metrics import dice
from segpipe.core.patients import LEAST_GAIN, by_patient, plain
from segpipe.core.prediction import ScanInput, SliceBatch
from segpipe.core.regions import LabelConvention

IMAGES = {"enhancing_tumour": "T1ce", "whole_tumour": "FLAIR"}
"""The regions that are bright by their definition, and in which images."""

GRID = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
"""Least brightnesses that may be chosen, in standard deviations of the brain above its mean."""


@dataclass(frozen=True)
class Least:
    """The least brightness, None where none is asked for; mean Dice over `patients` without it and with.

    Of these, `unseen` are such as the network has not learnt from.
    """

    least: float | None
    dice_before: float
    dice_after: float
    patients: int
    unseen: int


@dataclass(eq=False)
class Passing:
    """The slices of a scan as they go by to a predictor, of which the `channels` that tell of a region are kept."""

    scan: ScanInput
    channels: Mapping[str, int]
    _stored: dict[int, np.ndarray] = field(default_factory=dict, init=False)

    def of(self, batches: Iterable[SliceBatch]) -> Iterator[SliceBatch]:
        """The same batches."""
        for indices, channels in batches:
            for channel in set(self.channels.values()):
                kept = channels[channel]
                if channel not in self._stored:
                    self._stored[channel] = np.zeros(self.scan.shape, kept.dtype)
                self._stored[channel][list(indices)] = kept
            yield indices, channels

    def brightness(self, region: str, places: np.ndarray) -> np.ndarray:
        """How bright the voxels at these flat indices (n,) are in the images of a region, float32 (n,).

        Only once the batches have gone by; NaN where no slice came or where a voxel is not finite.
        """
        channel = self.channels[region]
        if channel not in self._stored:
            return np.full(len(places), np.nan, np.float32)
        mean, inverse = (values[channel] for values in self.scan.stored_statistics())
        with np.errstate(invalid="ignore", over="ignore"):
            return (self._stored[channel].reshape(-1)[places].astype(np.float32) - mean) * inverse


@dataclass(frozen=True, eq=False)
class Found:
    """What a network takes for a region in a scan: brightness (n,) of these voxels, and which of them are it.

    It is infinite in regions inside of it, which stay. Of the true voxels it `missed` some. Scans of one `patient`
    count as one; one without a name is of a patient of its own.
    """

    brightness: np.ndarray
    true: np.ndarray
    missed: int
    unseen: bool = False
    patient: str = ""

    def dice(self, least: float = -np.inf) -> float:
        """Dice of what is brighter; 1 where that is nothing and nothing is true."""
        kept = self.brightness > least if np.isfinite(least) else np.ones(len(self.true), bool)
        hit, true = int((kept & self.true).sum()), int(self.true.sum()) + self.missed
        false = int(kept.sum()) - hit
        return dice(hit, false, true - hit) if true or false else 1.0


def channels_of(modalities: Sequence[str], regions: Iterable[str]) -> dict[str, int]:
    """Which channel tells how bright each region is, of those that are bright and whose images a model sees.

    >>> channels_of(("FLAIR", "T1ce"), ("tumour_core", "enhancing_tumour"))
    {'enhancing_tumour': 1}
    """
    regions = set(regions)
    return {
        region: modalities.index(name) for region, name in IMAGES.items() if region in regions and name in modalities
    }


def keep_bright(
    labels: np.ndarray, convention: LabelConvention, least: Mapping[str, float], passed: Passing
) -> np.ndarray:
    """A label map, uint8 (slices, rows, columns), in which no voxel of a region is as dull as its `least` or duller.

    Voxels of regions inside it stay. A voxel that goes gets the label of the smallest region around it, as in
    `segpipe.core.cleaning.clean`. A new array where something changes, else `labels` itself.
    """
    around, own = outer_labels(convention), dict(zip(convention.regions, convention.paint, strict=True))
    for region in (region for region in passed.channels if region in least):
        places = np.flatnonzero(labels == own[region])
        dull = places[~(passed.brightness(region, places) > least[region])]
        if len(dull):
            labels = labels.copy()
            labels.reshape(-1)[dull] = around[region]
    return labels


def choose(scans: Sequence[Found], grid: Sequence[float] = GRID) -> Least:
    """The least brightness whose mean Dice over patients is the best.

    None where it does not gain plainly over patients, see `segpipe.core.patients.plain`, where those unseen lose as
    much as that takes, and where none is unseen. What is chosen is a property of images, not of probabilities, so
    patients whom the network has learnt from say as much as others where it errs in the same way.
    """
    if not scans:
        return Least(None, np.nan, np.nan, 0, 0)
    patients = [scan.patient for scan in scans]
    table = by_patient(np.array([[scan.dice(), *map(scan.dice, grid)] for scan in scans]), patients)
    unseen = by_patient(np.array([scan.unseen for scan in scans], np.float64), patients) == 1
    gains = table - table[:, :1]
    best = 0
    if unseen.any():
        allowed = plain(gains) & (gains[unseen].mean(axis=0) > -LEAST_GAIN)
        best = int(np.argmax(np.where(allowed, gains.mean(axis=0), 0.0)))
    before, after = table.mean(axis=0)[[0, best]].tolist()
    return Least(grid[best - 1] if best else None, before, after, len(table), int(unseen.sum()))
