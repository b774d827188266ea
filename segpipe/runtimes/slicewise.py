"""Slices through a 2D network: the window around the brain, batches, and the results put together again."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from segpipe.core.prediction import ScanInput, Segmented, SliceBatch
from segpipe.errors import BadInput, Reason

_SMALL_INTEGERS = ("int16", "int8", "uint8")


@dataclass(frozen=True, eq=False)
class Outputs:
    """What the network gives for N slices and R regions.

    `labels` (N, h, w) uint8; `pixels`, `probability_sum` (both over the pixels of a region) and `probability_max`, all
    within the bounds, (N, R) float32. `probability` (N, h, w, R) is there where the network tells it.
    """

    labels: np.ndarray
    pixels: np.ndarray
    probability_sum: np.ndarray
    probability_max: np.ndarray
    probability: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Constants:
    """What the requests of a scan share.

    `mean` and `inverse_std` (C,) float32 normalise a stored voxel as `(stored - mean) * inverse_std`.
    `bounds` (4,) int32 has the first and behind-last row and column of the window that lie in the slice.
    """

    mean: np.ndarray
    inverse_std: np.ndarray
    bounds: np.ndarray


class Network(Protocol):
    """A network that takes stored voxels, (N, C, h, w) int16 or float32, normalises them and decides."""

    def start(self, image: np.ndarray, constants: Constants, done: Callable[[Outputs], None]) -> None:
        """Begin a request; `done` is called with its outputs, perhaps on another thread. `image` is its own now."""
        ...

    def wait(self) -> None:
        """Return when all requests are done; raises what a request raised."""
        ...


@dataclass(frozen=True)
class Span:
    """One axis of the network's window: `length` pixels, of which `there` show the slice's pixels `here`."""

    length: int
    there: slice
    here: slice


def window(first: int, last: int, limit: int, crop: int, multiple: int) -> Span:
    """The span around a brain's [first, last) on an axis of `limit` pixels.

    >>> window(70, 170, 240, 96, 16)
    Span(length=112, there=slice(0, 112, None), here=slice(64, 176, None))
    >>> window(0, 50, 80, 96, 16)
    Span(length=96, there=slice(8, 88, None), here=slice(0, 80, None))

    It is as long as training's `crop`, or longer where the brain is, in steps of `multiple`; it stays within the slice
    where the slice is large enough.
    """
    length = max(crop, -(-(last - first) // multiple) * multiple)
    start = (first + last - length) // 2
    start = min(max(start, 0), limit - length) if length <= limit else (limit - length) // 2
    here = slice(max(start, 0), min(start + length, limit))
    return Span(length, slice(here.start - start, here.stop - start), here)


def request_dtype(channels: Sequence[np.ndarray]) -> np.dtype:
    """int16 where it holds every stored value, else float32."""
    return np.dtype(np.int16 if all(c.dtype.name in _SMALL_INTEGERS for c in channels) else np.float32)


@dataclass(eq=False)
class SlicewisePredictor:
    """Any 2D `Network` as a `Predictor`; `crop` (rows, columns) and `multiple` are those of the bundle."""

    network: Network
    regions: tuple[str, ...]
    crop: tuple[int, ...]
    multiple: int
    batch_size: int

    def segment(self, scan: ScanInput, batches: Iterable[SliceBatch]) -> Segmented:
        """See `Predictor.segment`. Slices outside the brain box are labelled 0 without asking the network."""
        rows, columns, constants = self.prepared(scan)
        collected = Collected(scan.shape, rows, columns, len(self.regions))
        for indices, image in self.requests(batches, scan.brain_box[:2], rows, columns):
            self.network.start(finite(image, constants.mean), constants, collected.sink(indices))
        self.network.wait()
        return collected.result(self.regions)

    def probability(self, scan: ScanInput, batches: Iterable[SliceBatch]) -> tuple[tuple[slice, ...], np.ndarray]:
        """The box that the network saw, and what it says of its voxels: float32 (slices, rows, columns, R).

        For a network that tells it.
        """
        rows, columns, constants = self.prepared(scan)
        slices = slice(scan.brain_box[0], scan.brain_box[1])
        box = slices, rows.here, columns.here
        said = np.zeros((*(side.stop - side.start for side in box), len(self.regions)), np.float32)

        def sink(indices: list[int]) -> Callable[[Outputs], None]:
            def done(outputs: Outputs) -> None:
                assert outputs.probability is not None  # such a network tells it
                places = [index - slices.start for index in indices]
                said[places] = outputs.probability[:, rows.there, columns.there]

            return done

        for indices, image in self.requests(batches, scan.brain_box[:2], rows, columns):
            self.network.start(finite(image, constants.mean), constants, sink(indices))
        self.network.wait()
        return box, said

    def prepared(self, scan: ScanInput) -> tuple[Span, Span, Constants]:
        """The window of a scan, along rows and columns, and what its requests share."""
        box = scan.brain_box
        rows, columns = (
            window(box[2 * axis], box[2 * axis + 1], scan.shape[axis], self.crop[axis - 1], self.multiple)
            for axis in (1, 2)
        )
        mean, inverse_std = scan.stored_statistics()
        bounds = np.array([rows.there.start, rows.there.stop, columns.there.start, columns.there.stop], np.int32)
        return rows, columns, Constants(mean, inverse_std, bounds)

    def requests(
        self, batches: Iterable[SliceBatch], slices: Sequence[int], rows: Span, columns: Span
    ) -> Iterable[tuple[list[int], np.ndarray]]:
        """Full batches, then what is left one by one: two batch sizes are all that is ever compiled."""
        indices: list[int] = []
        image: np.ndarray | None = None
        for batch_indices, channels in batches:
            for place, index in enumerate(batch_indices):
                if not slices[0] <= index < slices[1]:
                    continue
                if image is None:
                    shape = (self.batch_size, len(channels), rows.length, columns.length)
                    image = np.zeros(shape, request_dtype(channels))  # stored zeros beyond the slice, as in training
                for plane, channel in zip(image[len(indices)], channels, strict=True):
                    plane[rows.there, columns.there] = channel[place, rows.here, columns.here]
                indices.append(int(index))
                if len(indices) == self.batch_size:
                    yield indices, image
                    indices, image = [], None
        for place, index in enumerate(indices):
            yield [index], image[place : place + 1]  # type: ignore[index]


def finite(image: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """`image` (N, C, h, w), in place, with `mean` (C,) where a float is not finite: 0 once it is normalised."""
    if image.dtype.kind == "f":
        for channel, value in enumerate(mean):
            np.nan_to_num(image[:, channel], copy=False, nan=value, posinf=value, neginf=value)
    return image


def refuse_not_finite(answer: np.ndarray) -> None:
    """Raise BadInput where what a network says of a scan is not a number: compared, it would be no tumour at all."""
    if not np.isfinite(answer).all():
        raise BadInput(
            Reason.DOES_NOT_FIT_MODEL,
            "The network's answer for this scan is not a number (NaN or infinite)",
            "look at the scan's intensities; if it happens with most scans, the model is at fault: make it again",
        )


class Collected:
    """Results by slice, so that the order in which requests end changes nothing."""

    def __init__(self, shape: tuple[int, int, int], rows: Span, columns: Span, regions: int):
        self._rows, self._columns = rows, columns
        self._labels = np.zeros(shape, np.uint8)
        self._numbers = np.zeros((3, shape[0], regions), np.float64)

    def sink(self, indices: list[int]) -> Callable[[Outputs], None]:
        """What takes the outputs of these slices."""

        def done(outputs: Outputs) -> None:
            self._labels[indices, self._rows.here, self._columns.here] = outputs.labels[
                :, self._rows.there, self._columns.there
            ]
            self._numbers[:, indices] = outputs.pixels, outputs.probability_sum, outputs.probability_max

        return done

    def result(self, regions: tuple[str, ...]) -> Segmented:
        """All slices together. Raises BadInput where the network gave no numbers."""
        refuse_not_finite(self._numbers)
        pixels, sums = self._numbers[:2].sum(axis=1)
        highest = self._numbers[2].max(axis=0, initial=0.0)
        means = [float(total / number) if number else None for total, number in zip(sums, pixels, strict=True)]
        return Segmented(
            self._labels,
            dict(zip(regions, means, strict=True)),
            dict(zip(regions, highest.tolist(), strict=True)),
        )
