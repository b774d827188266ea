"""Slices with their neighbours as further channels, for a 2D network that is shown what lies above and below (2.5D).

A slice alone does not tell whether a bright spot goes on in the next. The neighbours come in the order of the slices:
channels of the one before, of the slice itself, of the one behind.
"""

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np

SHOWN = 3
"""Slices that such a network sees for each that it segments."""

Planes = list[np.ndarray]


def around(index: int, distance: int, count: int) -> list[int]:
    """The slice, of `count`, with those `distance` before and behind it; beyond the last, the last again.

    >>> around(3, 2, 5), around(0, 2, 5)
    ([1, 3, 4], [0, 0, 2])
    """
    return [max(index - distance, 0), index, min(index + distance, count - 1)]


def as_channels(stack: np.ndarray) -> np.ndarray:
    """Slices (K, H, W, C) as one image (H, W, K C), the channels of one slice after those of another.

    >>> as_channels(np.arange(6).reshape(3, 1, 1, 2)).tolist()
    [[[0, 1, 2, 3, 4, 5]]]
    """
    slices, height, width, channels = stack.shape
    return np.moveaxis(stack, 0, 2).reshape(height, width, slices * channels)


def with_neighbours(slices: Iterable[tuple[int, Planes]], distance: int) -> Iterator[tuple[int, Planes, Planes]]:
    """Each slice of a scan, its own planes, and those of `around`: it looks `distance` slices ahead and no further.

    The slices come in the order of their places.

    >>> slices = [(place, [np.array(place)]) for place in range(4)]
    >>> [(place, [int(plane) for plane in shown]) for place, _, shown in with_neighbours(slices, 1)]
    [(0, [0, 0, 1]), (1, [0, 1, 2]), (2, [1, 2, 3]), (3, [2, 3, 3])]
    """
    held: deque[tuple[int, Planes]] = deque()
    place = 0  # in `held`, of the slice that waits for the one behind it
    for one in slices:
        held.append(one)
        if len(held) - 1 - place == distance:
            yield _shown(held, place, distance)
            place += 1
            if place > distance:
                held.popleft()
                place -= 1
    for last in range(place, len(held)):
        yield _shown(held, last, distance)


def _shown(held: deque[tuple[int, Planes]], place: int, distance: int) -> tuple[int, Planes, Planes]:
    index, own = held[place]
    shown = [plane for near in around(place, distance, len(held)) for plane in held[near][1]]
    return index, own, shown
