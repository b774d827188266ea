"""One warehouse folder: its tables, read after checks."""

from __future__ import annotations

import functools
import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem

from segpipe.core.splits import SplitRule
from segpipe.errors import NotFound, TableError
from segpipe.storage import filesystem as files
from segpipe.storage.lock import live_runs
from segpipe.warehouse import checked, parts
from segpipe.warehouse.tables import SCANS, SLICES, TABLES, Table

_FOOTER_THREADS = 8


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
class Warehouse:
    """The tables below one folder or URL; cheap to make and to send to a worker."""

    url: str

    @functools.cached_property
    def _place(self) -> tuple[AbstractFileSystem, str]:
        return files.filesystem(self.url)

    @property
    def fs(self) -> AbstractFileSystem:
        """The fsspec file system that it stands on."""
        return self._place[0]

    def path(self, *names: str) -> str:
        """The path of something inside the warehouse, as `fs` wants it."""
        return files.join(self._place[1], *names)

    def __reduce__(self) -> tuple[type[Warehouse], tuple[str]]:
        return Warehouse, (self.url,)

    def exists(self) -> bool:
        """Whether the folder is there."""
        return bool(self.fs.exists(self.path()))

    def parts(self, table_name: str) -> list[str]:
        """The names of a table's part files without `.parquet`; what is staged or hidden is none."""
        found = files.names(self.fs, self.path(table_name))
        return [name.removesuffix(".parquet") for name in found if name.endswith(".parquet") and name[0] not in "._"]

    def table(self, name: str) -> ds.FileSystemDataset:
        """A table as a pyarrow dataset, every file's schema checked; empty where nothing was ever written.

        Raises NotFound where the warehouse is missing and TableError where a file lacks a column of the table.
        """
        return self._dataset(TABLES[name], self.parts(name))

    def scans(self, cohort: str, columns: Sequence[str] | None = None) -> pa.Table:
        """The `scans` rows of a cohort in the order of their ids, after the checks that every reader relies on.

        `columns` are those wanted (all when None). Raises NotFound where the cohort has no scan, and TableError where a
        scan is there twice, a subject spans two splits, or a split is not what its rule says.
        """
        return self._index(cohort, columns or SCANS.schema.names)

    def index(self, cohort: str) -> dict[str, dict[str, str]]:
        """What is already in the tables, by scan_id; may be empty.

        Of each row its `part`, `fingerprint` and `split_rule`, and `may_show_face` (`True`, `False` or `None`).
        """
        if not self.parts(SCANS.name):
            return {}
        try:
            rows = self._index(cohort, ("scan_id", "fingerprint", "split_rule", "may_show_face", "__filename"))
        except NotFound:
            return {}
        entries = rows.to_pylist()
        for entry in entries:
            entry["part"] = _part_name(entry.pop("__filename"))
            entry["may_show_face"] = str(entry["may_show_face"])
        return {entry["scan_id"]: entry for entry in entries}

    def slice_parts(self, cohort: str, splits: Iterable[str] | None = None) -> list[SlicePart]:
        """Where the slices of a cohort's scans stand, of all splits or the given ones, in the order of the part names.

        Reads footers only. Raises as `scans` does, and TableError where a part of `slices` does not
        fit its part of `scans`.
        """
        rows = self._index(cohort, ("scan_id", "subject", "split", "shape", "__filename")).to_pylist()
        wanted = set(splits) if splits is not None else None
        by_part: dict[str, list[dict]] = defaultdict(list)
        for row in rows:
            if wanted is None or row["split"] in wanted:
                by_part[_part_name(row["__filename"])].append(row)
        with ThreadPoolExecutor(_FOOTER_THREADS) as pool:
            return list(pool.map(lambda name: self._slice_part(name, by_part[name]), sorted(by_part)))

    def recover(self) -> None:
        """Finish or drop what killed runs left half done; runs that hold a lock are left alone."""
        staged = files.names(self.fs, self.path(parts.STAGING))
        if staged:  # listed before the locks are read: a run takes its lock before it stages anything
            parts.recover(self, live_runs(self.url))

    def append(self, table: Table, rows: pa.Table, run_id: str) -> None:
        """Add rows to a table as one file that is named after the run; the same run's file is replaced.

        Needs no lock, and stages nothing that another run, recovering, might take for the work of a dead one.
        """
        content = pa.BufferOutputStream()
        with parts.open_writer(content, table, {}) as writer:
            writer.write_table(rows.select(table.schema.names).cast(table.schema))
        self.fs.makedirs(self.path(table.name), exist_ok=True)
        files.replace(self.fs, self.path(table.name, f"{run_id}.parquet"), content.getvalue().to_pybytes())

    def _index(self, cohort: str, columns: Sequence[str]) -> pa.Table:
        needed = list(dict.fromkeys((*columns, "scan_id", "subject", "split", "split_rule")))
        rows = self.table(SCANS.name).to_table(needed, filter=ds.field("cohort") == cohort)
        if not len(rows):
            raise NotFound(f"Cohort {cohort!r} has no scans in {self.url}", "name an ingested cohort, or run ingest")
        check_scans(rows, self.url)
        return rows.select(list(columns)).take(pc.sort_indices(rows["scan_id"]))

    def _dataset(self, table: Table, names: Sequence[str]) -> ds.FileSystemDataset:
        if not self.exists():
            raise NotFound(f"Warehouse {self.url} is not there", "give the folder that ingest wrote to")
        paths = [self.path(table.name, f"{name}.parquet") for name in names]
        with ThreadPoolExecutor(_FOOTER_THREADS) as pool:
            list(pool.map(lambda path: self._check_schema(table, path), paths))
        plain = ds.dataset(paths, schema=table.schema, filesystem=self.fs, format=checked.dataset_format())
        dataset = checked.Dataset(list(plain.get_fragments()), plain.schema, plain.format, filesystem=plain.filesystem)
        dataset.threads = files.is_local(self.fs)
        return dataset

    def _check_schema(self, table: Table, path: str) -> None:
        table.check(checked.read_metadata(self.fs, path).schema.to_arrow_schema(), path)

    def _footer(self, table: Table, name: str) -> pq.FileMetaData:
        return checked.read_metadata(self.fs, self.path(table.name, f"{name}.parquet"))

    def _slice_part(self, name: str, rows: list[dict]) -> SlicePart:
        path = self.path(SLICES.name, f"{name}.parquet")
        try:
            metadata, index = self._footer(SLICES, name), self._footer(SCANS, name)
        except FileNotFoundError:
            remedy = "put the file back, or ingest the cohort into a new warehouse"
            raise TableError(f"Part {name} of slices or scans is missing in {self.url}", remedy) from None
        if (metadata.metadata or {}).get(parts.STAMP) != (index.metadata or {}).get(parts.STAMP):
            raise TableError(
                f"Part {name} in {self.url} is being replaced, or was left so by a killed run",
                "try again, and where that does not help, run ingest again",
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
                    f"Part {name} of slices in {self.url} does not hold {row['scan_id']} as scans tells it",
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

    Raises TableError where a row group holds more than one scan, subject or split.
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
                    f"Row group {number} of slices mixes or hides its {name}", "run ingest into a new warehouse"
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


def _part_name(path: str) -> str:
    return path.rpartition("/")[2].removesuffix(".parquet")
