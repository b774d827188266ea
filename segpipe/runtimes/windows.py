"""What a 2D network sees of each slice: the window around the brain of its scan, or a smaller one that is enough."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SHARES = 2 / 3, 5 / 6
"""Lengths of the smaller windows, as shares of the one around the whole brain."""


@dataclass(frozen=True)
class Span:
    """One axis of a window: `length` pixels, of which `there` show the slice's pixels `here`."""

    length: int
    there: slice
    here: slice


@dataclass(frozen=True)
class Window:
    """The rows and columns that the network sees of a slice."""

    rows: Span
    columns: Span

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns, also those beyond the slice."""
        return self.rows.length, self.columns.length

    @property
    def bounds(self) -> np.ndarray:
        """The first and behind-last row and column of the window that lie in the slice, (4,) int32."""
        return np.array([end for side in self.there for end in (side.start, side.stop)], np.int32)

    @property
    def here(self) -> tuple[slice, slice]:
        """Where its pixels lie in the slice."""
        return self.rows.here, self.columns.here

    @property
    def there(self) -> tuple[slice, slice]:
        """Where the slice's pixels lie in it."""
        return self.rows.there, self.columns.there


def span(first: int, last: int, limit: int, least: int, multiple: int) -> Span:
    """The span around [first, last) on an axis of `limit` pixels.

    >>> span(70, 170, 240, 96, 16)
    Span(length=112, there=slice(0, 112, None), here=slice(64, 176, None))
    >>> span(0, 50, 80, 96, 16)
    Span(length=96, there=slice(8, 88, None), here=slice(0, 80, None))

    It has `least` pixels, or as many more as it takes in steps of `multiple`; it stays within the slice where the slice
    is large enough.
    """
    length = max(least, -(-(last - first) // multiple) * multiple)
    start = (first + last - length) // 2
    start = min(max(start, 0), limit - length) if length <= limit else (limit - length) // 2
    here = slice(max(start, 0), min(start + length, limit))
    return Span(length, slice(here.start - start, here.stop - start), here)


@dataclass(frozen=True)
class Windows:
    """The windows of a scan's slices: `whole` shows all of its brain, smaller ones what there is of it in a slice.

    A brain is widest in its middle. There are few sizes, because a network is compiled for each. Windows of one size
    have the slice's pixels at the same place.
    """

    whole: Window
    limits: tuple[int, int]
    multiple: int

    @classmethod
    def around(cls, box: Sequence[int], limits: tuple[int, int], crop: Sequence[int], multiple: int) -> Windows:
        """Those of a scan whose brain has the first and behind-last rows and columns `box`, in slices of `limits`.

        `whole` is as large as training's `crop`, or larger where the brain is.
        """
        rows, columns = (span(box[2 * a], box[2 * a + 1], limits[a], crop[a], multiple) for a in (0, 1))
        return cls(Window(rows, columns), limits, multiple)

    def of(self, channels: Sequence[np.ndarray]) -> Window:
        """The smallest window that shows what is not 0 of a slice, `channels` of (H, W); at most `whole`."""
        shown = np.logical_or.reduce([channel[self.whole.here] != 0 for channel in channels])
        rows, columns = (np.flatnonzero(shown.any(axis=axis)) for axis in (1, 0))
        for size in self._smaller() if len(rows) else ():
            found = Window(self._around(rows, 0, size[0]), self._around(columns, 1, size[1]))
            if found.size == size:
                return found
        return self.whole

    def _around(self, places: np.ndarray, axis: int, least: int) -> Span:
        start = self.whole.here[axis].start
        return span(start + int(places[0]), start + int(places[-1]) + 1, self.limits[axis], least, self.multiple)

    def _smaller(self) -> list[tuple[int, int]]:
        """The sizes of smaller windows, the smallest first."""
        rows, columns = (
            [math.ceil(length * share / self.multiple) * self.multiple for share in SHARES]
            for length in self.whole.size
        )
        return list(zip(rows, columns, strict=True))
