"""One warehouse folder: its tables, read after checks."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem

from segpipe.core.splits import SplitRule
from segpipe.errors import NotFound, TableError
from segpipe.storage import filesystem as files
from segpipe.storage.lock import live_runs
from segpipe.warehouse import checked, merges, parts
from segpipe.warehouse.tables import INDEX_OF, QUARANTINE, SCANS, SLICES, TABLES, Table, with_later_columns

_FOOTER_THREADS = 8
_NAMED_COHORTS = 5


@dataclass(frozen=True)
class ScanRows:
    """Where the slices of one scan stand inside a part: its row groups, in slice order."""

    scan_id: str
    subject: str
    split: str
    row_groups: tuple[int, ...]
    rows: int


@dataclass(frozen=True)
class SlicePart:
    """A part of `slices`: the path of its file and the scans in it."""

    name: str
    path: str
    scans: tuple[ScanRows, ...]


@dataclass(frozen=True)
class Store:
    """The tables below one folder or URL; cheap to make and to send to a worker.

    `to_read` promises that nothing will be written: then the tables may be on an object store.
    """

    url: str
    to_read: bool = False

    @functools.cached_property
    def _place(self) -> tuple[AbstractFileSystem, str]:
        return files.filesystem(self.url, to_read=self.to_read)

    @property
    def fs(self) -> AbstractFileSystem:
        """The fsspec file system that it stands on."""
        return self._place[0]

    def path(self, *names: str) -> str:
        """The path of something inside the warehouse, as `fs` wants it."""
        return files.join(self._place[1], *names)

    def __reduce__(self) -> tuple[type[Store], tuple[str, bool]]:
        return Store, (self.url, self.to_read)

    def exists(self) -> bool:
        """Whether the folder is there."""
        return bool(self.fs.exists(self.path()))

    def is_another_folder(self) -> bool:
        """Whether the folder holds something, but no table, nor what jobs keep beside the tables (`_locks`, …).

        A folder `scans` without a part is no table: archives are called so, and the demo's is.
        """
        names = files.names(self.fs, self.path())
        kept = (name for name in names if name.startswith("_") and not name.startswith("__"))
        ours = itertools.chain(kept, (name for name in names if name in TABLES and self.files(name)))
        return bool(names) and next(ours, None) is None

    def parts(self, table_name: str) -> list[str]:
        """The names of a table's parts: those in its index table, except for what others have taken the place of."""
        index = INDEX_OF[table_name]
        return merges.counted(self, index, index)

    def files(self, table_name: str) -> list[str]:
        """The names of all part files in a table's folder without `.parquet`, whether they count or not."""
        found = files.names(self.fs, self.path(table_name))
        return [name.removesuffix(".parquet") for name in found if name.endswith(".parquet") and name[0] not in "._"]

    def sizes(self, table_name: str) -> dict[str, int]:
        """Bytes of the file of each part of a table."""
        names = self.parts(table_name)
        if files.is_local(self.fs):
            found = {name: state.st_size for name, state in self._states(table_name).items()}
        elif names:
            folder = self.path(table_name)
            self.fs.invalidate_cache(folder)
            listed = {one["name"].rpartition("/")[2]: one["size"] or 0 for one in self.fs.ls(folder, detail=True)}
            found = {name.removesuffix(".parquet"): size for name, size in listed.items() if name.endswith(".parquet")}
        return {name: found[name] for name in names if name in found}

    def versions(self, table_name: str) -> dict[str, tuple[int, int]]:
        """What tells whether each part's file is the same: its bytes, and when it was changed, ns, where that is local.

        One whose file is missing has none.
        """
        if not files.is_local(self.fs):
            return {name: (size, 0) for name, size in self.sizes(table_name).items()}
        names, found = self.parts(table_name), self._states(table_name)
        return {name: (found[name].st_size, found[name].st_mtime_ns) for name in names if name in found}

    def _states(self, table_name: str) -> dict[str, os.stat_result]:
        """What a local disk says of each file in a table's folder, without those that are moved aside meanwhile."""
        found = {}
        with contextlib.suppress(FileNotFoundError), os.scandir(self.path(table_name)) as entries:
            for entry in entries:
                if entry.name.endswith(".parquet"):
                    with contextlib.suppress(FileNotFoundError):
                        found[entry.name.removesuffix(".parquet")] = entry.stat()
        return found

    def rows(self, table: Table, columns: Sequence[str], cohort: str | None = None) -> pa.Table:
        """Columns of a table, and `part`, the name of the part that a row stands in; of one cohort or of all.

        Every part is opened once, so this is the way to a few columns of many parts. Raises as `table` does, and
        TableError if a part is damaged.
        """
        self._check_there()
        names = self.parts(table.name)
        with ThreadPoolExecutor(_FOOTER_THREADS) as pool:
            found = list(pool.map(lambda name: self._rows_of(table, name, columns, cohort), names))
        fields = [table.schema.field(name) for name in columns]
        schema = pa.schema([*fields, pa.field("part", pa.string())]).remove_metadata()
        return pa.concat_tables([one.cast(schema) for one in found]) if found else schema.empty_table()

    def _rows_of(self, table: Table, name: str, columns: Sequence[str], cohort: str | None) -> pa.Table:
        path = self.path(table.name, f"{name}.parquet")
        wanted = columns if cohort is None or "cohort" in columns else [*columns, "cohort"]
        with self._missing_told(path), checked.open_part(self.fs, path) as part:
            there = _columns(table, part.metadata, path)
            rows = with_later_columns(part.read([column for column in wanted if column in there]), table)
        if cohort is not None:
            rows = rows.filter(pc.equal(rows["cohort"], cohort))
        return rows.select(list(columns)).append_column("part", pa.repeat(pa.scalar(name, pa.string()), len(rows)))

    def table(self, name: str) -> ds.FileSystemDataset:
        """A table as a pyarrow dataset, every file's schema checked; empty where nothing was ever written.

        Raises NotFound if the warehouse is missing and TableError if a file lacks a column of the table.
        """
        return self._dataset(TABLES[name], self.parts(name))

    def scans(self, cohort: str, columns: Sequence[str] | None = None) -> pa.Table:
        """The `scans` rows of a cohort in the order of their ids, after the checks that every reader relies on.

        `columns` are those wanted (all when None). Raises NotFound if the cohort has no scan, and TableError if a
        scan is there twice, a subject spans two splits, or a split is not what its rule says.
        """
        return self._index(cohort, columns or SCANS.schema.names)

    def check_splits(self) -> None:
        """Raise TableError, as `scans` does, where a cohort breaks a promise; each part of `scans` is opened once."""
        rows = self.rows(SCANS, ["cohort", "scan_id", "subject", "split", "split_rule"])
        for cohort in rows["cohort"].unique():
            check_scans(rows.filter(pc.equal(rows["cohort"], cohort)), self.url)

    def index(self, cohort: str) -> dict[str, dict[str, str]]:
        """What is already in the tables, by scan_id; may be empty.

        Of each row its `part`, `fingerprint`, `split_rule`, `layout` and `may_show_face` (`True`, `False`, `None`).
        """
        if not self.parts(SCANS.name):
            return {}
        columns = ("scan_id", "fingerprint", "split_rule", "may_show_face", "layout", "part")
        entries = self._checked_scans(cohort, columns).to_pylist()
        for entry in entries:
            entry["may_show_face"] = str(entry["may_show_face"])
        return {entry["scan_id"]: entry for entry in entries}

    def slice_parts(self, cohort: str, splits: Iterable[str] | None = None) -> list[SlicePart]:
        """Where the slices of a cohort's scans stand, of all splits or the given ones, in the order of the part names.

        Reads footers only. Raises as `scans` does, and TableError if a part of `slices` does not
        fit its part of `scans`.
        """
        rows = self._index(cohort, ("scan_id", "subject", "split", "shape", "part")).to_pylist()
        wanted = set(splits) if splits is not None else None
        by_part: dict[str, list[dict]] = defaultdict(list)
        for row in rows:
            if wanted is None or row["split"] in wanted:
                by_part[row["part"]].append(row)
        with ThreadPoolExecutor(_FOOTER_THREADS) as pool:
            return list(pool.map(lambda name: self.slice_part(name, by_part[name]), sorted(by_part)))

    def recover(self) -> None:
        """Finish or drop what killed runs left half done; runs that hold a lock are left alone."""
        staged, told = (self._of_ours(folder) for folder in (parts.STAGING, merges.FOLDER))
        if staged or told:  # listed before the locks are read: a run takes its lock before it stages anything
            live = live_runs(self.url)
            parts.recover(self, live, staged)
            merges.tidy(self, live, told)

    def _of_ours(self, folder: str) -> list[str]:
        """What jobs keep in a folder; a file manager leaves hidden files of its own there."""
        return [name for name in files.names(self.fs, self.path(folder)) if name[0] != "."]

    def append(self, table: Table, rows: pa.Table, run_id: str) -> None:
        """Add rows to a table as one file that is named after the run; the same run's file is replaced.

        Needs no lock, and stages nothing that another run, recovering, might take for the work of a dead one.
        """
        content = pa.BufferOutputStream()
        with parts.open_writer(content, table, {}) as writer:
            writer.write_table(rows.select(table.schema.names).cast(table.schema))
        files.make_folder(self.fs, self.path(table.name))
        files.replace(self.fs, self.path(table.name, f"{run_id}.parquet"), content.getvalue().to_pybytes())

    def no_scans(self, cohort: str) -> NotFound:
        """The error of a cohort that has no scans; it names those that have some, or where its inputs have gone."""
        problem = f"Cohort {cohort!r} has no scans in {self.url}"
        if rejected := len(self.rows(QUARANTINE, ["reason"], cohort)):
            remedy = "mend what the table quarantine names and run ingest again"
            return NotFound(f"{problem}, but {rejected} rejected inputs", remedy)
        names = sorted(self.rows(SCANS, ["cohort"])["cohort"].unique().to_pylist())
        others = f", or name one of {', '.join(names[:_NAMED_COHORTS])}{', …' * (len(names) > _NAMED_COHORTS)}"
        return NotFound(problem, "run ingest" + (others if names else " first"))

    def _index(self, cohort: str, columns: Sequence[str]) -> pa.Table:
        """Rows of `scans`. Raises NotFound if the cohort has none, and what `check_scans` does."""
        rows = self._checked_scans(cohort, columns)
        if not len(rows):
            raise self.no_scans(cohort)
        return rows

    def _checked_scans(self, cohort: str, columns: Sequence[str]) -> pa.Table:
        needed = list(dict.fromkeys((*columns, "scan_id", "subject", "split", "split_rule")))
        rows = self.rows(SCANS, [name for name in needed if name != "part"], cohort)
        if len(rows):
            check_scans(rows, self.url)
        return rows.select(list(columns)).take(pc.sort_indices(rows["scan_id"]))

    def _dataset(self, table: Table, names: Sequence[str]) -> ds.FileSystemDataset:
        self._check_there()
        paths = [self.path(table.name, f"{name}.parquet") for name in names]
        with ThreadPoolExecutor(_FOOTER_THREADS) as pool:
            paths = list(pool.map(lambda path: self._checked(table, path), paths))
        return checked.dataset(self.fs, paths, table.schema)

    def _check_there(self) -> None:
        if not self.exists():
            raise NotFound(f"Warehouse {self.url} does not exist", "give the folder that ingest wrote to")

    def _checked(self, table: Table, path: str) -> str:
        """Where the file of a part stands, once its footer was looked at."""
        with self._missing_told(path):
            _columns(table, checked.read_metadata(self.fs, path), path)
        return checked.whereabouts(self.fs, path)

    @contextlib.contextmanager
    def _missing_told(self, path: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            remedy = "put the file back; if a job is replacing it, try again"
            raise TableError(f"{path} is missing, but the other half of its part is there", remedy) from None

    def _footer(self, table: Table, name: str) -> pq.FileMetaData:
        return checked.read_metadata(self.fs, self.path(table.name, f"{name}.parquet"))

    def slice_part(self, name: str, rows: Sequence[Mapping[str, Any]]) -> SlicePart:
        """Where the slices of these scans stand in a part; of a row of `scans`, scan_id, subject, split and shape.

        Raises TableError if the part is missing, damaged or in writing, or holds other slices than its scans say.
        """
        path = self.path(SLICES.name, f"{name}.parquet")
        try:
            metadata, index = self._footer(SLICES, name), self._footer(SCANS, name)
        except FileNotFoundError:
            remedy = "put the file back, or ingest the cohort into a new warehouse"
            raise TableError(f"Part {name} of slices or scans is missing in {self.url}", remedy) from None
        if (metadata.metadata or {}).get(parts.STAMP) != (index.metadata or {}).get(parts.STAMP):
            raise TableError(
                f"Part {name} in {self.url} is being replaced, or was left so by a killed run",
                "try again; if that does not help, run ingest again",
            )
        SLICES.check(metadata.schema.to_arrow_schema(), path)
        found = group_rows(metadata)
        scans = []
        for row in rows:
            groups = [group for group in found if group.scan_id == row["scan_id"]]
            count = sum(group.rows for group in groups)
            if count != row["shape"][0] or any(
                (group.subject, group.split) != (row["subject"], row["split"]) for group in groups
            ):
                raise TableError(
                    f"Part {name} of slices in {self.url} does not hold {row['scan_id']} as the table scans says",
                    "run ingest again",
                )
            numbers = tuple(group.row_groups[0] for group in groups)
            scans.append(ScanRows(row["scan_id"], row["subject"], row["split"], numbers, count))
        return SlicePart(name, path, tuple(scans))


def check_scans(rows: pa.Table, where: str) -> None:
    """Raise TableError, naming all faults, where rows of `scans` break a promise that training and testing rest on.

    A scan is there once, a subject lies in one split, a cohort has one split rule, and every split is what it says.
    """
    identity = rows.select(["scan_id", "subject", "split", "split_rule"]).to_pydict()
    faults = [f"scan {scan_id} is there more than once" for scan_id in _repeated(identity["scan_id"])]
    splits: dict[str, set[str]] = defaultdict(set)
    for subject, split in zip(identity["subject"], identity["split"], strict=True):
        splits[subject].add(split)
    faults += [f"subject {one} spans the splits {', '.join(sorted(of))}" for one, of in splits.items() if len(of) > 1]
    rules = sorted(set(identity["split_rule"]))
    if len(rules) == 1:
        rule = _parse(rules[0], where)
        faults += [
            f"subject {subject} is in {', '.join(sorted(of))}, not in {rule.of(subject)} as `{rule}` says"
            for subject, of in splits.items()
            if of != {rule.of(subject)}
        ]
    else:
        faults.append(f"the cohort follows {len(rules)} split rules: {'; '.join(rules)}")
    if faults:
        more = f" and {len(faults) - 3} more faults" if len(faults) > 3 else ""
        raise TableError(
            f"Table scans in {where} cannot be trusted: {'; '.join(faults[:3])}{more}",
            "put the cohort back as ingest wrote it, or ingest it into a new warehouse",
        )


def group_rows(metadata: pq.FileMetaData) -> list[ScanRows]:
    """What stands in each row group of a `slices` file, from the statistics in its footer.

    Raises TableError if a row group holds more than one scan, subject or split.
    """
    columns = (
        {metadata.row_group(0).column(i).path_in_schema: i for i in range(metadata.num_columns)}
        if metadata.num_row_groups
        else {}
    )
    found = []
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        values = []
        for name in ("scan_id", "subject", "split"):
            statistics = group.column(columns[name]).statistics
            if statistics is None or not statistics.has_min_max or statistics.min != statistics.max:
                raise TableError(
                    f"Row group {number} of slices is not of one {name}, or does not say so",
                    "ingest the cohort into a new warehouse",
                )
            values.append(statistics.min)
        found.append(ScanRows(values[0], values[1], values[2], (number,), group.num_rows))
    return found


def cohort_slug(cohort: str) -> str:
    """A cohort's name as it stands in file names: letters, digits, `_` and `-`, unique for every cohort.

    >>> cohort_slug("brats2021"), cohort_slug("a b")
    ('brats2021', 'a_b-c8687a08')
    """
    slug = re.sub(r"[^A-Za-z0-9_-]", "_", cohort)[:60]
    return slug if slug == cohort else f"{slug}-{hashlib.sha256(cohort.encode()).hexdigest()[:8]}"


def _repeated(values: Sequence[str]) -> list[str]:
    seen: set[str] = set()
    return [value for value in values if value in seen or seen.add(value)]  # type: ignore[func-returns-value]


def _parse(rule: str, where: str) -> SplitRule:
    try:
        return SplitRule.parse(rule)
    except ValueError:
        raise TableError(
            f"Table scans in {where} has the split rule {rule!r}, which is not valid", "run ingest again"
        ) from None


_seen: dict[str, tuple[pq.ParquetSchema, frozenset[str]]] = {}


def _columns(table: Table, metadata: pq.FileMetaData, where: str) -> frozenset[str]:
    """The columns of a part, after its schema was checked; most parts of a table have that of the one before.

    Raises TableError if it does not fit the table.
    """
    known = _seen.get(table.name)
    if known is not None and metadata.schema.equals(known[0]):
        return known[1]
    schema = metadata.schema.to_arrow_schema()
    table.check(schema, where)
    columns = frozenset(schema.names)
    _seen[table.name] = metadata.schema, columns
    return columns
