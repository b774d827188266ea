"""Volumes cut into overlapping tiles, and what a network says of the tiles blended into one volume again.

A network for patches sees one tile at a time and is least sure at a tile's border, where it lacks surroundings. So
tiles overlap, and where several show a voxel, their mean counts, weighted by a Gaussian around each tile's middle, as
nnU-Net does (Isensee et al. 2021, 10.1038/s41592-020-01008-z). Networks that were trained elsewhere expect the tiles
and weights of their own inference; these are told apart by name. Nothing here knows how many axes there are.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, product

import numpy as np

Origin = tuple[int, ...]
"""First voxel of a tile along each axis; negative where the tile is longer than the volume."""

TILINGS = ("even", "stepped")
"""How tiles are spread: evenly, as nnU-Net does, or by whole steps from the first voxel on, as MONAI does."""

WEIGHTS = ("gaussian", "nnunet", "constant")
"""What a voxel of a tile counts: ours and MONAI's Gaussian, nnU-Net's, or all the same."""

_SIGMA_SHARE = 1 / 8
_LEAST_WEIGHT = 1e-3  # of the peak's: also a voxel that only tiles' corners show gets its mean


def origins(shape: Sequence[int], tile: Sequence[int], overlap: float = 0.5, tiling: str = "even") -> list[Origin]:
    """Where tiles begin that together cover a volume of `shape`, each overlapping the next by `overlap`.

    The share `overlap` (0 up to but not 1) is met to a voxel, or exceeded. They are spread evenly, or, with the tiling
    `stepped`, by whole steps, the last tile moved back to the border. Along an axis on which the tile is longer than
    the volume there is one, with the volume in its middle. Raises ValueError for an overlap or a tiling that there is
    not.

    >>> origins((10, 3), (4, 4), overlap=0.25)
    [(0, 0), (3, 0), (6, 0)]
    >>> origins((2,), (6,))
    [(-2,)]
    >>> origins((11,), (4,), overlap=0.5), origins((11,), (4,), overlap=0.5, tiling="stepped")
    ([(0,), (2,), (4,), (5,), (7,)], [(0,), (2,), (4,), (6,), (7,)])
    >>> origins((10,), (5,), overlap=0.5), origins((10,), (5,), overlap=0.5, tiling="stepped")  # 2.5 voxels, or 2
    ([(0,), (2,), (5,)], [(0,), (2,), (4,), (5,)])
    """
    if not 0 <= overlap < 1:
        raise ValueError(f"tiles overlap by 0 up to but not 1 of their length, not {overlap}")
    if tiling not in TILINGS:
        raise ValueError(f"tiling {tiling!r} is unknown, known are {', '.join(TILINGS)}")
    return list(product(*(_starts(n, length, overlap, tiling) for n, length in zip(shape, tile, strict=True))))


def cut(volume: np.ndarray, origin: Sequence[int], tile: Sequence[int]) -> np.ndarray:
    """A copy of the voxels (*tile, ...) of `volume` (*shape, ...) from `origin` on; zeros outside the volume."""
    there, here = _overlap(volume.shape[: len(tile)], origin, tile)
    result = np.zeros((*tile, *volume.shape[len(tile) :]), volume.dtype)
    result[there] = volume[here]
    return result


def gaussian(tile: Sequence[int]) -> np.ndarray:
    """Weights float32 (*tile): a Gaussian of an eighth of the tile's length, nowhere below 0.001.

    As MONAI has it, its peak of 1 lies in the middle: on a voxel of an odd length, between two of an even one.
    """
    weights = np.ones((1,) * len(tile))
    for axis, length in enumerate(tile):
        offsets = (np.arange(length) - (length - 1) / 2) / (length * _SIGMA_SHARE)
        weights = weights * np.exp(-0.5 * offsets**2).reshape([-1 if axis == a else 1 for a in range(len(tile))])
    return np.maximum(weights, _LEAST_WEIGHT).astype(np.float32)


def weights_of(tile: Sequence[int], kind: str = "gaussian") -> np.ndarray:
    """What each voxel of a tile counts, float32 (*tile), by one of `WEIGHTS`; ValueError for another.

    nnU-Net's Gaussian stands on the voxel behind the middle and has no least weight but the smallest float.

    >>> weights_of((4,), "nnunet").argmax(), weights_of((3,), "constant").tolist()
    (np.int64(2), [1.0, 1.0, 1.0])
    """
    if kind == "gaussian":
        return gaussian(tile)
    if kind == "constant":
        return np.ones(tuple(tile), np.float32)
    if kind != "nnunet":
        raise ValueError(f"weights {kind!r} are unknown, known are {', '.join(WEIGHTS)}")
    weights = np.ones((1,) * len(tile))
    for axis, length in enumerate(tile):
        offsets = (np.arange(length) - length // 2) / max(length * _SIGMA_SHARE, 1e-9)
        weights = weights * np.exp(-0.5 * offsets**2).reshape([-1 if axis == a else 1 for a in range(len(tile))])
    return np.maximum(weights / weights.max(), np.finfo(np.float32).tiny).astype(np.float32)


class Blender:
    """Sums up what is said of each tile; `result` is the weighted mean for each voxel.

    Holds one float32 for each voxel and region of `shape` and one for its weight, whatever the number of tiles.
    """

    def __init__(self, shape: Sequence[int], tile: Sequence[int], regions: int, weights: str = "gaussian"):
        self._tile = tuple(tile)
        self._weights = weights_of(tile, weights)
        self._sum = np.zeros((*shape, regions), np.float32)
        self._weight = np.zeros((*shape, 1), np.float32)

    def add(self, origin: Sequence[int], probability: np.ndarray) -> None:
        """Count in what a network says, float (*tile, regions), of the tile at `origin`."""
        there, here = _overlap(self._sum.shape[:-1], origin, self._tile)
        weights = self._weights[there][..., None]
        self._sum[here] += probability[there] * weights
        self._weight[here] += weights

    def result(self) -> np.ndarray:
        """The mean float32 (*shape, regions); 0 where no tile was added."""
        return self._sum / np.where(self._weight > 0, self._weight, 1)


def predict(
    volume: np.ndarray,
    network: Callable[[np.ndarray], np.ndarray],
    tile: Sequence[int],
    overlap: float = 0.5,
    batch_size: int = 1,
) -> np.ndarray:
    """What a network says of a whole volume: (*shape, C) in, blended float32 (*shape, R) out.

    `network` maps tiles (n, *tile, C) to (n, *tile, R), `n` at most `batch_size`. Only one batch of tiles exists at a
    time. What the volume should hold beyond its border, where a tile reaches further, is 0.
    """
    places = origins(volume.shape[:-1], tile, overlap)
    blender: Blender | None = None
    for batch in _batches(places, batch_size):
        answers = network(np.stack([cut(volume, origin, tile) for origin in batch]))
        if blender is None:
            blender = Blender(volume.shape[:-1], tile, answers.shape[-1])
        for origin, answer in zip(batch, answers, strict=True):
            blender.add(origin, answer)
    assert blender is not None  # there is at least one tile
    return blender.result()


def _starts(length: int, tile: int, overlap: float, tiling: str) -> list[int]:
    if tile >= length:
        return [-((tile - length) // 2)]
    step = tile * (1 - overlap)
    if tiling == "stepped":
        whole = max(1, int(step))
        return [min(start, length - tile) for start in range(0, length - tile + whole, whole)]
    count = math.ceil((length - tile) / max(1.0, round(step, 6))) + 1  # 1 - 0.9 is a little less than 0.1
    return [round(place * (length - tile) / (count - 1)) for place in range(count)]


def _overlap(
    shape: Sequence[int], origin: Sequence[int], tile: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The part of a tile that lies in the volume, and the part of the volume that it shows."""
    there, here = [], []
    for start, length, limit in zip(origin, tile, shape, strict=True):
        first, last = min(max(start, 0), limit), min(max(start + length, 0), limit)
        here.append(slice(first, last))
        there.append(slice(first - start, last - start) if first < last else slice(0, 0))
    return tuple(there), tuple(here)


def _batches(places: Sequence[Origin], size: int) -> Iterator[list[Origin]]:
    rest = iter(places)
    while batch := list(islice(rest, size)):
        yield batch
