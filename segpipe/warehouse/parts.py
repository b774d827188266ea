"""Part files that come into being all at once, in several tables, however often their writer is killed.

A part is one file in each of a family of tables, all of one name: `slices/NAME.parquet` and `scans/NAME.parquet`. It
is written below `_staging/RUN/NAME-ATTEMPT/` and then renamed into the tables one file after the other; the last
table is the index table, and a scan exists once its row is there. The first rename decides: a part whose first file has
been moved is finished by whoever finds it (`settle`), any other is dropped. docs/decisions/0003-commit-protocol.md
tells why this is enough.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from segpipe.errors import WarehouseBusy
from segpipe.storage import filesystem as files
from segpipe.warehouse import checked
from segpipe.warehouse.tables import Table

if TYPE_CHECKING:
    from segpipe.storage.lock import Fence
    from segpipe.warehouse.store import Store

STAGING = "_staging"
STAMP = b"segpipe.part"
"""Key of the footer's metadata that all files of one part share: it tells a half-replaced part."""

_DROPPED = "dropped"
_STAGED = re.compile(r"\d-[a-z]+\.parquet")
_ZSTD_LEVEL = 1
_TOGETHER_BYTES = 32_000_000


class PartWriter:
    """Write one part of a family of tables; nothing is visible before the block ends without an exception.

        with PartWriter(warehouse, (SLICES, SCANS), "brats.1f0c", run_id, fence) as part:
            part.write("slices", batch)  # one row group
            part.write("scans", rows)

    A part of the same name is replaced. A part without a row in its index table is not written. `bytes` and `rows`
    count, per table, what was written. Raises WarehouseBusy on exit where the run has lost its lock.
    """

    def __init__(self, warehouse: Store, tables: Sequence[Table], name: str, run_id: str, fence: Fence | None = None):
        self.name = name
        self.tables = tuple(tables)
        self.rows = dict.fromkeys((table.name for table in tables), 0)
        self.bytes = dict(self.rows)
        self._warehouse = warehouse
        self._fence = fence
        self._run_id = run_id
        self._stage = warehouse.path(STAGING, run_id, f"{name}-{uuid.uuid4().hex[:12]}")
        self._files: dict[str, Any] = {}
        self._writers: dict[str, checked.Writer] = {}

    def __enter__(self) -> PartWriter:
        settle_attempts(self._warehouse, self._run_id, self.name)
        fs = self._warehouse.fs
        files.make_folder(fs, self._stage)
        stamp = {STAMP: uuid.uuid4().hex.encode()}
        for place, table in enumerate(self.tables):  # in order: a missing first file means that it has been moved
            file = fs.open(files.join(self._stage, _staged(place, table.name)), "wb")
            self._files[table.name] = file
            self._writers[table.name] = open_writer(file, table, stamp)
        return self

    def write(self, table_name: str, batch: pa.RecordBatch | pa.Table) -> None:
        """Append the rows of a batch as one row group."""
        rows = pa.Table.from_batches([batch]) if isinstance(batch, pa.RecordBatch) else batch
        writer = self._writers[table_name]
        writer.write_table(rows.select(writer.schema.names).cast(writer.schema), row_group_size=max(1, len(rows)))
        self.rows[table_name] += len(rows)

    def write_together(self, table_name: str, tables: Iterable[pa.Table]) -> None:
        """Append rows in few row groups, because each costs a reader time; no more wait than a row group holds."""
        waiting: list[pa.Table] = []
        size = 0
        for rows in tables:
            waiting.append(rows)
            size += rows.nbytes  # counted once each: of thousands, that takes a while
            if size > _TOGETHER_BYTES:
                self.write(table_name, pa.concat_tables(waiting))
                waiting.clear()
                size = 0
        if waiting:
            self.write(table_name, pa.concat_tables(waiting))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        committed = False
        try:
            self._close(is_whole=kind is None)
            if kind is None and self.rows[self.tables[-1].name]:
                self._commit()
                committed = True
        finally:
            if not committed:
                for writer in self._writers.values():
                    writer.abandon()
                _drop(self._warehouse, self._stage)

    def _close(self, is_whole: bool) -> None:
        for name, file in self._files.items():
            with file:
                if is_whole:
                    self._writers[name].close()
                    self.bytes[name] = file.tell()
                    files.flush_to_disk(self._warehouse.fs, file)

    def _commit(self) -> None:
        fs = self._warehouse.fs
        for table in self.tables:
            files.make_folder(fs, self._warehouse.path(table.name))
        if self._fence is not None:
            self._fence.check()
        try:
            _move(self._warehouse, self._stage, _staged(0, self.tables[0].name))
        except FileNotFoundError:
            raise WarehouseBusy(
                f"Run {self._run_id} was taken for dead while it wrote part {self.name}", "let the other run finish"
            ) from None
        _settle(self._warehouse, self._stage)


def settle_attempts(warehouse: Store, run_id: str, name: str | None = None) -> None:
    """Finish or drop what earlier attempts of a run have staged, of the part `name` or of all its parts."""
    folder = warehouse.path(STAGING, run_id)
    for stage in files.names(warehouse.fs, folder):
        if name is None or stage.rpartition("-")[0] == name:
            _settle(warehouse, files.join(folder, stage))
    if name is None:
        files.remove(warehouse.fs, folder)


def recover(warehouse: Store, live: set[str], staged: Sequence[str]) -> None:
    """Finish or drop what dead runs have staged; runs in `live` are left alone.

    `staged` are the runs that had staged something before the live ones were listed: a later one may be alive too.
    """
    for run_id in staged:
        if run_id not in live:
            settle_attempts(warehouse, run_id)


def _settle(warehouse: Store, stage: str) -> None:
    """Roll a stage forward where its first file has been moved, else drop it; harmless when done by two at once."""
    found = files.names(warehouse.fs, stage)
    staged = [name for name in found if _STAGED.fullmatch(name)]  # a run keeps other files here too
    if _DROPPED in found or not staged or staged[0].startswith("0-"):
        _drop(warehouse, stage)
        return
    for name in staged:
        try:
            _move(warehouse, stage, name)
        except FileNotFoundError:
            continue  # the writer itself, or another run, was faster
    files.remove(warehouse.fs, stage)


def _drop(warehouse: Store, stage: str) -> None:
    """Give a stage up. The first file goes first and by a rename, so that its writer can no longer commit it."""
    found = files.names(warehouse.fs, stage)
    first = [name for name in found if name.startswith("0-")]
    if first and _DROPPED not in found:
        try:
            files.rename_over(warehouse.fs, files.join(stage, first[0]), files.join(stage, _DROPPED))
        except FileNotFoundError:
            _settle(warehouse, stage)  # its writer has just moved it: then the part is to be finished
            return
    files.remove(warehouse.fs, stage)


def _move(warehouse: Store, stage: str, staged: str) -> None:
    table, _, _ = staged.partition("-")[2].rpartition(".")
    name = stage.rpartition("/")[2].rpartition("-")[0]
    folder = warehouse.path(table)
    files.rename_over(warehouse.fs, files.join(stage, staged), files.join(folder, f"{name}.parquet"))
    files.flush_folder(warehouse.fs, folder)


def _staged(place: int, table: str) -> str:
    return f"{place}-{table}.parquet"


def open_writer(file: Any, table: Table, metadata: dict[bytes, bytes]) -> checked.Writer:
    """A writer with checksums; without dictionaries and statistics of binaries, which cost time and win nothing.

    What is said of the columns is not repeated in every footer, because every reader would pay for it.
    """
    plain = [field.name for field in table.schema if not pa.types.is_binary(field.type)]
    texts = [field.name for field in table.schema if pa.types.is_string(field.type)]
    return checked.Writer(
        file,
        pa.schema([_without_words(field) for field in table.schema], metadata),
        compression="zstd",
        compression_level=_ZSTD_LEVEL,
        use_dictionary=texts,
        write_statistics=plain,
        write_page_index=False,
    )


def _without_words(field: pa.Field) -> pa.Field:
    """A field without metadata, its members too."""
    kind = field.type
    if pa.types.is_struct(kind):
        kind = pa.struct([_without_words(member) for member in kind])
    elif pa.types.is_list(kind):
        kind = pa.list_(_without_words(kind.value_field))
    return pa.field(field.name, kind, field.nullable)
