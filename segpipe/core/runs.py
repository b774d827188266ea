"""Masks as runs of voxels: measures cost what the outline of a mask costs, not what the volume around it does.

A lesion of 140 000 voxels in a volume of 9 million is 5 000 runs along the last axis. They are kept as positions in a
flat grid with an empty slice before the first, an empty row behind each slice and an empty column behind each row, so
that no neighbour of a voxel lies in a line that it does not touch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

Shape = tuple[int, ...]
Pairs = tuple[np.ndarray, np.ndarray]


class Components(NamedTuple):
    """Connected components, numbered from 0 on by their first voxels: that of each run, and the voxels of each."""

    of_run: np.ndarray
    sizes: np.ndarray


class Surface(NamedTuple):
    """Voxels with a face neighbour outside the mask: the run of each, (n,), and slice, row, column, int64 (3, n)."""

    run: np.ndarray
    indices: np.ndarray


class Runs:
    """A mask of `shape` (S, H, W) as runs; `starts` and `stops` int64 (r,), ascending, are positions in the flat grid.

    >>> mask = np.zeros((2, 3, 4), bool); mask[1, 2, 1:3] = True
    >>> runs = Runs.of(mask)
    >>> runs.voxels, runs.first.T.tolist(), runs.last.T.tolist()
    (2, [[1, 2, 1]], [[1, 2, 2]])
    """

    def __init__(self, shape: Shape, starts: np.ndarray, stops: np.ndarray):
        self.shape, self.starts, self.stops = shape, starts, stops

    @classmethod
    def of(cls, mask: np.ndarray | Runs) -> Runs:
        """Those of a bool mask (S, H, W), else ValueError; Runs are given back."""
        if isinstance(mask, Runs):
            return mask
        if mask.ndim != 3 or mask.dtype != bool:
            raise ValueError(f"masks are bool (S, H, W), not {mask.dtype} {mask.shape}")
        first, last, _ = _level(mask)
        return cls.between(first, last, mask.shape)

    @classmethod
    def between(cls, first: np.ndarray, last: np.ndarray, shape: Shape) -> Runs:
        """From the first to the last of each of these indices in the flattened mask; neighbours become one run."""
        starts, stops = _positions(first, shape), _positions(last, shape) + 1
        gap = np.ones(len(starts) + 1, bool)
        np.not_equal(starts[1:], stops[:-1], out=gap[1:-1])
        return cls(shape, starts[gap[:-1]], stops[gap[1:]])

    @property
    def strides(self) -> tuple[int, int]:
        """Steps in the flat grid to the next slice and to the next row."""
        return (self.shape[1] + 1) * (self.shape[2] + 1), self.shape[2] + 1

    @cached_property
    def lengths(self) -> np.ndarray:
        """Voxels of each run."""
        return self.stops - self.starts

    @cached_property
    def voxels(self) -> int:
        """Voxels of the mask."""
        return int(self.lengths.sum())

    @property
    def slice_voxels(self) -> np.ndarray:
        """Voxels in each slice, int64 (S,)."""
        return np.bincount(self.first[0], self.lengths, self.shape[0]).astype(np.int64)

    @cached_property
    def first(self) -> np.ndarray:
        """Slice, row and column of the first voxel of each run, int64 (3, r)."""
        plane, line = self.strides
        lines = self.starts // line
        slices = self.starts // plane
        return np.stack([slices - 1, lines - slices * (plane // line), self.starts - lines * line])

    @cached_property
    def last(self) -> np.ndarray:
        """Slice, row and column of the last voxel of each run, int64 (3, r)."""
        last = self.first.copy()
        last[2] += self.lengths - 1
        return last

    def moved(self, corner: np.ndarray, shape: Shape) -> Runs:
        """The same voxels in an array of `shape` whose index `corner` (3,) is here the first."""
        plane, line = (shape[1] + 1) * (shape[2] + 1), shape[2] + 1
        slices, rows, columns = self.first + corner[:, None]
        starts = (slices + 1) * plane + rows * line + columns
        return Runs(shape, starts, starts + self.lengths)

    def dense(self, window: Sequence[slice]) -> np.ndarray:
        """The mask within a window that holds all of it, bool."""
        size = [side.stop - side.start for side in window]
        slices, rows, columns = self.first - np.array([[side.start] for side in window])
        starts = (slices * size[1] + rows) * size[2] + columns
        changes = np.zeros(size[0] * size[1] * size[2] + 1, np.int8)
        changes[starts] = 1
        changes[starts + self.lengths] -= 1
        return np.cumsum(changes[:-1], dtype=np.int8).view(bool).reshape(size)

    @cached_property
    def components(self) -> Components:
        """Components in 3D; voxels that touch at a corner are connected (26 neighbours)."""
        plane, line = self.strides
        return self._joined(
            [self._next_row, self._next_slice, self._meeting(plane - line), self._meeting(plane + line)]
        )

    @cached_property
    def planar_components(self) -> Components:
        """Components within each slice; voxels that touch at a corner are connected (8 neighbours)."""
        return self._joined([self._next_row])

    @cached_property
    def surface(self) -> Surface:
        """The surface of the mask; beyond the array is outside."""
        begins = np.cumsum(self.lengths) - self.lengths
        changes = np.zeros(self.voxels + 1, np.int64)
        for step, pairs in zip(self.strides, (self._next_slice, self._next_row), strict=True):
            self._cover(changes, begins, step, pairs)
        outside = np.cumsum(changes[:-1]) < 4
        outside[begins] = outside[begins + self.lengths - 1] = True
        shown = np.flatnonzero(outside)
        run = np.repeat(np.arange(len(begins)), self.lengths)[shown]
        indices = self.first.take(run, axis=1)
        indices[2] += shown - begins[run]
        return Surface(run, indices)

    def _cover(self, changes: np.ndarray, begins: np.ndarray, step: int, pairs: Pairs) -> None:
        """Count, as changes from voxel to voxel, the neighbours at `step` and at -`step` that are in the mask."""
        low = np.maximum(self.starts[pairs[0]] + step, self.starts[pairs[1]])
        high = np.minimum(self.stops[pairs[0]] + step, self.stops[pairs[1]])
        shared = low < high
        for run, moved in zip(pairs, (step, 0), strict=True):
            run = run[shared]
            place = begins[run] - self.starts[run] - moved
            changes += np.bincount(low[shared] + place, minlength=len(changes))
            changes -= np.bincount(high[shared] + place, minlength=len(changes))

    @cached_property
    def _next_slice(self) -> Pairs:
        return self._meeting(self.strides[0])

    @cached_property
    def _next_row(self) -> Pairs:
        return self._meeting(self.strides[1])

    def _meeting(self, step: int) -> Pairs:
        return _meeting(self.starts + step, self.stops + step, self)

    def _joined(self, links: list[Pairs]) -> Components:
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        one, other = (np.concatenate(side) for side in zip(*links, strict=True))
        graph = coo_array((np.ones(len(one), np.int8), (one, other)), shape=(len(self.starts),) * 2)
        number, of_run = connected_components(graph, directed=False) if len(self.starts) else (0, self.starts)
        return Components(of_run, np.bincount(of_run, self.lengths, number).astype(np.int64))


def shared(one: Runs, other: Runs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs of runs of two masks of one shape that share voxels, and how many: int64 (n,) each."""
    run, other_run = _meeting(one.starts + 1, one.stops - 1, other)
    low = np.maximum(one.starts[run], other.starts[other_run])
    return run, other_run, np.minimum(one.stops[run], other.stops[other_run]) - low


def region_runs(labels: np.ndarray, regions: dict[str, tuple[int, ...]]) -> dict[str, Runs]:
    """Each region, a set of labels, of a label map, uint8 (S, H, W)."""
    first, last, values = _level(labels)
    found = {}
    for region, members in regions.items():
        chosen = np.zeros(256, bool)
        chosen[list(members)] = True
        inside = chosen[values]
        found[region] = Runs.between(first[inside], last[inside], labels.shape)
    return found


def _level(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First and last flat index and the value of all stretches of one value, not 0, within a line."""
    flat = labels.reshape(-1)
    line_starts = np.flatnonzero(labels[..., :1]) * labels.shape[2]
    starts = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    if len(line_starts):
        starts = np.union1d(starts, line_starts)
    values = flat[starts]
    full = values != 0
    return starts[full], np.append(starts[1:], len(flat))[full] - 1, values[full]


def _positions(flat: np.ndarray, shape: Shape) -> np.ndarray:
    """Positions in the flat grid of indices in the flattened array of `shape`."""
    lines = flat // shape[2]
    return flat + lines + (lines // shape[1] + shape[1] + 1) * (shape[2] + 1)


def _meeting(starts: np.ndarray, stops: np.ndarray, others: Runs) -> Pairs:
    """All pairs of stretches and runs of `others` that share a position or lie beside each other."""
    first = np.searchsorted(others.stops, starts, "left")
    number = np.maximum(np.searchsorted(others.starts, stops, "right") - first, 0)
    one = np.repeat(np.arange(len(starts)), number)
    return one, np.arange(len(one)) + np.repeat(first - (np.cumsum(number) - number), number)
