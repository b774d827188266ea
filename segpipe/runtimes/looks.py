"""A second look where in doubt, one look elsewhere: a part of what mirror images bring, at a part of what they cost.

A network that sees the four mirror images of every slice takes four times as long. Many slices gain nothing: there is
no tumour, or its outline is sure. So the whole scan is seen once; then the slices with most pixels in doubt are seen
upside down too, and the mean of both looks decides about these. The noise of n looks falls as 1 / n: the second takes
away two thirds of what all three others would, for a third of their cost, so that with the same time more is gained by
a second look at many slices than by four at few. It is the rows that are mirrored, front and back of the head in axial
slices: left and right are so much alike that a mirror of the columns tells little that is new
(docs/decisions/0005-segmentation.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields

import numpy as np

from segpipe.core.prediction import ScanInput, Segmented, SliceBatch
from segpipe.core.regions import LabelConvention, to_labels, to_regions
from segpipe.runtimes.slicewise import Collected, Outputs, Request, SlicewisePredictor

SHARE = 0.3
"""Share of the slices with brain seen twice: 1.3 times the cost of one look, and some for what must be kept."""

MARGIN = 0.25
"""A pixel is in doubt where a region's probability is nearer to the threshold than this."""

MIRRORS = ((2,),)
"""The mirror images that are looked at where in doubt, as axes of (N, C, h, w): one, of the rows."""


def in_doubt(probability: np.ndarray, threshold: float | tuple[float, ...], margin: float = MARGIN) -> np.ndarray:
    """How many pixels of each slice some region is undecided about: (N, h, w, R) to (N,) int.

    >>> in_doubt(np.array([0.1, 0.45, 0.9]).reshape(1, 1, 3, 1), threshold=0.5).tolist()
    [1]
    """
    near: np.ndarray = (np.abs(probability - np.asarray(threshold, np.float32)) < margin).any(axis=-1)
    return near.sum(axis=(1, 2))


def chosen(doubt: np.ndarray, share: float = SHARE) -> np.ndarray:
    """Places of the slices to look at again: those with most doubt, at most `share` of all, none without any.

    >>> chosen(np.array([0, 5, 2, 9, 0]), share=0.4).tolist()
    [1, 3]
    """
    most = math.floor(len(doubt) * share + 1e-9)
    order = np.argsort(-doubt, kind="stable")[:most]
    return np.sort(order[doubt[order] > 0])


@dataclass(eq=False, kw_only=True)
class DoubtfulPredictor(SlicewisePredictor):
    """A `SlicewisePredictor` of a network that looks once and tells its probabilities; it looks again where in doubt.

    It holds what the network has seen and said of a scan's slices, 4 to 14 bytes per pixel of the window.
    """

    convention: LabelConvention
    threshold: float | tuple[float, ...]
    share: float = SHARE
    mirrors: tuple[tuple[int, ...], ...] = MIRRORS

    def segment(self, scan: ScanInput, batches: Iterable[SliceBatch]) -> Segmented:
        """See `Predictor.segment`."""
        collected = Collected(scan.shape, len(self.regions))
        seen: dict[int, Request] = {}
        said: dict[int, np.ndarray] = {}
        doubt: dict[int, int] = {}
        for request in self.requests(scan, batches):
            seen |= dict(zip(request.indices, request.apart(), strict=True))
            self.network.start(request.image, request.constants, self._first(request, collected, said, doubt))
        self.network.wait()
        order = np.array(sorted(doubt), np.int64)
        again = order[chosen(np.array([doubt[index] for index in order], np.int64), self.share)].tolist()
        for index in set(seen) - set(again):
            del seen[index], said[index]
        sums = {index: said[index].astype(np.float32) for index in again}
        self._look_again(seen, sums)
        for index, total in sums.items():
            mean = total[None] / (1 + len(self.mirrors))
            collected.sink(seen[index])(self._decided(mean, seen[index].windows[0].there))
        return collected.result(self.regions)

    def _first(
        self, request: Request, collected: Collected, said: dict[int, np.ndarray], doubt: dict[int, int]
    ) -> Callable[[Outputs], None]:
        keep = collected.sink(request)

        def done(outputs: Outputs) -> None:
            assert outputs.probability is not None  # such a network tells it
            keep(outputs)
            doubt.update(zip(request.indices, in_doubt(outputs.probability, self.threshold).tolist(), strict=True))
            said.update(zip(request.indices, outputs.probability.astype(np.float16), strict=True))

        return done

    def _look_again(self, seen: dict[int, Request], sums: dict[int, np.ndarray]) -> None:
        """Add what the network says of the mirror images of slices `seen` to `sums` (h, w, R), in a fixed order."""
        answers: dict[tuple[int, tuple[int, ...]], np.ndarray] = {}

        def sink(indices: list[int], axes: tuple[int, ...]) -> Callable[[Outputs], None]:
            def done(outputs: Outputs) -> None:
                assert outputs.probability is not None
                upright = np.flip(outputs.probability, [axis - 1 for axis in axes])
                answers.update({(index, axes): one.copy() for index, one in zip(indices, upright, strict=True)})

            return done

        for part in self._parts(seen):
            image = np.concatenate([seen[index].image for index in part])
            for axes in self.mirrors:
                turned = np.ascontiguousarray(np.flip(image, axes))
                self.network.start(turned, seen[part[0]].constants, sink(part, axes))
        self.network.wait()
        for index in sorted(seen):
            for axes in self.mirrors:
                sums[index] += answers[index, axes]

    def _parts(self, seen: dict[int, Request]) -> Iterator[list[int]]:
        """Indices of slices whose windows are of one size, as many as a request takes, then what is left one by one."""
        of_size: dict[tuple[int, ...], list[int]] = {}
        for index in sorted(seen):
            of_size.setdefault(seen[index].image.shape, []).append(index)
        for indices in of_size.values():
            full = len(indices) - len(indices) % self.batch_size
            yield from (indices[start : start + self.batch_size] for start in range(0, full, self.batch_size))
            yield from ([index] for index in indices[full:])

    def _decided(self, probability: np.ndarray, inside: tuple[slice, slice]) -> Outputs:
        """What the network itself says about slices, from the mean of its looks (N, h, w, R)."""
        labels = to_labels(probability > np.asarray(self.threshold, np.float32), self.convention)
        counted = probability[:, inside[0], inside[1]]
        members = to_regions(labels, self.convention)[:, inside[0], inside[1]]
        return Outputs(
            labels,
            members.sum(axis=(1, 2)).astype(np.float32),
            (counted * members).sum(axis=(1, 2)),
            counted.max(axis=(1, 2)),
        )


def doubtful(
    predictor: SlicewisePredictor, convention: LabelConvention, threshold: float | tuple[float, ...]
) -> DoubtfulPredictor:
    """The predictor of the same one-look network that looks again where in doubt."""
    same = {field.name: getattr(predictor, field.name) for field in fields(SlicewisePredictor)}
    return DoubtfulPredictor(**same, convention=convention, threshold=threshold)


def once(network: dict[str, object]) -> dict[str, object]:
    """What a bundle says of its network, but looking once: the weights are the same."""
    return {**network, "mirror": False}
