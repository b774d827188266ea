"""Tiles of a scan through a 3D network: the brain's box in memory, overlapping tiles, and their answers blended."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from segpipe.core.prediction import ScanInput, Segmented, SliceBatch
from segpipe.core.regions import LabelConvention, to_labels, to_regions
from segpipe.core.tiles import Blender, cut, origins
from segpipe.runtimes.slicewise import refuse_not_finite, request_dtype

OVERLAP = 0.25
"""Share by which neighbouring tiles overlap where the bundle does not say what its validation did."""


class TileNetwork(Protocol):
    """A 3D network that takes stored voxels, (N, d, h, w, C) int16 or float32, and normalises them."""

    def start(
        self, tiles: np.ndarray, mean: np.ndarray, inverse_std: np.ndarray, done: Callable[[np.ndarray], None]
    ) -> None:
        """Begin a request; `done` gets probabilities (N, d, h, w, R) float32, perhaps on another thread."""
        ...

    def wait(self) -> None:
        """Return when all requests are done; raises what a request raised."""
        ...


@dataclass(eq=False)
class TiledPredictor:
    """Any 3D network as a `Predictor`; `tile` (slices, rows, columns) is the bundle's crop."""

    network: TileNetwork
    convention: LabelConvention
    tile: tuple[int, ...]
    overlap: float = OVERLAP
    threshold: float | tuple[float, ...] = 0.5

    def segment(self, scan: ScanInput, batches: Iterable[SliceBatch]) -> Segmented:
        """See `Predictor.segment`. Voxels outside the brain box are labelled 0 without asking the network."""
        box, probability = self.probability(scan, batches)
        return self.decided(scan, probability, box)

    def probability(self, scan: ScanInput, batches: Iterable[SliceBatch]) -> tuple[tuple[slice, ...], np.ndarray]:
        """The brain's box, and what the network says of its voxels: float32 (slices, rows, columns, R).

        Raises BadInput where it gives no numbers.
        """
        box = [slice(scan.brain_box[2 * axis], scan.brain_box[2 * axis + 1]) for axis in range(3)]
        shape = tuple(side.stop - side.start for side in box)
        regions = len(self.convention.regions)
        mean, inverse_std = scan.stored_statistics()
        volume = _volume(batches, box, shape, mean)
        blended = InOrder(Blender(shape, self.tile, regions))
        if volume is not None:
            for number, origin in enumerate(origins(shape, self.tile, self.overlap)):
                tile = cut(volume, origin, self.tile)[None]
                self.network.start(tile, mean, inverse_std, blended.sink(number, origin))
            self.network.wait()
        probability = blended.blender.result()
        refuse_not_finite(probability)
        return tuple(box), probability

    def decided(self, scan: ScanInput, probability: np.ndarray, box: tuple[slice, ...]) -> Segmented:
        """The label map of a scan of whose voxels in a box this is said, (slices, rows, columns, R)."""
        labels = np.zeros(scan.shape, np.uint8)
        labels[box] = to_labels(probability > np.asarray(self.threshold, np.float32), self.convention)
        inside = to_regions(labels[box], self.convention).astype(bool)
        means, highest = {}, {}
        for place, region in enumerate(self.convention.region_names):
            values = probability[..., place][inside[..., place]]
            means[region] = float(values.mean(dtype=np.float64)) if values.size else None
            highest[region] = float(probability[..., place].max(initial=0.0))
        return Segmented(labels, means, highest)


def _volume(
    batches: Iterable[SliceBatch], box: list[slice], shape: tuple[int, ...], mean: np.ndarray
) -> np.ndarray | None:
    """Stored voxels (slices, rows, columns, C) of a box; None if no slice came. What is not finite is the mean."""
    volume: np.ndarray | None = None
    for indices, channels in batches:
        if volume is None:
            volume = np.zeros((*shape, len(channels)), request_dtype(channels))
        for place, index in enumerate(indices):
            if box[0].start <= index < box[0].stop:
                for number, channel in enumerate(channels):
                    volume[index - box[0].start, ..., number] = channel[place, box[1], box[2]]
    if volume is not None and volume.dtype.kind == "f":
        for number, value in enumerate(mean):
            np.nan_to_num(volume[..., number], copy=False, nan=value, posinf=value, neginf=value)
    return volume


class InOrder:
    """Adds answers in the order of their tiles, so that the order in which requests end changes no bit of a sum."""

    def __init__(self, blender: Blender):
        self.blender = blender
        self._lock = threading.Lock()
        self._waiting: dict[int, list[tuple[tuple[int, ...], np.ndarray]]] = {}
        self._next = 0

    def sink(self, number: int, origin: tuple[int, ...]) -> Callable[[np.ndarray], None]:
        """What takes the answer, (1, d, h, w, R), of a tile."""
        return lambda answer: self.put(number, [(origin, answer[0].copy())])

    def put(self, number: int, answers: list[tuple[tuple[int, ...], np.ndarray]]) -> None:
        """Take origins and answers (d, h, w, R), which are kept, of the request with this number, counted from 0."""
        with self._lock:
            self._waiting[number] = answers
            while self._next in self._waiting:
                for origin, answer in self._waiting.pop(self._next):
                    self.blender.add(origin, answer)
                self._next += 1
