"""An archive of volumes to the tables `scans` and `slices`, one Spark task per part file."""

from __future__ import annotations

import hashlib
import itertools
import math
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

import segpipe
from segpipe.core.orientation import spacing_mm
from segpipe.core.splits import SplitRule
from segpipe.errors import BadInput, Reason, UsageError
from segpipe.readers import scan as scans
from segpipe.readers import sources
from segpipe.readers.sources import Listing, Rejected, ScanSource
from segpipe.settings import IngestSettings
from segpipe.warehouse import filesystem as files
from segpipe.warehouse import parts, slices
from segpipe.warehouse.lock import Fence, lock
from segpipe.warehouse.parts import PartWriter
from segpipe.warehouse.runs import RunRecord
from segpipe.warehouse.store import Warehouse, cohort_slug, group_rows
from segpipe.warehouse.tables import QUARANTINE, SCANS, SLICES

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from segpipe.spark.progress import Progress

MB = 1_000_000
_TABLE_BYTES_PER_SOURCE_BYTE = 0.85
"""What a byte of a gzipped source takes in `slices`, measured on BraTS 2021; only the size of parts hangs on it."""

_RETRIED = (Reason.UNREADABLE, Reason.CRASHED)
"""Reasons that need not lie in the input itself, so that an unchanged input is tried again by the next run."""

_DEATHS = 2
"""A scan on which this many workers died is quarantined."""


@dataclass(frozen=True)
class PartTask:
    """The scans of one part; `replaces` says that the part exists and keeps its other scans."""

    name: str
    sources: tuple[ScanSource, ...]
    replaces: bool = False


@dataclass(frozen=True)
class PartOutcome:
    """What became of one part: scan_ids written, scan_ids quarantined, and where time and bytes went."""

    name: str
    written: tuple[str, ...] = ()
    quarantined: tuple[str, ...] = ()
    decoded: int = 0
    source_bytes: int = 0
    table_bytes: int = 0
    task_seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class IngestOutcome:
    """What an ingest did: scan_ids by their fate, and `known_bad`, the inputs quarantined by earlier runs and unchanged."""

    written: tuple[str, ...]
    replaced: tuple[str, ...]
    skipped: int
    quarantined: int
    known_bad: int
    vanished: tuple[str, ...]

    @property
    def rejected(self) -> int:
        """All inputs of the source that are not in the tables; `--strict` looks at it."""
        return self.quarantined + self.known_bad


def ingest(
    spark: SparkSession, settings: IngestSettings, run: RunRecord, progress: Progress | None = None
) -> IngestOutcome:
    """Bring every scan of `settings.source` into the tables that is not there yet or has changed.

    Killed at any moment and run again, it ends in the tables of an uninterrupted run. Bad inputs become rows of
    `quarantine`. Raises UsageError where the settings contradict the cohort, NotFound where there is no source, and
    WarehouseBusy where another job holds the cohort.
    """
    rule = SplitRule(settings.split_salt, settings.train_fraction, settings.validation_fraction)
    warehouse = Warehouse(settings.warehouse)
    with run.stage("list"):
        listing = sources.find(settings.source, settings.layout)
    with lock(warehouse, lock_name(settings.cohort), settings.lock_wait_seconds, run.run_id) as fence:
        with run.stage("plan"):
            warehouse.recover()
            plan = _plan(warehouse, settings, rule, listing, spark.sparkContext.defaultParallelism)
        with run.stage("read and write"):
            _quarantine(fence, settings, f"{run.run_id}-listing", [_listed(one) for one in plan.rejected])
            outcomes = _run_tasks(spark, plan, _Job(settings, rule, fence), progress)
        with run.stage("tidy up"):
            parts.settle_attempts(warehouse, run.run_id)
        return _account(plan, outcomes, run)


def lock_name(cohort: str) -> str:
    """The lock that guards a cohort's `scans` and `slices`."""
    return f"slices-{cohort_slug(cohort)}"


@dataclass(frozen=True)
class _Job:
    """What every task of a run must know."""

    settings: IngestSettings
    rule: SplitRule
    fence: Fence

    @property
    def warehouse(self) -> Warehouse:
        return Warehouse(self.settings.warehouse)

    @property
    def run_id(self) -> str:
        return self.fence.run_id

    def scan_id(self, source: ScanSource) -> str:
        return scan_id(self.settings.cohort, source)


@dataclass(frozen=True)
class _Plan:
    """What a run has to do and what it need not do."""

    tasks: list[PartTask]
    rejected: list[Rejected]
    new: int
    changed: tuple[str, ...]
    skipped: int
    known_bad: int
    vanished: tuple[str, ...]


def scan_id(cohort: str, source: ScanSource) -> str:
    """The id of a scan: cohort:subject:session."""
    return f"{cohort}:{source.subject}:{source.session}"


def fingerprint(source: ScanSource, settings: IngestSettings) -> str:
    """What must be equal for a scan to be the same again: its files, and the settings that shape its rows."""
    return _hash(source.fingerprint, settings.axis, settings.resample_to)


def bad_fingerprint(input_fingerprint: str, settings: IngestSettings) -> str:
    """What must be equal for a bad input to be as bad again: the input, the settings that judge it, and this version."""
    return _hash(
        input_fingerprint,
        settings.axis,
        settings.resample_to,
        settings.layout,
        settings.max_voxels,
        segpipe.__version__,
    )


def _plan(warehouse: Warehouse, settings: IngestSettings, rule: SplitRule, listing: Listing, cores: int) -> _Plan:
    known = warehouse.index(settings.cohort)
    _check_rule(known.values(), rule, settings)
    bad = _known_bad(warehouse, settings.cohort)
    new: list[ScanSource] = []
    changed: dict[str, list[ScanSource]] = defaultdict(list)
    changed_ids = []
    skipped = known_bad = 0
    for source in sorted(listing.scans, key=lambda one: (one.subject, one.session)):
        identity = scan_id(settings.cohort, source)
        row = known.get(identity)
        if row is not None and row["fingerprint"] == fingerprint(source, settings):
            skipped += 1
        elif bad_fingerprint(source.fingerprint, settings) in bad:
            known_bad += 1
        elif row is not None:
            changed[row["part"]].append(source)
            changed_ids.append(identity)
        else:
            new.append(source)
    listed = {scan_id(settings.cohort, source) for source in listing.scans}
    rejected = [one for one in listing.rejected if bad_fingerprint(one.fingerprint, settings) not in bad]
    rewrites = [PartTask(name, tuple(group), replaces=True) for name, group in sorted(changed.items())]
    additions = plan_parts(new, settings, cores, taken=set(warehouse.parts(SLICES.name)))
    return _Plan(
        rewrites + additions,
        rejected,
        len(new),
        tuple(changed_ids),
        skipped,
        known_bad + len(listing.rejected) - len(rejected),
        tuple(sorted(set(known) - listed)),
    )


def plan_parts(
    new: Sequence[ScanSource], settings: IngestSettings, cores: int, taken: set[str] | frozenset[str] = frozenset()
) -> list[PartTask]:
    """Scans, in their order, to parts of about `settings.part_mb`: as many parts as cores, or a multiple of that.

    A cohort that is too small to fill a part per core still gets one per core, or per scan, so that all cores work. The
    names hang on cohort and scan_ids alone; `taken` names are not used again.
    """
    sizes = [max(1, sum(file.bytes for file in source.files)) for source in new]
    if not sizes:
        return []
    wanted = math.ceil(sum(sizes) * _TABLE_BYTES_PER_SOURCE_BYTE / (settings.part_mb * MB))
    count = min(math.ceil(wanted / cores) * cores, len(new))
    middle = (np.cumsum(sizes) - np.array(sizes) / 2) / sum(sizes)
    groups: dict[int, list[ScanSource]] = defaultdict(list)
    for source, place in zip(new, middle, strict=True):
        groups[int(place * count)].append(source)
    return [PartTask(_part_name(settings.cohort, group, taken), tuple(group)) for group in groups.values()]


def _part_name(cohort: str, group: Iterable[ScanSource], taken: set[str] | frozenset[str]) -> str:
    for again in itertools.count():
        digest = _hash(cohort, *(f"{source.subject}:{source.session}" for source in group), again)[:16]
        name = f"{cohort_slug(cohort)}.{digest}"
        if name not in taken:
            return name
    raise AssertionError("unreachable")


def _check_rule(rows: Iterable[Mapping[str, str]], rule: SplitRule, settings: IngestSettings) -> None:
    found = next((row["split_rule"] for row in rows if row["split_rule"] != str(rule)), None)
    if found is None:
        return
    was = SplitRule.parse(found)
    raise UsageError(
        f"Cohort {settings.cohort} is split by `{found}`, which these settings (`{rule}`) would change",
        f"give --split-salt {was.salt!r} --train-fraction {was.train} --validation-fraction {was.validation},"
        " or ingest into another cohort",
    )


def _known_bad(warehouse: Warehouse, cohort: str) -> set[str]:
    """Fingerprints of inputs that were rejected before and need not be looked at again."""
    if not warehouse.parts(QUARANTINE.name):
        return set()
    wanted = (ds.field("cohort") == cohort) & (ds.field("job") == "ingest")
    rows = warehouse.table(QUARANTINE.name).to_table(["fingerprint", "reason"], filter=wanted).to_pylist()
    return {row["fingerprint"] for row in rows if row["reason"] not in _RETRIED}


def _run_tasks(spark: SparkSession, plan: _Plan, job: _Job, progress: Progress | None) -> list[PartOutcome]:
    """Run one Spark task per part. A local Spark gives a failed task no second try, so the job gets some here."""
    if not plan.tasks:
        return []
    context = spark.sparkContext
    tries = _DEATHS + 2 if context.master.startswith("local") else 1
    scans_in_all = sum(len(task.sources) for task in plan.tasks)
    with progress(scans_in_all, "ingest") if progress is not None else nullcontext():
        for last in (number == tries - 1 for number in range(tries)):
            try:
                tasks = context.parallelize(plan.tasks, len(plan.tasks))
                return tasks.map(lambda task: write_part(task, job)).collect()
            except Exception as error:
                if last or not _is_worker_death(error):
                    raise
    raise AssertionError("unreachable")


def _is_worker_death(error: Exception) -> bool:
    text = str(getattr(error, "java_exception", error))
    return "Python worker exited unexpectedly" in text or "SocketException" in text or "EOFException" in text


def write_part(task: PartTask, job: _Job) -> PartOutcome:
    """Read the scans of a part and commit them; runs in a Spark worker, with one scan in memory at a time.

    An earlier attempt of the same run that got as far as its first rename is finished instead.
    """
    warehouse = job.warehouse
    parts.settle_attempts(warehouse, job.run_id, task.name)
    done = _committed(task, job)
    if done is not None:
        return done
    doomed = _deaths(task, job)
    clock = _Clock()
    written: list[str] = []
    bad: list[dict[str, Any]] = []
    with PartWriter(warehouse, (SLICES, SCANS), task.name, job.run_id, job.fence) as part:
        failed: set[str] = set()
        fresh = {job.scan_id(source): source for source in task.sources}
        with _Attempt(task, job) as attempt:
            for identity, source in fresh.items():
                attempt.enter(identity)
                try:
                    if doomed[identity] >= _DEATHS:
                        raise _crashed(identity)
                    _write_scan(part, source, job, clock)
                    written.append(identity)
                except BadInput as error:
                    failed.add(identity)
                    bad.append(_rejected_scan(source, error, job))
        if task.replaces:
            _copy_others(part, warehouse, task.name, set(fresh) - failed)
        if bad:  # before the part is visible: a kill in between costs one more look at a bad input, never a lost row
            _quarantine(job.fence, job.settings, f"{job.run_id}-{task.name}", bad)
        if not written:
            part.abandon()
    return PartOutcome(
        task.name,
        tuple(written),
        tuple(row["scan_id"] for row in bad),
        len(task.sources),
        sum(file.bytes for source in task.sources for file in source.files),
        sum(part.bytes.values()) if written else 0,
        clock.seconds,
    )
