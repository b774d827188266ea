"""The patches that a 3D network trains on that sees the means of cubes of voxels, `--pool` voxels an edge.

Such a network sees an eighth of the voxels, or fewer, for the same surroundings, so that a patch shows most of a head
and a scan has few patches. An epoch holds as many at random places as around labels, in lanes of their own
(`segpipe.trainers.order`). A patch never lies outside of the brain's box where it fits in. What a voxel's cube holds of
each region is a share, 0 to 1, so that an outline keeps its place to a fraction of a cube.
"""

from collections.abc import Sequence

import numpy as np

from segpipe.core.augment import augment_shares, surroundings
from segpipe.core.regions import to_regions
from segpipe.core.tiles import cut
from segpipe.trainers.contract import ScanPlan, SliceIndex, TrainPlan
from segpipe.trainers.feed import CACHE_BYTES, Example, Feed, normalise_stored
from segpipe.trainers.patches import BrainBoxes, label_origin

_PATCHES = 4  # of each kind, of a scan in an epoch
_IN = 0.5  # share from which on a cube is a place of a region


def pooled_index(scans: Sequence[ScanPlan], labelled: Sequence[bool]) -> SliceIndex:
    """The patches of an epoch: those of each training scan, those at random places first."""
    columns = []
    for place, (scan, has_labels) in enumerate(zip(scans, labelled, strict=True)):
        if scan.split == "train":
            rows = np.arange(_PATCHES * (1 + has_labels))
            columns.append(np.stack([np.full(len(rows), place), rows]))
    scan_column, row = np.concatenate(columns, axis=1).astype(np.int32)
    return SliceIndex(scan_column, scan_column, row, row >= _PATCHES)


def mean_of_cubes(volume: np.ndarray, edge: int) -> np.ndarray:
    """Means float32 of cubes: (D, H, W, C) of any dtype to a volume `edge` times shorter, rounded up.

    What a cube lacks beyond the volume is 0.

    >>> mean_of_cubes(np.ones((2, 2, 3, 1), np.int16), 2).ravel().tolist()
    [1.0, 0.5]
    """
    slabs, rows, columns = (-(-length // edge) for length in volume.shape[:3])
    whole = cut(volume, (0, 0, 0), (slabs * edge, rows * edge, columns * edge))
    cubes: np.ndarray = whole.reshape(slabs, edge, rows, edge, columns, edge, -1).mean((1, 3, 5), dtype=np.float32)
    return cubes


def any_origin(shape: Sequence[int], patch: Sequence[int], rng: np.random.Generator) -> tuple[int, ...]:
    """Where a patch begins that lies anywhere in a box, or has it in it where it is longer, at any place."""
    spare = [length - size for length, size in zip(shape, patch, strict=True)]
    return tuple(int(rng.integers(min(0, most), max(0, most) + 1)) for most in spare)


class PooledFeed(Feed):
    """One worker's share of the training patches, in pooled voxels: images float32 and shares of regions float32."""

    regions_dtype = np.float32

    def __init__(self, plan: TrainPlan, rank: int, size: int, cache_bytes: int = CACHE_BYTES):
        super().__init__(plan, rank, size, cache_bytes)
        self._groups = PooledBoxes(plan, cache_bytes, keep=self.batch_size)

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Slices, rows and columns of an example."""
        return tuple(length // self._plan.settings.pool for length in self._plan.crop)

    def _example(self, place: int, epoch: int, step: int, lane: int) -> Example:
        plan, settings = self._plan, self._plan.settings
        scan_place = int(plan.slices.scan[place])
        depth, rows, columns = (length // settings.pool for length in plan.crop)
        patch = depth, rows, columns
        stored, shares = self._groups.held(scan_place)
        rng = np.random.default_rng((settings.seed, epoch, step, lane))
        if plan.slices.foreground[place]:
            origin = label_origin(innermost(shares), patch, rng)
        else:
            origin = any_origin(shares.shape[:3], patch, rng)
        size = surroundings(patch) if settings.augment else patch
        wider = [start - (more - length) // 2 for start, more, length in zip(origin, size, patch, strict=True)]
        image, shares = normalise_stored(cut(stored, wider, size), plan.scans[scan_place]), cut(shares, wider, size)
        return augment_shares(image, shares, patch, rng) if settings.augment else (image, shares)


def innermost(shares: np.ndarray) -> np.ndarray:
    """A map uint8 (...) of shares (..., R): 0, or 1 plus the place of the last region that a cube lies in.

    >>> innermost(np.array([[0.2, 0.0], [1.0, 0.1], [1.0, 0.7]])).tolist()
    [0, 1, 2]
    """
    inside = shares >= _IN
    last = shares.shape[-1] - inside[..., ::-1].argmax(axis=-1)
    labels: np.ndarray = np.where(inside.any(axis=-1), last, 0).astype(np.uint8)
    return labels


class PooledBoxes(BrainBoxes):
    """Brain boxes of scans, pooled: stored voxels float32 (D, H, W, C) and shares of regions float32 (D, H, W, R)."""

    def _read(self, group: int) -> Example:
        stored, labels = super()._read(group)
        edge = self._plan.settings.pool
        return mean_of_cubes(stored, edge), mean_of_cubes(to_regions(labels, self._plan.convention), edge)
