"""One Spark task of a segmentation: some scans, from their slices to committed predictions and measures."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic

import numpy as np
import pyarrow as pa

from segpipe.core.prediction import Predictor, Segmented
from segpipe.core.regions import CONVENTIONS
from segpipe.core.runs import region_runs
from segpipe.errors import BadInput, Reason
from segpipe.pipelines import quarantine
from segpipe.pipelines.attempts import Watch
from segpipe.pipelines.measures import region_rows
from segpipe.pipelines.segment_job import OpenedScan, Place, SegmentJob, quarantine_row
from segpipe.warehouse import checked, merges, parts
from segpipe.warehouse.parts import PartWriter
from segpipe.warehouse.scan_slices import scan_input
from segpipe.warehouse.slices import cells_of
from segpipe.warehouse.store import Store
from segpipe.warehouse.tables import PREDICTIONS, SEGMENTATIONS, with_later_columns

_GROUP_BYTES = 16_000_000


@dataclass(frozen=True)
class SegmentTask(Generic[Place]):
    """The scans to segment into one part; `replaces` is the part whose place it takes, with the other scans of that."""

    name: str
    scans: tuple[Place, ...]
    replaces: str | None = None


@dataclass(frozen=True)
class ScanOutcome:
    """What became of a scan: `reason` is that of its quarantine, `slices` are its own, seconds where time went."""

    scan_id: str
    slices: int = 0
    seconds: float = 0.0
    infer_seconds: float = 0.0
    reason: str | None = None


def segment_part(task: SegmentTask[Place], job: SegmentJob[Place], predictor: Predictor) -> list[ScanOutcome]:
    """Segment the scans of a part and commit them, with one scan in memory at a time, and the one it is laid onto.

    What an earlier attempt of the same run has committed is not done again. Raises WarehouseBusy if the run has lost
    its lock; a scan that cannot be segmented becomes a row of `quarantine`.
    """
    warehouse = Store(job.warehouse)
    parts.settle_attempts(warehouse, job.run_id, task.name)
    done = _committed(warehouse, task, job)
    if done:
        return [
            ScanOutcome(scan_id, reason=None if scan_id in done else str(Reason.CRASHED))
            for scan_id in map(job.scan_id, task.scans)
        ]
    outcomes: list[ScanOutcome] = []
    rejected: list[dict[str, Any]] = []
    measured: list[pa.Table] = []
    with PartWriter(warehouse, (PREDICTIONS, SEGMENTATIONS), task.name, job.run_id, job.fence) as part:
        with Watch(warehouse, job.run_id) as watch:
            for scan in job.opened(warehouse, task.scans):
                try:
                    watch.enter(scan.scan_id)
                    outcomes.append(_segment_scan(part, measured, scan, job, predictor, watch))
                except BadInput as error:
                    outcomes.append(ScanOutcome(scan.scan_id, reason=str(error.reason)))
                    rejected.append(quarantine_row(job, scan.scan_id, scan.paths, scan.fingerprint, error))
                rejected += scan.dropped()
        if task.replaces is not None:
            measured.append(
                _copy_others(part, warehouse, task.replaces, {one.scan_id for one in outcomes if one.reason is None})
            )
        if measured:  # in one row group, because a reader pays for each
            part.write(SEGMENTATIONS.name, pa.concat_tables(measured))
        fresh = [row for row in rejected if row["fingerprint"] not in job.reported]
        quarantine.write(warehouse, job.fence, f"{job.run_id}-{task.name}", fresh)
    if task.replaces is not None and measured:
        merges.move_aside(warehouse, (PREDICTIONS.name, SEGMENTATIONS.name), [task.replaces])
    return outcomes


# One scan


def _segment_scan(
    part: PartWriter,
    measured: list[pa.Table],
    opened_scan: OpenedScan,
    job: SegmentJob[Any],
    predictor: Predictor,
    watch: Watch,
) -> ScanOutcome:
    """Write a scan's predictions to the part, and add its measures to `measured` once they are written."""
    start = time.perf_counter()
    scan, slices = opened_scan.read(watch)
    with _no_scan_stops_others(opened_scan.scan_id):
        found = predictor.segment(scan_input(scan, job.modalities), slices)
        inferred = time.perf_counter()
        measures = _measure(scan, found, slices.truth, job)
    for rows in _prediction_rows(scan, found, job):
        part.write(PREDICTIONS.name, rows)
    measured.append(measures)
    return ScanOutcome(opened_scan.scan_id, scan["shape"][0], time.perf_counter() - start, inferred - start)


@contextlib.contextmanager
def _no_scan_stops_others(scan_id: str) -> Iterator[None]:
    """Make whatever goes wrong BadInput, except for faults of the file system, which are to be tried again."""
    try:
        yield
    except (BadInput, OSError):
        raise
    except Exception as error:
        problem = f"Scan {scan_id} made the model or its measures fail ({type(error).__name__}: {error})"
        raise BadInput(Reason.CRASHED, problem, "report this as a bug of segpipe, with the scan") from error


def _prediction_rows(scan: dict[str, Any], found: Segmented, job: SegmentJob[Any]) -> Iterator[pa.RecordBatch]:
    """Rows of `predictions`, a bounded number of bytes at a time."""
    slices, height, width = found.labels.shape
    step = max(1, _GROUP_BYTES // (height * width))
    pixels = _region_pixels(found.labels, job.label_convention)
    for start in range(0, slices, step):
        stop = min(start + step, slices)
        count = stop - start
        constant = {name: scan[name] for name in ("scan_id", "cohort", "subject")}
        constant |= {"model_id": job.model_id, "label_convention": job.label_convention, "run_id": job.run_id}
        columns = {
            **{name: pa.repeat(pa.scalar(value, pa.string()), count) for name, value in constant.items()},
            "slice_index": pa.array(np.arange(start, stop, dtype=np.int32)),
            "height": pa.repeat(pa.scalar(height, pa.int32()), count),
            "width": pa.repeat(pa.scalar(width, pa.int32()), count),
            "mask": cells_of(np.ascontiguousarray(found.labels[start:stop]).reshape(count, -1)),
            "region_pixels": pa.array(pixels[start:stop], PREDICTIONS.schema.field("region_pixels").type),
        }
        yield pa.RecordBatch.from_arrays(
            [columns[name] for name in PREDICTIONS.schema.names], schema=PREDICTIONS.schema
        )


def _region_pixels(labels: np.ndarray, convention: str) -> list[list[dict[str, Any]]]:
    """Pixels of each region, slice by slice."""
    regions = region_runs(labels, CONVENTIONS[convention].regions)
    pixels = zip(*(runs.slice_voxels.tolist() for runs in regions.values()), strict=True)
    return [
        [{"region": region, "pixels": number} for region, number in zip(regions, numbers, strict=True)]
        for numbers in pixels
    ]


def _measure(scan: dict[str, Any], found: Segmented, truth: np.ndarray | None, job: SegmentJob[Any]) -> pa.Table:
    rows = region_rows(scan, found.labels, job.label_convention, truth, found.mean_probability, found.max_probability)
    also = {"model_id": job.model_id, "run_id": job.run_id, "placed": scan.get("placed"), "brain": scan.get("brain")}
    named = [row | also for row in rows]
    return pa.Table.from_pylist(named, SEGMENTATIONS.schema)


def _committed(warehouse: Store, task: SegmentTask[Any], job: SegmentJob[Any]) -> set[str]:
    """The scans of this part that an earlier attempt of this run has committed."""
    try:
        with checked.open_part(warehouse.fs, warehouse.path(SEGMENTATIONS.name, f"{task.name}.parquet")) as part:
            rows = part.read(["scan_id", "run_id"]).to_pylist()
    except FileNotFoundError:
        return set()
    return {row["scan_id"] for row in rows if row["run_id"] == job.run_id}


def _copy_others(part: PartWriter, warehouse: Store, replaced: str, rewritten: set[str]) -> pa.Table:
    """Copy the predictions of a part's other scans, a row group at a time; gives their rows of `segmentations`."""
    with checked.open_part(warehouse.fs, warehouse.path(PREDICTIONS.name, f"{replaced}.parquet")) as old:
        for number in range(old.row_groups):
            if old.row_group(number, ["scan_id"])["scan_id"][0].as_py() not in rewritten:
                part.write(PREDICTIONS.name, old.row_group(number))
    with checked.open_part(warehouse.fs, warehouse.path(SEGMENTATIONS.name, f"{replaced}.parquet")) as old:
        rows = with_later_columns(old.read(), SEGMENTATIONS)
    kept = [scan_id not in rewritten for scan_id in rows["scan_id"].to_pylist()]
    return rows.filter(pa.array(kept, pa.bool_())).select(SEGMENTATIONS.schema.names).cast(SEGMENTATIONS.schema)
