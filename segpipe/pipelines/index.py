"""The index of a DICOM archive: folders are listed and headers read in Spark tasks, and what was read is kept.

The driver lists the uppermost folders alone, until there are enough of them for all cores. A task lists what is below
some of them, opens the files that no earlier run has opened in this size and version, and reduces all to series. So the
driver holds series, never files. What tasks keep, below `_index` in the warehouse, is the facts of series, which name
nobody, and keyed hashes of files.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import zlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import segpipe
from segpipe.errors import BadInput, NotFound, Reason
from segpipe.pipelines import attempts
from segpipe.pipelines.attempts import Watch
from segpipe.readers import packed
from segpipe.readers.archive import (
    Archive,
    Entry,
    Listing,
    Rejected,
    is_hidden,
    is_image,
    kind_of,
    members,
    reject,
    unique,
    unread,
    walk_below,
)
from segpipe.readers.dicom_index import Group, Reducer, Series, from_json, merged, to_json
from segpipe.readers.layouts import dicom
from segpipe.readers.series import RULES_VERSION, Options
from segpipe.storage import filesystem as files
from segpipe.storage import url_to_fs
from segpipe.warehouse.store import Store, cohort_slug

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

FOLDER = "_index"
_BUCKETS = 64
_ENOUGH_FOLDERS = 512
_SHARE_FILES = 4000
_READERS = 8
_SAMPLE_FILES, _SAMPLE_FOLDERS, _SAMPLE_OPENED = 64, 64, 8
_STAMP = b"segpipe.index"
_SCHEMA = pa.schema(
    [
        ("unit", pa.string()),
        ("facts", pa.string()),  # null for files that are no DICOM images
        ("files", pa.binary()),  # keyed hashes of path, size and version, 8 bytes each
        ("images", pa.binary()),  # keyed hashes of instances, 8 bytes each
        ("heights", pa.binary()),  # mm, float64; of the frames where there are several in a file
        ("moments", pa.binary()),  # seconds, float64
        ("frames", pa.bool_()),
        ("places", pa.binary()),  # of the files in the unit's listing, uint32
        ("listing", pa.binary()),  # a keyed hash of the whole listing; null where some of its files are broken
    ]
)


@dataclass(frozen=True)
class Unit:
    """A folder to list, with all below it where `deep`; where it holds many files, one of several `shares` of them."""

    folder: str
    deep: bool
    share: int = 0
    shares: int = 1


@dataclass
class Indexed:
    """What tasks found: parts of series, rejected DICOM files, other rejections, the kinds of what is neither, and how
    many files there are, were opened, and are images of another format by their names.
    """

    series: list[Series] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    others: list[Rejected] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    files: int = 0
    opened: int = 0
    images: int = 0

    def add(self, part: Indexed) -> None:
        """Take in what another task found."""
        self.series += part.series
        self.rejected += part.rejected
        self.others += part.others
        self.kinds += part.kinds
        self.files += part.files
        self.opened += part.opened
        self.images += part.images


@dataclass(frozen=True)
class IndexJob:
    """What every task must know."""

    source: str
    warehouse: str
    cohort: str
    secret: bytes = field(repr=False)
    overrides: Mapping[str, str]

    @property
    def stamp(self) -> bytes:
        """Changes with whatever makes kept facts other ones."""
        content = (segpipe.__version__, RULES_VERSION, sorted(self.overrides.items()), hash_of(self.secret, b"key"))
        return hashlib.sha256(repr(content).encode()).digest()


def gather(spark: SparkSession, job: IndexJob, run_id: str) -> Indexed:
    """All DICOM series of an archive, listed and read in tasks; series that have parts elsewhere are put together.

    A file that kills its readers is rejected.
    """
    units = plan(*url_to_fs(job.source))
    buckets: defaultdict[int, list[Unit]] = defaultdict(list)
    for unit in units:
        digest = hash_of(job.secret, repr((unit.folder, unit.deep)).encode())
        buckets[(int.from_bytes(digest[:4], "big") + unit.share) % _BUCKETS].append(unit)
    work = sorted(buckets.items())
    found = Indexed()
    if work:

        def read(one: tuple[int, Sequence[Unit]], watch: Watch) -> Indexed:
            return index_bucket(job, *one, watch)

        for part in attempts.each(spark, Store(job.warehouse), run_id, work, read):
            found.add(part)
    found.series = merged(found.series)
    for one in found.series:
        found.rejected += [dicom.copy_of(first, entry) for entry, first in one.drop_copies()]
    return found


def dicom_listing(job: IndexJob, found: Indexed, options: Options) -> Listing:
    """The listing of an archive that is DICOM alone. Raises NotFound if it is empty."""
    fs, root = url_to_fs(job.source)
    claim = dicom.claimed(dicom.Read(found.series, found.rejected, set()), options)
    scans, twice = unique(claim.scans)
    hidden = [replace(one, is_dicom=True) for one in found.others]  # whose names are beside those of patients
    refused = sorted(found.rejected + hidden + twice, key=lambda one: one.paths)
    if not claim.series and not refused:
        what = f"holds {found.files} files and no DICOM image" if found.files else "is empty"
        raise NotFound(f"Source {job.source} {what}", "name a folder of DICOM files, or another --layout")
    return Listing(
        scans, refused, fs.unstrip_protocol(root), dict(sorted(found.kinds.items())), tuple(claim.told), claim.series
    )


def among(found: Indexed, entries: Iterable[Entry]) -> dicom.Read:
    """What was found, as far as its files are among `entries`: other layouts may have taken some."""
    left = {entry.path for entry in entries}
    series = [one for one in found.series if _file(one.first) in left]
    inside = [replace(one, is_dicom=True) for one in found.others if packed.split(one.paths[0])]
    rejected = [one for one in found.rejected + inside if left.issuperset(map(_file, one.paths))]
    taken = {entry.path for one in series for entry in one.entries()} | {path for one in rejected for path in one.paths}
    return dicom.Read(series, rejected, taken | set(map(_file, taken)))


def _file(path: str) -> str:
    """The file that holds what a path names: of a member its archive."""
    parts = packed.split(path)
    return parts[0] if parts else path


def looks_like_dicom(fs: fsspec.AbstractFileSystem, root: str) -> bool:
    """Whether the uppermost files of an archive are DICOM and none of them is an image of another format.

    A few folders are listed and a few files opened; what it says only chooses where the rest is done.
    """
    found: list[Entry] = []
    level, looked = [""], 0
    while level and len(found) < _SAMPLE_FILES and looked < _SAMPLE_FOLDERS:
        below: list[str] = []
        for folder in level[: _SAMPLE_FOLDERS - looked]:
            looked += 1
            try:
                usable = list(_listed(fs, root, Unit(folder, False))[0].values())
            except OSError:
                continue
            if any(is_image(entry.path) for entry in usable):
                return False
            found += dicom.candidates(usable)
            if len(found) >= _SAMPLE_FILES:
                break
            with contextlib.suppress(OSError):
                below += _glance(fs, root, folder)[0]
        level = below
    archive = Archive(fs, root, {})
    chosen = found[:: max(1, len(found) // _SAMPLE_OPENED)][:_SAMPLE_OPENED]
    return any(dicom.is_dicom(archive, entry) for entry in chosen)


def plan(fs: fsspec.AbstractFileSystem, root: str) -> list[Unit]:
    """The folders to list in tasks: those of the uppermost levels, until there are enough."""
    units: list[Unit] = []
    level = [""]
    while level and len(units) + len(level) < _ENOUGH_FOLDERS:
        below: list[str] = []
        for folder in level:
            try:
                folders, count = _glance(fs, root, folder)
            except OSError:
                if not folder:
                    raise
                folders, count = [], 1  # its task tells that it cannot be listed
            shares = -(-count // _SHARE_FILES)
            units += [Unit(folder, False, share, shares) for share in range(shares)]
            below += folders
        level = below
    return units + [Unit(folder, True) for folder in level]


def _glance(fs: fsspec.AbstractFileSystem, root: str, folder: str) -> tuple[list[str], int]:
    """The folders in a folder, and the number of its files."""
    place = files.join(root, folder) if folder else root
    folders, count = [], 0
    if files.is_local(fs):
        with os.scandir(place) as found:
            for item in found:
                if item.is_dir(follow_symlinks=False):
                    folders.append(item.name)
                else:
                    count += 1
    else:
        for info in fs.ls(place, detail=True):
            if info["type"] == "directory":
                folders.append(info["name"].rstrip("/").rpartition("/")[2])
            else:
                count += 1
    usable = [name for name in sorted(folders) if not is_hidden(f"{name}/")]
    return [f"{folder}/{name}" if folder else name for name in usable], count


def index_bucket(job: IndexJob, bucket: int, units: Sequence[Unit], watch: Watch) -> Indexed:
    """One task: the files of some units, and what is kept of them for the next run."""
    fs, root = url_to_fs(job.source)
    archive = Archive(fs, root, {}, job.secret)
    kept = _Kept.read(job, bucket)
    result = Indexed()
    rows: list[Mapping[str, Any]] = []
    for unit in units:
        entries, rejected = _listed(fs, root, unit)
        result.others += rejected
        result.files += len(entries)
        found = list(_with_members(archive, entries.values(), result, watch))
        rows += _index_unit(job, archive, unit, found, kept, result, watch)
    result.series = merged_parts(result.series)
    if rows != kept.all():
        _Kept.write(job, bucket, rows)
    return result


def merged_parts(parts: Iterable[Series]) -> list[Series]:
    """Parts of one folder's series put together, each under the id that parts elsewhere have too."""
    found: dict[tuple[Any, ...], Series] = {}
    for part in parts:
        same = found.setdefault((part.facts, part.volume), part)
        if same is not part:
            same.add(part)
    return list(found.values())


def _index_unit(
    job: IndexJob,
    archive: Archive,
    unit: Unit,
    entries: Sequence[Entry],
    kept: _Kept,
    result: Indexed,
    watch: Watch,
) -> list[Mapping[str, Any]]:
    """Add the series of a unit's files to `result`; gives the rows to keep."""
    token = hash_of(job.secret, repr(unit).encode()).hex()
    stamp = _stamp(job.secret, entries)
    known = kept.rows.get(token, ())
    if known and all(row["listing"] == stamp for row in known):
        _take_again(known, entries, result)
        return list(known)
    before = len(result.rejected)
    found = list(_index_changed(job, archive, entries, known, result, watch))
    place_of = {entry.path: place for place, entry in enumerate(entries)}
    for row, of in found:
        row["unit"] = token
        row["places"] = np.array([place_of[entry.path] for entry in of], np.uint32).tobytes()
        row["listing"] = stamp if len(result.rejected) == before else None  # what is broken is told in every run
    return [row for row, _ in found]


def _take_again(rows: Iterable[Mapping[str, Any]], entries: Sequence[Entry], result: Indexed) -> None:
    """Add what is known of files that are all as they were."""
    others = _Others(result)
    is_left = np.ones(len(entries), np.bool_)
    for row in rows:
        places = np.frombuffer(row["places"], np.uint32)
        if row["facts"] is not None:
            found = [entries[place] for place in places.tolist()]
            result.series.append(_series(row, found))
            others.is_dicom(found)
            is_left[places] = False
    for place in np.flatnonzero(is_left).tolist():
        others.add(entries[place])
    others.tell()


def _index_changed(
    job: IndexJob,
    archive: Archive,
    entries: Sequence[Entry],
    known: Iterable[Mapping[str, Any]],
    result: Indexed,
    watch: Watch,
) -> Iterator[tuple[dict[str, Any], list[Entry]]]:
    """Add the series of files of which some are new; gives the rows to keep, each with its files."""
    by_key = {_file_key(job.secret, entry): entry for entry in entries}
    reducer = Reducer(job.secret, job.overrides)
    others = _Others(result)
    yield from _take_unchanged(known, by_key, reducer, others, result)
    key_of = {entry.path: key for key, entry in by_key.items()}
    no_dicom = _read(archive, by_key.values(), reducer, others, result, watch)
    for group in reducer.groups():
        result.series.append(Series.of(group.facts, group.members, group.heights))
        members = [member.entry for member in group.members]
        yield _kept_row(group, b"".join(key_of[entry.path] for entry in members)), members
    others.tell()
    if no_dicom:
        row = dict.fromkeys(("facts", "images", "heights", "moments"))
        yield {**row, "files": b"".join(key_of[entry.path] for entry in no_dicom), "frames": False}, no_dicom


def _take_unchanged(
    known: Iterable[Mapping[str, Any]], by_key: dict[bytes, Entry], reducer: Reducer, others: _Others, result: Indexed
) -> Iterator[tuple[dict[str, Any], list[Entry]]]:
    """Add the series of which all files are as they were, and take these files out of `by_key`; their rows and files.

    Of files that are no DICOM images, each counts by itself.
    """
    for row in known:
        keys = [row["files"][place : place + 8] for place in range(0, len(row["files"]), 8)]
        if row["facts"] is None:
            there = [key for key in keys if key in by_key]
            found = [by_key.pop(key) for key in there]
            for entry in found:
                others.add(entry)
            if found:
                yield {**row, "files": b"".join(there)}, found
        elif all(key in by_key for key in keys):
            found = [by_key.pop(key) for key in keys]
            result.series.append(_series(row, found))
            others.is_dicom(found)
            for image, entry in zip(np.frombuffer(row["images"], ">u8").tolist(), found, strict=True):
                reducer.know(image, entry)
            yield dict(row), found


def _read(
    archive: Archive, entries: Collection[Entry], reducer: Reducer, others: _Others, result: Indexed, watch: Watch
) -> list[Entry]:
    """Read the headers of files and give them to `reducer`; those that were looked into and are no DICOM images."""
    look = dicom.candidates(entries)
    names = {id(entry) for entry in look}
    for entry in entries:
        if id(entry) not in names:
            others.add(entry)
    result.opened += len(look)
    no_dicom: list[Entry] = []
    for entry, header in _looked(archive, look, watch):
        if header is None:
            no_dicom.append(entry)
            others.add(entry)
            continue
        others.is_dicom([entry])
        refused = header if isinstance(header, Rejected) else dicom.add(reducer, *header)
        if refused is not None:
            result.rejected.append(refused)
    return no_dicom


def _kept_row(group: Group, file_keys: bytes) -> dict[str, Any]:
    """What is kept of a part of a series, whose files have these keys, for the next run."""
    return {
        "facts": to_json(group.facts),
        "files": file_keys,
        "images": np.array([member.image for member in group.members], ">u8").tobytes(),
        "heights": np.array(group.heights or [member.height for member in group.members]).tobytes(),
        "moments": np.array([np.nan if one.moment is None else one.moment for one in group.members]).tobytes(),
        "frames": bool(group.heights),
    }


def _with_members(archive: Archive, entries: Iterable[Entry], result: Indexed, watch: Watch) -> Iterator[Entry]:
    """The files, and after each zip or tar archive those in it."""
    for entry in entries:
        yield entry
        if packed.is_packed(entry.path) and entry.bytes:
            deadly = _deadly(archive, entry, watch)
            inside, rejected = ([], [deadly]) if deadly else members(archive, entry)
            result.files += len(inside)
            result.rejected += rejected
            yield from inside


class _Others:
    """Files that are no DICOM images. An archive without DICOM is told as one file, as it is where nobody looks in."""

    def __init__(self, result: Indexed):
        self._result = result
        self._files: list[Entry] = []
        self._archives = {one.paths[0] for one in result.rejected if packed.is_packed(one.paths[0])}

    def add(self, entry: Entry) -> None:
        self._files.append(entry)

    def is_dicom(self, entries: Iterable[Entry]) -> None:
        """Note the archives that these DICOM files are in."""
        inside = [one.path for one in entries if packed.MARK in one.path]
        self._archives |= {parts[0] for path in inside if (parts := packed.split(path)) is not None}

    def tell(self) -> None:
        """Count the files by kind, and reject images of kinds that are not read."""
        for entry in self._files:
            parts = packed.split(entry.path)
            self._result.images += parts is None and is_image(entry.path)
            if entry.path not in self._archives and (parts is None or parts[0] in self._archives):
                _tell_other(entry, self._result)


def _looked(archive: Archive, entries: Sequence[Entry], watch: Watch) -> Iterator[tuple[Entry, dicom.Looked]]:
    """Files with their headers. Those of a remote file system are waited for by several threads, if nobody watches."""

    def look(entry: Entry) -> dicom.Looked:
        return _deadly(archive, entry, watch) or dicom.look(archive, entry)

    plain = [entry for entry in entries if packed.split(entry.path) is None]
    if files.is_local(archive.fs) or watch.takes_notes:
        yield from ((entry, look(entry)) for entry in plain)
    else:
        with ThreadPoolExecutor(_READERS) as pool:
            yield from zip(plain, pool.map(look, plain), strict=True)
    for entry in packed.in_order(archive.fs, archive.root, entries):
        yield entry, look(entry)


def _deadly(archive: Archive, entry: Entry, watch: Watch) -> Rejected | None:
    """The rejection of a file that has killed its readers; None for any other, which is about to be read."""
    if not watch.takes_notes:
        return None
    try:
        watch.enter(_file_key(archive.subject_key or b"", entry).hex(), f"File {entry.path}")
    except BadInput as error:
        return reject([entry], error.reason, error.problem, error.remedy, is_dicom=True)
    return None


def _tell_other(entry: Entry, result: Indexed) -> None:
    """Count a file that is no DICOM image, or reject it where it is an image of a kind that is not read."""
    is_inside = packed.split(entry.path) is not None
    remedy = "unpack the archive" if is_inside and is_image(entry.path) else unread(entry.path)
    if remedy is None:
        result.kinds[kind_of(entry.path)] += 1
    else:
        message = f"{entry.path} is in a format that is not read"
        result.others.append(reject([entry], Reason.UNSUPPORTED, message, remedy, is_dicom=True))


def _series(row: Mapping[str, Any], entries: Sequence[Entry]) -> Series:
    """The series of a kept row."""
    heights = np.frombuffer(row["heights"], np.float64)
    moments = np.frombuffer(row["moments"], np.float64)
    images = np.frombuffer(row["images"], ">u8")
    return Series.known(from_json(row["facts"]), entries, images, heights, moments, row["frames"])


def _listed(fs: fsspec.AbstractFileSystem, root: str, unit: Unit) -> tuple[dict[str, Entry], list[Rejected]]:
    """The files of a unit by path; what is refused for its name or place is told by its first share."""
    entries, rejected = walk_below(fs, root, unit.folder, unit.deep)
    if unit.shares == 1:
        return entries, rejected
    mine = {
        path: entry
        for path, entry in entries.items()
        if zlib.crc32(path.encode(errors="surrogatepass")) % unit.shares == unit.share
    }
    return mine, [] if unit.share else rejected


def hash_of(secret: bytes, content: bytes) -> bytes:
    """A keyed hash of 8 bytes."""
    return hashlib.blake2b(content, digest_size=8, key=hashlib.sha256(secret).digest()).digest()


def _stamp(secret: bytes, entries: Iterable[Entry]) -> bytes:
    """A keyed hash of a listing."""
    text = "\n".join([f"{path}\0{size}\0{modified}" for path, size, modified in entries])
    return hash_of(secret, text.encode(errors="surrogatepass"))


def _file_key(secret: bytes, entry: Entry) -> bytes:
    return hash_of(secret, f"{entry.path}\0{entry.bytes}\0{entry.modified}".encode(errors="surrogatepass"))


@dataclass(frozen=True)
class _Kept:
    """What an earlier run kept of a bucket, by unit."""

    rows: Mapping[str, Sequence[Mapping[str, Any]]]

    def all(self) -> list[Mapping[str, Any]]:
        """All rows, in the order in which they were kept."""
        return [row for of in self.rows.values() for row in of]

    @classmethod
    def read(cls, job: IndexJob, bucket: int) -> _Kept:
        warehouse, path = _place(job, bucket)
        try:
            with warehouse.fs.open(path, "rb") as file:
                content = file.read()
        except FileNotFoundError:
            return cls({})
        except NotADirectoryError:
            files.make_folder(warehouse.fs, path.rpartition("/")[0])  # which says what is in its place
            raise
        try:
            kept = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
            table = kept.read(use_threads=False)
        except (pa.ArrowException, OSError):  # what is damaged is read again from its source
            return cls({})
        if (table.schema.metadata or {}).get(_STAMP) != job.stamp or table.schema.names != _SCHEMA.names:
            return cls({})
        rows: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for row in table.to_pylist():
            rows[row["unit"]].append(row)
        return cls(rows)

    @staticmethod
    def write(job: IndexJob, bucket: int, rows: Sequence[Mapping[str, Any]]) -> None:
        warehouse, path = _place(job, bucket)
        files.make_folder(warehouse.fs, path.rpartition("/")[0])
        buffer = io.BytesIO()
        schema = _SCHEMA.with_metadata({_STAMP: job.stamp})
        table = pa.Table.from_pylist([dict(row) for row in rows], schema)
        plain = {"use_dictionary": False, "write_statistics": False}  # of hashes both only repeat the values
        pq.write_table(table, buffer, compression="zstd", write_page_checksum=True, **plain)
        files.replace(warehouse.fs, path, buffer.getvalue())


def _place(job: IndexJob, bucket: int) -> tuple[Store, str]:
    warehouse = Store(job.warehouse)
    return warehouse, warehouse.path(FOLDER, cohort_slug(job.cohort), f"{bucket:03d}.parquet")
