"""What a predictor of any runtime takes and gives: scans in, slice by slice; label maps and probabilities out."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

AS_INGESTED = "as ingested"
"""The space of a model whose scans were not prepared, or of which nobody knows whether they were."""

SliceBatch = tuple[Sequence[int], Sequence[np.ndarray]]
"""Slice indices (N,) and C arrays of stored voxels, each (N, H, W) of any dtype."""


@dataclass(frozen=True)
class ScanInput:
    """What a predictor must know of a scan before its slices come.

    `shape` counts slices, rows and columns. `mean` and `std` are the statistics of the brain per channel in scaled
    values; a stored voxel means `voxel * slope + inter`. `brain_box` has the first and the behind-last index per axis.
    `spacing_mm` is that along slice, row and column, (0, 0, 0) where nobody asked.
    """

    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    slope: tuple[float, ...]
    inter: tuple[float, ...]
    brain_box: tuple[int, int, int, int, int, int]
    spacing_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def stored_statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and inverse deviation per channel, (C,) float32 each, so that `(stored - mean) * inverse` is normalised.

        >>> scan = ScanInput((1, 1, 1), (20.0,), (10.0,), (10.0,), (0.0,), (0, 1, 0, 1, 0, 1))
        >>> [float(values[0]) for values in scan.stored_statistics()]
        [2.0, 1.0]

        A channel that is constant over the brain is only shifted, as in `segpipe.core.intensity.normalise`.
        """
        mean, std, slope, inter = (np.asarray(v, np.float64) for v in (self.mean, self.std, self.slope, self.inter))
        slope = np.where(slope == 0, 1.0, slope)
        mean = np.nan_to_num(mean, nan=0.0, posinf=0.0, neginf=0.0)
        usable = np.isfinite(std) & (std > 0)
        inverse = slope / np.where(usable, std, 1.0)
        return ((mean - inter) / slope).astype(np.float32), inverse.astype(np.float32)


@dataclass(frozen=True, eq=False)
class Segmented:
    """A scan's label map and how sure the network was.

    `labels` is (slices, rows, columns) uint8 in the label convention of the model. `mean_probability` is taken over
    the voxels of a region (None if it is empty), `max_probability` over all voxels that the network saw.
    """

    labels: np.ndarray
    mean_probability: Mapping[str, float | None]
    max_probability: Mapping[str, float]


class Slices(Protocol):
    """The slices of one scan, read again by each iteration; `truth` is known once one has ended."""

    truth: np.ndarray | None

    def __iter__(self) -> Iterator[SliceBatch]: ...


@dataclass(frozen=True, eq=False)
class Sample:
    """A scan to judge a model by; `slices.truth` (slices, rows, columns) is in `label_convention`, None without one.

    Scans of one `subject` count as one patient; a scan without is of a patient of its own.
    """

    scan_id: str
    scan: ScanInput
    slices: Slices
    label_convention: str | None
    subject: str = ""


class Predictor(Protocol):
    """A compiled network in one worker process."""

    def segment(self, scan: ScanInput, batches: Iterable[SliceBatch]) -> Segmented:
        """The label map of a scan whose slices come in their order, in any grouping; consumed while it computes.

        Slices without brain need not come.
        """
        ...


class PredictorFactory(Protocol):
    """How to open a predictor where it is needed; small and picklable, it travels with the job."""

    def open(self, threads: int) -> Predictor:
        """The predictor on `threads` threads; raises ModelError if the model is damaged or not exported."""
        ...


class Model(Protocol):
    """What a job must know of a model: what its scans must be, and what its label maps mean; a bundle is one."""

    @property
    def model_id(self) -> str: ...

    @property
    def modalities(self) -> tuple[str, ...]: ...

    @property
    def orientation(self) -> str: ...

    @property
    def label_convention(self) -> str: ...

    @property
    def split_rule(self) -> str: ...

    @property
    def space(self) -> str: ...
