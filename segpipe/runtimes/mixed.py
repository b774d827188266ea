"""A 3D network and a 2D one that answer together: one knows what is around, the other sees slices in full detail."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from segpipe.core.prediction import ScanInput, Segmented, SliceBatch
from segpipe.runtimes.slicewise import SlicewisePredictor, refuse_not_finite
from segpipe.runtimes.tiled import TiledPredictor


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
        seen, other = self.slices.probability(scan, held)
        there = tuple(
            slice(inner.start - outer.start, inner.stop - outer.start) for inner, outer in zip(box, seen, strict=True)
        )
        said += other[there]
        refuse_not_finite(said)
        said *= np.float32(0.5)
        return box, said
