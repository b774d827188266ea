"""A trained model over a cohort: rows of `predictions` and `segmentations`, by a Spark UDF that holds the network."""

from __future__ import annotations

import pickle
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic

import pyarrow as pa
import pyarrow.compute as pc

from segpipe.core.orientation import CANONICAL
from segpipe.core.prediction import AS_INGESTED, Model, PredictorFactory
from segpipe.core.regions import CONVENTIONS
from segpipe.core.splits import SplitRule
from segpipe.errors import BadInput, ModelError
from segpipe.pipelines import (
    attempts,
    baselines,
    cohort_key,
    identities,
    ingest_task,
    meanings,
    quarantine,
    series_rows,
)
from segpipe.pipelines.attempts import RETRIED
from segpipe.pipelines.follow_up import follow_up
from segpipe.pipelines.listing import listing as listed
from segpipe.pipelines.masks import MaskOutcome, write_masks
from segpipe.pipelines.segment_job import (
    ArchivedJob,
    Candidate,
    Place,
    SegmentJob,
    StoredJob,
    bad_fingerprint,
    quarantine_row,
)
from segpipe.pipelines.segment_task import ScanOutcome, SegmentTask, segment_part
from segpipe.readers.archive import Listing, Rejected, ScanSource
from segpipe.readers.naming import Naming, naming_of, refuse_key_in_conf
from segpipe.settings import IngestSettings, SegmentSettings
from segpipe.storage.lock import lock
from segpipe.warehouse import merges, parts
from segpipe.warehouse.runs import RunRecord
from segpipe.warehouse.scan_slices import ScanPlace, scan_places
from segpipe.warehouse.store import Store, cohort_slug
from segpipe.warehouse.tables import PREDICTIONS, SEGMENTATIONS

if TYPE_CHECKING:
    from pyspark import Accumulator, Broadcast
    from pyspark.sql import SparkSession

    from segpipe.pipelines.progress import Progress
    from segpipe.storage.lock import Fence

_LEAST_SHARES = 12
_SHOWN_PROBLEMS = 3
MOST_SCANS = 256
"""Scans of one part: what a killed task loses, and what keeps files from being many and small."""

_SCAN_COLUMNS = ("scan_id", "modalities", "orientation", "space", "fingerprint")
_OUTCOME_SCHEMA = "scan_id string, slices int, seconds double, infer_seconds double, reason string"


@dataclass(frozen=True)
class SegmentOutcome:
    """What a segmentation did: scan_ids that were segmented or rejected, and how many were so before.

    Rejected files of an archive that form no scan are named by their paths.
    """

    segmented: tuple[str, ...]
    skipped: int
    quarantined: tuple[str, ...]
    known_bad: int
    masks_failed: int = 0

    @property
    def rejected(self) -> int:
        """All scans that this model cannot segment, also those that earlier runs told of; `--strict` looks at it."""
        return len(self.quarantined) + self.known_bad


def segment(
    spark: SparkSession,
    settings: SegmentSettings,
    predictor: PredictorFactory,
    model: Model,
    run: RunRecord,
    progress: Progress | None = None,
) -> SegmentOutcome:
    """Segment every scan of the cohort that this model has not segmented yet, or that has changed since.

    The scans are those of the tables, or, with `settings.source`, those of an archive, whose slices are not stored.

    Killed at any moment and run again, it ends in the tables of an uninterrupted run; another model's rows are never
    touched. `predictor` holds the model and travels to the workers, each of which opens it once. Scans that the model
    cannot take become rows of `quarantine`. Raises NotFound if the cohort has no scans, and WarehouseBusy where
    another job is at the same work.
    """
    if model.label_convention not in CONVENTIONS:
        raise ModelError(f"Label convention {model.label_convention!r} is unknown", "train with this version")
    warehouse = Store(settings.warehouse)
    run.model_id = model.model_id
    archive = None
    if settings.source is not None:
        with run.stage("list"):
            archive = _archive(spark, settings, settings.source, model, run)
    name = f"predictions-{cohort_slug(settings.cohort)}-{model.model_id}"
    with lock(warehouse.url, name, settings.lock_wait_seconds, run.run_id) as fence:
        with run.stage("plan"):
            warehouse.recover()
            job, plan = _planned(spark, settings, model, fence, archive)
            quarantine.write(warehouse, fence, f"{run.run_id}-plan", plan.unfit)
        with run.stage("segment"):
            pairs = {task.name: [task.replaces] for task in plan.tasks if task.replaces is not None}
            merges.announced(warehouse, run.run_id, (PREDICTIONS, SEGMENTATIONS), pairs)
            outcomes = _run_tasks(spark, plan, job, predictor, progress)
        with run.stage("follow up"):
            follow_up(spark, job, run)
        masks_failed = 0
        if job.masks:
            with run.stage("write masks"):
                masks_failed = _tell_masks(write_masks(spark, settings, job, plan.candidates, progress), run)
        with run.stage("tidy up"):
            parts.settle_attempts(warehouse, run.run_id)
            merges.finish(warehouse, run.run_id)
        outcome = replace(_account(plan, outcomes, run), masks_failed=masks_failed)
        if outcome.rejected:
            run.lines += quarantine.told(warehouse, settings.cohort, run.run_id, outcome.known_bad)
        return outcome


def _tell_masks(outcomes: Sequence[MaskOutcome], run: RunRecord) -> int:
    """Tell what became of the files, and give the number that could not be written."""
    run.count("mask_files_written", sum(one.written for one in outcomes))
    run.count("mask_files_kept", sum(one.kept for one in outcomes))
    problems = [problem for one in outcomes for problem in one.problems]
    run.count("mask_files_failed", len(problems))
    run.lines += problems[:_SHOWN_PROBLEMS]
    return len(problems)


@dataclass(frozen=True)
class _Archive:
    """What a run with a source has found there, and how it names it."""

    source: str
    naming: Naming
    listing: Listing


def _archive(spark: SparkSession, settings: SegmentSettings, source: str, model: Model, run: RunRecord) -> _Archive:
    warehouse = Store(settings.warehouse)
    refuse_key_in_conf(spark.sparkContext.getConf().getAll())
    naming = naming_of(settings.subject_key_file, settings.hash_subjects)
    wanted = series_rows.options(settings, warehouse, settings.cohort)
    told = _told_bad(_reading(settings, model), naming, model)
    wanted = replace(wanted, unusable=quarantine.unusable(warehouse, settings.cohort, told))
    return _Archive(source, naming, listed(spark, settings, naming, wanted, run))


def _planned(
    spark: SparkSession, settings: SegmentSettings, model: Model, fence: Fence, archive: _Archive | None
) -> tuple[SegmentJob[Any], SegmentPlan]:
    """The job of a run, of one kind or the other, and its plan."""
    warehouse, cores = Store(settings.warehouse), spark.sparkContext.defaultParallelism
    known = dict(quarantine.reported(warehouse, "segment", settings.cohort))
    masks = any(folder is not None for folder in (settings.nifti, settings.dicom_seg, settings.dicom_sr))
    about: dict[str, Any] = {"reported": frozenset(known), "masks": masks}
    if archive is None:
        stored = StoredJob.of(settings.warehouse, settings.cohort, model, fence, **about, prepares=settings.prepare)
        return stored, plan_stored(warehouse, stored, known, settings.overwrite, cores)
    reader, listing = _reader(spark, settings, model, fence, archive)
    archived = ArchivedJob.of(settings.warehouse, settings.cohort, model, fence, **about, reader=reader)
    return archived, plan_archived(warehouse, archived, listing, known, settings.overwrite, cores)


def _reader(
    spark: SparkSession, settings: SegmentSettings, model: Model, fence: Fence, archive: _Archive
) -> tuple[ingest_task.IngestJob, Listing]:
    """What reads scans straight from the source as ingest does, and the listing with all that a plan settles.

    The split of a scan follows the rule of the cohort where it stands in the tables, else that of the model's training,
    so that what a model has learnt from is never called test. Raises what `cohort_key.check` does.
    """
    warehouse = Store(settings.warehouse)
    index = warehouse.index(settings.cohort)
    cohort_key.check(warehouse, settings.cohort, archive.naming, archive.listing, index.values())
    rules = [row["split_rule"] for row in index.values()] + [model.split_rule]
    reading = _reading(settings, model)
    try:
        rule = SplitRule.parse(rules[0])
    except ValueError:
        rule = SplitRule(reading.split_salt, reading.train_fraction, reading.validation_fraction)
    reader = ingest_task.IngestJob(reading, rule, fence, archive.naming)
    listing = meanings.with_conventions(spark, warehouse, reader, archive.listing)
    reader = as_ingested(reader, listing, index)
    return reader, baselines.with_earlier_visits(warehouse, reader, listing)


def _reading(settings: SegmentSettings, model: Model) -> IngestSettings:
    """The settings with which ingest would read the scans of a source for a model."""
    return IngestSettings(
        source=settings.source or "",
        warehouse=settings.warehouse,
        cohort=settings.cohort,
        layout=settings.layout,
        label_convention=settings.label_convention,
        axis=next(name for name, codes in CANONICAL.items() if codes == model.orientation),
        resample_to=settings.resample_to,
        prepare=settings.prepare or model.space != AS_INGESTED,
        max_voxels=settings.max_voxels,
    )


def _told_bad(reading: IngestSettings, naming: Naming, model: Model) -> dict[str, Callable[[Rejected], str]]:
    """Under which fingerprints ingest and this job reject an input, so that both choose the same series."""
    return {
        "ingest": partial(ingest_task.bad_fingerprint, reading, naming),
        "segment": lambda one: bad_fingerprint(naming.fingerprint(one), model.model_id),
    }


def as_ingested(
    reader: ingest_task.IngestJob, listing: Listing, index: Mapping[str, Mapping[str, str]]
) -> ingest_task.IngestJob:
    """The reader with the setting of header text that the cohort was ingested with, so that its scans are the same.

    Fingerprints tell it. Nothing that is written here holds such text, so nobody need be asked.
    """
    keeping = replace(reader, settings=replace(reader.settings, keep_header_text=True))
    for scan in listing.scans:
        row = index.get(reader.scan_id(scan))
        for one in (reader, keeping):
            if row is not None and row["fingerprint"] == one.fingerprint(scan):
                return one
    return reader


@dataclass(frozen=True)
class SegmentPlan:
    """What a run has to do: tasks, rows of `quarantine` for scans that are unfit at sight; and what is done already.

    `candidates` are all scans of the cohort.
    """

    tasks: list[SegmentTask[Any]]
    unfit: list[dict[str, Any]]
    skipped: int
    known_bad: int
    candidates: Sequence[Candidate[Any]]


def plan_stored(warehouse: Store, job: StoredJob, known: Mapping[str, str], overwrite: bool, cores: int) -> SegmentPlan:
    """Sort the scans of the tables into done, unfit and to do.

    What is done before stays in the part that holds it. `known` has the reasons by fingerprint of what stands in
    quarantine; a scan that the model could take is tried again nevertheless.
    """

    def is_known_bad(one: Candidate[ScanPlace]) -> bool:
        return one.unfit is not None and job.bad_fingerprint(one.fingerprint) in known

    candidates = _stored(warehouse, job)
    found = _sorted(candidates, _done(warehouse, job), overwrite, is_known_bad)
    tasks = _rewrites(found.again, job) + _additions(found.new, job, cores)
    return SegmentPlan(tasks, _unfit_rows(warehouse, found.unfit, job), found.skipped, found.known_bad, candidates)


def plan_archived(
    warehouse: Store, job: ArchivedJob, listing: Listing, known: Mapping[str, str], overwrite: bool, cores: int
) -> SegmentPlan:
    """Sort the scans of an archive's `listing` into done, unfit and to do; whether one fits is seen when it is read.

    What is done before stays in the part that holds it. `known` has the reasons by fingerprint of what stands in
    quarantine: an unchanged scan is looked at again only where the fault need not lie in it. Scans of patients who are
    in the tables under another name are unfit, as they are for ingest.
    """

    def is_known_bad(one: Candidate[ScanSource]) -> bool:
        reason = known.get(job.bad_fingerprint(one.fingerprint))
        return reason is not None and reason not in RETRIED

    candidates = [Candidate(job.scan_id(scan), job.reader.fingerprint(scan), scan) for scan in listing.scans]
    found = _sorted(candidates, _done(warehouse, job), overwrite, is_known_bad)
    vanished = warehouse.index(job.cohort).keys() - {one.scan_id for one in candidates}
    new, renamed = identities.renamed(warehouse, job.reader, found.new, vanished, listing.series)
    tasks = _rewrites(found.again, job) + _additions(new, job, cores)
    rejected = [*listing.rejected, *renamed]
    rows = _rejected_rows(rejected, job, known)
    return SegmentPlan(tasks, rows, found.skipped, found.known_bad + len(rejected) - len(rows), candidates)


@dataclass(frozen=True)
class _Sorted(Generic[Place]):
    """Scans by what is to become of them; `again` are those to segment again, by the part that holds them."""

    again: dict[str, list[Place]]
    new: list[Place]
    unfit: list[Candidate[Place]]
    skipped: int
    known_bad: int


def _sorted(
    candidates: Iterable[Candidate[Place]],
    done: Mapping[str, Mapping[str, str]],
    overwrite: bool,
    is_known_bad: Callable[[Candidate[Place]], bool],
) -> _Sorted[Place]:
    skipped = known_bad = 0
    again: defaultdict[str, list[Place]] = defaultdict(list)
    new: list[Place] = []
    unfit: list[Candidate[Place]] = []
    for one in candidates:
        old = done.get(one.scan_id)
        if old is not None and old["fingerprint"] == one.fingerprint and not overwrite:
            skipped += 1
        elif is_known_bad(one):
            known_bad += 1
        elif one.unfit is not None:
            unfit.append(one)
        elif old is not None:
            again[old["part"]].append(one.place)
        else:
            new.append(one.place)
    return _Sorted(again, new, unfit, skipped, known_bad)


def _stored(warehouse: Store, job: StoredJob) -> list[Candidate[ScanPlace]]:
    """The scans of the tables, neighbours in `slices` beside each other."""
    scans = {row["scan_id"]: row for row in warehouse.scans(job.cohort, _SCAN_COLUMNS).to_pylist()}
    places = scan_places(warehouse, job.cohort).values()
    found = []
    for place in sorted(places, key=lambda place: (place.part, place.row_groups)):
        row = scans[place.scan_id]
        unfit = None
        try:
            job.fit(place.scan_id, row["modalities"], row["orientation"], row["space"])
        except BadInput as error:
            unfit = error
        found.append(Candidate(place.scan_id, row["fingerprint"], place, unfit))
    return found


def _rejected_rows(rejected: Iterable[Rejected], job: ArchivedJob, known: Mapping[str, str]) -> list[dict[str, Any]]:
    """Rows of `quarantine` for what forms no scan that may be segmented, unless `known` has them."""
    naming, rows = job.reader.naming, []
    for one in rejected:
        fingerprint = job.reader.input_fingerprint(one)
        if job.bad_fingerprint(fingerprint) not in known:
            told = [naming.message(text, one.named, one.is_dicom) for text in (one.message, one.remedy)]
            paths = naming.paths(one.paths, one.is_dicom)
            rows.append(quarantine_row(job, None, paths, fingerprint, BadInput(one.reason, *told)))
    return rows


def _done(warehouse: Store, job: SegmentJob[Any]) -> dict[str, Mapping[str, str]]:
    """What this model has segmented: scan_id to `part` and `fingerprint`."""
    if not warehouse.parts(SEGMENTATIONS.name):
        return {}
    rows = warehouse.rows(SEGMENTATIONS, ["scan_id", "fingerprint", "model_id"], job.cohort)
    mine = rows.filter(pc.equal(rows["model_id"], job.model_id)).select(["scan_id", "fingerprint", "part"])
    return {row["scan_id"]: row for row in mine.to_pylist()}


def _unfit_rows(warehouse: Store, unfit: Sequence[Candidate[ScanPlace]], job: StoredJob) -> list[dict[str, Any]]:
    errors = {one.scan_id: one.unfit for one in unfit}
    return [
        quarantine_row(job, scan.scan_id, scan.paths, scan.fingerprint, error)
        for scan in job.opened(warehouse, [one.place for one in unfit])
        if (error := errors[scan.scan_id]) is not None
    ]


def _rewrites(again: Mapping[str, Sequence[Place]], job: SegmentJob[Place]) -> list[SegmentTask[Place]]:
    """Parts that take the place of those that hold scans which are segmented again."""
    return [
        SegmentTask(f"{_prefix(job)}.r{number:05d}", tuple(group), replaces=name)
        for number, (name, group) in enumerate(sorted(again.items()))
    ]


def _additions(new: Sequence[Place], job: SegmentJob[Place], cores: int) -> list[SegmentTask[Place]]:
    """New parts, of scans that are neighbours."""
    left = iter(new)
    groups = [tuple(islice(left, size)) for size in part_sizes(len(new), cores)]
    return [SegmentTask(f"{_prefix(job)}.{number:05d}", group) for number, group in enumerate(groups)]


def part_sizes(scans: int, cores: int) -> list[int]:
    """How many scans each part holds: the first many, so that parts are few, the last few.

    Scans and cores differ in how long they take, and at the end the others wait for the slowest: for a twelfth of a
    core's share instead of a quarter.

    >>> part_sizes(24, cores=2)
    [6, 5, 4, 3, 2, 1, 1, 1, 1]
    """
    sizes, least = [], max(1, scans // (cores * _LEAST_SHARES))
    while scans:
        sizes.append(min(MOST_SCANS, scans, max(least, -(-scans // (2 * cores)))))
        scans -= sizes[-1]
    return sizes


def _prefix(job: SegmentJob[Any]) -> str:
    return f"{cohort_slug(job.cohort)}.{job.model_id}.{job.run_id}"


def _run_tasks(
    spark: SparkSession, plan: SegmentPlan, job: SegmentJob[Any], predictor: PredictorFactory, progress: Progress | None
) -> list[ScanOutcome]:
    """One partition, and so one Spark task, per part."""
    if not plan.tasks:
        return []
    context = spark.sparkContext
    threads = int(context.getConf().get("spark.task.cpus", "1"))
    shared = context.broadcast(predictor)
    packed = [(bytearray(pickle.dumps(task)),) for task in plan.tasks]
    total = sum(len(task.scans) for task in plan.tasks)
    try:
        with attempts.running(spark, job.run_id, total, "segment", progress) as bar:
            told = attempts.tally(spark, bar, len(plan.unfit))
            todo = spark.createDataFrame(context.parallelize(packed, len(packed)), "task binary")
            outcomes = todo.mapInArrow(segment_udf(shared, job, threads, told), _OUTCOME_SCHEMA)
            found = attempts.tried(spark, Store(job.warehouse), job.run_id, outcomes.collect)
    finally:
        shared.unpersist()
    return [ScanOutcome(**row.asDict()) for row in found]


def segment_udf(
    predictor: Broadcast[PredictorFactory], job: SegmentJob[Any], threads: int, told: Accumulator[tuple[int, int]]
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """The function that mapInArrow calls in each Python worker: rows of tasks in, one row per scan out."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for packed in batch["task"]:
                outcomes = segment_part(pickle.loads(packed.as_py()), job, predictor.value.open(threads))
                told.add((len(outcomes), sum(one.reason is not None for one in outcomes)))
                yield pa.RecordBatch.from_pylist([asdict(outcome) for outcome in outcomes], _outcome_schema())

    return run


def _outcome_schema() -> pa.Schema:
    kinds = {"scan_id": pa.string(), "slices": pa.int32(), "reason": pa.string()}
    names = ("scan_id", "slices", "seconds", "infer_seconds", "reason")
    return pa.schema([(name, kinds.get(name, pa.float64())) for name in names])


def _account(plan: SegmentPlan, outcomes: Sequence[ScanOutcome], run: RunRecord) -> SegmentOutcome:
    segmented = tuple(sorted(one.scan_id for one in outcomes if one.reason is None))
    bad = [one.scan_id for one in outcomes if one.reason is not None]
    quarantined = tuple(sorted([*bad, *(row["scan_id"] or ", ".join(row["paths"]) for row in plan.unfit)]))
    run.count("scans_segmented", len(segmented))
    run.count("scans_skipped", plan.skipped)
    run.count("slices", sum(one.slices for one in outcomes))
    run.count("quarantined", len(quarantined))
    run.count("known_bad", plan.known_bad)
    run.count("parts", len(plan.tasks))
    unfit = [one.unfit for one in plan.candidates if one.unfit is not None]
    if unfit and not plan.unfit:
        run.lines.append(
            f"{len(unfit)} of {len(plan.candidates)} scans are not for this model, such as this: {unfit[0]}"
        )
    if outcomes:
        run.stage_seconds["infer, all tasks together"] = sum(one.infer_seconds for one in outcomes)
        rest = sum(one.seconds - one.infer_seconds for one in outcomes)
        run.stage_seconds["measure and write, all tasks together"] = rest
    return SegmentOutcome(segmented, plan.skipped, quarantined, plan.known_bad)
