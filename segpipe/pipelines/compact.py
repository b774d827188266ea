"""The small parts of many runs to fewer, larger ones, while others read and without a later job noticing."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pyarrow as pa

from segpipe.errors import BadInput, SegpipeError, TableError, WarehouseBusy
from segpipe.pipelines import attempts
from segpipe.pipelines.ingest import lock_name
from segpipe.settings import CompactSettings
from segpipe.storage.lock import Fence, live_runs, lock
from segpipe.warehouse import checked, merges, parts
from segpipe.warehouse.parts import PartWriter
from segpipe.warehouse.runs import RunRecord
from segpipe.warehouse.store import Store, cohort_slug
from segpipe.warehouse.tables import (
    PREDICTIONS,
    QUARANTINE,
    RUNS,
    SCANS,
    SEGMENTATIONS,
    SLICES,
    Table,
    with_later_columns,
)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from segpipe.pipelines.progress import Progress

MOST_SCANS = 256
"""Scans of one merged part, as of one that `segment` writes: whoever writes a scan again writes its part again."""

_MB = 1_000_000
_HOUR = 3600.0
_LOCK = "compact"


@dataclass(frozen=True)
class MergeGroup:
    """What is merged under one lock: a family's parts by their size in bytes, and how the new ones are called.

    `scans` says how many each part holds, where it holds any.
    """

    lock: str
    tables: tuple[Table, ...]
    prefix: str
    sizes: Mapping[str, int]
    scans: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class MergeTask:
    """Older parts, and the new one that is to stand for them."""

    name: str
    tables: tuple[str, ...]
    members: tuple[str, ...]


@dataclass(frozen=True)
class MergeOutcome:
    """What became of a task: rows and bytes of the new part, or why the older ones stay as they are."""

    task: MergeTask
    rows: int = 0
    size: int = 0
    problem: str | None = None


Execute = Callable[[Sequence[MergeTask], Fence], Sequence[MergeOutcome]]


def compact(
    spark: SparkSession, settings: CompactSettings, run: RunRecord, progress: Progress | None = None
) -> list[str]:
    """Merge small parts of all tables but `series`, and say which could not be: one line per damaged part.

    Killed at any moment and run again, it ends in the same rows. Cohorts that a job holds are left alone, and told;
    WarehouseBusy is raised where it is the one that was asked for, NotFound if there is no warehouse.
    """

    def execute(tasks: Sequence[MergeTask], fence: Fence) -> Sequence[MergeOutcome]:
        url, total = settings.warehouse, sum(len(task.members) for task in tasks)

        with attempts.running(spark, run.run_id, total, "compact", progress) as bar:
            told = attempts.tally(spark, bar, unit="parts", bad="left alone")

            def merge(task: MergeTask, watch: attempts.Watch) -> MergeOutcome:
                try:
                    watch.enter(task.name, "Merging")
                    outcome = merge_part(url, task, fence)
                except BadInput as error:
                    outcome = _left(task, error)
                told.add((len(task.members), len(task.members) if outcome.problem else 0))
                return outcome

            return attempts.each(spark, Store(url), run.run_id, tasks, merge, len(tasks))

    return compact_with(execute, settings, run)


def compact_with(execute: Execute, settings: CompactSettings, run: RunRecord) -> list[str]:
    """The same, with what carries the tasks out."""
    warehouse = Store(settings.warehouse)
    outcomes: list[MergeOutcome] = []
    before = 0
    for group in groups(warehouse, settings.cohort):
        try:
            count, found = _compact_group(warehouse, group, execute, settings, run)
        except WarehouseBusy as busy:
            if settings.cohort is not None:
                raise
            run.lines.append(f"left alone: {busy.problem}")
            continue
        before += count
        outcomes += found
    run.count("parts_before", before)
    run.count("parts_after", before - sum(len(one.task.members) - 1 for one in outcomes if one.problem is None))
    run.count("rows", sum(one.rows for one in outcomes))
    run.count("bytes", sum(one.size for one in outcomes))
    problems = [one.problem for one in outcomes if one.problem is not None]
    run.count("problems", len(problems))
    run.lines += problems
    return problems


def _compact_group(
    warehouse: Store, group: MergeGroup, execute: Execute, settings: CompactSettings, run: RunRecord
) -> tuple[int, list[MergeOutcome]]:
    """How many parts there were, and what was done; what a killed run left of the group is tidied up in any case."""
    with lock(warehouse.url, group.lock, settings.lock_wait_seconds, run.run_id) as fence:
        with run.stage("plan"):
            warehouse.recover()
            fresh = _of_now(warehouse, group)
            tasks = plan(fresh, settings.part_mb * _MB, run.run_id)
            pairs = {task.name: task.members for task in tasks}
            merges.announced(warehouse, run.run_id, group.tables, pairs, settings.keep_hours * _HOUR)
        with run.stage("merge"):
            found = list(execute(tasks, fence)) if tasks else []
        with run.stage("tidy up"):
            parts.settle_attempts(warehouse, run.run_id)
            merges.finish(warehouse, run.run_id)
    return len(fresh.sizes), found


def groups(warehouse: Store, cohort: str | None) -> list[MergeGroup]:
    """What there is to merge, of one cohort or, with the tables that all share, of the whole warehouse."""
    scans = warehouse.rows(SCANS, ["cohort", "scan_id"], cohort)
    found = [
        MergeGroup(lock_name(name), (SLICES, SCANS), f"{cohort_slug(name)}.", sizes, counts)
        for (name,), sizes, counts in _by(warehouse, scans, ("cohort",), SLICES)
    ]
    measures = warehouse.rows(SEGMENTATIONS, ["cohort", "model_id", "scan_id"], cohort)
    for (name, model), sizes, counts in _by(warehouse, measures, ("cohort", "model_id"), PREDICTIONS):
        slug = cohort_slug(name)
        prefix = f"{slug}.{model}."
        found.append(MergeGroup(f"predictions-{slug}-{model}", (PREDICTIONS, SEGMENTATIONS), prefix, sizes, counts))
    if cohort is None:
        for table in (QUARANTINE, RUNS):
            found.append(MergeGroup(_LOCK, (table,), "merged.", warehouse.sizes(table.name)))
    if cohort is not None and not found:
        raise warehouse.no_scans(cohort)
    return [one for one in found if one.sizes]


def _by(
    warehouse: Store, rows: pa.Table, columns: Sequence[str], first: Table
) -> Iterator[tuple[tuple[str, ...], dict[str, int], dict[str, int]]]:
    """The parts, with the sizes of their first files and how many scans they hold, by what `columns` say."""
    sizes = warehouse.sizes(first.name)
    found: defaultdict[tuple[str, ...], dict[str, int]] = defaultdict(dict)
    for row in rows.group_by([*columns, "part"]).aggregate([("scan_id", "count_distinct")]).to_pylist():
        found[tuple(row[name] for name in columns)][row["part"]] = row["scan_id_count_distinct"]
    for key, counts in sorted(found.items()):
        yield key, {part: sizes.get(part, 0) for part in counts}, counts


def _of_now(warehouse: Store, group: MergeGroup) -> MergeGroup:
    """The same group without what went before its lock was held, and without parts that a run may write again."""
    there = set(warehouse.parts(group.tables[-1].name))
    if group.tables == (QUARANTINE,):
        live = live_runs(warehouse.url)
        there = {name for name in there if not any(name.startswith(run_id) for run_id in live)}
    sizes = {name: size for name, size in group.sizes.items() if name in there}
    return replace(group, sizes=sizes)


def plan(group: MergeGroup, part_bytes: int, run_id: str) -> list[MergeTask]:
    """Parts of less than half of `part_bytes` to as many groups as make parts of about that size, in their order.

    No merged part holds more than `MOST_SCANS` scans, so that what later jobs do part by part stays small.
    """
    tasks: list[MergeTask] = []
    members: list[str] = []
    size = scans = 0
    for name in [*sorted(name for name, size in group.sizes.items() if size < part_bytes / 2), None]:
        count = group.scans.get(name, 0) if name is not None else 0
        if name is None or (members and (size + group.sizes[name] > part_bytes or scans + count > MOST_SCANS)):
            if len(members) > 1:
                tasks.append(_task(group, tuple(members), run_id))
            members, size, scans = [], 0, 0
        if name is not None:
            members.append(name)
            size, scans = size + group.sizes[name], scans + count
    return tasks


def _task(group: MergeGroup, members: tuple[str, ...], run_id: str) -> MergeTask:
    digest = hashlib.sha256("\0".join((run_id, *members)).encode()).hexdigest()[:16]
    return MergeTask(f"{group.prefix}{digest}", tuple(table.name for table in group.tables), members)


def merge_part(url: str, task: MergeTask, fence: Fence) -> MergeOutcome:
    """Write the new part of a task, and move the older ones aside; these stay where one of them is damaged.

    What an earlier attempt of the same run has committed is not done again. Raises WarehouseBusy if the run has lost
    its lock.
    """
    warehouse = Store(url)
    tables = tuple(_TABLES[name] for name in task.tables)
    parts.settle_attempts(warehouse, fence.run_id, task.name)
    rows = size = 0
    if task.name not in warehouse.files(task.tables[-1]):
        try:
            with PartWriter(warehouse, tables, task.name, fence.run_id, fence) as part:
                _copy(part, warehouse, task.members)
        except TableError as error:
            return _left(task, error)
        rows, size = sum(part.rows.values()), sum(part.bytes.values())
    merges.move_aside(warehouse, task.tables, task.members)
    return MergeOutcome(task, rows, size)


def _left(task: MergeTask, error: SegpipeError) -> MergeOutcome:
    problem = f"{task.tables[-1]}: {' '.join(error.problem.split())}, so {len(task.members)} parts stay"
    return MergeOutcome(task, problem=problem)


_TABLES = {table.name: table for table in (SLICES, SCANS, PREDICTIONS, SEGMENTATIONS, QUARANTINE, RUNS)}


def _copy(part: PartWriter, warehouse: Store, members: Sequence[str]) -> None:
    """Copy row groups of voxels as they stand, and the rows of the index table in few row groups."""
    *voxels, index = part.tables
    for name in members:
        _check_whole(warehouse, name, part.tables)
        for table in voxels:
            for rows in _row_groups(warehouse, table, name):
                part.write(table.name, rows)
    part.write_together(index.name, (rows for name in members for rows in _row_groups(warehouse, index, name)))


def _row_groups(warehouse: Store, table: Table, name: str) -> Iterator[pa.Table]:
    path = warehouse.path(table.name, f"{name}.parquet")
    try:
        with checked.open_part(warehouse.fs, path) as old:
            table.check(old.schema, path)
            for number in range(old.row_groups):
                yield with_later_columns(old.row_group(number), table).select(table.schema.names)
    except FileNotFoundError:
        raise TableError(f"{path} is missing", "put the file back") from None


def _check_whole(warehouse: Store, name: str, tables: Sequence[Table]) -> None:
    """Raise TableError if the files of a part are not of one writing, or do not hold the scans that they tell."""
    if tables == (SLICES, SCANS):
        rows = pa.concat_tables(_row_groups(warehouse, SCANS, name)).select(["scan_id", "subject", "split", "shape"])
        warehouse.slice_part(name, rows.to_pylist())
        return
    try:
        found = {
            (checked.read_metadata(warehouse.fs, warehouse.path(table.name, f"{name}.parquet")).metadata or {}).get(
                parts.STAMP
            )
            for table in tables
        }
    except FileNotFoundError as error:
        raise TableError(f"Part {name} lacks a file ({error.filename or 'one table'})", "put it back") from None
    if len(found) > 1:
        raise TableError(
            f"Part {name} is of different runs in {' and '.join(t.name for t in tables)}", "run segment again"
        )
