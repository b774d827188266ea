"""Parts that take the place of others, all of them at one moment, however often their writer is killed.

A run that puts a new part in the place of older ones (`compact`, or a job that writes some scans again) says so first:
a file in `_merges/` tells which older parts each new one stands for. The new part then comes into being as any part
does (segpipe.warehouse.parts), and at the moment at which its file is in the index table, the older ones no longer
count: readers leave them out (`hidden`). They are moved to `_replaced/`, where whoever had begun to read them still
finds them, and are deleted with their record when `keep_seconds` have passed.

Readers list the index table first and read the records after it, so a record outlives every listing that may show both
the new part and an older one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from segpipe.errors import TableError
from segpipe.storage import filesystem as files
from segpipe.warehouse.checked import REPLACED
from segpipe.warehouse.tables import TABLES

if TYPE_CHECKING:
    from segpipe.warehouse.store import Store
    from segpipe.warehouse.tables import Table

FOLDER = "_merges"
KEEP_SECONDS = 24 * 3600.0
"""So long may a reader go on with parts that were replaced under it."""


@dataclass(frozen=True)
class Record:
    """Which parts of a family of tables a run puts in the place of which; `retired` is when the older ones were moved.

    The last of `tables` is the index table.
    """

    run_id: str
    tables: tuple[str, ...]
    parts: Mapping[str, Sequence[str]]
    keep_seconds: float = KEEP_SECONDS
    retired: float | None = None

    @property
    def name(self) -> str:
        """The name of its file."""
        digest = hashlib.sha256("\0".join(sorted(self.parts)).encode()).hexdigest()[:16]
        return f"{self.run_id}.{self.tables[-1]}.{digest}.json"

    def replaced(self, index: Collection[str]) -> set[str]:
        """The older parts that no longer count where these parts stand in the index table."""
        return {old for new, of in self.parts.items() if new in index for old in of if old != new}


def announce(warehouse: Store, record: Record) -> None:
    """Put a record down, durably, before any of its parts is written."""
    folder = warehouse.path(FOLDER)
    warehouse.fs.makedirs(folder, exist_ok=True)
    content = asdict(record)
    sealed = json.dumps({"record": content, "sha256": _digest(content)}).encode()
    files.replace(warehouse.fs, files.join(folder, record.name), sealed)
    files.flush_folder(warehouse.fs, folder)


def announced(
    warehouse: Store,
    run_id: str,
    tables: Sequence[Table],
    parts: Mapping[str, Sequence[str]],
    keep_seconds: float = KEEP_SECONDS,
) -> None:
    """The same where there is something to replace."""
    if parts:
        announce(warehouse, Record(run_id, tuple(table.name for table in tables), dict(parts), keep_seconds))


def records(warehouse: Store) -> list[Record]:
    """All records; those that go meanwhile are left out. Raises TableError if one is damaged."""
    folder = warehouse.path(FOLDER)
    found = []
    for name in files.names(warehouse.fs, folder):
        if name.startswith("."):
            continue
        try:
            found.append(_read(warehouse.fs.cat_file(files.join(folder, name))))
        except FileNotFoundError:
            continue
        except (ValueError, KeyError, TypeError, AttributeError):
            raise TableError(
                f"{files.join(folder, name)} is damaged, so that nobody knows which parts count",
                "put it back from a copy; without one, move it away and run `verify`, which tells scans that are twice",
            ) from None
    return found


def _read(content: bytes) -> Record:
    """A record as it was written; ValueError and its kin where it is not, or names what is no part."""
    told = json.loads(content)
    if told["sha256"] != _digest(told["record"]):
        raise ValueError("another checksum")
    record = Record(**(told["record"] | {"tables": tuple(told["record"]["tables"])}))
    names = [name for new, of in record.parts.items() for name in (new, *of)]
    if not set(record.tables) <= set(TABLES) or any("/" in name or name.startswith(".") for name in names):
        raise ValueError("names that lead elsewhere")
    return record


def _digest(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def hidden(warehouse: Store, index_table: str, names: Collection[str]) -> set[str]:
    """Parts that no longer count, of a family whose index table has been listed just before."""
    index = set(names)
    return {old for record in records(warehouse) if record.tables[-1] == index_table for old in record.replaced(index)}


def names_in_use(warehouse: Store) -> set[str]:
    """Names of parts that records know, which no new part may have."""
    return {name for record in records(warehouse) for new, of in record.parts.items() for name in (new, *of)}


def tidy(warehouse: Store, live: Collection[str]) -> None:
    """Move aside what was replaced, and delete it when its time has come; runs in `live` are at it themselves.

    Harmless when done by several at once.
    """
    for record in records(warehouse):
        if record.run_id in live:
            continue
        if record.retired is None:
            _retire(warehouse, record)
        elif time.time() - record.retired > record.keep_seconds:
            _delete(warehouse, record)


def finish(warehouse: Store, run_id: str) -> None:
    """Move aside what a run has replaced, when it is through: from now on its records are for others to delete."""
    for record in records(warehouse):
        if record.run_id == run_id and record.retired is None:
            _retire(warehouse, record)


def _retire(warehouse: Store, record: Record) -> None:
    index = set(warehouse.files(record.tables[-1]))
    move_aside(warehouse, record.tables, sorted(record.replaced(index)))
    announce(warehouse, replace(record, retired=time.time()))


def move_aside(warehouse: Store, tables: Sequence[str], old_parts: Sequence[str]) -> None:
    """Move parts that no longer count out of the folders of their tables, where whoever reads all files meets them.

    Those that are moved already, by whoever, are no error.
    """
    for table in reversed(tables):
        if old_parts:
            warehouse.fs.makedirs(warehouse.path(REPLACED, table), exist_ok=True)
        for old in old_parts:
            target = warehouse.path(REPLACED, table, f"{old}.parquet")
            with contextlib.suppress(FileNotFoundError):
                files.rename_over(warehouse.fs, warehouse.path(table, f"{old}.parquet"), target)


def _delete(warehouse: Store, record: Record) -> None:
    for table in record.tables:
        for old_parts in record.parts.values():
            for old in old_parts:
                files.remove(warehouse.fs, warehouse.path(REPLACED, table, f"{old}.parquet"))
    files.remove(warehouse.fs, warehouse.path(FOLDER, record.name))
