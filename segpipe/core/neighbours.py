"""Slices with their neighbours as further channels, for a 2D network that is shown what lies above and below (2.5D).

A slice alone does not tell whether a bright spot goes on in the next. The neighbours come in the order of the slices:
channels of the one before, of the slice itself, of the one behind.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

Planes = list[np.ndarray]


def slices_shown(distance: int) -> int:
    """How many slices a network is shown to segment one; at a distance of 0 that slice alone."""
    return 3 if distance else 1


def around(index: int, distance: int, count: int) -> list[int]:
    """The `slices_shown`, of `count`, to segment one: it, and those before and behind; beyond the last, the last again.

    >>> around(3, 2, 5), around(0, 2, 5), around(3, 0, 5)
    ([1, 3, 4], [0, 0, 2], [3])
    """
    return [max(index - distance, 0), index, min(index + distance, count - 1)] if distance else [index]


def as_channels(stack: np.ndarray) -> np.ndarray:
    """Slices (K, H, W, C) as one image (H, W, K C), the channels of one slice after those of another.

    >>> as_channels(np.arange(6).reshape(3, 1, 1, 2)).tolist()
    [[[0, 1, 2, 3, 4, 5]]]
    """
    slices, height, width, channels = stack.shape
    return np.moveaxis(stack, 0, 2).reshape(height, width, slices * channels)


def with_neighbours(
    slices: Iterable[tuple[int, Planes]], distance: int, count: int
) -> Iterator[tuple[int, Planes, Planes]]:
    """Each slice of a scan of `count`, its own planes, and those of `around`; it waits for `distance` more, no longer.

    The slices come in their order. One that does not come shows no brain: stored zeros stand for it.

    >>> slices = [(index, [np.array(index)]) for index in (1, 2, 3)]
    >>> [(index, [int(plane) for plane in shown]) for index, _, shown in with_neighbours(slices, 1, 4)]
    [(1, [0, 1, 2]), (2, [1, 2, 3]), (3, [2, 3, 3])]
    """
    held: dict[int, Planes] = {}
    waiting: deque[int] = deque()
    for index, planes in slices:
        held[index] = planes
        waiting.append(index)
        while waiting and waiting[0] + distance <= index:
            yield _shown(held, waiting.popleft(), distance, count)
        first = (waiting[0] if waiting else index) - distance
        held = {near: each for near, each in held.items() if near >= first}
    for index in waiting:
        yield _shown(held, index, distance, count)


def _shown(held: Mapping[int, Planes], index: int, distance: int, count: int) -> tuple[int, Planes, Planes]:
    own = held[index]
    near = [held.get(one) or [np.zeros_like(plane) for plane in own] for one in around(index, distance, count)]
    return index, own, [plane for planes in near for plane in planes]
