"""A 3D network and a 2D one that answer together: one knows what is around, the other sees slices in full detail.

The 2D one sees the slices where the 3D one has found something, and those between them. Elsewhere its answer counts as
0: with half of the say it could hardly overrule a network that is sure (docs/decisions/0014-network.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from segpipe.core.prediction import ScanInput, Segmented, SliceBatch
from segpipe.runtimes.slicewise import SlicewisePredictor, refuse_not_finite
from segpipe.runtimes.tiled import TiledPredictor

FOUND = 0.1
"""Probability of a region in some voxel above which the 2D network sees a slice."""


@dataclass(frozen=True, eq=False)
class MixedPredictor:
    """A `Predictor` that decides by the mean of what both say; the network of `slices` tells its probabilities."""

    volumes: TiledPredictor
    slices: SlicewisePredictor

    def segment(self, scan: ScanInput, batches: Iterable[SliceBatch]) -> Segmented:
        """See `Predictor.segment`. Voxels outside the brain box are labelled 0."""
        box, probability = self.probability(scan, batches)
        return self.volumes.decided(scan, probability, box)

    def probability(self, scan: ScanInput, batches: Iterable[SliceBatch]) -> tuple[tuple[slice, ...], np.ndarray]:
        """The brain's box, and what both say of its voxels: float32 (slices, rows, columns, R).

        Raises BadInput where one gives no numbers.
        """
        held = list(batches)
        box, said = self.volumes.probability(scan, held)
        first, last = found(said)
        if first < last:
            slices = box[0].start + first, box[0].start + last
            seen, other = self.slices.probability(replace(scan, brain_box=(*slices, *scan.brain_box[2:])), held)
            rows, columns = (
                slice(inner.start - outer.start, inner.stop - outer.start)
                for inner, outer in zip(box[1:], seen[1:], strict=True)
            )
            said[first:last] += other[:, rows, columns]
            refuse_not_finite(said)
        said *= np.float32(0.5)
        return box, said


def found(probability: np.ndarray) -> tuple[int, int]:
    """The first slice in which something is found and the one behind the last, of (slices, rows, columns, R).

    >>> found(np.array([0.0, 0.3, 0.05, 0.9, 0.0]).reshape(5, 1, 1, 1))
    (1, 4)
    >>> found(np.zeros((2, 1, 1, 1)))
    (0, 0)
    """
    slices = np.flatnonzero(probability.max(axis=(1, 2, 3), initial=0.0) > FOUND)
    return (int(slices[0]), int(slices[-1]) + 1) if slices.size else (0, 0)
