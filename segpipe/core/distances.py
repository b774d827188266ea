"""The greater of two directions' percentiles of distances, exactly, without asking for every distance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np

_BALL = 350
_STEPS = 30
_LEAST_SHARE = 0.12
_CELLS = (16, 4, 2, 1)
_ROUNDING_MM = 1e-9


def hausdorff_percentile_mm(
    one: np.ndarray, other: np.ndarray, spacing_mm: Sequence[float], percent: float = 95
) -> float:
    """The percentile (linear interpolation) of the distances from each point to the nearest of the other set, mm.

    >>> one, other = np.array([[0, 0], [0, 0], [0, 5]]), np.array([[0], [0], [1]])
    >>> hausdorff_percentile_mm(one, other, (1.0, 1.0, 0.5), 100)
    2.0

    Both sets are indices, int64 (3, n), and not empty; of the two directions the greater percentile counts. Most points
    of two surfaces are near, and are looked up within a ball. Of the far ones only those are asked for that may stand
    where the percentile looks, and the second direction only until it cannot be the greater one.
    """
    wide, narrow = (one, other) if np.ptp(one, axis=1).sum() >= np.ptp(other, axis=1).sum() else (other, one)
    first = _directed_mm(wide, narrow, tuple(spacing_mm), percent, 0.0)
    return max(first, _directed_mm(narrow, wide, tuple(spacing_mm), percent, first))


def _directed_mm(
    points: np.ndarray, others: np.ndarray, spacing_mm: tuple[float, ...], percent: float, floor: float
) -> float:
    """The percentile from each of the points to the others; where it is not above the floor, anything up to that."""
    rank = (points.shape[1] - 1) * percent / 100
    ranks = [int(rank), min(int(rank) + 1, points.shape[1] - 1)]
    least, most = np.zeros(points.shape[1]), np.full(points.shape[1], np.inf)
    if floor <= _ball(spacing_mm)[1][-1]:  # else a few far ones tell as much
        _near(points, others, spacing_mm, ranks[1], least, most)
    if np.count_nonzero(least == most) <= ranks[1]:
        _far(points, others, spacing_mm, ranks, floor, least, most)
    low, high = np.partition(least, ranks)[ranks].tolist()
    return float(low + (high - low) * (rank - ranks[0]))


def _near(
    points: np.ndarray,
    others: np.ndarray,
    spacing_mm: tuple[float, ...],
    last: int,
    least: np.ndarray,
    most: np.ndarray,
) -> None:
    """Narrow `least` and `most`, mm, in place: both are the distance itself for points within the ball.

    It ends as soon as the distances up to rank `last` are known, or few more points are found.
    """
    ball, ball_mm = _ball(spacing_mm)
    margin = ball.max(axis=1, keepdims=True)
    low = np.maximum(points.min(axis=1), others.min(axis=1))[:, None] - margin
    high = np.minimum(points.max(axis=1), others.max(axis=1))[:, None] + margin
    left = np.flatnonzero(_within(points, low, high))
    if len(left) <= last:
        return
    size = (high - low + 1 + 2 * margin)[:, 0].tolist()
    grid = np.zeros(math.prod(size), bool)
    grid[_flat(others.compress(_within(others, low, high), axis=1) - low + margin, size)] = True
    at = _flat(points.take(left, axis=1) - low + margin, size)
    steps, shells = _flat(ball, size).tolist(), np.flatnonzero(np.diff(ball_mm, prepend=-1, append=np.inf)).tolist()
    known, hoped = 0, _LEAST_SHARE * len(left)
    for start, stop in pairwise(shells):
        hit, distance = grid[at + steps[start]], ball_mm[start]
        for step in steps[start + 1 : stop]:
            hit |= grid[at + step]
        found = left[hit]
        least[found] = most[found] = distance
        at, left = at[~hit], left[~hit]
        known += len(found)
        if known > last:
            break
        if stop // _STEPS > start // _STEPS:
            if known < hoped:
                break
            hoped = known + _LEAST_SHARE * len(left)
    least[most > distance] = distance


def _within(points: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    inside = (points >= low) & (points <= high)
    return inside[0] & inside[1] & inside[2]


def _flat(indices: np.ndarray, size: Sequence[int]) -> np.ndarray:
    return (indices[0] * size[1] + indices[1]) * size[2] + indices[2]


@lru_cache(maxsize=16)
def _ball(spacing_mm: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """About `_BALL` steps (3, m), all that are no longer than the last one, by length, and their lengths (m,), mm."""
    spacing = np.array(spacing_mm)
    radius = (_BALL * spacing.prod() * 0.75 / np.pi) ** (1 / 3)
    sides = [np.arange(-most, most + 1) for most in (radius / spacing).astype(int).tolist()]
    steps = np.stack(np.meshgrid(*sides, indexing="ij")).reshape(3, -1)
    lengths = _length(steps * spacing[:, None])
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] <= radius]
    return steps.take(order, axis=1), lengths[order]


def _far(
    points: np.ndarray,
    others: np.ndarray,
    spacing_mm: Sequence[float],
    ranks: list[int],
    floor: float,
    least: np.ndarray,
    most: np.ndarray,
) -> None:
    """Narrow `least` and `most`, in place, until they are the distance at both ranks, or those are not above the floor.

    A distance differs between two points by no more than they are apart: one point of each cell bounds its others,
    and those whose bounds exclude the ranks are not asked for.
    """
    from scipy.spatial import cKDTree

    spacing = np.asarray(spacing_mm)[:, None]
    places = points * spacing
    tree = cKDTree((others * spacing).T, balanced_tree=False, compact_nodes=False)
    for cell in _CELLS:
        low, high = np.partition(least, ranks[0])[ranks[0]], np.partition(most, ranks[1])[ranks[1]]
        if high <= floor:
            return
        asked = np.flatnonzero((least < most) & (least <= high) & (most >= low))
        first, of = _cells(points.take(asked, axis=1), cell)
        ones = asked[first]
        known = tree.query(places.take(ones, axis=1).T)[0]
        apart = _length(places.take(asked, axis=1) - places.take(ones[of], axis=1)) + _ROUNDING_MM
        least[asked] = np.maximum(least[asked], known[of] - apart)
        most[asked] = np.minimum(most[asked], known[of] + apart)
        least[ones] = most[ones] = known


def _length(vectors: np.ndarray) -> np.ndarray:
    return np.sqrt(vectors[0] ** 2 + vectors[1] ** 2 + vectors[2] ** 2)


def _cells(points: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """A point of each cell of `side` voxels that has one, and for each point the place of its cell among these."""
    cells = points // side
    cells -= cells.min(axis=1, initial=0, keepdims=True)
    numbers = _flat(cells, (cells.max(axis=1, initial=0) + 1).tolist())
    _, first, of = np.unique(numbers, return_index=True, return_inverse=True)
    return first, of
