"""How the voxels of a slice stand in a table cell.

A cell holds one plane of H x W voxels for every channel, one after the other. A plane is little-endian and
byte-separated: first the lowest byte of every voxel, then the next, up to the highest (the layout of Parquet's
BYTE_STREAM_SPLIT, which Spark 3.5 cannot read as an encoding). General compressors
find far more in it than in interleaved bytes. Without this module a cell of one dtype is read by

    np.frombuffer(cell, np.uint8).reshape(C, itemsize, H * W).swapaxes(1, 2).copy().view(dtype).reshape(C, H, W)
"""

from collections.abc import Sequence

import numpy as np


def encode(channels: Sequence[np.ndarray]) -> np.ndarray:
    """Cells of N slices from C arrays of shape (N, H, W), each of any dtype: (N, cell bytes) uint8.

    >>> encode([np.array([[[1, 256]]], "<i2")])
    array([[1, 0, 0, 1]], dtype=uint8)
    """
    count = len(channels[0])
    sizes = [channel.dtype.itemsize * channel[0].size for channel in channels]
    cells = np.empty((count, sum(sizes)), np.uint8)
    start = 0
    for channel, size in zip(channels, sizes, strict=True):
        little = np.ascontiguousarray(channel, little_endian(channel.dtype))
        pixels = little.view(np.uint8).reshape(count, -1, channel.dtype.itemsize)
        planes = cells[:, start : start + size].reshape(count, channel.dtype.itemsize, -1)
        planes[...] = pixels.transpose(0, 2, 1)
        start += size
    return cells


def decode(cells: np.ndarray, height: int, width: int, dtypes: Sequence[np.dtype | str]) -> list[np.ndarray]:
    """The inverse of `encode`: C little-endian arrays of shape (N, H, W) from (N, cell bytes) uint8.

    Raises ValueError if the cell size is not what `height`, `width` and `dtypes` ask for.
    """
    kinds = [little_endian(np.dtype(dtype)) for dtype in dtypes]
    wanted = height * width * sum(kind.itemsize for kind in kinds)
    if cells.ndim != 2 or cells.shape[1] != wanted:
        raise ValueError(f"cells of shape {cells.shape} where {height} x {width} of {kinds} take {wanted} bytes each")
    channels = []
    start = 0
    for kind in kinds:
        size = height * width * kind.itemsize
        planes = cells[:, start : start + size].reshape(len(cells), kind.itemsize, -1)
        channels.append(_joined(planes, kind).reshape(len(cells), height, width))
        start += size
    return channels


def _joined(planes: np.ndarray, kind: np.dtype) -> np.ndarray:
    """Values (N, pixels) of byte planes (N, bytes of a value, pixels) uint8."""
    count, size, number = planes.shape
    if size == 2:  # what nearly all scans are, and arithmetic on whole rows is twice as fast as strided copies
        values = np.empty((count, number), "<u2")
        np.left_shift(planes[:, 1], 8, out=values, dtype=np.uint16)
        np.bitwise_or(values, planes[:, 0], out=values)
        return values.view(kind)
    pixels = np.empty((count, number, size), np.uint8)
    # One strided copy per byte is five times as fast as one transposed copy.
    for byte in range(size):
        pixels[..., byte] = planes[:, byte]
    return pixels.view(kind).reshape(count, number)


def little_endian(dtype: np.dtype) -> np.dtype:
    """The same dtype in little-endian byte order."""
    return dtype.newbyteorder("<")
