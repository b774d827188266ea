"""A network that was trained elsewhere as a `Predictor`: what its card says is done to the scan before and after."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

import numpy as np

from segpipe.core.input_scale import scale_channels
from segpipe.core.orientation import reorient
from segpipe.core.prediction import ScanInput, Segmented, SliceBatch
from segpipe.core.regions import to_labels, to_regions
from segpipe.core.resize import Regridding
from segpipe.core.tiles import Blender, cut, origins
from segpipe.core.volume import scale
from segpipe.models.bundle import Bundle
from segpipe.models.card import Card, parse_card
from segpipe.runtimes.slicewise import refuse_not_finite
from segpipe.runtimes.tiled import InOrder

_PLANE = 1 << 20  # voxels that are decided at once, so that no second copy of all probabilities stands in memory


class WindowNetwork(Protocol):
    """A network as it came: scaled windows (N, C, *patch) float32 in, (N, K, *patch) float32 out."""

    def start(self, windows: np.ndarray, done: Callable[[np.ndarray], None]) -> None:
        """Begin a request; `done` gets its output, perhaps on another thread. `windows` is its own now."""
        ...

    def wait(self) -> None:
        """Return when all requests are done; raises what a request raised."""
        ...


def adopted_predictor(network: WindowNetwork, bundle: Bundle, batch_size: int) -> AdoptedPredictor:
    """The predictor of an adopted bundle on its network."""
    card = parse_card(bundle.adopted["card"], bundle.url)
    most = bundle.adopted["batch"] or batch_size
    return AdoptedPredictor(network, card, min(batch_size, most) if card.dimensions == 2 else 1)


@dataclass(eq=False)
class AdoptedPredictor:
    """The network of a `card` as a `Predictor`; 2D windows go through it `batch_size` at a time."""

    network: WindowNetwork
    card: Card
    batch_size: int = 1

    def segment(self, scan: ScanInput, batches: Iterable[SliceBatch]) -> Segmented:
        """See `Predictor.segment`. What is outside of the card's crop is labelled 0 without asking the network.

        Slices that did not come, because they show no brain, count as 0. Raises BadInput where the network gives no
        numbers.
        """
        stored = _volume(scan, batches, len(self.card.modalities))
        box = _box(scan, stored, self.card.crop)
        region = tuple(slice(*side) for side in box)
        if stored is None or any(first >= last for first, last in box):
            return self._decided(scan, None, region)
        home, away = self.card.scan_orientation, self.card.orientation
        inside = (slice(None), *region)
        image = _turned(stored[inside], home, away)
        del stored
        spacing = _turned_spacing(scan.spacing_mm, home, away)
        grids = Regridding(self.card.resampling, image.shape[1:], spacing, self.card.spacing_mm)
        output = np.moveaxis(self._blended(self._prepared(image, scan, grids)), -1, 0)
        refuse_not_finite(output)
        activated = grids.moves and self.card.resampling == "monai"  # whose Invertd stands behind the activation
        native = grids.back(_activated(output, self.card.activation) if activated else output)
        return self._decided(scan, _turned(native, away, home), region, activated)

    def _prepared(self, image: np.ndarray, scan: ScanInput, grids: Regridding) -> np.ndarray:
        """(C, *shape) on the network's grid, scaled."""
        brain = tuple(zip(scan.mean, scan.std, strict=True))
        if self.card.resample_first:
            return scale_channels(grids.there(image), self.card.scalings, brain)
        return grids.there(scale_channels(image, self.card.scalings, brain))

    def _blended(self, image: np.ndarray) -> np.ndarray:
        """What the network says of `image` (C, *shape): float32 (*shape, K)."""
        card = self.card
        shape = image.shape[1:]
        blended = InOrder(Blender(shape, card.patch, len(card.channels), card.weights))
        volume = np.moveaxis(image, 0, -1)
        places = origins(shape, card.patch, 0.0 if card.patch == shape else card.overlap, card.tiling)
        for number, (flip, group) in enumerate(_requests(places, card.mirror, self.batch_size)):
            windows = np.stack([cut(volume, origin, card.patch) for origin in group])
            sent = np.ascontiguousarray(np.moveaxis(np.flip(windows, [axis + 1 for axis in flip]), -1, 1))
            self.network.start(
                sent[:, :, 0] if card.dimensions == 2 else sent, self._sink(blended, number, flip, group)
            )
        self.network.wait()
        return blended.blender.result()

    def _sink(
        self, blended: InOrder, number: int, flip: tuple[int, ...], group: list[tuple[int, ...]]
    ) -> Callable[[np.ndarray], None]:
        def done(answer: np.ndarray) -> None:
            told = answer[:, :, None] if self.card.dimensions == 2 else answer
            upright = np.flip(np.moveaxis(told, 1, -1), [axis + 1 for axis in flip]).copy()
            blended.put(number, list(zip(group, upright, strict=True)))

        return done

    def _decided(
        self, scan: ScanInput, output: np.ndarray | None, region: tuple[slice, ...], activated: bool = False
    ) -> Segmented:
        """Labels and probabilities from the network's output (K, *box); background where there is none."""
        names = self.card.labels.region_names
        labels = np.zeros(scan.shape, np.uint8)
        inside, sums, highest = np.zeros((3, len(names)), np.float64)
        if output is not None:
            window = labels[region]
            step = max(1, _PLANE // max(1, window[0].size))
            for start in range(0, len(window), step):
                part = slice(start, start + step)
                window[part], probability = decide(output[:, part], self.card, activated)
                members = to_regions(window[part], self.card.labels).astype(bool)
                axes = tuple(range(members.ndim - 1))
                inside += members.sum(axis=axes)
                sums += np.where(members, probability, 0).sum(axis=axes, dtype=np.float64)
                highest = np.maximum(highest, probability.max(axis=axes, initial=0.0))
        means = [float(total / number) if number else None for total, number in zip(sums, inside, strict=True)]
        return Segmented(
            labels, dict(zip(names, means, strict=True)), dict(zip(names, map(float, highest), strict=True))
        )


def decide(output: np.ndarray, card: Card, activated: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Labels uint8 (*shape) and region probabilities float32 (*shape, R) of a network's output (K, *shape).

    A region's probability is its channel's, or that its labels have together. Without a threshold the likeliest label
    is taken, as nnU-Net does; with one a region is where its probability lies above. `activated` output is
    probabilities already.
    """
    probability = output if activated else _activated(output, card.activation)
    convention, place = card.labels, {name: number for number, name in enumerate(card.channels)}
    if card.by_region:
        regions = np.stack([probability[place[name]] for name in convention.regions], axis=-1)
    else:
        together = np.max if card.activation == "sigmoid" else np.sum
        regions = np.stack(
            [
                together(probability[[place[convention.labels[label]] for label in members]], axis=0)
                for members in convention.regions.values()
            ],
            axis=-1,
        )
    if card.decision is not None:
        return to_labels(regions > card.decision, convention), regions
    numbers = {name: label for label, name in convention.labels.items()}
    table = np.array([numbers.get(name, 0) for name in card.channels], np.uint8)
    return table[output.argmax(axis=0)], regions


def _activated(output: np.ndarray, activation: str) -> np.ndarray:
    if activation == "none":
        return output
    if activation == "sigmoid":
        with np.errstate(over="ignore"):
            return 1 / (1 + np.exp(-output))
    powers = np.exp(output - output.max(axis=0))
    return powers / powers.sum(axis=0)


def _volume(scan: ScanInput, batches: Iterable[SliceBatch], channels: int) -> np.ndarray | None:
    """Scaled values float32 (C, slices, rows, columns); None if no slice came."""
    volume: np.ndarray | None = None
    for indices, planes in batches:
        if volume is None:
            volume = np.zeros((channels, *scan.shape), np.float32)
        for number, (plane, slope, inter) in enumerate(zip(planes, scan.slope, scan.inter, strict=True)):
            volume[number, list(indices)] = scale(plane, slope, inter)
    return volume


def _box(scan: ScanInput, stored: np.ndarray | None, crop: str) -> list[tuple[int, int]]:
    """First and behind-last index of what the network is shown, along slice, row and column."""
    if crop == "brain":
        return [(scan.brain_box[2 * axis], scan.brain_box[2 * axis + 1]) for axis in range(3)]
    if crop == "whole" or stored is None:
        return [(0, length) for length in scan.shape]
    present = (stored != 0).any(axis=0)
    sides = []
    for axis in range(3):
        used = np.flatnonzero(present.any(axis=tuple({0, 1, 2} - {axis})))
        sides.append((int(used[0]), int(used[-1]) + 1) if len(used) else (0, 0))
    return sides


def _turned(volume: np.ndarray, source: str, target: str) -> np.ndarray:
    """A view of (C, *shape) whose last three axes run along `target`."""
    return np.moveaxis(reorient(np.moveaxis(volume, 0, -1), source, target), -1, 0)


def _turned_spacing(spacing_mm: tuple[float, ...], source: str, target: str) -> tuple[float, ...]:
    """The spacing along the axes of `target` instead of those of `source`.

    >>> _turned_spacing((5.0, 1.0, 2.0), "SPL", "RAS")
    (2.0, 1.0, 5.0)
    """
    axes = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}
    sizes = {axes[code]: size for code, size in zip(source, spacing_mm, strict=True)}
    return tuple(sizes[axes[code]] for code in target)


def _requests(
    places: list[tuple[int, ...]], mirror: tuple[int, ...], size: int
) -> Iterator[tuple[tuple[int, ...], list[tuple[int, ...]]]]:
    """Each group of up to `size` windows, once per combination of mirrored axes."""
    flips = [flip for count in range(len(mirror) + 1) for flip in combinations(mirror, count)]
    for start in range(0, len(places), size):
        for flip in flips:
            yield flip, places[start : start + size]
