"""A trained model over a cohort: rows of `predictions` and `segmentations`, by a Spark UDF that holds the network."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.dataset as ds

from segpipe.core.prediction import Model, PredictorFactory
from segpipe.core.regions import CONVENTIONS
from segpipe.errors import BadInput, ModelError
from segpipe.settings import SegmentSettings
from segpipe.spark.segment_task import (
    Job,
    ScanOutcome,
    SegmentTask,
    quarantine_row,
    segment_part,
    write_quarantine,
)
from segpipe.warehouse import parts
from segpipe.warehouse.lock import lock
from segpipe.warehouse.runs import RunRecord
from segpipe.warehouse.scan_slices import ScanPlace, scan_places, scan_rows
from segpipe.warehouse.store import Warehouse, cohort_slug
from segpipe.warehouse.tables import QUARANTINE, SEGMENTATIONS

if TYPE_CHECKING:
    from pyspark import Broadcast
    from pyspark.sql import SparkSession

    from segpipe.spark.progress import Progress

_TASKS_PER_CORE = 4
_MOST_SCANS = 128
"""Scans of one part: what a killed task loses, and what keeps files from being many and small."""

_TASK_SCHEMA = "name string, replaces boolean, scans array<struct<scan_id string, part string, row_groups array<int>>>"
_OUTCOME_SCHEMA = "scan_id string, slices int, seconds double, infer_seconds double, reason string"


@dataclass(frozen=True)
class SegmentOutcome:
    """What a segmentation did: scan_ids that were segmented or rejected, and how many were so before."""

    segmented: tuple[str, ...]
    skipped: int
    quarantined: tuple[str, ...]
    known_bad: int


def segment(
    spark: SparkSession,
    settings: SegmentSettings,
    predictor: PredictorFactory,
    model: Model,
    run: RunRecord,
    progress: Progress | None = None,
) -> SegmentOutcome:
    """Segment every scan of the cohort that this model has not segmented yet, or that has changed since.

    Killed at any moment and run again, it ends in the tables of an uninterrupted run; another model's rows are never
    touched. `predictor` holds the model and travels to the workers, each of which opens it once. Scans that the model
    cannot take become rows of `quarantine`. Raises NotFound where the cohort has no scans, and WarehouseBusy where
    another job is at the same work.
    """
    if model.label_convention not in CONVENTIONS:
        raise ModelError(f"Label convention {model.label_convention!r} is unknown", "train with this version")
    warehouse = Warehouse(settings.warehouse)
    run.model_id = model.model_id
    name = f"predictions-{cohort_slug(settings.cohort)}-{model.model_id}"
    with lock(warehouse, name, settings.lock_wait_seconds, run.run_id) as fence:
        job = Job.of(settings.warehouse, settings.cohort, model, fence)
        with run.stage("plan"):
            warehouse.recover()
            plan = make_plan(warehouse, job, settings.overwrite, spark.sparkContext.defaultParallelism)
            write_quarantine(job, f"{run.run_id}-plan", plan.unfit)
        with run.stage("segment"):
            outcomes = _run_tasks(spark, plan.tasks, job, predictor, progress)
        with run.stage("tidy up"):
            parts.settle_attempts(warehouse, run.run_id)
        return _account(plan, outcomes, run)


@dataclass(frozen=True)
class Plan:
    """What a run has to do: tasks, rows of `quarantine` for scans that are unfit at sight; and what is done already."""

    tasks: list[SegmentTask]
    unfit: list[dict[str, Any]]
    skipped: int
    known_bad: int


def make_plan(warehouse: Warehouse, job: Job, overwrite: bool, cores: int) -> Plan:
    """Sort the scans of a cohort into done, unfit and to do; what is done before stays in the part that holds it."""
    scans = warehouse.scans(job.cohort, ("scan_id", "modalities", "orientation")).to_pylist()
    index = warehouse.index(job.cohort)
    places = scan_places(warehouse, job.cohort)
    done = _done(warehouse, job)
    reported = _reported(warehouse, job)
    skipped = known_bad = 0
    again: defaultdict[str, list[ScanPlace]] = defaultdict(list)
    new: list[ScanPlace] = []
    unfit: dict[str, BadInput] = {}
    for scan in scans:
        scan_id, fingerprint = scan["scan_id"], index[scan["scan_id"]]["fingerprint"]
        old = done.get(scan_id)
        if old is not None and old["fingerprint"] == fingerprint and not overwrite:
            skipped += 1
            continue
        try:
            job.fit(scan_id, scan["modalities"], scan["orientation"])
        except BadInput as error:
            if job.bad_fingerprint(fingerprint) in reported:
                known_bad += 1
            else:
                unfit[scan_id] = error
            continue
        if old is not None:
            again[old["part"]].append(places[scan_id])
        else:
            new.append(places[scan_id])
    rewrites = [SegmentTask(name, tuple(group), replaces=True) for name, group in sorted(again.items())]
    rows = _unfit_rows(warehouse, unfit, places, job)
    return Plan(rewrites + _additions(new, job, cores), rows, skipped, known_bad)


def _done(warehouse: Warehouse, job: Job) -> dict[str, Mapping[str, str]]:
    """What this model has segmented: scan_id to `part` and `fingerprint`."""
    if not warehouse.parts(SEGMENTATIONS.name):
        return {}
    wanted = (ds.field("cohort") == job.cohort) & (ds.field("model_id") == job.model_id)
    table = warehouse.table(SEGMENTATIONS.name).to_table(["scan_id", "fingerprint", "__filename"], filter=wanted)
    return {
        row["scan_id"]: {
            "part": row["__filename"].rpartition("/")[2].removesuffix(".parquet"),
            "fingerprint": row["fingerprint"],
        }
        for row in table.to_pylist()
    }


def _reported(warehouse: Warehouse, job: Job) -> set[str]:
    """Fingerprints of the scans that stand in quarantine for a model."""
    if not warehouse.parts(QUARANTINE.name):
        return set()
    wanted = (ds.field("cohort") == job.cohort) & (ds.field("job") == "segment")
    return set(warehouse.table(QUARANTINE.name).to_table(["fingerprint"], filter=wanted)["fingerprint"].to_pylist())


def _unfit_rows(
    warehouse: Warehouse, unfit: Mapping[str, BadInput], places: Mapping[str, ScanPlace], job: Job
) -> list[dict[str, Any]]:
    by_part: defaultdict[str, list[str]] = defaultdict(list)
    for scan_id in unfit:
        by_part[places[scan_id].part].append(scan_id)
    rows = []
    for part, wanted in by_part.items():
        found = scan_rows(warehouse, part, wanted)
        rows += [quarantine_row(job, found[scan_id], unfit[scan_id]) for scan_id in wanted]
    return rows


def _additions(new: Sequence[ScanPlace], job: Job, cores: int) -> list[SegmentTask]:
    """New parts, of scans that are neighbours in `slices`: several per core, for scans differ in how long they take."""
    size = min(_MOST_SCANS, -(-len(new) // (cores * _TASKS_PER_CORE))) or 1
    ordered = sorted(new, key=lambda place: (place.part, place.row_groups))
    groups = [tuple(ordered[start : start + size]) for start in range(0, len(ordered), size)]
    prefix = f"{cohort_slug(job.cohort)}.{job.model_id}.{job.run_id}"
    return [SegmentTask(f"{prefix}.{number:05d}", group) for number, group in enumerate(groups)]


def _run_tasks(
    spark: SparkSession, tasks: Sequence[SegmentTask], job: Job, predictor: PredictorFactory, progress: Progress | None
) -> list[ScanOutcome]:
    """One partition, and so one Spark task, per part; all cancelled when this ends early."""
    if not tasks:
        return []
    context = spark.sparkContext
    threads = int(context.getConf().get("spark.task.cpus", "1"))
    shared = context.broadcast(predictor)
    rows = context.parallelize([asdict(task) for task in tasks], len(tasks))
    todo = spark.createDataFrame(rows, _TASK_SCHEMA)
    context.addJobTag(job.run_id)
    try:
        with progress(sum(len(task.scans) for task in tasks), "segment") if progress else nullcontext():
            found = todo.mapInArrow(segment_udf(shared, job, threads), _OUTCOME_SCHEMA).collect()
    finally:
        context.cancelJobsWithTag(job.run_id)
        context.removeJobTag(job.run_id)
        shared.unpersist()
    return [ScanOutcome(**row.asDict()) for row in found]


def segment_udf(
    predictor: Broadcast[PredictorFactory], job: Job, threads: int
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """The function that mapInArrow calls in each Python worker: rows of tasks in, one row per scan out."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for row in batch.to_pylist():
                places = tuple(ScanPlace(one["scan_id"], one["part"], tuple(one["row_groups"])) for one in row["scans"])
                task = SegmentTask(row["name"], places, row["replaces"])
                outcomes = segment_part(task, job, predictor.value.open(threads))
                yield pa.RecordBatch.from_pylist([asdict(outcome) for outcome in outcomes], _outcome_schema())

    return run


def _outcome_schema() -> pa.Schema:
    kinds = {"scan_id": pa.string(), "slices": pa.int32(), "reason": pa.string()}
    names = ("scan_id", "slices", "seconds", "infer_seconds", "reason")
    return pa.schema([(name, kinds.get(name, pa.float64())) for name in names])


def _account(plan: Plan, outcomes: Sequence[ScanOutcome], run: RunRecord) -> SegmentOutcome:
    segmented = tuple(sorted(one.scan_id for one in outcomes if one.reason is None))
    bad = [one.scan_id for one in outcomes if one.reason is not None]
    quarantined = tuple(sorted([*bad, *(row["scan_id"] for row in plan.unfit)]))
    run.count("scans_segmented", len(segmented))
    run.count("scans_skipped", plan.skipped)
    run.count("slices", sum(one.slices for one in outcomes))
    run.count("quarantined", len(quarantined))
    run.count("known_bad", plan.known_bad)
    run.count("parts", len(plan.tasks))
    if outcomes:
        run.stage_seconds["infer, all tasks together"] = sum(one.infer_seconds for one in outcomes)
        rest = sum(one.seconds - one.infer_seconds for one in outcomes)
        run.stage_seconds["measure and write, all tasks together"] = rest
    return SegmentOutcome(segmented, plan.skipped, quarantined, plan.known_bad)
