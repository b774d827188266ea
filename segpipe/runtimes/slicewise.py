"""Slices through a 2D network: windows around the brain, batches, and the results put together again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from segpipe.core.neighbours import Planes, slices_shown, with_neighbours
from segpipe.core.prediction import ScanInput, Segmented, SliceBatch
from segpipe.errors import BadInput, Reason
from segpipe.runtimes.windows import Window, Windows

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


@dataclass(frozen=True, eq=False)
class Request:
    """Slices on their way through the network: `image` (N, C, h, w) is what the `windows` show of those `indices`.

    While it is being filled there are fewer of them than N.
    """

    indices: list[int]
    windows: list[Window]
    image: np.ndarray
    constants: Constants

    @property
    def is_full(self) -> bool:
        """Whether nothing more can be added."""
        return len(self.indices) == len(self.image)

    def add(self, index: int, seen: Window, planes: Sequence[np.ndarray]) -> None:
        """Take what a window shows of a slice, `planes` of (H, W)."""
        for target, plane in zip(self.image[len(self.indices)], planes, strict=True):
            target[seen.there] = plane[seen.here]
        self.indices.append(index)
        self.windows.append(seen)

    def apart(self) -> Iterator[Request]:
        """Each slice on its own."""
        for place, (index, seen) in enumerate(zip(self.indices, self.windows, strict=True)):
            yield Request([index], [seen], self.image[place : place + 1], self.constants)

    def put(self, answers: np.ndarray, target: np.ndarray) -> None:
        """Write what was answered of the windows, (N, h, w, ...), to their places in (slices, H, W, ...)."""
        for answer, index, seen in zip(answers, self.indices, self.windows, strict=True):
            target[index][seen.here] = answer[seen.there]


def request_dtype(channels: Sequence[np.ndarray]) -> np.dtype:
    """int16 where it holds every stored value, else float32."""
    return np.dtype(np.int16 if all(c.dtype.name in _SMALL_INTEGERS for c in channels) else np.float32)


@dataclass(eq=False)
class SlicewisePredictor:
    """Any 2D `Network` as a `Predictor`; `crop` (rows, columns), `multiple`, `neighbours` are those of the bundle."""

    network: Network
    regions: tuple[str, ...]
    crop: tuple[int, ...]
    multiple: int
    batch_size: int
    neighbours: int = 0

    def segment(self, scan: ScanInput, batches: Iterable[SliceBatch]) -> Segmented:
        """See `Predictor.segment`. Slices outside the brain box are labelled 0 without asking the network."""
        collected = Collected(scan.shape, len(self.regions))
        for request in self.requests(scan, batches):
            self.network.start(request.image, request.constants, collected.sink(request))
        self.network.wait()
        return collected.result(self.regions)

    def probability(self, scan: ScanInput, batches: Iterable[SliceBatch]) -> tuple[tuple[slice, ...], np.ndarray]:
        """The box that the network saw, and what it says of its voxels: float32 (slices, rows, columns, R).

        For a network that tells it.
        """
        said = np.zeros((*scan.shape, len(self.regions)), np.float32)

        def sink(request: Request) -> Callable[[Outputs], None]:
            def done(outputs: Outputs) -> None:
                assert outputs.probability is not None  # such a network tells it
                request.put(outputs.probability, said)

            return done

        for request in self.requests(scan, batches):
            self.network.start(request.image, request.constants, sink(request))
        self.network.wait()
        box = slice(*scan.brain_box[:2]), *self.windows(scan).whole.here
        return box, said[box]

    def windows(self, scan: ScanInput) -> Windows:
        """What the network sees of a scan's slices."""
        return Windows.around(scan.brain_box[2:], scan.shape[1:], self.crop, self.multiple)

    def requests(self, scan: ScanInput, batches: Iterable[SliceBatch]) -> Iterator[Request]:
        """Full batches of each size of window, then what is left one by one: two batch sizes are all that is compiled.

        Stored zeros are beyond the slice, as in training.
        """
        windows = self.windows(scan)
        mean, inverse_std = (np.tile(each, slices_shown(self.neighbours)) for each in scan.stored_statistics())
        filling: dict[tuple[int, int], Request] = {}
        for index, planes, shown in self._slices(batches, scan.shape[0]):
            if not scan.brain_box[0] <= index < scan.brain_box[1]:
                continue
            seen = windows.of(planes)
            if seen.size not in filling:
                image = np.zeros((self.batch_size, len(shown), *seen.size), request_dtype(shown))
                filling[seen.size] = Request([], [], image, Constants(mean, inverse_std, seen.bounds))
            request = filling[seen.size]
            request.add(index, seen, shown)
            if request.is_full:
                finite(request.image, mean)
                yield filling.pop(seen.size)
        for request in filling.values():
            finite(request.image, mean)
            yield from request.apart()

    def _slices(self, batches: Iterable[SliceBatch], count: int) -> Iterator[tuple[int, Planes, Planes]]:
        """Each slice's place in a scan of `count`, its planes (H, W), and all that the network is shown of it."""
        slices = (
            (int(index), [channel[place] for channel in channels])
            for indices, channels in batches
            for place, index in enumerate(indices)
        )
        return with_neighbours(slices, self.neighbours, count)


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

    def __init__(self, shape: tuple[int, int, int], regions: int):
        self._labels = np.zeros(shape, np.uint8)
        self._numbers = np.zeros((3, shape[0], regions), np.float64)

    def sink(self, request: Request) -> Callable[[Outputs], None]:
        """What takes the outputs of a request."""

        def done(outputs: Outputs) -> None:
            request.put(outputs.labels, self._labels)
            self._numbers[:, request.indices] = outputs.pixels, outputs.probability_sum, outputs.probability_max

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
