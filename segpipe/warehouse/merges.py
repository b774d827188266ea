"""Parts that take the place of others, all of them at one moment, however often their writer is killed.

A run that puts a new part in the place of older ones (`compact`, or a job that writes some scans again) says so first:
a file in `_merges/` tells which older parts each new one stands for. The new part then comes into being as any part
does (segpipe.warehouse.parts), and at the moment at which its file is in the index table, the older ones no longer
count: readers leave them out (`hidden`). They are moved to `_replaced/`, where whoever had begun to read them still
finds them, and are deleted with their record when `keep_seconds` have passed.

Readers list the index table first and read the records after it, so a record outlives every listing that may show both
the new part and an older one. A listing that runs while files are moved may show neither, so they list once more
(`counted`).
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
from segpipe.warehouse.parts import STAGING
from segpipe.warehouse.tables import TABLES

if TYPE_CHECKING:
    from segpipe.warehouse.store import Store
    from segpipe.warehouse.tables import Table

FOLDER = "_merges"
KEEP_SECONDS = 24 * 3600.0
"""So long may a reader go on with parts that were replaced under it."""

_LISTINGS = 5


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
    files.make_folder(warehouse.fs, folder)
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


def records(warehouse: Store, names: Sequence[str] | None = None) -> list[Record]:
    """All records, or those of these file names; those that go meanwhile are left out.

    Raises TableError if one is damaged.
    """
    folder = warehouse.path(FOLDER)
    found = []
    for name in files.names(warehouse.fs, folder) if names is None else names:
        if name.startswith("."):
            continue
        try:
            found.append(_read(warehouse.fs.cat_file(files.join(folder, name))))
        except FileNotFoundError:
            continue
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, IsADirectoryError):
            raise TableError(
                f"{files.join(folder, name)} is damaged, so it is not known which parts count",
                "put it back from a copy; if there is none, move it away, and `verify` names what is there twice",
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


def counted(warehouse: Store, table: str, index_table: str) -> list[str]:
    """The part files of a table except for those that others stand for; `index_table` is that of its family.

    A listing counts where a second one, after the records were read, shows all that is left of it, and no new part that
    stands for older ones. Parts that are added, and older ones that are moved aside, cost no further listing.
    Raises TableError if none of some listings counts.
    """
    found = warehouse.files(table)
    for _ in range(_LISTINGS):
        index = set(found if table == index_table else warehouse.files(index_table))
        told = [record for record in records(warehouse) if record.tables[-1] == index_table]
        hidden = {old for record in told for old in record.replaced(index)}
        again = warehouse.files(table)
        added = set(again).difference(found)
        if set(found) - hidden <= set(again) and not any(added.intersection(record.parts) for record in told):
            return [name for name in found if name not in hidden]
        found = again
    raise TableError(
        f"Table {table} in {warehouse.url} changes all the time: {_LISTINGS} listings differ", "try again in a minute"
    )


def names_in_use(warehouse: Store) -> set[str]:
    """Names of parts that records know, which no new part may have."""
    return {name for record in records(warehouse) for new, of in record.parts.items() for name in (new, *of)}


def tidy(warehouse: Store, live: Collection[str], names: Sequence[str]) -> None:
    """Move aside what was replaced, and delete it when its time has come; runs in `live` are at it themselves.

    `names` are the records that were there before the live runs were listed: a later one may be of a run that is alive
    too. Harmless when done by several at once.
    """
    dead = [record for record in records(warehouse, names) if record.run_id not in live]
    for record in dead:  # first, because it makes room
        if record.retired is not None and time.time() - record.retired > record.keep_seconds:
            with contextlib.suppress(OSError):  # then the next job does it
                _delete(warehouse, record)
    for record in dead:
        if record.retired is None and not files.names(warehouse.fs, warehouse.path(STAGING, record.run_id)):
            _retire(warehouse, record, others=True)


def finish(warehouse: Store, run_id: str) -> None:
    """Move aside what a run has replaced, when it is through: from now on its records are for others to delete."""
    for record in records(warehouse):
        if record.run_id == run_id and record.retired is None:
            _retire(warehouse, record)


def _retire(warehouse: Store, record: Record, others: bool = False) -> None:
    """Move aside what a record's parts stand for; a part that never came into being stands for nothing.

    Raises OSError where an older part stays, because it would count again once its successor is replaced. That the
    record of another run cannot be written on a full disk does no harm: the next job does it.
    """
    born = _born(warehouse, record)
    done = {new: of for new, of in record.parts.items() if new in born}
    move_aside(warehouse, record.tables, sorted(record.replaced(born)))
    with contextlib.suppress(OSError) if others else contextlib.nullcontext():
        if done:
            announce(warehouse, replace(record, parts=done, retired=time.time()))
        if len(done) < len(record.parts):  # the name of a record's file tells its parts
            files.remove(warehouse.fs, warehouse.path(FOLDER, record.name))


def _born(warehouse: Store, record: Record) -> set[str]:
    """The parts of its index table that are there, or were until they were replaced themselves."""
    aside = files.names(warehouse.fs, warehouse.path(REPLACED, record.tables[-1]))
    return {*warehouse.files(record.tables[-1]), *(name.removesuffix(".parquet") for name in aside)}


def move_aside(warehouse: Store, tables: Sequence[str], old_parts: Sequence[str]) -> None:
    """Move parts that no longer count out of the folders of their tables, where whoever reads all files meets them.

    Those that are moved already, by whoever, are no error.
    """
    for table in reversed(tables):
        if old_parts:
            files.make_folder(warehouse.fs, warehouse.path(REPLACED, table))
        for old in old_parts:
            target = warehouse.path(REPLACED, table, f"{old}.parquet")
            with contextlib.suppress(FileNotFoundError):
                files.rename_over(warehouse.fs, warehouse.path(table, f"{old}.parquet"), target)


def _delete(warehouse: Store, record: Record) -> None:
    there = {name for table in record.tables for name in warehouse.files(table)}
    if still := sorted(there & record.replaced(_born(warehouse, record))):  # without the record it would count again
        move_aside(warehouse, record.tables, still)
        announce(warehouse, replace(record, retired=time.time()))
        return
    for table in record.tables:
        for old_parts in record.parts.values():
            for old in old_parts:
                files.remove(warehouse.fs, warehouse.path(REPLACED, table, f"{old}.parquet"))
    files.remove(warehouse.fs, warehouse.path(FOLDER, record.name))
