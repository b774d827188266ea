"""An archive of volumes to the tables `scans` and `slices`, one Spark task per part file."""

from __future__ import annotations

import hashlib
import itertools
import math
import shlex
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from segpipe.core.splits import SplitRule
from segpipe.errors import BadInput, NotFound, UsageError
from segpipe.pipelines import attempts, baselines, cohort_key, identities, meanings, quarantine, series_rows
from segpipe.pipelines.attempts import RETRIED
from segpipe.pipelines.ingest_task import (
    MB,
    IngestJob,
    PartOutcome,
    PartTask,
    bad_fingerprint,
    quarantine_row,
    stored_roles,
    write_part,
)
from segpipe.pipelines.listing import listing as listed
from segpipe.readers import scan as scan_reader
from segpipe.readers.names import MODALITIES, role_order
from segpipe.readers.naming import naming_of, refuse_key_in_conf
from segpipe.readers.plan import ignored_line
from segpipe.readers.series import Options
from segpipe.readers.sources import Listing, Rejected, ScanSource, SourceFile
from segpipe.settings import IngestSettings
from segpipe.storage.lock import lock
from segpipe.warehouse import merges, parts
from segpipe.warehouse.runs import RunRecord
from segpipe.warehouse.store import Store, cohort_slug
from segpipe.warehouse.tables import SCANS, SLICES

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from segpipe.pipelines.progress import Progress

_TABLE_BYTES_PER_SOURCE_BYTE = 0.85
"""What a byte of a gzipped source takes in `slices`, measured on BraTS 2021; only the size of parts depends on it."""


@dataclass(frozen=True)
class IngestOutcome:
    """What an ingest did: scan_ids by their fate.

    `quarantined` counts the inputs that this run rejected, `known_bad` those that earlier runs did and that have not
    changed since.
    """

    written: tuple[str, ...]
    replaced: tuple[str, ...]
    skipped: int
    quarantined: int
    known_bad: int
    vanished: tuple[str, ...]

    @property
    def rejected(self) -> int:
        """All inputs of the source that are not in the tables as they now stand; `--strict` looks at it."""
        return self.quarantined + self.known_bad


def ingest(
    spark: SparkSession, settings: IngestSettings, run: RunRecord, progress: Progress | None = None
) -> IngestOutcome:
    """Bring every scan of `settings.source` into the tables that is not there yet or has changed.

    Killed at any moment and run again, it ends in the tables of an uninterrupted run. Bad inputs become rows of
    `quarantine`. Raises UsageError if the settings contradict the cohort, NotFound if there is no source, and
    WarehouseBusy where another job holds the cohort.
    """
    rule = SplitRule(settings.split_salt, settings.train_fraction, settings.validation_fraction)
    warehouse = Store(settings.warehouse)
    refuse_key_in_conf(spark.sparkContext.getConf().getAll())
    with run.stage("list"):
        naming = naming_of(settings.subject_key_file, settings.hash_subjects)
        wanted = series_rows.options(settings, warehouse, settings.cohort)
        told = {"ingest": partial(bad_fingerprint, settings, naming)}
        wanted = replace(wanted, unusable=quarantine.unusable(warehouse, settings.cohort, told))
        listing = listed(spark, settings, naming, wanted, run)
        check_reference(listing, settings.resample_to)
    with lock(warehouse.url, lock_name(settings.cohort), settings.lock_wait_seconds, run.run_id) as fence:
        job = IngestJob(settings, rule, fence, naming)
        with run.stage("plan"):
            warehouse.recover()
            known = warehouse.index(settings.cohort)
            cohort_key.check(warehouse, settings.cohort, naming, listing, known.values())
            if settings.plan:
                return _planned(warehouse, job, listing, wanted, run)
            listing = baselines.with_earlier_visits(
                warehouse, job, meanings.with_conventions(spark, warehouse, job, listing)
            )
            plan = plan_ingest(warehouse, job, listing, known, spark.sparkContext.defaultParallelism)
        with run.stage("read and write"):
            _quarantine_listed(job, plan.rejected)
            pairs = {task.name: [task.replaces] for task in plan.tasks if task.replaces is not None}
            merges.announced(warehouse, run.run_id, (SLICES, SCANS), pairs)
            outcomes = _run_tasks(spark, plan, job, progress)
        with run.stage("tidy up"):
            _keep_series(warehouse, job, listing, outcomes, plan, run)
            parts.settle_attempts(warehouse, run.run_id)
            merges.finish(warehouse, run.run_id)
        _tell(listing, run)
        outcome = _account(plan, outcomes, run)
        if outcome.rejected:
            run.lines += quarantine.told(warehouse, settings.cohort, run.run_id, outcome.known_bad)
        return outcome


def check_reference(listing: Listing, wanted: str | None) -> None:
    """Raise UsageError if the modality whose grid the others should be resampled to is none of the four and in no scan.

    One of the four may come tomorrow.
    """
    if wanted is None or wanted in MODALITIES:
        return
    there = sorted({name.partition(".")[0] for scan in listing.scans for name in scan.modalities}, key=role_order)
    if there and wanted.partition(".")[0] not in there:
        raise UsageError(f"--resample-to is {wanted!r}, and no scan has it", f"choose one of {', '.join(there)}")


def _planned(warehouse: Store, job: IngestJob, listing: Listing, wanted: Options, run: RunRecord) -> IngestOutcome:
    """The table `series` alone: what is in a scan of the tables stays so, whatever would become of it."""
    cohort = job.settings.cohort
    scan_ids = [job.scan_id(source) for source in listing.scans]
    earlier = {name: f"{cohort}:{who}:{visit}" for name, (who, visit, _) in wanted.earlier.items()}
    rows = [
        {**row, "scan_id": earlier.get(row["series_id"])}
        for row in series_rows.rows(listing.series, cohort, job.run_id)
    ]
    run.count("series", len(rows))
    run.count("series_changed", series_rows.keep(warehouse, job.fence, cohort, rows))
    run.lines.append(
        f"planned: {len(scan_ids)} scans of {len(rows)} DICOM series, {len(listing.rejected)} inputs rejected"
    )
    return IngestOutcome((), (), 0, 0, 0, ())


def _keep_series(
    warehouse: Store,
    job: IngestJob,
    listing: Listing,
    outcomes: Sequence[PartOutcome],
    plan: IngestPlan,
    run: RunRecord,
) -> None:
    """Bring the table `series` up to date, and tell what became of the series."""
    if not listing.series:
        return
    rejected = {scan_id for outcome in outcomes for scan_id in outcome.quarantined} | set(plan.known_bad_scans)
    entered = _entered(warehouse, job.settings.cohort)
    rows = series_rows.rows(listing.series, job.settings.cohort, job.run_id, rejected, entered)
    run.count("series", len(rows))
    run.count("series_changed", series_rows.keep(warehouse, job.fence, job.settings.cohort, rows))
    decisions = Counter("in scans" if row["scan_id"] else row["decision"] for row in rows)
    run.lines.append("DICOM series: " + ", ".join(f"{count} {name}" for name, count in sorted(decisions.items())))


def _entered(warehouse: Store, cohort: str) -> dict[str, frozenset[str]]:
    """The modalities that stand in the tables, by scan_id."""
    try:
        rows = warehouse.scans(cohort, ("scan_id", "modalities")).to_pylist()
    except NotFound:
        return {}
    return {row["scan_id"]: frozenset(name.partition(".")[0] for name in row["modalities"]) for row in rows}


def _tell(listing: Listing, run: RunRecord) -> None:
    """Files that are no images, by kind, and readings of names that could be others."""
    run.count("ignored", listing.ignored)
    for kind, number in listing.kinds.items():
        run.count(f"ignored {kind}", number)
    if listing.kinds:
        run.lines.append(ignored_line(listing))
    run.lines += listing.told


def lock_name(cohort: str) -> str:
    """The lock that guards a cohort's `scans` and `slices`."""
    return f"slices-{cohort_slug(cohort)}"


def plan_parts(
    new: Sequence[ScanSource], settings: IngestSettings, cores: int, taken: frozenset[str] = frozenset()
) -> list[PartTask]:
    """Scans, in their order, to parts of about `settings.part_mb`: as many parts as cores, or a multiple of that.

    A cohort that is too small to fill a part per core still gets one per core, or per scan, so that all cores work.
    Names depend on the cohort and the scans alone, and none of `taken` is used again.
    """
    sizes = np.array([max(1, sum(file.bytes for file in source.files)) for source in new], np.float64)
    if not len(sizes):
        return []
    wanted = math.ceil(sizes.sum() * _TABLE_BYTES_PER_SOURCE_BYTE / (settings.part_mb * MB))
    count = min(math.ceil(wanted / cores) * cores, len(new))
    middles = (np.cumsum(sizes) - sizes / 2) / sizes.sum()
    groups: dict[int, list[ScanSource]] = defaultdict(list)
    for source, middle in zip(new, middles, strict=True):
        groups[int(middle * count)].append(source)
    return [PartTask(_part_name(settings.cohort, group, taken), tuple(group)) for group in groups.values()]


@dataclass(frozen=True)
class IngestPlan:
    """What a run has to do, and what it need not do."""

    tasks: list[PartTask]
    rejected: list[Rejected]
    changed: tuple[str, ...]
    skipped: int
    known_bad: int
    vanished: tuple[str, ...]
    known_bad_scans: tuple[str, ...] = ()
    faces: frozenset[str] = frozenset()


def plan_ingest(
    warehouse: Store, job: IngestJob, listing: Listing, known: Mapping[str, Mapping[str, str]], cores: int
) -> IngestPlan:
    """Sort what the source gives by what is to do about it; `known` are the rows of `scans`, see Store.index."""
    _check_rule(known.values(), job)
    known_inputs = quarantine.reported(warehouse, "ingest", job.settings.cohort)
    reported = {fingerprint for fingerprint, _ in known_inputs}
    bad = {fingerprint for fingerprint, reason in known_inputs if reason not in RETRIED}
    new: list[ScanSource] = []
    changed: dict[str, list[ScanSource]] = defaultdict(list)
    skipped = dropped = 0
    known_bad: list[str] = []
    for source in sorted(listing.scans, key=lambda one: (one.subject, one.session)):
        row = known.get(job.scan_id(source))
        if row is not None and row["fingerprint"] == job.fingerprint(source):
            closed = _closed(warehouse, job, source, row["part"], reported - bad)
            if any(scan_reader.is_readable(job.settings.source, file) for file in closed):
                changed[row["part"]].append(source)
                continue
            skipped += 1
            dropped += len(_told(job, source, bad)) + len(closed)
        elif job.bad_fingerprint(source) in bad:
            known_bad.append(job.scan_id(source))
        elif row is not None:
            changed[row["part"]].append(source)
        else:
            new.append(source)
    vanished = tuple(sorted(set(known) - {job.scan_id(source) for source in listing.scans}))
    new, renamed = identities.renamed(warehouse, job, new, vanished, listing.series)
    unusable = [*listing.rejected, *renamed]
    rejected = [one for one in unusable if job.bad_fingerprint(one) not in reported]
    taken = frozenset((*warehouse.files(SLICES.name), *warehouse.files(SCANS.name), *merges.names_in_use(warehouse)))
    rewrites = [
        PartTask(_part_name(job.settings.cohort, group, taken), tuple(group), replaces=name)
        for name, group in sorted(changed.items())
    ]
    additions = plan_parts(new, job.settings, cores, taken)
    return IngestPlan(
        tasks=[_with_reported(task, job, reported) for task in rewrites + additions],
        rejected=rejected,
        changed=tuple(job.scan_id(source) for group in changed.values() for source in group),
        skipped=skipped,
        known_bad=len(known_bad) + len(unusable) - len(rejected) + dropped,
        vanished=vanished,
        known_bad_scans=tuple(known_bad),
        faces=frozenset(scan_id for scan_id, row in known.items() if row["may_show_face"] == "True"),
    )


def _closed(warehouse: Store, job: IngestJob, source: ScanSource, part: str, told: Collection[str]) -> list[SourceFile]:
    """The files that a scan of the tables lacks because an earlier run could not read them."""
    found = _told(job, source, told)
    stored = stored_roles(warehouse, part)[job.scan_id(source)] if found else frozenset()
    return [file for file in found if file.role.partition(".")[0] not in stored]


def _told(job: IngestJob, source: ScanSource, told: Collection[str]) -> list[SourceFile]:
    """The files of a scan that stand in quarantine by themselves, with one of these fingerprints."""
    return scan_reader.told(source, lambda one: job.bad_fingerprint(one) in told) if told else []


def _with_reported(task: PartTask, job: IngestJob, reported: set[str]) -> PartTask:
    prints = {job.bad_fingerprint(source) for source in task.sources}
    return replace(task, reported=frozenset(prints & reported))


def _part_name(cohort: str, group: Iterable[ScanSource], taken: frozenset[str]) -> str:
    scans = [f"{source.subject}:{source.session}" for source in group]
    for again in itertools.count():
        digest = hashlib.sha256("\0".join((cohort, *scans, str(again))).encode()).hexdigest()[:16]
        name = f"{cohort_slug(cohort)}.{digest}"
        if name not in taken:
            return name
    raise AssertionError("unreachable")


def _check_rule(rows: Iterable[Mapping[str, str]], job: IngestJob) -> None:
    found = next((row["split_rule"] for row in rows if row["split_rule"] != str(job.rule)), None)
    if found is not None:
        was = SplitRule.parse(found)
        raise UsageError(
            f"Cohort {job.settings.cohort} is split by `{found}`, which these settings (`{job.rule}`) would change",
            f"give --split-salt {shlex.quote(was.salt)} --train-fraction {was.train} --validation-fraction"
            f" {was.validation}, or ingest into another cohort",
        )


def _run_tasks(spark: SparkSession, plan: IngestPlan, job: IngestJob, progress: Progress | None) -> list[PartOutcome]:
    """Run one Spark task per part; what is committed is not done twice."""
    if not plan.tasks:
        return []

    total = sum(len(task.sources) for task in plan.tasks)
    with attempts.running(spark, job.run_id, total, "ingest", progress) as bar:
        told = attempts.tally(spark, bar, len(plan.rejected))

        def write(task: PartTask) -> PartOutcome:
            outcome = write_part(task, job)
            told.add((len(task.sources), len(outcome.quarantined)))
            return outcome

        tasks = spark.sparkContext.parallelize(plan.tasks, len(plan.tasks))
        return attempts.tried(spark, Store(job.settings.warehouse), job.run_id, lambda: tasks.map(write).collect())


def _quarantine_listed(job: IngestJob, rejected: Sequence[Rejected]) -> None:
    rows = [quarantine_row(job, one, one.paths, BadInput(one.reason, one.message, one.remedy)) for one in rejected]
    quarantine.write(Store(job.settings.warehouse), job.fence, f"{job.run_id}-listing", rows)


def _tell_privacy(plan: IngestPlan, outcomes: Sequence[PartOutcome], run: RunRecord) -> None:
    written = {identity for outcome in outcomes for identity in outcome.written}
    faces = len((plan.faces - written) | {identity for outcome in outcomes for identity in outcome.faces})
    texts = sum(len(outcome.texts) for outcome in outcomes)
    run.count("scans_that_may_show_a_face", faces)
    run.count("headers_blanked", texts)
    if faces:
        run.lines.append(
            f"{faces} scans of the cohort may show a face: their heads are not stripped, so treat the tables as the"
            " archive is treated, or ingest with --prepare into another cohort"
        )
    if texts:
        run.lines.append(
            f"free text in the headers of {texts} scans was not kept; --keep-header-text keeps it, and names of people"
            " with it"
        )


def _account(plan: IngestPlan, outcomes: Sequence[PartOutcome], run: RunRecord) -> IngestOutcome:
    written = {identity for outcome in outcomes for identity in outcome.written}
    quarantined = sum(len(outcome.quarantined) for outcome in outcomes) + len(plan.rejected)
    replaced = tuple(identity for identity in plan.changed if identity in written)
    run.count("scans_written", len(written) - len(replaced))
    run.count("scans_replaced", len(replaced))
    run.count("scans_skipped", plan.skipped)
    run.count("scans_decoded", sum(outcome.decoded for outcome in outcomes))
    run.count("quarantined", quarantined)
    run.count("known_bad", plan.known_bad)
    run.count("vanished", len(plan.vanished))
    run.count("parts", sum(bool(outcome.written) for outcome in outcomes))
    run.count("source_bytes", sum(outcome.source_bytes for outcome in outcomes))
    run.count("table_bytes", sum(outcome.table_bytes for outcome in outcomes))
    for name in sorted({name for outcome in outcomes for name in outcome.task_seconds}):
        total = sum(outcome.task_seconds.get(name, 0.0) for outcome in outcomes)
        run.stage_seconds[f"{name}, all tasks together"] = total
    _tell_privacy(plan, outcomes, run)
    if plan.vanished:
        some = ", ".join(plan.vanished[:3]) + (", …" if len(plan.vanished) > 3 else "")
        run.lines.append(f"no longer in the source and kept in the tables: {some}")
    return IngestOutcome(
        tuple(sorted(written - set(replaced))), replaced, plan.skipped, quarantined, plan.known_bad, plan.vanished
    )
