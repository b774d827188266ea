"""Rows of `slices`: from the arrays of a scan to row groups, and back, a row group at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from fsspec import AbstractFileSystem

from segpipe.core import codec
from segpipe.errors import TableError
from segpipe.warehouse import checked
from segpipe.warehouse.tables import SLICES

_KEYS = ("scan_id", "subject", "split", "slice_index", "height", "width", "dtypes", "mask_dtype")
MOST_SLICE_BYTES = 1 << 30
"""Of a slice's voxels: a cell of a table takes no more than twice that."""

COUNTS = ("foreground_pixels", "brain_pixels")
COLUMNS = (*_KEYS, "image", "mask", *COUNTS)


@dataclass(frozen=True, eq=False)
class StoredSlices:
    """N slices of one scan, as they were stored.

    `image` has one array (N, H, W) per channel, each of its own dtype; `mask` is (N, H, W) or None without labels;
    `slice_index`, `foreground_pixels` and `brain_pixels` are (N,) int32. Columns that were not asked for are None.
    """

    scan_id: str
    subject: str
    split: str
    slice_index: np.ndarray
    image: list[np.ndarray] | None
    mask: np.ndarray | None
    foreground_pixels: np.ndarray | None
    brain_pixels: np.ndarray | None

    def __len__(self) -> int:
        return len(self.slice_index)


def row_groups(
    identity: Mapping[str, str],
    images: Sequence[np.ndarray],
    mask: np.ndarray | None,
    brain: np.ndarray,
    group_bytes: int,
) -> Iterator[pa.RecordBatch]:
    """The `slices` rows of one scan, in batches of at most `group_bytes` of cells, or of one slice.

    `identity` has scan_id, cohort, subject, split; `images` are C arrays (S, H, W), each of its own dtype; `mask` is
    (S, H, W) of any dtype or None; `brain` is (S, H, W) bool. Raises ValueError for slices of more than
    MOST_SLICE_BYTES, before anything is copied.
    """
    slices, height, width = images[0].shape
    pixel_bytes = sum(channel.dtype.itemsize for channel in images) + (0 if mask is None else mask.dtype.itemsize)
    if height * width * pixel_bytes > MOST_SLICE_BYTES:
        raise ValueError(f"a slice of {height} x {width} takes {height * width * pixel_bytes} bytes")
    step = max(1, min(group_bytes, MOST_SLICE_BYTES) // (height * width * pixel_bytes))
    for start in range(0, slices, step):
        part = slice(start, min(start + step, slices))
        yield _rows(
            identity, [channel[part] for channel in images], None if mask is None else mask[part], brain[part], start
        )


def stream(
    path: str,
    fs: AbstractFileSystem,
    row_groups: Sequence[int] | None = None,
    columns: Sequence[str] | None = None,
) -> Iterator[StoredSlices]:
    """The slices of a part file, one row group after the other in the given order, all of them when None.

    `columns` may leave out `image`, `mask`, `foreground_pixels` or `brain_pixels` (None: all are read). Raises
    TableError if a column is missing, a cell has another size than its row says, or a subject is in two splits.
    """
    wanted = [name for name in COLUMNS if name in _KEYS or columns is None or name in columns]
    with checked.open_part(fs, path) as parquet:
        SLICES.check(parquet.schema, path)
        splits: dict[str, str] = {}
        for group in range(parquet.row_groups) if row_groups is None else row_groups:
            for batch in decode(parquet.row_group(group, wanted), path):
                if splits.setdefault(batch.subject, batch.split) != batch.split:
                    raise TableError(
                        f"Subject {batch.subject} spans the splits {splits[batch.subject]} and {batch.split} in {path}",
                        "put the cohort back as ingest wrote it, or ingest it into a new warehouse",
                    )
                yield batch


def decode(rows: pa.Table, where: str) -> Iterator[StoredSlices]:
    """Rows of `slices` as arrays: one batch for every run of rows that share their scan, size and dtypes."""
    keys = rows.select([name for name in _KEYS if name != "slice_index"]).to_pylist()
    starts = [i for i, key in enumerate(keys) if i == 0 or key != keys[i - 1]]
    for start, stop in zip(starts, [*starts[1:], len(keys)], strict=True):
        yield _decode_run(rows.slice(start, stop - start).combine_chunks(), keys[start], where)


def _rows(
    identity: Mapping[str, str], images: list[np.ndarray], mask: np.ndarray | None, brain: np.ndarray, first: int
) -> pa.RecordBatch:
    count, height, width = images[0].shape
    dtypes = [codec.little_endian(channel.dtype).str for channel in images]
    columns = {
        **{name: pa.repeat(identity[name], count) for name in ("scan_id", "cohort", "subject", "split")},
        "slice_index": pa.array(np.arange(first, first + count, dtype=np.int32)),
        "height": pa.repeat(pa.scalar(height, pa.int32()), count),
        "width": pa.repeat(pa.scalar(width, pa.int32()), count),
        "dtypes": pa.array([dtypes] * count, pa.list_(pa.string())),
        "image": cells_of(codec.encode(images)),
        "mask_dtype": pa.nulls(count, pa.string()),
        "mask": pa.nulls(count, pa.binary()),
        "foreground_pixels": pa.array(np.zeros(count, np.int32)),
        "brain_pixels": _count(brain),
    }
    if mask is not None:
        columns["mask_dtype"] = pa.repeat(codec.little_endian(mask.dtype).str, count)
        columns["mask"] = cells_of(codec.encode([mask]))
        columns["foreground_pixels"] = _count(mask != 0)
    return pa.RecordBatch.from_arrays([columns[name] for name in SLICES.schema.names], schema=SLICES.schema)


def _count(pixels: np.ndarray) -> pa.Array:
    """The number of set pixels of each slice."""
    return pa.array(np.array([np.count_nonzero(one) for one in pixels], np.int32))


def cells_of(cells: np.ndarray) -> pa.Array:
    """A binary column over the memory of `cells`, (N, bytes) uint8, without a copy; both below 2 GiB."""
    count, size = cells.shape
    offsets = np.arange(count + 1, dtype=np.int32) * np.int32(size)
    return pa.Array.from_buffers(pa.binary(), count, [None, pa.py_buffer(offsets), pa.py_buffer(cells)])


def _decode_run(rows: pa.Table, key: dict, where: str) -> StoredSlices:
    names = rows.column_names
    size = (key["height"], key["width"])
    image = mask = None
    try:
        if "image" in names:
            image = codec.decode(_bytes(rows["image"]), *size, key["dtypes"])
        if "mask" in names and key["mask_dtype"] is not None:
            mask = codec.decode(_bytes(rows["mask"]), *size, [key["mask_dtype"]])[0]
    except ValueError as error:
        raise TableError(
            f"Slices of {key['scan_id']} in {where} are damaged ({error})", "ingest the scan again"
        ) from error
    counts = {name: rows[name].to_numpy() if name in names else None for name in COUNTS}
    return StoredSlices(
        key["scan_id"], key["subject"], key["split"], rows["slice_index"].to_numpy(), image, mask, **counts
    )


def _bytes(column: pa.ChunkedArray) -> np.ndarray:
    """A binary column whose cells have one size, as (N, size) uint8, without a copy where it is one chunk."""
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    _, offsets_buffer, data = array.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int32)[array.offset : array.offset + len(array) + 1]
    sizes = np.diff(offsets)
    if array.null_count or (sizes != sizes[0]).any():
        raise ValueError("cells of different sizes or none where a slice should be")
    return np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]].reshape(len(array), -1)
