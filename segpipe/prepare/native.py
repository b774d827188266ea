"""Label maps of a prepared scan on the native grid of a source series: every lesion where it is, with its volume."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from segpipe.prepare.grids import Grid

_FINE_MM = 0.5


class _Sampled(NamedTuple):
    """Voxels of the target that labels may reach, (n,) as flat indices of a box.

    `centres` (3, n) are indices of the source; `shares` (labels, n) float32 is how much of a voxel each label fills.
    """

    places: np.ndarray
    centres: np.ndarray
    shares: np.ndarray


def to_native(labels: np.ndarray, source: Grid, target: Grid, matrix: np.ndarray) -> np.ndarray:
    """A label map uint8 on `source`, on the grid `target`; `matrix` maps points of `source` to points of `target`.

    Every voxel of the target is sampled finely, so that a thick one knows how much of it a label fills. Each connected
    part of a label then gets as many voxels as make up its volume, of those that it reaches the ones that it fills
    most: neither slice thickness nor a threshold makes a lesion larger or smaller, and none gives its volume to
    another. No voxel gets a label that does not reach it. What fills less than about half a voxel may vanish, and what
    lies outside the target's field of view is left out.
    """
    found = np.zeros(target.shape, np.uint8)
    values = [int(value) for value in np.unique(labels) if value]
    if not values:
        return found
    labels, source = _cropped(labels, source)
    box = _box(labels, source, target, matrix)
    if box is None:
        return found
    sampled = _sampled(labels, values, source, target, matrix, box)
    filled = np.zeros([part.stop - part.start for part in box], np.uint8)
    filled.ravel()[sampled.places] = _assigned(labels, values, source.spacing_mm, sampled)
    found[box] = filled
    return found


def resampled_to_source(labels: np.ndarray, scan: Mapping[str, Any], role: str) -> tuple[np.ndarray, np.ndarray]:
    """A label map of a prepared scan, by its row of `scans`, on the grid of the source file `role`, and its affine.

    The array has the index order of the file.
    """
    file = next(file for file in scan["files"] if file["role"] == role)
    transform = next(one for one in scan["preparation"]["transforms"] if one["role"] == role)
    source = Grid(tuple(scan["shape"]), np.reshape(scan["affine"], (4, 4)))
    target = Grid(tuple(file["shape"][:3]), np.reshape(file["affine"], (4, 4)))
    return to_native(labels, source, target, np.reshape(transform["matrix"], (4, 4))), target.affine


def _cropped(labels: np.ndarray, source: Grid) -> tuple[np.ndarray, Grid]:
    """The part that is labelled, with a margin of one voxel."""
    places = np.nonzero(labels)
    first, last = np.array([(one.min(), one.max() + 1) for one in places]).T
    affine = source.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ (first - 1)
    cropped = np.pad(labels[tuple(map(slice, first, last))], 1)
    return cropped, Grid((cropped.shape[0], cropped.shape[1], cropped.shape[2]), affine)


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


def _sampled(
    labels: np.ndarray, values: list[int], source: Grid, target: Grid, matrix: np.ndarray, box: tuple[slice, ...]
) -> _Sampled:
    """How labels fill the voxels of the box that they may reach: of scattered lesions the box is most of the head."""
    from scipy.ndimage import map_coordinates, maximum_filter

    counts = np.maximum(1, np.ceil(target.spacing_mm / _FINE_MM)).astype(int)
    change = np.linalg.inv(matrix @ source.affine) @ target.affine
    steps = [(np.arange(count) + 0.5) / count - 0.5 for count in counts]
    offsets = np.stack(np.meshgrid(*steps, indexing="ij")).reshape(3, -1).T
    shape = tuple(part.stop - part.start for part in box)
    corner = np.array([part.start for part in box], np.float64)
    indices = np.indices(shape, np.float32).reshape(3, -1) + corner[:, None].astype(np.float32)
    reach = np.ceil(np.abs(change[:3, :3]).sum(axis=1) / 2 + 1).astype(int)
    near = maximum_filter(np.pad(labels > 0, [(one, one) for one in reach]).astype(np.uint8), (2 * reach + 1).tolist())
    centres = change[:3, :3] @ indices + change[:3, 3:]
    seen = np.flatnonzero(map_coordinates(near, centres + reach[:, None], order=0, mode="constant", cval=0))
    maps = [(labels == value).astype(np.float32) for value in values]
    sums = np.zeros((len(values), len(seen)), np.float32)
    for offset in offsets:
        at = centres[:, seen] + (change[:3, :3] @ offset)[:, None]
        for place, one in enumerate(maps):
            sums[place] += map_coordinates(one, at, order=1, mode="constant", cval=0.0)
    return _Sampled(seen, centres[:, seen], sums / len(offsets))


def _assigned(labels: np.ndarray, values: list[int], spacing_mm: np.ndarray, sampled: _Sampled) -> np.ndarray:
    """The label of each sampled voxel.

    First the voxels of all labels together are chosen, for each connected part on its own, so that no gaps stay between
    labels. The label with the least volume chooses first among them: it has the least room.
    """
    shares, total = sampled.shares, sampled.shares.sum(axis=0)
    lesions, number = _components(labels > 0)
    wanted = np.zeros(number + 1, int)
    parts = []
    for value, share in zip(values, shares, strict=True):
        ids, count = _components(labels == value)
        owners = _owners(ids, count, spacing_mm, sampled.centres, share > 0)
        counts = _rounded(np.bincount(owners, share, count + 1))
        lesion = np.zeros(count + 1, int)
        lesion[ids[ids > 0]] = lesions[ids > 0]
        wanted += np.bincount(lesion, counts, number + 1).astype(int)
        parts.append((owners, counts))
    free = _fullest(total, _owners(lesions, number, spacing_mm, sampled.centres, total > 0), wanted)
    found = np.zeros(len(total), np.uint8)
    rest = total.copy()
    order = np.argsort([counts.sum() for _, counts in parts], kind="stable")
    for place in order:
        (owners, counts), share = parts[place], shares[place]
        of_rest = share / np.maximum(np.maximum(rest, share), np.finfo(np.float32).tiny)
        taken = _fullest(of_rest, np.where(free, owners, 0), counts)
        found[taken] = values[place]
        free &= ~taken
        rest -= share
    for place in order:  # what a part found no room for goes to where its label lies beside
        missing = parts[place][1].sum() - np.count_nonzero(found == values[place])
        taken = _fullest(shares[place], (free & (shares[place] > 0)).astype(int), np.array([0, missing]))
        found[taken] = values[place]
        free &= ~taken
    found[free] = np.array(values, np.uint8)[shares[:, free].argmax(axis=0)]
    return found


def _components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """The 26-connected parts, numbered from 1, and how many there are."""
    from scipy.ndimage import label

    ids, count = label(mask, np.ones((3, 3, 3), bool))
    return ids, int(count)


def _owners(
    ids: np.ndarray, count: int, spacing_mm: np.ndarray, centres: np.ndarray, reached: np.ndarray
) -> np.ndarray:
    """The part that lies nearest to each voxel that is reached, (n,) int; 0 for the others."""
    from scipy.spatial import cKDTree

    found = reached.astype(int)
    if count > 1 and reached.any():
        places = np.argwhere(ids)
        _, nearest = cKDTree(places * spacing_mm).query(centres[:, reached].T * spacing_mm)
        found[reached] = ids[tuple(places[nearest].T)]
    return found


def _rounded(amounts: np.ndarray) -> np.ndarray:
    """Whole numbers with the same sum, except for its rounding: those with the largest remainders are rounded up.

    >>> _rounded(np.array([0.0, 20.4, 1.1, 0.3])).tolist()
    [0, 21, 1, 0]
    """
    found = np.floor(amounts).astype(int)
    more = int(np.rint(amounts.sum())) - int(found.sum())
    found[np.argsort(found - amounts, kind="stable")[:more]] += 1
    return found


def _fullest(score: np.ndarray, owners: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Those with the highest scores among the voxels of each owner, as many as `counts` says: (n,) bool; of 0 none."""
    order = np.lexsort((-score, owners))
    owners = owners[order]
    rank = np.arange(len(order)) - np.searchsorted(owners, owners)
    found = np.zeros(len(order), bool)
    found[order[(rank < counts[owners]) & (owners > 0)]] = True
    return found
