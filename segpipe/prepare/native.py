"""Label maps of a prepared scan on the native grid of a source series, volumes kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from segpipe.prepare.grids import Grid

_FINE_MM = 0.5
_CHUNK = 1 << 22


def to_native(labels: np.ndarray, source: Grid, target: Grid, matrix: np.ndarray) -> np.ndarray:
    """A label map uint8 on `source`, on the grid `target`; `matrix` maps points of `source` to points of `target`.

    Every voxel of the target is sampled finely, so that a thick one knows how much of it a label fills. The voxels that
    are filled most get the label, as many as make up its volume: neither slice thickness nor a threshold makes a region
    larger or smaller. What lies outside the target's field of view is left out.
    """
    found = np.zeros(target.shape, np.uint8)
    values = [int(value) for value in np.unique(labels) if value]
    box = _box(labels, source, target, matrix) if values else None
    if box is None:
        return found
    shares = _shares(labels, values, source, target, matrix, box)
    found[box] = _assigned(shares, values)
    return found


def on_source_grid(labels: np.ndarray, scan: Mapping[str, Any], role: str) -> tuple[np.ndarray, np.ndarray]:
    """A label map of a prepared scan, by its row of `scans`, on the grid of the source file `role`, and its affine.

    The array has the index order of the file.
    """
    file = next(file for file in scan["files"] if file["role"] == role)
    transform = next(one for one in scan["preparation"]["transforms"] if one["role"] == role)
    source = Grid(tuple(scan["shape"]), np.reshape(scan["affine"], (4, 4)))
    target = Grid(tuple(file["shape"][:3]), np.reshape(file["affine"], (4, 4)))
    return to_native(labels, source, target, np.reshape(transform["matrix"], (4, 4))), target.affine


def _box(labels: np.ndarray, source: Grid, target: Grid, matrix: np.ndarray) -> tuple[slice, slice, slice] | None:
    """The part of the target that labels may reach; None if that is nothing."""
    places = np.array(np.nonzero(labels), np.float64)
    low, high = places.min(axis=1) - 1, places.max(axis=1) + 1
    corners = np.stack(np.meshgrid(*zip(low, high, strict=True), indexing="ij")).reshape(3, -1)
    change = np.linalg.inv(target.affine) @ matrix @ source.affine
    moved = change[:3, :3] @ corners + change[:3, 3:]
    first = np.maximum(np.floor(moved.min(axis=1)).astype(int), 0)
    last = np.minimum(np.ceil(moved.max(axis=1)).astype(int) + 1, target.shape)
    if (first >= last).any():
        return None
    return slice(first[0], last[0]), slice(first[1], last[1]), slice(first[2], last[2])


def _shares(
    labels: np.ndarray, values: list[int], source: Grid, target: Grid, matrix: np.ndarray, box: tuple[slice, ...]
) -> np.ndarray:
    """How much of each voxel of the box each label fills: (labels, i, j, k) float32.

    Only voxels that some label may reach are sampled: of scattered lesions the box is most of the head.
    """
    from scipy.ndimage import map_coordinates, maximum_filter

    counts = np.maximum(1, np.ceil(target.spacing_mm / _FINE_MM)).astype(int)
    change = np.linalg.inv(matrix @ source.affine) @ target.affine
    steps = [(np.arange(count) + 0.5) / count - 0.5 for count in counts]
    offsets = np.stack(np.meshgrid(*steps, indexing="ij")).reshape(3, -1).T
    shape = tuple(part.stop - part.start for part in box)
    corner = np.array([part.start for part in box], np.float64)
    indices = np.indices(shape, np.float32).reshape(3, -1) + corner[:, None].astype(np.float32)
    reach = np.ceil(np.abs(change[:3, :3]).sum(axis=1) / 2 + 1).astype(int)
    near = maximum_filter((labels > 0).astype(np.uint8), (2 * reach + 1).tolist(), mode="constant")
    centres = change[:3, :3] @ indices + change[:3, 3:]
    seen = np.flatnonzero(map_coordinates(near, centres, order=0, mode="constant", cval=0))
    maps = [(labels == value).astype(np.float32) for value in values]
    sums = np.zeros((len(values), len(seen)), np.float32)
    for offset in offsets:
        at = centres[:, seen] + (change[:3, :3] @ offset)[:, None]
        for place, one in enumerate(maps):
            sums[place] += map_coordinates(one, at, order=1, mode="constant", cval=0.0)
    found = np.zeros((len(values), indices.shape[1]), np.float32)
    found[:, seen] = sums / len(offsets)
    return found.reshape(len(values), *shape)


def _assigned(shares: np.ndarray, values: list[int]) -> np.ndarray:
    """The label of each voxel: as many voxels of each as its shares add up to, those that it fills most."""
    flat = shares.reshape(len(values), -1)
    wanted = np.rint(flat.sum(axis=1, dtype=np.float64)).astype(int)
    found = np.zeros(flat.shape[1], np.uint8)
    total = flat.sum(axis=0)
    chosen = np.argsort(-total, kind="stable")[: int(wanted.sum())]
    free = np.ones(len(chosen), bool)
    for place in np.argsort(wanted, kind="stable"):  # the smallest first: it has the least room to choose
        share = np.where(free, flat[place, chosen], -1.0)
        taken = np.argsort(-share, kind="stable")[: wanted[place]]
        taken = taken[free[taken]]
        found[chosen[taken]] = values[place]
        free[taken] = False
    return found.reshape(shares.shape[1:])
