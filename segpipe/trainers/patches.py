"""The patches that a worker trains a 3D network on, cut from slices that are stacked to volumes again.

An epoch holds two kinds of patches of each scan. Tiles: a grid over the brain's box, moved by chance in each epoch, so
that all of the box is seen in each. And a quarter as many around labels: a label of the scan and a voxel of it are
drawn, as nnU-Net does (Isensee et al. 2021, 10.1038/s41592-020-01008-z), so that small regions are seen often. The
kinds have lanes of their own in a batch, as slices with and without labels have (`segpipe.trainers.order`), and a lane
walks through a scan's patches before it takes the next scan, so that a worker holds as many scans as it has lanes.
"""

import math
from collections.abc import Sequence

import numpy as np

from segpipe.core.augment import augment_patch, surroundings
from segpipe.core.regions import to_regions
from segpipe.core.tiles import cut
from segpipe.trainers.contract import ScanPlan, SliceIndex, TrainPlan
from segpipe.trainers.feed import CACHE_BYTES, Example, Feed, RowGroups, normalise_stored

_LABEL_SHARE = 0.25  # patches around labels, of the tiles


def patch_shape(scans: Sequence[ScanPlan], multiple: int, edge: int) -> tuple[int, int, int]:
    """Slices, rows and columns of a patch: `edge`, or less where every brain is, in steps of `multiple` voxels."""
    boxes = np.array([scan.brain_box for scan in scans]).reshape(-1, 3, 2)
    longest = (boxes[..., 1] - boxes[..., 0]).max(axis=0)
    lengths = [min(-(-int(length) // multiple) * multiple, edge // multiple * multiple) for length in longest]
    return lengths[0], lengths[1], lengths[2]


def patch_index(scans: Sequence[ScanPlan], labelled: Sequence[bool], patch: Sequence[int]) -> SliceIndex:
    """The patches of an epoch: those of each training scan, tiles first, then those around labels."""
    columns: list[np.ndarray] = []
    for place, (scan, has_labels) in enumerate(zip(scans, labelled, strict=True)):
        if scan.split != "train":
            continue
        tiles = math.prod(grid(scan, patch))
        around = math.ceil(tiles * _LABEL_SHARE) if has_labels else 0
        rows = np.arange(tiles + around)
        columns.append(np.stack([np.full(len(rows), place), np.full(len(rows), place), rows, rows >= tiles]))
    scan_column, group, row, foreground = np.concatenate(columns, axis=1)
    return SliceIndex(scan_column.astype(np.int32), group.astype(np.int32), row.astype(np.int32), foreground > 0)


def grid(scan: ScanPlan, patch: Sequence[int]) -> tuple[int, ...]:
    """How many tiles it takes along each axis of the brain's box."""
    return tuple(-(-length // size) for length, size in zip(box_shape(scan), patch, strict=True))


def box_shape(scan: ScanPlan) -> tuple[int, ...]:
    """Slices, rows and columns of the brain's box."""
    box = scan.brain_box
    return tuple(box[axis + 1] - box[axis] for axis in (0, 2, 4))


def tile_origin(scan: ScanPlan, patch: Sequence[int], number: int, rng: np.random.Generator) -> tuple[int, ...]:
    """Where tile `number` begins in the brain's box; the same `rng` state moves all tiles of a scan alike.

    Together the tiles of a scan show every voxel of its box.
    """
    counts = grid(scan, patch)
    places = np.unravel_index(number, counts)
    lengths = box_shape(scan)
    moved = [
        int(rng.integers(0, n * size - length + 1)) for n, size, length in zip(counts, patch, lengths, strict=True)
    ]
    return tuple(int(place) * size - by for place, size, by in zip(places, patch, moved, strict=True))


def label_origin(labels: np.ndarray, patch: Sequence[int], rng: np.random.Generator) -> tuple[int, ...]:
    """Where a patch begins that shows a voxel of one of the labels uint8 (D, H, W), in its middle half if it can.

    Each label is as likely as any other, however few its voxels. It stays within the box where the box is large enough.
    Without a label, it begins anywhere.
    """
    present = np.flatnonzero(np.bincount(labels.reshape(-1))[1:]) + 1
    if len(present):
        voxels = np.flatnonzero(labels == rng.choice(present))
        voxel = np.unravel_index(voxels[rng.integers(len(voxels))], labels.shape)
    else:
        voxel = tuple(rng.integers(labels.shape))
    origin = []
    for at, size, length in zip(voxel, patch, labels.shape, strict=True):
        start = int(at) - int(rng.integers(size // 4, size - size // 4))
        spare = length - size
        origin.append(min(max(start, 0), spare) if spare >= 0 else -(-spare // 2))
    return tuple(origin)


class PatchFeed(Feed):
    """One worker's share of the training patches; it holds a scan for each of its lanes, and others up to a limit."""

    def __init__(self, plan: TrainPlan, rank: int, size: int, cache_bytes: int = CACHE_BYTES):
        super().__init__(plan, rank, size, cache_bytes)
        self._groups = BrainBoxes(plan, cache_bytes, keep=self.batch_size)

    def _example(self, place: int, epoch: int, step: int, lane: int) -> Example:
        plan, settings = self._plan, self._plan.settings
        number, scan_place = int(plan.slices.row[place]), int(plan.slices.scan[place])
        scan, patch = plan.scans[scan_place], (plan.crop[0], plan.crop[1], plan.crop[2])
        stored, labels = self._groups.held(scan_place)
        rng = np.random.default_rng((settings.seed, epoch, step, lane))
        if plan.slices.foreground[place]:
            origin = label_origin(labels, patch, rng)
        else:
            origin = tile_origin(scan, patch, number, np.random.default_rng((settings.seed, epoch, scan_place)))
        size = surroundings(patch) if settings.augment else patch
        wider = [start - (more - length) // 2 for start, more, length in zip(origin, size, patch, strict=True)]
        image, labels = normalise_stored(cut(stored, wider, size), scan), cut(labels, wider, size)
        if settings.augment:
            image, labels = augment_patch(image, labels, patch, rng)
        return image, to_regions(labels, plan.convention)


class BrainBoxes(RowGroups):
    """Decoded brain boxes of scans, the least recently used given up first."""

    def _read(self, group: int) -> Example:
        scan = self._plan.scans[group]
        image, labels = read_scan(self._plan, scan)
        return image, np.ascontiguousarray(labels[box_slices(scan)])


def box_slices(scan: ScanPlan) -> tuple[slice, ...]:
    """The brain's box as an index of a volume."""
    return tuple(slice(*scan.brain_box[2 * axis : 2 * axis + 2]) for axis in range(3))


def read_scan(plan: TrainPlan, scan: ScanPlan) -> Example:
    """A scan put together from its slices, a row group at a time.

    Stored voxels (D, H, W, C) of the brain's box, and the labels uint8 of all of the scan.
    """
    from segpipe.storage.filesystem import filesystem
    from segpipe.warehouse.slices import stream

    fs, _ = filesystem(plan.settings.warehouse)
    depth, rows, columns = box_slices(scan)
    image: np.ndarray | None = None
    labels = np.zeros(scan.shape, np.uint8)
    for group in scan.groups:
        path, number = plan.groups[group]
        for batch in stream(path, fs, [number], ["image", "mask"]):
            assert batch.image is not None  # asked for, as is the mask
            assert batch.mask is not None
            labels[batch.slice_index] = batch.mask
            if image is None:
                image = np.zeros((*box_shape(scan), len(batch.image)), np.result_type(*batch.image))
            inside = (batch.slice_index >= depth.start) & (batch.slice_index < depth.stop)
            places = batch.slice_index[inside] - depth.start
            for channel, stored in enumerate(batch.image):
                image[places, ..., channel] = stored[inside, rows, columns]
    assert image is not None  # a scan has slices
    return image, labels
