"""Parquet files that tell when they are damaged: a checksum in every page, and one over the footer.

Parquet's page checksums (CRC-32 of the compressed page, parquet-format's README, "Checksumming") say nothing of the
footer, whose statistics decide what a reader looks at. So the footer holds its own SHA-256, taken while the place of
the digest is filled with zeros. Other readers see one more entry of the file's metadata.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import stat
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem
from fsspec.implementations.arrow import ArrowFSWrapper

from segpipe.errors import SegpipeError, TableError
from segpipe.storage.filesystem import is_local, names
from segpipe.storage.s3 import refusal

FOOTER = b"segpipe.footer"
"""Key of the footer's metadata that holds its own digest."""

REPLACED = "_replaced"
"""The folder of a warehouse where parts stay for a while that others stand for now, see segpipe.warehouse.merges."""

_EMPTY = b"0" * 64
_MAGIC = b"PAR1"
_TAIL = 1 << 16  # footers of most parts are smaller: one read
_MOST_FOOTERS = 1000  # that a dataset keeps, some 0.2 MB each: a second question then costs a third less
_REMEDY = "run `verify`, which names all damaged parts, put them back from a copy, or ingest them into a new warehouse"


class Writer:
    """Write a Parquet file with both kinds of checksums; `options` are those of pyarrow's ParquetWriter."""

    def __init__(self, file: Any, schema: pa.Schema, **options: Any):
        self.schema = schema
        self._sink = _Sink(file)
        self._writer = pq.ParquetWriter(self._sink, schema, write_page_checksum=True, **options)

    def write_table(self, rows: pa.Table, row_group_size: int | None = None) -> None:
        """Append rows, in row groups of at most `row_group_size` rows."""
        self._writer.write_table(rows, row_group_size)

    def close(self) -> None:
        """Write the footer; the file itself stays open."""
        try:
            self._writer.add_key_value_metadata({FOOTER: _EMPTY})
            self._sink.hold()
            self._writer.close()
            self._sink.release()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Write nothing more: pyarrow would try to end the file when it lets go of it, and tell how that failed too."""
        self._writer.is_open = False

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()


class _Sink(io.RawIOBase):
    """Passes bytes on to a file; those of the footer are held back until its digest stands in them."""

    def __init__(self, file: Any):
        super().__init__()
        self._file = file
        self._place = 0
        self._held: list[bytes] | None = None

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def write(self, data: Any) -> int:
        if self._held is None:
            self._file.write(data)
        else:
            self._held.append(bytes(data))
        self._place += len(data)
        return len(data)

    def hold(self) -> None:
        self._held = []

    def release(self) -> None:
        held, self._held = b"".join(self._held or []), None
        start = len(held) - 8 - int.from_bytes(held[-8:-4], "little")
        self._file.write(held[:start] + _sealed(held[start:]))


def _sealed(footer: bytes) -> bytes:
    place = footer.rindex(_EMPTY, footer.rindex(FOOTER))
    return footer[:place] + _digest(footer) + footer[place + len(_EMPTY) :]


def _digest(footer: bytes) -> bytes:
    return hashlib.sha256(footer).hexdigest().encode()


def read_metadata(fs: AbstractFileSystem, path: str) -> pq.FileMetaData:
    """What the footer of a file says, after its digest was compared; one that an earlier version wrote has none.

    Raises TableError if the file is damaged, and FileNotFoundError.
    """
    with _opened(fs, path) as file:
        return _metadata(file, path)


def whereabouts(fs: AbstractFileSystem, path: str) -> str:
    """Where the file of a part is: in its table, or, when it was replaced not long ago, aside."""
    return path if f"/{REPLACED}/" in path or fs.exists(path) else _aside(path)


def _aside(path: str) -> str:
    root, table, name = path.rsplit("/", 2)
    return f"{root}/{REPLACED}/{table}/{name}"


def _opened(fs: AbstractFileSystem, path: str) -> Any:
    """The file of a part; whoever planned to read one that has been replaced since finds it aside.

    Local files are opened by Arrow itself, whose reads need no Python.
    """
    try:
        return _open(fs, path)
    except FileNotFoundError:
        try:
            return _open(fs, _aside(path))
        except FileNotFoundError:
            pass
        raise


def _open(fs: AbstractFileSystem, path: str) -> Any:
    if not is_local(fs):
        return fs.open(path, "rb")
    if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for, for ever
        raise _damaged(path, "it is no file")
    return pa.OSFile(path, "rb")


def is_sealed(metadata: pq.FileMetaData) -> bool:
    """Whether a file has checksums: those that earlier versions wrote have none."""
    return FOOTER in (metadata.metadata or {})


def _metadata(file: Any, where: str) -> pq.FileMetaData:
    with _arrow(where):
        footer, _ = _footer(file, where)
        metadata = pq.read_metadata(pa.BufferReader(_MAGIC + footer))
    _check_digest(footer, metadata, where)
    return metadata


def _footer(file: Any, where: str) -> tuple[bytes, int]:
    """The footer of an open file, with its length and the magic number behind it, and the size of the file."""
    file.seek(0, io.SEEK_END)
    size = int(file.tell())
    file.seek(max(0, size - _TAIL))
    tail = file.read(_TAIL)
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if tail[-4:] != _MAGIC or length > size:
        raise _damaged(where, "it has no Parquet footer")
    if length > len(tail):
        file.seek(size - length)
        tail = file.read(length)
    return tail[-length:], size


def _check_digest(footer: bytes, metadata: pq.FileMetaData, where: str) -> None:
    written = (metadata.metadata or {}).get(FOOTER)
    if written is not None and (footer.count(written) != 1 or _digest(footer.replace(written, _EMPTY)) != written):
        raise _damaged(where, "its footer is not the one that was written")


class Reader:
    """A part that is open; whatever is damaged in what is read raises TableError."""

    def __init__(self, file: Any, where: str):
        self.where = where
        with _arrow(where):
            footer, self._size = _footer(file, where)
            file.seek(0)
            # the footer is taken apart once: that is most of the work of opening a small part
            self._parquet = pq.ParquetFile(file, page_checksum_verification=True)
        self.metadata = self._parquet.metadata
        _check_digest(footer, self.metadata, where)

    @property
    def schema(self) -> pa.Schema:
        """Its Arrow schema."""
        return self._parquet.schema_arrow

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._size

    @property
    def row_groups(self) -> int:
        """How many row groups there are."""
        return int(self.metadata.num_row_groups)

    def row_group(self, number: int, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of one row group."""
        with _arrow(self.where):
            return self._parquet.read_row_group(number, columns and list(columns), use_threads=False)

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows."""
        with _arrow(self.where):
            return self._parquet.read(columns and list(columns), use_threads=False)

    def close(self) -> None:
        """Let go of pyarrow's side of the file."""
        self._parquet.close()


@contextlib.contextmanager
def open_part(fs: AbstractFileSystem, path: str) -> Iterator[Reader]:
    """A part, open for reading. Raises TableError if its footer is damaged, and FileNotFoundError."""
    with _opened(fs, path) as file:
        reader = Reader(file, path)
        try:
            yield reader
        finally:
            reader.close()


@contextlib.contextmanager
def _arrow(where: str) -> Iterator[None]:
    """Turn what Arrow says of broken content into TableError; faults of the file system stay what they are.

    What an object store refuses is a StorageError, because Arrow reports it without an errno, like broken content.
    """
    try:
        yield
    except (SegpipeError, FileNotFoundError):  # Arrow and HDFS tell of a missing file without an errno
        raise
    except OSError as error:
        if refused := refusal(where, error):
            raise refused from None
        if error.errno not in (None, errno.EIO):  # a sector that cannot be read damages its part alone
            raise
        raise _damaged(where, str(error)) from error
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise _damaged(where, str(error)) from error


def _damaged(where: str, why: str) -> TableError:
    return TableError(f"{where} is damaged ({' '.join(why.split())[:200]})", _REMEDY)


class Dataset(ds.FileSystemDataset):
    """A dataset whose damaged pages raise TableError when they are read as a table.

    Without `threads`, as on a file system that is written in Python, Arrow uses none of its own: these may still let go
    of a Python file while the interpreter ends, which aborts the process, so that a job which has done all it should
    would end with 134.
    """

    threads = True
    fs: AbstractFileSystem | None = None
    """Where the files are, to look for those that were moved aside since the dataset was made."""
    condition: pc.Expression | None = None
    """What rows were asked for by `filter`."""

    def filter(self, expression: pc.Expression) -> Dataset:
        """The same parts, of whose rows only those are read that fit, as `pyarrow.dataset.Dataset.filter`."""
        found = super().filter(expression)
        found.threads, found.fs = self.threads, self.fs
        found.condition = expression if self.condition is None else self.condition & expression
        return found

    def sort_by(self, sorting: str | list[tuple[str, str]], **options: Any) -> ds.InMemoryDataset:
        """The rows in order, in memory, as `pyarrow.dataset.Dataset.sort_by`."""
        return ds.InMemoryDataset(self.to_table().sort_by(sorting, **options))

    def _at(self, paths: Sequence[str]) -> Dataset:
        """This dataset with its files at other paths."""
        assert self.fs is not None, "a dataset that looks for its files knows their file system"
        found = dataset(self.fs, paths, self.schema)
        return found if self.condition is None else found.filter(self.condition)

    def scanner(self, *arguments: Any, **options: Any) -> ds.Scanner:
        """How all that reads the dataset begins, DuckDB too: at the files as they are named now."""
        now = self._now()
        if now is not self:
            return now.scanner(*arguments, **options)
        if not self.threads:
            options |= {"use_threads": False}
        if len(self.files) > _MOST_FOOTERS:
            options |= {"cache_metadata": False}
        return super().scanner(*arguments, **options)

    def to_table(self, *arguments: Any, **options: Any) -> pa.Table:
        with _arrow(self.files[0].rpartition("/")[0] if self.files else "a table"):
            return self._asked("to_table", *arguments, **options)

    def count_rows(self, *arguments: Any, **options: Any) -> int:
        return int(self._asked("count_rows", *arguments, **options))

    def head(self, *arguments: Any, **options: Any) -> pa.Table:
        return self._asked("head", *arguments, **options)

    def _now(self) -> Dataset:
        """This dataset, or one that knows which of its parts were moved aside, for one listing of their folder."""
        if self.fs is None or not self.files:
            return self
        places = [path.rpartition("/") for path in self.files]
        there = {folder: set(names(self.fs, folder)) for folder in {folder for folder, _, _ in places}}
        moved = [
            path if name in there[folder] else whereabouts(self.fs, path)
            for path, (folder, _, name) in zip(self.files, places, strict=True)
        ]
        return self if moved == self.files else self._at(moved)

    def _asked(self, method: str, *arguments: Any, **options: Any) -> Any:
        try:
            return getattr(ds.FileSystemDataset, method)(self, *arguments, **options)
        except FileNotFoundError:
            moved = [whereabouts(self.fs, path) for path in self.files] if self.fs is not None else self.files
            if moved == self.files:
                raise
        # a file is moved aside once and never back, so this ends
        return self._at(moved)._asked(method, *arguments, **options)


def dataset(fs: AbstractFileSystem, paths: Sequence[str], schema: pa.Schema) -> Dataset:
    """Parts as a dataset whose pages are verified; those that are moved aside meanwhile are found there.

    Raises FileNotFoundError if one is in neither place.
    """
    system = _arrows_own(fs) or fs
    form = ds.ParquetFileFormat(
        default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    )
    try:
        plain = ds.dataset(list(paths), schema=schema, filesystem=system, format=form)
    except FileNotFoundError:
        plain = ds.dataset([whereabouts(fs, path) for path in paths], schema=schema, filesystem=system, format=form)
    found = Dataset(list(plain.get_fragments()), plain.schema, plain.format, filesystem=plain.filesystem)
    found.threads, found.fs = system is not fs, fs
    return found


def _arrows_own(fs: AbstractFileSystem) -> pafs.FileSystem | None:
    """Arrow's own file system for the same files, which reads without Python and with threads; None if it has none."""
    if is_local(fs):
        return pafs.LocalFileSystem()
    return fs.fs if isinstance(fs, ArrowFSWrapper) else None
